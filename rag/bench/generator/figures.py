"""Computes the figures of a generator and of what stands beside it, and their tables, from the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag import metrics
from rag.bench import grounding, results
from rag.bench.generator.answering import MAX_TOKENS
from rag.bench.generator.curve import curve_table
from rag.bench.generator.samples import BENCH
from rag.bench.results import Sample, mean_cell
from rag.figures import Figure, markdown
from rag.stats import bootstrap, bootstrap_clusters, ratio
from rag.training import loop


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk, those of the bases after those of the measured model."""
    head, samples = results.Samples(folder).of(BENCH)
    groups: dict[tuple[bool, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample["base"], sample["model"]), []).append(sample)
    if not groups:
        raise results.lacking("answers", folder / results.SAMPLES)
    bases = [name for base, name in groups if base]
    figures, notes = [], [NOTE, ""]
    for (base, name), some in sorted(groups.items(), key=lambda group: group[0][0]):
        prefix = "" if not base else "base_" if len(bases) == 1 else f"base_{name}_"
        taken, missing = _figures(some, prefix, goals=not base)
        figures += taken
        notes += [f"## {name}{' (base)' if base else ''}", "", *_unfinished(some, head), *missing, *_table(some), ""]
    curve = folder / loop.CURVE
    if curve.is_file():
        notes += ["## Training", "", *curve_table(loop.read_curve(curve))]
    results.write(folder, head, figures, notes)
    return figures


NOTE = (
    "`citation_exact`: of the prompts that hold an answer, those whose answer carries exactly the markers that it should. "
    "`token_f1`: their words against the reference's, as SQuAD counts; a refusal has 0. `abstention_recall`: of the prompts "
    "without an answer, those declined; `abstention_precision`: of those declined, the ones without an answer. "
    "`confidence_auroc`: how well the probability that a passage answers tells the two kinds of prompts apart. "
    "`supported_sentences`: of the sentences of all answers given, those of which one cited passage, with its title, holds "
    f"every number and at least {grounding.MIN_SHARE:.0%} of the content words. A sentence that was cut at {MAX_TOKENS} tokens "
    "is left out, as a user doesn't see it. Intervals: bootstrap over prompts."
)


def _figures(samples: Sequence[Sample], prefix: str, goals: bool) -> tuple[list[Figure], list[str]]:
    """And what is said of those that there is nothing to take from."""
    answerable = [sample for sample in samples if sample["gold"]]
    declined = [sample for sample in samples if sample["declined"]]
    rows: list[tuple[str, Sequence[Any], Callable[..., Any], str, float | None]] = [
        ("citation_exact", _column(answerable, "citation_exact"), np.mean, "share", 0.75),
        ("token_f1", _column(answerable, "token_f1"), np.mean, "F1", 0.60),
        ("abstention_recall", [float(s["declined"]) for s in samples if not s["gold"]], np.mean, "share", 0.80),
        ("abstention_precision", [float(not s["gold"]) for s in declined], np.mean, "share", 0.80),
        ("supported_sentences", _sentences(samples), ratio(np.sum), "share", 0.95),
        ("truncated", [float(s["finish_reason"] == "length") for s in samples], np.mean, "share", None),
        ("invalid_markers", _column(samples, "invalid_markers"), np.mean, "a prompt", None),
    ]
    figures = [
        results.figure(f"{prefix}{name}", bootstrap(values, statistic), unit, at_least=goal if goals else None)
        for name, values, statistic, unit, goal in rows
        if values
    ]
    sure = [
        (float(sample["confidence"]), bool(sample["gold"])) for sample in samples if sample["confidence"] is not None
    ]
    if sure:
        values, holds = zip(*sure, strict=True)
        auroc = bootstrap_clusters(range(len(sure)), lambda weights: metrics.auroc(values, holds, weights))
        figures.append(results.figure(f"{prefix}confidence_auroc", auroc, "area"))
    return figures, [
        f"No `{prefix}{name}`: there was nothing to take it from.\n" for name, values, *_ in rows if not values
    ]


def _column(samples: Sequence[Sample], name: str) -> list[float]:
    return [float(sample[name]) for sample in samples]


def _sentences(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """(supported, all) of each answer that has any."""
    return [(sample["supported"], sample["sentences"]) for sample in samples if sample["sentences"]]


def _unfinished(samples: Sequence[Sample], head: Mapping[str, Any]) -> list[str]:
    count = head["settings"]["prompts"]["count"]
    return [f"**{len(samples)} of {count} prompts: the run isn't finished.**\n"] if len(samples) < count else []


def _table(samples: Sequence[Sample]) -> list[str]:
    """By whether the prompt holds an answer, and by how many passages."""
    groups = {"with an answer": [s for s in samples if s["gold"]], "without one": [s for s in samples if not s["gold"]]}
    for count in sorted({sample["passages"] for sample in samples}):
        groups[f"{count} passages"] = [sample for sample in samples if sample["passages"] == count]
    rows = []
    for name, some in groups.items():
        answerable = [sample for sample in some if sample["gold"]]
        supported, sentences = (
            (sum(column) for column in zip(*_sentences(some), strict=True)) if _sentences(some) else (0, 0)
        )
        cells = (
            name,
            len(some),
            mean_cell(_column(answerable, "citation_exact")),
            mean_cell(_column(answerable, "token_f1")),
            mean_cell(_column(some, "declined")),
            f"{supported} of {sentences}",
            sum(sample["finish_reason"] == "length" for sample in some),
            sum(sample["invalid_markers"] for sample in some),
        )
        rows.append(cells)
    found = ("citation exact", "token F1", "declined", "supported sentences", "truncated", "invalid markers")
    return markdown(("prompts", "n", *found), rows)
