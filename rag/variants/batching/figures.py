"""Figures of the ways to ask many questions, from the seconds of their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rag.bench import results
from rag.bench.results import Sample
from rag.figures import Figure
from rag.stats import ratio, reaches
from rag.variants.batching.modes import AHEAD, BATCH, MODES, NOT_AHEAD, ONE_BY_ONE, OTHER_CORES

BENCH = "batch"

RATIOS: Mapping[str, tuple[str, str, float | None]] = {
    "batch_over_sequential": ("sequential", BATCH, 1.8),
    "batch_over_gather": ("gather", BATCH, None),
    "lookahead_gain": (NOT_AHEAD, AHEAD, None),
    "together_gain": (ONE_BY_ONE, BATCH, None),
    "prefix_order_gain": (AHEAD, "prefix_order", None),
    "cores_gain": (OTHER_CORES, BATCH, None),
    "drafts_by_load_gain": ("always_drafting", BATCH, None),
}
"""By figure the mode whose seconds are divided by those of another, and the least that it should come to."""

EVERYWHERE = (BATCH, "sequential", "gather")
"""What there is whatever the settings are."""

NOT_SLOWER = "batch_over_gather"
"""Meets its goal where it is shown that a batch takes no longer than all questions at once: by its interval, not its value."""


def summarise(folder: Path) -> list[Figure]:
    """Raises `UsageError` where there is no run."""
    head, samples = results.Samples(folder).of(BENCH)
    if not samples:
        raise results.lacking("run", folder / results.SAMPLES)
    # Of these two a batch is one itself, by its settings.
    same, other_way = (AHEAD, NOT_AHEAD) if head["settings"]["batch"][BATCH]["lookahead"] else (NOT_AHEAD, AHEAD)
    seconds: dict[str, dict[int, float]] = {mode.name: {} for mode in MODES}
    for sample in samples:
        seconds[sample["mode"]][sample["round"]] = sample["seconds"]
    seconds = {name: of_mode for name, of_mode in seconds.items() if of_mode or name in (*EVERYWHERE, other_way)}
    figures = results.Figures()
    by_name = seconds | {same: seconds[BATCH]}
    for name, (mode, other, goal) in RATIOS.items():
        if mode in by_name and other in by_name:
            both = [(by_name[mode][n], by_name[other][n]) for n in by_name[mode] if n in by_name[other]]
            figures.add(name, both, ratio(), "ratio", at_least=goal)
    for name, of_mode in seconds.items():
        asked = samples[0]["questions"]
        figures.add(f"questions_per_s@{name}", [asked / one for one in of_mode.values()], np.median, "1/s")
    figures.all = [_not_slower(one) if one.name == NOT_SLOWER else one for one in figures.all]
    results.write(folder, head, figures.all, [*_notes(samples), *figures.notes])
    return figures.all


def _not_slower(figure: Figure) -> Figure:
    met = figure.lo is not None and reaches(figure.lo, figure.n, 1.0)
    return replace(figure, goal="interval >= 1, of six rounds at least", met=met)


def _notes(samples: Sequence[Sample]) -> list[str]:
    notes = [f"{samples[0]['questions']} questions a run."]
    ahead = [s["lookahead"] for s in samples if s["mode"] in (BATCH, AHEAD) and s["lookahead"] is not None]
    if ahead:
        there, late, alone = (np.mean([one[name] for one in ahead]) for name in ("ahead", "late", "alone"))
        notes.append(
            f"Looking ahead, of a run's questions {there:.0f} had been searched when they were asked, {late:.0f} were being "
            f"searched, and {alone:.0f} were searched then."
        )
    return [" ".join(notes), ""]
