"""The ways to ask a set of questions that are held against one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rag.batch import for_batch
from rag.settings import Batch, Loaded, Settings

SINGLE, BATCH, DRAFTING = "single", "batch", "drafting"
"""Settings: the best for one question at a time, those of `rag batch`, and these drafting however many requests run."""


def loads_of(loaded: Loaded) -> dict[str, Loaded]:
    """What a profile has of them: `DRAFTING` where its drafts depend on how many requests run."""
    found = {SINGLE: loaded, BATCH: for_batch(loaded)}
    speculation = loaded.settings.generator.speculation
    if speculation.method != "none" and speculation.max_batch_size is not None:
        always = speculation.having(max_batch_size=None)
        found[DRAFTING] = found[BATCH].having("generator", speculation=always)
    return found


@dataclass(frozen=True, slots=True)
class Mode:
    """`of` names the settings that it runs with, `changed` what of their section `batch` is another; None at once: as they say.
    One that `looks_ahead` does it by the usual window where they don't."""

    name: str
    of: str
    changed: dict[str, Any] = field(default_factory=dict)
    at_once: int | None = None
    looks_ahead: bool = False

    def can_be_had(self, loads: Mapping[str, Loaded]) -> bool:
        """With the same window, on the same cores, or where prompts go on one by one anyway, it would be a batch again."""
        if self.of not in loads:
            return False
        if self.name == OTHER_CORES:
            return loads[SINGLE].settings.generator.cores != loads[BATCH].settings.generator.cores
        batch = loads[BATCH].settings.batch
        again = {ONE_BY_ONE: batch.together == 1, AHEAD: batch.lookahead > 0, NOT_AHEAD: batch.lookahead == 0}
        return not again.get(self.name, False)

    def settings(self, loaded: Loaded) -> Settings:
        batch = loaded.settings.batch
        usual = (
            {"lookahead": max(Batch().lookahead, batch.search_batch)}
            if self.looks_ahead and not batch.lookahead
            else {}
        )
        return loaded.having("batch", **{**self.changed, **usual}).settings


ALL = 1_000_000

OTHER_CORES, ONE_BY_ONE = "single_cores", "one_by_one"
AHEAD, NOT_AHEAD = "with_lookahead", "without_lookahead"

ALONE: dict[str, Any] = {"lookahead": 0, "order": "input", "together": 1}

MODES = (
    Mode("batch", BATCH, {"order": "input"}),
    Mode("sequential", SINGLE, ALONE, at_once=1),
    Mode("gather", BATCH, ALONE, at_once=ALL),
    Mode(AHEAD, BATCH, {"order": "input"}, looks_ahead=True),
    Mode(NOT_AHEAD, BATCH, {"lookahead": 0, "order": "input"}),
    Mode(ONE_BY_ONE, BATCH, {"order": "input", "together": 1}),
    Mode("prefix_order", BATCH, {"order": "prefix"}, looks_ahead=True),
    Mode(OTHER_CORES, SINGLE, {"order": "input"}),
    Mode("always_drafting", DRAFTING, {"order": "input"}),
)
"""`gather` asks all at once, as `asyncio.gather` would; `one_by_one` is `batch` whose engine is given each prompt as soon as it is
there, `single_cores` `batch` on the cores of one question at a time. Of `with_lookahead` and `without_lookahead` one is `batch`
itself, and isn't run again; `prefix_order` looks ahead, since which passages questions share is known then."""
