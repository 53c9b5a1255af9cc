"""The samples of a breakdown, as its figures and tables want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.bench import results
from rag.evaluate.samples import Head, Sample
from rag.variants import samples
from rag.variants.breakdown import lengths
from rag.variants.breakdown.lengths import Length
from rag.variants.paired import answered
from rag.variants.samples import Taken

BENCH = "breakdown"
AGAIN = "_again"
"""Ends the name of the first variant where it is asked a second time."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`taken` are all answers. `warm`, `cold` and, of the first variant asked once more, `again` are those that didn't fail, by
    variant and id; `lengths` are the requests of a fixed length."""

    head: Head
    taken: Sequence[Taken]
    warm: Mapping[str, Mapping[str, Sample]]
    cold: Mapping[str, Mapping[str, Sample]]
    again: Mapping[str, Sample]
    lengths: Sequence[Length]

    @property
    def base(self) -> str:
        """What the others are held against."""
        return next(iter(self.warm))

    @property
    def others(self) -> list[str]:
        return list(self.warm)[1:]

    @property
    def settings(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.head["settings"]
        return found

    @property
    def on_cpu(self) -> bool:
        return all(one["device"] == "cpu" for one in self.settings["variants"].values())


def read(folder: Path) -> Measured:
    """Raises `UsageError` where there are no answers, or they are of something else."""
    head, rows = samples.read(folder, BENCH)
    taken = samples.answers(folder, rows)
    base = next(iter(head["settings"]["variants"]))
    names = [name for name in head["settings"]["variants"] if name != f"{base}{AGAIN}"]
    warm = {name: answered(taken, name) for name in names}
    if not warm[base]:
        raise results.lacking(f"answers of {base}", folder / results.SAMPLES)
    return Measured(
        head,
        taken,
        {name: found for name, found in warm.items() if found},
        {name: answered(taken, name, cold=True) for name in names},
        answered(taken, f"{base}{AGAIN}"),
        lengths.read(folder, rows),
    )
