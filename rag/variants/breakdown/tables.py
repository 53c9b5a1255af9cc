"""The report's tables, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rag.figures import Figure
from rag.variants.breakdown.figures import by_shape
from rag.variants.breakdown.lengths import engines
from rag.variants.breakdown.measured import Measured
from rag.variants.breakdown.source import PUBLISHED, Published, Range
from rag.variants.breakdown.stages import PARTS, ROWS, TOTAL
from rag.variants.paired import given, total

LIMITS = (384, 512)
"""Answer tokens that the source speaks of."""


def stages(name: str, figures: Mapping[str, Figure]) -> list[str]:
    """A variant's, beside the source's figures where there are any."""
    published = PUBLISHED.get(name)
    rows = []
    for stage in ROWS:
        median = figures.get(f"{name}.{stage}.p50_ms")
        if median is None:
            continue
        share, high = figures.get(f"{name}.{stage}.share"), figures[f"{name}.{stage}.p95_ms"]
        shown = f"{share.value:.1%}" if share is not None else ""
        cells = [
            _indented(stage),
            shown,
            _milliseconds(median),
            _milliseconds(high),
            str(median.n),
            _theirs(stage, published),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    head = (
        f"{published.title}, {'measured' if published.measured else 'expected'} there"
        if published is not None
        else "source"
    )
    return [f"| stage | share | p50, ms | p95, ms | n | {head} |", "|---|---|---|---|---|---|", *rows, ""]


def _indented(stage: str) -> str:
    return f"… {stage}" if stage in PARTS else f"**{stage}**" if stage == TOTAL else stage


def _milliseconds(figure: Figure) -> str:
    digits = 0 if figure.value >= 100 else 1 if figure.value >= 1 else 3
    return figure.cell(f"{{:,.{digits}f}}")


def _theirs(stage: str, published: Published | None) -> str:
    if published is None:
        return ""
    if stage == TOTAL:
        return _seconds(published.total)
    if (found := published.stages.get(stage)) is None:
        return ""
    share = f" ({found[0] / published.total[0]:.0%})" if published.measured else ""
    return f"{_seconds(found)}{share}"


def _seconds(range_: Range) -> str:
    low, high = range_
    return f"{low:.2f} s" if low == high else f"{low:.1f} to {high:.1f} s"


def cold(measured: Measured) -> list[str]:
    """The same questions with nothing in the caches, and with what every prompt begins with."""
    rows = []
    for name, some in measured.cold.items():
        both = [
            (total(one), total(measured.warm[name][id_]))
            for id_, one in some.items()
            if id_ in measured.warm.get(name, {})
        ]
        if both:
            first, then = np.median(both, axis=0)
            cached = _median(
                [given(measured.warm[name][id_]).tokens.cached_prompt for id_ in some if id_ in measured.warm[name]]
            )
            rows.append(f"| `{name}` | {len(both)} | {first * 1e3:,.0f} | {then * 1e3:,.0f} | {cached} |")
    if not rows:
        return []
    return [
        "| variant | questions | cold p50, ms | warm p50, ms | cached prompt tokens, warm |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def tokens(measured: Measured) -> list[str]:
    """As they really were."""
    rows = []
    for name, some in measured.warm.items():
        prompts = _known(given(one).tokens.prompt for one in some.values())
        answers = _known(one.given.tokens.output for one in some.values() if one.given is not None)
        if not prompts or not answers:
            continue
        within = [f"{np.mean(np.array(answers) <= limit):.0%}" for limit in LIMITS]
        cut = sum(given(one).truncated for one in some.values())
        cells = [
            f"`{name}`",
            f"{np.median(prompts):,.0f} ({min(prompts):,} to {max(prompts):,})",
            str(len(answers)),
            f"{np.mean(answers):.0f}",
            f"{np.median(answers):.0f}",
            f"{np.quantile(answers, 0.9):.0f}",
            str(max(answers)),
            *within,
            str(cut),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    head = "| variant | prompt p50 (range) | answers given | mean | p50 | p90 | longest | "
    limits = " | ".join(f"≤ {limit}" for limit in LIMITS)
    return [f"{head}{limits} | cut |", f"|{'---|' * (8 + len(LIMITS))}", *rows, ""]


def lengths(measured: Measured) -> list[str]:
    """Requests of a fixed length, by engine."""
    names = engines(measured.head)
    rows = []
    for (name, shape), some in by_shape(measured.lengths).items():
        firsts = [one.stats.ttft for one in some if one.stats.ttft is not None]
        speeds = [speed for one in some if (speed := one.tokens_per_second) is not None]
        drafted = sum(_known(one.stats.draft_tokens for one in some))
        accepted = sum(_known(one.stats.accepted_tokens for one in some))
        cells = [
            ", ".join(f"`{one}`" for one in names.get(name, [name])),
            f"{shape.prompt:,}",
            str(shape.answer),
            str(len(some)),
            _spread(firsts),
            f"{np.median(speeds):.1f}" if speeds else "",
            _spread([one.seconds for one in some]),
            f"{accepted:,} of {drafted:,}" if drafted else "",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return []
    head = "| engine of | prompt | answer | n | first token, s | tokens/s after it | total, s | drafts accepted |"
    return [head, f"|{'---|' * 8}", *rows, ""]


def _spread(seconds: Sequence[float]) -> str:
    """Median and range: of a few repeats there is no interval to speak of."""
    return f"{np.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})" if seconds else ""


def _known(counts: Iterable[int | None]) -> list[int]:
    return [one for one in counts if one is not None]


def _median(counts: Iterable[int | None]) -> str:
    known = _known(counts)
    return f"{np.median(known):.0f}" if known else ""
