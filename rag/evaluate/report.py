"""Figures and report of an evaluation: from its samples alone, and the same from the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag import files
from rag.bench import pictures, results
from rag.evaluate import coverage, engagement
from rag.evaluate.coverage import Curve
from rag.evaluate.samples import Head, Sample, read
from rag.evaluate.scores import METRICS, Metric, parts
from rag.figures import Figure, markdown
from rag.questions import TYPES
from rag.stats import p95, ratio

PICTURE = "risk_coverage"

GOALS: Mapping[str, Mapping[str, float]] = {
    "qa_120": {
        "recall_at_10": 0.95,
        "citation_precision": 0.85,
        "key_fact_recall_simple": 0.75,
        "abstention_precision": 0.75,
        "abstention_recall": 0.75,
    }
}
"""By question set: what a figure should reach at least."""


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk. Raises what `samples.read` raises."""
    head, samples = read(folder)
    curve = coverage.curve(samples)
    goals = GOALS.get(head["settings"]["questions"]["name"], {})
    overall, by_type = results.Figures(), results.Figures()
    for metric in METRICS:
        _add(overall, metric.name, metric, samples, goals)
        for kind in TYPES if metric.by_type else ():
            some = [sample for sample in samples if sample.question.type == kind]
            _add(by_type, f"{metric.name}_{kind}", metric, some, goals)
    if curve is not None:
        overall.estimated("aurc", curve.aurc, "area")
        coverage.draw(curve, folder, PICTURE)
    else:
        pictures.remove(folder, PICTURE)
    _add_times(overall, samples)
    figures = [*overall.all, *by_type.all]
    results.write_summary(folder / results.SUMMARY, head, figures)
    text = results.report(
        head,
        [one for one in figures if one in overall.all or one.goal is not None],
        [*_notes(head, samples), *_by_type(by_type.all), *_techniques(samples), *_risk(curve)],
    )
    with files.replacing_file(folder / results.REPORT) as path:
        path.write_text(text, encoding="utf-8")
    return figures


def failures(folder: Path) -> list[Sample]:
    """The questions that failed."""
    return [sample for sample in read(folder)[1] if sample.error is not None]


def _add(
    figures: results.Figures, name: str, metric: Metric, samples: Sequence[Sample], goals: Mapping[str, float]
) -> None:
    """Nothing where no question has a part in it."""
    values = parts(metric, samples)
    if len(values) > 0:
        figures.add(name, values, ratio(np.sum), metric.unit, at_least=goals.get(name))


def _add_times(figures: results.Figures, samples: Sequence[Sample]) -> None:
    """Seconds that a question took, and those until its first token."""
    answers = [sample.answer for sample in samples if sample.answer is not None]
    totals = [answer.timings.total for answer in answers if answer.timings.total is not None]
    firsts = [answer.timings.ttft for answer in answers if answer.timings.ttft is not None]
    for name, seconds, statistic in (
        ("total_p50_s", totals, np.median),
        ("total_p95_s", totals, p95),
        ("ttft_p50_s", firsts, np.median),
    ):
        if seconds:
            figures.add(name, seconds, statistic, "s")
    figures.all.append(results.observed("minutes", _minutes(samples), "min", n=len(samples)))


def _minutes(samples: Sequence[Sample]) -> float:
    """From the first question of each run to the last that it finished, together; without the engine's start."""
    ends: dict[int, float] = {}
    for sample in samples:
        ends[sample.run] = max(ends.get(sample.run, 0.0), sample.at)
    return sum(ends.values()) / 60


def _by_type(figures: Sequence[Figure]) -> list[str]:
    """A row a metric, a column a type of questions."""
    by_name = {one.name: one for one in figures}
    kinds = [kind for kind in TYPES if any(name.endswith(f"_{kind}") for name in by_name)]
    if len(kinds) < 2:
        return []
    rows = []
    for metric in METRICS:
        found = [by_name.get(f"{metric.name}_{kind}") for kind in kinds]
        if any(found):
            rows.append((f"`{metric.name}`", *(f"{one.cell()}, {one.n}" if one is not None else "" for one in found)))
    return [
        "## By type of question",
        "",
        "Value, 95% interval, questions.",
        "",
        *markdown(("figure", *kinds), rows),
        "",
    ]


def _techniques(samples: Sequence[Sample]) -> list[str]:
    told = [sample.answer.engine.techniques for sample in samples if sample.answer is not None]
    rows = engagement.cells(told)
    return ["## Techniques", "", TECHNIQUES, "", *markdown(engagement.COLUMNS, rows), ""] if rows else []


def _risk(curve: Curve | None) -> list[str]:
    if curve is None:
        return []
    return ["## Risk and coverage", "", RISK, "", *coverage.table(curve), "", f"![Risk over coverage]({PICTURE}.svg)"]


def _notes(head: Head, samples: Sequence[Sample]) -> list[str]:
    settings: Mapping[str, Any] = head["settings"]
    asked = settings["questions"]
    runs = len({sample.run for sample in samples})
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(s.question.type for s in samples).items())
    at_once = f"{settings['at_once']} at a time" if settings["at_once"] > 1 else "one by one"
    notes = [
        f"{len(samples)} of the {asked['count']} questions of `{asked['name']}` ({kinds}), {at_once} in {runs} "
        f"{'run' if runs == 1 else 'runs'}, by profile `{settings['profile']}` with models `{settings['models']}` over "
        f"{settings['index']['documents']} documents. {EXPLAINED}",
        "",
    ]
    if len(samples) < asked["count"]:
        notes += [f"**{len(samples)} of {asked['count']} questions: not the whole set.**", ""]
    failed = [sample for sample in samples if sample.error is not None]
    if failed:
        notes += [f"**{len(failed)} questions failed, and count for what was found alone:**", ""]
        notes += [*(f"- `{sample.id}`: {sample.error}" for sample in failed), ""]
    unclear = sum(sample.verdict == "unclear" for sample in samples)
    if unclear:
        notes += [f"Of the judge's verdicts {unclear} were neither yes nor no, and count nowhere.", ""]
    return notes


EXPLAINED = (
    "Retrieval counts documents, each at the place of its best passage; `fused_` is before reranking. `key_fact_recall`: of a "
    "question's key facts, those of which a variant stands in the answer. `token_f1` (SQuAD's) and `rouge_l` are against the "
    "reference answer. Declining scores 0 in these and in `citation_recall`. Citations are those that the model wrote: "
    "`citation_precision` is over all answers that cite, so one to a question that nothing answers has 0. "
    "`answer_tokens`, `cited_sentences` and `supported_sentences` are of the answers given. `abstention_precision`: of the "
    "questions declined, those that nothing answers; `abstention_recall`: of these, those declined. `total_s` is a question's "
    "own time, in a batch with its waiting for others; `minutes` from the first question to the last, without the start. "
    "Intervals: bootstrap over questions."
)

TECHNIQUES = "By what the engine itself reports of each answer; `answers` are those in which it engaged."

RISK = (
    "Wrong is an answer to a question that nothing answers. `aurc` is the mean of that share over the coverages. A lower "
    "`abstain.min_confidence` goes down the table."
)
