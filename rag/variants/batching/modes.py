"""The ways to ask a set of questions that are held against one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rag.settings import Batch

SINGLE, BATCH = "single", "batch"
"""Settings: the best for one question at a time, and those of `rag batch`."""


@dataclass(frozen=True, slots=True)
class Mode:
    """`of` names the settings that it runs with, `changed` what of their section `batch` is another; None at once: as they say."""

    name: str
    of: str
    changed: dict[str, Any] = field(default_factory=dict)
    at_once: int | None = None

    def can_be_had(self, batch: Batch) -> bool:
        """Without looking ahead there is nothing to order by."""
        return self.changed.get("order") != "prefix" or batch.lookahead > 0

    def settings(self, batch: Batch) -> Batch:
        return batch.having(**self.changed)


ALL = 1_000_000

ALONE: dict[str, Any] = {"lookahead": 0, "order": "input"}

MODES = (
    Mode("batch", BATCH, {"order": "input"}),
    Mode("sequential", SINGLE, ALONE, at_once=1),
    Mode("gather", BATCH, ALONE, at_once=ALL),
    Mode("without_lookahead", BATCH, ALONE),
    Mode("prefix_order", BATCH, {"order": "prefix"}),
    Mode("single_cores", SINGLE, {"order": "input"}),
)
"""`gather` asks all at once, as `asyncio.gather` would; `single_cores` is `batch` on the cores of one question at a time."""
