"""Figures of the ways to ask many questions, from the seconds of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag.bench import results
from rag.bench.results import Sample
from rag.figures import Figure
from rag.stats import Estimate, ratio, reaches
from rag.variants.batching.modes import MODES

BENCH = "batch"

RATIOS = {
    "batch_over_sequential": ("sequential", 1.8),
    "batch_over_gather": ("gather", None),
    "lookahead_gain": ("without_lookahead", None),
    "prefix_order_gain": ("prefix_order", None),
    "cores_gain": ("single_cores", None),
}
"""By figure the mode whose seconds are divided by those of `batch`, and the least that it should come to. `prefix_order_gain` is told
the other way round: what the order gains."""


def summarise(folder: Path) -> list[Figure]:
    """Raises `UsageError` where there is no run."""
    head, samples = results.Samples(folder).of(BENCH)
    if not samples:
        raise results.lacking("run", folder / results.SAMPLES)
    seconds: dict[str, dict[int, float]] = {mode.name: {} for mode in MODES}
    for sample in samples:
        seconds[sample["mode"]][sample["round"]] = sample["seconds"]
    figures = results.Figures()
    for name, (mode, goal) in RATIOS.items():
        both = [(seconds[mode][n], seconds["batch"][n]) for n in seconds[mode] if n in seconds["batch"]]
        if name == "prefix_order_gain":
            both = [(batch, ordered) for ordered, batch in both]
        figures.add(name, both, ratio(), "ratio", at_least=goal)
    for name, of_mode in seconds.items():
        asked = samples[0]["questions"]
        figures.add(f"questions_per_s@{name}", [asked / one for one in of_mode.values()], np.median, "1/s")
    results.write(folder, head, figures.all, [*_notes(figures.all, samples), *figures.notes])
    return figures.all


def _notes(figures: Sequence[Figure], samples: Sequence[Sample]) -> list[str]:
    notes = [f"{samples[0]['questions']} questions a run."]
    for gather in figures:
        if gather.name == "batch_over_gather":
            shown = (
                "is shown" if reaches(Estimate(gather.value, gather.lo, gather.hi, gather.n), 1.0) else "isn't shown"
            )
            notes.append(
                f"That `rag batch` isn't slower than asking all at once {shown}: in {gather.n} rounds the interval begins at "
                f"{gather.lo:.3f}."
            )
    ahead = [s["lookahead"] for s in samples if s["mode"] == "batch" and s["lookahead"] is not None]
    if ahead:
        there, late, alone = (np.mean([one[name] for one in ahead]) for name in ("ahead", "late", "alone"))
        notes.append(
            f"Of a run's questions {there:.0f} had been searched when they were asked, {late:.0f} were being searched, and "
            f"{alone:.0f} were searched then."
        )
    return [" ".join(notes), ""]
