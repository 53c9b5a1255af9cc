"""Whether techniques engaged in many answers together, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rag.bench.results import ENGAGED
from rag.core import Technique
from rag.engine import evidence

COLUMNS = ("switched on", "engaged", "answers", "evidence", "why not")


def cells(told: Sequence[Mapping[str, Technique]]) -> list[tuple[str, ...]]:
    """Of answers what their engine told of each: a row each technique that was asked for, with in how many it engaged."""
    return [
        (
            f"`{name}`",
            ENGAGED[found.engaged],
            f"{sum(one[name].engaged is True for one in told if name in one)} of {len(told)}",
            found.evidence or "",
            found.reason or "",
        )
        for name, found in evidence.of_answers(told).items()
        if found.asked
    ]
