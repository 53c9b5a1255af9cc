"""The ways to ask a set of questions that are held against one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rag.batch import for_batch
from rag.settings import Loaded, Settings

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
    """`of` names the settings that it runs with, `changed` what of their section `batch` is another; None at once: as they say."""

    name: str
    of: str
    changed: dict[str, Any] = field(default_factory=dict)
    at_once: int | None = None

    def can_be_had(self, loads: Mapping[str, Loaded]) -> bool:
        """Without looking ahead there is nothing to order by; on the same cores, or where prompts go on one by one anyway, it would
        be a batch again."""
        if self.of not in loads:
            return False
        cores = {name: one.settings.generator.cores for name, one in loads.items()}
        if self.name == OTHER_CORES and cores[SINGLE] == cores[BATCH]:
            return False
        if self.name == ONE_BY_ONE and loads[self.of].settings.batch.together == 1:
            return False
        return self.changed.get("order") != "prefix" or loads[self.of].settings.batch.lookahead > 0

    def settings(self, loaded: Loaded) -> Settings:
        return loaded.having("batch", **self.changed).settings


ALL = 1_000_000

OTHER_CORES, ONE_BY_ONE = "single_cores", "one_by_one"

ALONE: dict[str, Any] = {"lookahead": 0, "order": "input", "together": 1}

MODES = (
    Mode("batch", BATCH, {"order": "input"}),
    Mode("sequential", SINGLE, ALONE, at_once=1),
    Mode("gather", BATCH, ALONE, at_once=ALL),
    Mode("without_lookahead", BATCH, {"lookahead": 0, "order": "input"}),
    Mode(ONE_BY_ONE, BATCH, {"order": "input", "together": 1}),
    Mode("prefix_order", BATCH, {"order": "prefix"}),
    Mode(OTHER_CORES, SINGLE, {"order": "input"}),
    Mode("always_drafting", DRAFTING, {"order": "input"}),
)
"""`gather` asks all at once, as `asyncio.gather` would; `one_by_one` is `batch` whose engine is given each prompt as soon as it is
there, `single_cores` `batch` on the cores of one question at a time."""
