"""Figures, tables and picture of a breakdown: from its samples alone, and the same from the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rag import files
from rag.bench import results
from rag.evaluate.samples import Head
from rag.figures import Figure
from rag.variants import paired
from rag.variants.breakdown import tables
from rag.variants.breakdown.figures import details, headlines, qualities
from rag.variants.breakdown.measured import AGAIN, Measured, read
from rag.variants.breakdown.picture import NAME, draw
from rag.variants.breakdown.source import NAME as SOURCE
from rag.variants.breakdown.source import PUBLISHED


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk: what is asked first, then each variant's stages. Raises `UsageError` where there are none."""
    measured = read(folder)
    first, then = headlines(measured), details(measured)
    figures = [*first.all, *then.all]
    results.write_summary(folder / results.SUMMARY, measured.head, figures)
    draw(folder, measured)
    notes = [*_notes(measured), *_parts(measured, {one.name: one for one in figures}), *first.notes, *then.notes]
    with files.replacing_file(folder / results.REPORT) as path:
        path.write_text(results.report(measured.head, first.all, notes), encoding="utf-8")
    return figures


def _notes(measured: Measured) -> list[str]:
    base, head = measured.base, measured.head
    asked = max(len({one.sample.id for one in measured.taken if not one.cold}), 1)
    counts = {name: len(measured.warm.get(name, ())) for name in head["settings"]["variants"]}
    if measured.again:
        counts[f"{base}{AGAIN}"] = len(measured.again)
    failed = paired.failed(measured.taken)
    return [
        f"{asked} of the {head['settings']['questions']['count']} questions of `{head['settings']['questions']['name']}`, of each "
        f"type its share, in blocks of {head['settings']['block']}: {_variants(head)}. {EXPLAINED}",
        "",
        *_source(measured),
        *paired.unfinished(counts, asked),
        *(f"- `{one.sample.id}` of `{one.variant}` failed: {one.sample.error}" for one in failed),
        *([""] if failed else []),
    ]


def _source(measured: Measured) -> list[str]:
    """Its ratios, of the variants that it has figures for."""
    base = PUBLISHED.get(measured.base)
    theirs = {name: PUBLISHED[name].over(base) for name in measured.others if name in PUBLISHED and base is not None}
    if not theirs:
        return []
    said = ", ".join(f"`{name}` at {low:.2f} to {high:.2f}" for name, (low, high) in theirs.items())
    return [f'"{SOURCE}" expects {said} of the total of `{measured.base}`.', ""]


def _variants(head: Head) -> str:
    """Which profiles, and which of them share an engine."""
    profiles = ", ".join(
        f"`{name}`"
        if name in (one["profile"], f"{one['profile']}{AGAIN}")
        else f"`{name}` (profile `{one['profile']}`)"
        for name, one in head["settings"]["variants"].items()
    )
    shared = [names for names in head["settings"]["engines"] if len(names) > 1]
    said = "; ".join(f"{', '.join(f'`{name}`' for name in names)} share an engine" for names in shared)
    return f"{profiles}{f' ({said})' if said else ''}"


def _parts(measured: Measured, figures: Mapping[str, Figure]) -> list[str]:
    quality = paired.said_of_quality(measured.base, qualities(measured))
    cold, lengths = tables.cold(measured, figures), tables.lengths(measured)
    techniques = paired.techniques("variant", measured.warm)
    parts = [f"![Where the time goes]({NAME}.svg)", ""]
    if quality:
        parts += ["## Key facts", "", *quality, ""]
    parts += ["## Stages", "", STAGES, ""]
    for name in measured.warm:
        parts += [f"### {name}", "", *tables.stages(name, figures)]
    if cold:
        parts += ["## Cold", "", COLD, "", *cold]
    parts += ["## Tokens", "", TOKENS, "", *tables.tokens(measured)]
    if techniques:
        parts += ["## Techniques", "", *techniques]
    if lengths:
        parts += ["## Fixed lengths", "", LENGTHS, "", *lengths]
    return parts


EXPLAINED = (
    "Within a block each variant answers all its questions in turn, in an order that is drawn and then reversed. Before each "
    "question the prefix cache is emptied and holds the instruction again, which all prompts begin with: else what another "
    "variant read before would be read from it. `A_over_B_total` is the median over questions of A's seconds over B's for the "
    "same question: one that the machine was busy at counts once, and a long one no more than a short one. The first variant over "
    "itself, asked a second time, is the noise that the others have to be read against; `noise_half_width` is half of its "
    "interval. `…_ratio_of_ratios` is that ratio over the source's (of the middle of a range that it expects): 1 where as much is "
    "gained here as there. `…_key_fact_difference`: key facts found in the answers, less those of the first variant; met where "
    "the interval lies above the margin, of enough questions with key facts (36 for 10 points). `span_coverage_min`: of all "
    "answers the smallest share of the time that the stages' spans account for. Intervals: bootstrap over questions."
)

STAGES = (
    "Share of the time of all questions together, median and 95th percentile of those in which the stage ran, with 95% intervals. "
    "Seconds are those of the critical path: where stages overlap, an instant is counted once, for the one that ends last. "
    f'`queue`, `prefill` and `decode` lie inside `generate`. Beside it what "{SOURCE}" has, and the first question of each block '
    "asked with nothing in the caches."
)

COLD = (
    "The first question of each block, asked with nothing in the caches and asked warm. The engine's very first request, which sets "
    "libraries up once, is in neither: `rag bench start` has it."
)

TOKENS = (
    "Of the answers given; refusals are left out. The source has prompts of about 6,000 and 3,000 tokens, and answers of 348 on "
    "average, of which it says that 384 covers 90%."
)

LENGTHS = (
    "Prompts of the corpus' passages and answers of exactly so many tokens (`ignore_eos`), since the sample corpus' documents and "
    "answers are shorter than the source's. Latency alone: what is written after an answer's end says nothing, and often repeats "
    "itself, so that drafts of prompt lookup are accepted more often than in answers. Median and range."
)
