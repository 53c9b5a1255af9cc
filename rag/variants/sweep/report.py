"""Figures, table and picture of a sweep: from its samples alone, and the same from the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag import files
from rag.bench import pictures, results
from rag.bench.results import Figures, observed
from rag.core import Answer
from rag.evaluate.samples import Head, Sample
from rag.evaluate.scores import METRICS, Metric, parts
from rag.figures import Figure, markdown
from rag.questions import TYPES
from rag.stats import p90, p95, ratio
from rag.variants import samples
from rag.variants.paired import (
    KEY_FACTS,
    answered,
    difference_figure,
    failed,
    given,
    key_facts,
    said_of_quality,
    techniques,
    total,
    total_ratios,
    unfinished,
)
from rag.variants.samples import Taken

BENCH = "sweep"
PICTURE = "sweep"

TIME, QUALITY = "total_p50_s", KEY_FACTS.name
"""What the picture shows."""


HEADLINES = (TIME, QUALITY, "total_ratio", "key_fact_difference", "key_fact_power")
"""What stands first in the report; the rest is in its table."""


@dataclass(frozen=True, slots=True)
class Swept:
    """The answers that didn't fail, by value and id."""

    head: Head
    taken: Sequence[Taken]
    answers: Mapping[str, Mapping[str, Sample]]

    @property
    def setting(self) -> str:
        found: str = self.head["settings"]["over"]["setting"]
        return found

    @property
    def base(self) -> str:
        """The value that the others are held against."""
        found: str = next(iter(self.head["settings"]["variants"]))
        return found


def read(folder: Path) -> Swept:
    """Raises `UsageError` where there are no answers, or they are of something else."""
    head, rows = samples.read(folder, BENCH)
    taken = samples.answers(folder, rows)
    found = {value: answered(taken, value) for value in head["settings"]["over"]["values"]}
    swept = Swept(head, taken, {value: some for value, some in found.items() if some})
    if swept.base not in swept.answers:
        raise results.lacking(f"answers with {swept.setting}={swept.base}", folder / results.SAMPLES)
    return swept


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk, those of a value with `@VALUE` at the end of their names."""
    swept = read(folder)
    figures = Figures()
    for value, some in swept.answers.items():
        add_value(figures, value, list(some.values()))
    base = swept.answers[swept.base]
    differences = {value: key_facts(base, some) for value, some in swept.answers.items() if value != swept.base}
    for value, found in differences.items():
        figures.add(f"total_ratio@{value}", total_ratios(base, swept.answers[value]), np.median, "ratio")
        if found is not None:
            figures.all.append(difference_figure(f"key_fact_difference@{value}", found))
            if found.power is not None:
                figures.all.append(observed(f"key_fact_power@{value}", found.power, "probability", n=found.n))
    by_name = {one.name: one for one in figures.all}
    results.write_summary(folder / results.SUMMARY, swept.head, figures.all)
    draw(folder, swept, by_name)
    quality = {f"{swept.setting}={value}": found for value, found in differences.items()}
    notes = [
        *_notes(swept),
        *table(swept, by_name),
        f"![Quality over latency]({PICTURE}.svg)",
        "",
        "## Key facts",
        "",
        *said_of_quality(f"{swept.setting}={swept.base}", quality),
        *_techniques(swept),
        *figures.notes,
    ]
    headlines = [one for one in figures.all if one.name.partition("@")[0] in HEADLINES]
    with files.replacing_file(folder / results.REPORT) as path:
        path.write_text(results.report(swept.head, headlines, notes), encoding="utf-8")
    return figures.all


def _techniques(swept: Swept) -> list[str]:
    rows = techniques(swept.setting, swept.answers)
    return ["", "## Techniques", "", *rows] if rows else []


def add_value(figures: Figures, value: str, some: Sequence[Sample]) -> None:
    """Time, lengths and quality of the answers."""
    answers = [given(one) for one in some]
    totals = [total(one) for one in some]
    firsts = [one.timings.ttft for one in answers if one.timings.ttft is not None]
    for name, seconds, statistic in (
        (TIME, totals, np.median),
        ("total_p95_s", totals, p95),
        ("ttft_p50_s", firsts, np.median),
    ):
        if seconds:
            figures.add(f"{name}@{value}", seconds, statistic, "s")
    prompts = _known(answers, "prompt")
    lengths = _known([one.given for one in some if one.given is not None], "output")
    if prompts:
        figures.add(f"prompt_tokens_p50@{value}", prompts, np.median, "tokens")
    if lengths:
        figures.add(f"answer_tokens_p90@{value}", lengths, p90, "tokens")
    figures.add(f"truncated@{value}", [float(one.truncated) for one in answers], np.mean, "share")
    for metric in METRICS:
        if metric.name != "total_s":
            _add_metric(figures, f"{metric.name}@{value}", metric, some)
    for kind in TYPES:
        _add_metric(figures, f"{QUALITY}_{kind}@{value}", KEY_FACTS, [one for one in some if one.question.type == kind])


def _add_metric(figures: Figures, name: str, metric: Metric, some: Sequence[Sample]) -> None:
    """Nothing where no question has a part in it."""
    values = parts(metric, some)
    if len(values) > 0:
        figures.add(name, values, ratio(np.sum), metric.unit)


def _known(answers: Sequence[Answer], which: str) -> list[int]:
    counts = (getattr(one.tokens, which) for one in answers)
    return [one for one in counts if one is not None]


def table(swept: Swept, figures: Mapping[str, Figure]) -> list[str]:
    """A row a figure, a column a value."""
    names = dict.fromkeys(name.rpartition("@")[0] for name in figures)
    values = list(swept.answers)
    rows = []
    for name in names:
        found = [figures.get(f"{name}@{value}") for value in values]
        rows.append((f"`{name}`", *(_cell(one) if one is not None else "" for one in found)))
    heads = (f"{value} (base)" if value == swept.base else value for value in values)
    return [*markdown((swept.setting, *heads), rows), ""]


def _cell(figure: Figure) -> str:
    return figure.cell("{:.3f}" if abs(figure.value) < 10 else "{:.0f}")


def draw(folder: Path, swept: Swept, figures: Mapping[str, Figure]) -> None:
    """`sweep.svg` and `sweep.png`: key facts over latency, a point a value. None where no question has key facts."""
    points = [
        (value, figures[f"{TIME}@{value}"], figures[f"{QUALITY}@{value}"])
        for value in swept.answers
        if f"{TIME}@{value}" in figures and f"{QUALITY}@{value}" in figures
    ]
    if not points:
        pictures.remove(folder, PICTURE)
        return
    with pictures.picture(folder, PICTURE) as figure:
        axes = figure.subplots()
        axes.plot(
            [time.value for _, time, _ in points], [quality.value for *_, quality in points], color="#bbbbbb", zorder=1
        )
        for value, time, quality in points:
            axes.errorbar(time.value, quality.value, _arms(quality), _arms(time), fmt="o", capsize=3)
            axes.annotate(value, (time.value, quality.value), xytext=(5, 5), textcoords="offset points")
        axes.set_title(swept.setting, fontsize="medium")
        axes.set_xlabel("median seconds of a question, with 95% intervals")
        axes.set_ylabel("share of key facts in the answers")
        axes.set_xlim(left=0)


def _arms(figure: Figure) -> list[list[float]] | None:
    """An interval as matplotlib wants it; None where there is none."""
    return None if figure.lo is None or figure.hi is None else [[figure.value - figure.lo], [figure.hi - figure.value]]


def _notes(swept: Swept) -> list[str]:
    settings = swept.head["settings"]
    profile = settings["variants"][swept.base]["profile"]
    asked = len({one.sample.id for one in swept.taken})
    counts = {value: len(swept.answers.get(value, ())) for value in settings["variants"]}
    lost = failed(swept.taken)
    return [
        f"`{swept.setting}` of profile `{profile}`, {asked} of the {settings['questions']['count']} questions of "
        f"`{settings['questions']['name']}`, of each type its share, in blocks of {settings['block']}. {EXPLAINED}",
        "",
        *unfinished(counts, asked),
        *(f"- `{one.sample.id}` with {one.variant} failed: {one.sample.error}" for one in lost),
        *([""] if lost else []),
    ]


EXPLAINED = (
    "Within a block each value answers all its questions in turn, one by one, in an order that is drawn and then reversed, with a "
    "prefix cache that holds the instruction alone. `total_ratio`: the median over questions of its seconds over those of the base; "
    "`key_fact_difference`: key facts found in its answers, less those of the base; met where the interval lies above the margin, of "
    "enough questions with key facts (36 for 10 points). Intervals: bootstrap over questions."
)
