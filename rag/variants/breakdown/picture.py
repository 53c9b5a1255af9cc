"""Where the time goes, as stacked bars: ours beside the source's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.bench import pictures
from rag.variants.breakdown.measured import Measured
from rag.variants.breakdown.source import PUBLISHED
from rag.variants.breakdown.stages import OTHER, PARTS, ROWS, TOTAL, spent
from rag.variants.paired import given

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "breakdown"

REST = "generate, rest"
"""What a generation takes beyond its `PARTS`."""

COLOURED = ("generate", "retrieve", "rerank", "prefill", "decode", "verify", REST, "embed", "context", "cache")
"""Stages with a colour of their own, the same in both halves; there are ten."""

SEEN = 0.01
"""Of the longest bar: stages that are shorter in all of them stand together, as `OTHER`."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Mean seconds of a question, by stage and in order: they add up to the mean total."""

    name: str
    stages: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.stages.values())


def bars(measured: Measured) -> list[Bar]:
    """One a variant."""
    found = []
    for name, some in measured.warm.items():
        times = [spent(given(one)) for one in some.values()]
        means = {stage: float(np.mean([one.get(stage, 0.0) for one in times])) for stage in ROWS}
        rest = max(0.0, means["generate"] - sum(means[part] for part in PARTS))
        order = [stage for stage in ROWS if stage != TOTAL]
        stages = {
            REST if stage == "generate" else stage: rest if stage == "generate" else means[stage] for stage in order
        }
        found.append(Bar(name, stages))
    return _without_slivers(found)


def _without_slivers(found: Sequence[Bar]) -> list[Bar]:
    longest = max(bar.total for bar in found)
    seen = {stage for bar in found for stage, seconds in bar.stages.items() if seconds >= SEEN * longest}
    return [
        Bar(
            bar.name,
            {
                **{stage: seconds for stage, seconds in bar.stages.items() if stage in seen and stage != OTHER},
                OTHER: sum(seconds for stage, seconds in bar.stages.items() if stage not in seen or stage == OTHER),
            },
        )
        for bar in found
    ]


def published() -> list[Bar]:
    """The source's: the middle of a range, and what its stages don't account for as `OTHER`."""
    found = []
    for one in PUBLISHED.values():
        stages = {stage: sum(range_) / 2 for stage, range_ in one.stages.items() if sum(range_) > 0}
        title = f"{one.title}, {'measured' if one.measured else 'expected'}"
        found.append(Bar(title, {**stages, OTHER: max(0.0, one.middle - sum(stages.values()))}))
    return found


def draw(folder: Path, measured: Measured) -> None:
    """`breakdown.svg` and `breakdown.png`."""
    ours, theirs = bars(measured), published()
    with pictures.picture(folder, NAME, height=1.6 + 0.42 * (len(ours) + len(theirs))) as figure:
        above, below = figure.subplots(2, 1, height_ratios=[len(ours), len(theirs)])
        _stack(above, ours, "here, mean seconds a question")
        _stack(below, theirs, "the source, seconds a question")


def _stack(axes: Axes, some: Sequence[Bar], label: str) -> None:
    names = [bar.name for bar in some]
    ends = np.zeros(len(some))
    for stage in dict.fromkeys(stage for bar in some for stage, seconds in bar.stages.items() if seconds > 0):
        widths = np.array([bar.stages.get(stage, 0.0) for bar in some])
        colour = f"C{COLOURED.index(stage)}" if stage in COLOURED else "#cccccc"
        axes.barh(names, widths, left=ends, label=stage, height=0.7, color=colour)
        ends += widths
    for name, end in zip(names, ends, strict=True):
        axes.annotate(f" {end:.2f} s", (end, name), va="center", fontsize="small")
    axes.set_xlim(0, 1.15 * max(ends))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
