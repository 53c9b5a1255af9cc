"""Figures of the ways to ask many questions, from the seconds of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rag.bench import results
from rag.bench.results import Sample
from rag.figures import Figure
from rag.stats import ratio, reaches
from rag.variants.batching.modes import MODES, ONE_BY_ONE, OTHER_CORES

BENCH = "batch"

RATIOS = {
    "batch_over_sequential": ("sequential", 1.8),
    "batch_over_gather": ("gather", None),
    "lookahead_gain": ("without_lookahead", None),
    "together_gain": (ONE_BY_ONE, None),
    "prefix_order_gain": ("prefix_order", None),
    "cores_gain": (OTHER_CORES, None),
    "drafts_by_load_gain": ("always_drafting", None),
}
"""By figure the mode whose seconds are divided by those of `batch`, and the least that it should come to. `prefix_order_gain` is told
the other way round: what the order gains."""

EVERYWHERE = ("batch", "sequential", "gather", "without_lookahead")
"""What there is whatever the settings are."""

NOT_SLOWER = "batch_over_gather"
"""Meets its goal where it is shown that a batch takes no longer than all questions at once: by its interval, not its value."""


def summarise(folder: Path) -> list[Figure]:
    """Raises `UsageError` where there is no run."""
    head, samples = results.Samples(folder).of(BENCH)
    if not samples:
        raise results.lacking("run", folder / results.SAMPLES)
    seconds: dict[str, dict[int, float]] = {mode.name: {} for mode in MODES}
    for sample in samples:
        seconds[sample["mode"]][sample["round"]] = sample["seconds"]
    seconds = {name: of_mode for name, of_mode in seconds.items() if of_mode or name in EVERYWHERE}
    figures = results.Figures()
    for name, (mode, goal) in RATIOS.items():
        if mode not in seconds:
            continue
        both = [(seconds[mode][n], seconds["batch"][n]) for n in seconds[mode] if n in seconds["batch"]]
        if name == "prefix_order_gain":
            both = [(batch, ordered) for ordered, batch in both]
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
    ahead = [s["lookahead"] for s in samples if s["mode"] == "batch" and s["lookahead"] is not None]
    if ahead:
        there, late, alone = (np.mean([one[name] for one in ahead]) for name in ("ahead", "late", "alone"))
        notes.append(
            f"Of a run's questions {there:.0f} had been searched when they were asked, {late:.0f} were being searched, and "
            f"{alone:.0f} were searched then."
        )
    return [" ".join(notes), ""]
