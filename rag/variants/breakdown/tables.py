"""The report's tables, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rag.figures import Figure, markdown
from rag.variants.breakdown.figures import COLD, by_shape
from rag.variants.breakdown.lengths import engines
from rag.variants.breakdown.measured import Measured
from rag.variants.breakdown.source import PUBLISHED, Published, Range
from rag.variants.breakdown.stages import PARTS, ROWS, TOTAL
from rag.variants.paired import given, pairs, total

LIMITS = (384, 512)
"""Answer tokens that the source speaks of."""


def stages(name: str, figures: Mapping[str, Figure]) -> list[str]:
    """A variant's, warm, beside the source's figures where there are any, and cold."""
    published = PUBLISHED.get(name)
    source = (
        f"{published.title}, {'measured' if published.measured else 'expected'} there"
        if published is not None
        else "source"
    )
    rows = []
    for stage in ROWS:
        share, warm = figures.get(f"{name}.{stage}.share"), _times(f"{name}.{stage}", figures)
        cold = _times(f"{name}.{COLD}.{stage}", figures)
        if any(warm + cold):
            shown = f"{share.value:.1%}" if share is not None else ""
            rows.append((_indented(stage), shown, *warm, _theirs(stage, published), *cold))
    heads = ("stage", "share", "p50, ms", "p95, ms", "n", source, "cold p50, ms", "cold p95, ms", "cold n")
    return [*markdown(heads, rows), ""]


def _times(stage: str, figures: Mapping[str, Figure]) -> tuple[str, str, str]:
    """Median, 95th percentile, and of how many."""
    median = figures.get(f"{stage}.p50_ms")
    if median is None:
        return ("", "", "")
    return _milliseconds(median), _milliseconds(figures[f"{stage}.p95_ms"]), str(median.n)


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


def cold(measured: Measured, figures: Mapping[str, Figure]) -> list[str]:
    """The same questions with nothing in the caches, and with what every prompt begins with."""
    rows = []
    for name, some in measured.cold.items():
        first, then = pairs(some, measured.warm.get(name, {}))
        if not first:
            continue
        seconds = [np.median([total(one) for one in state]) for state in (first, then)]
        cells = (
            f"`{name}`",
            len(first),
            *(f"{1e3 * one:,.0f}" for one in seconds),
            figures[f"{name}_cold_extra_ms"].cell("{:+,.0f}"),
            _median(given(one).tokens.cached_prompt for one in then),
        )
        rows.append(cells)
    heads = ("variant", "questions", "cold p50, ms", "warm p50, ms", "more, ms", "cached prompt tokens, warm")
    return [*markdown(heads, rows), ""] if rows else []


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
        cells = (
            f"`{name}`",
            f"{np.median(prompts):,.0f} ({min(prompts):,} to {max(prompts):,})",
            len(answers),
            f"{np.mean(answers):.0f}",
            f"{np.median(answers):.0f}",
            f"{np.quantile(answers, 0.9):.0f}",
            max(answers),
            *within,
            cut,
        )
        rows.append(cells)
    limits = (f"≤ {limit}" for limit in LIMITS)
    heads = ("variant", "prompt p50 (range)", "answers given", "mean", "p50", "p90", "longest", *limits, "cut")
    return [*markdown(heads, rows), ""]


def lengths(measured: Measured) -> list[str]:
    """Requests of a fixed length, by engine."""
    names = engines(measured.head)
    rows = []
    for (name, shape), some in by_shape(measured.lengths).items():
        firsts = [one.stats.ttft for one in some if one.stats.ttft is not None]
        speeds = [speed for one in some if (speed := one.tokens_per_second) is not None]
        drafted = sum(_known(one.stats.draft_tokens for one in some))
        accepted = sum(_known(one.stats.accepted_tokens for one in some))
        cells = (
            ", ".join(f"`{one}`" for one in names.get(name, [name])),
            f"{shape.prompt:,}",
            shape.answer,
            len(some),
            _spread(firsts),
            f"{np.median(speeds):.1f}" if speeds else "",
            _spread([one.seconds for one in some]),
            f"{accepted:,} of {drafted:,}" if drafted else "",
        )
        rows.append(cells)
    timed = ("first token, s", "tokens/s after it", "total, s")
    heads = ("engine of", "prompt", "answer", "n", *timed, "drafts accepted")
    return [*markdown(heads, rows), ""] if rows else []


def _spread(seconds: Sequence[float]) -> str:
    """Median and range: of a few repeats there is no interval to speak of."""
    return f"{np.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})" if seconds else ""


def _known(counts: Iterable[int | None]) -> list[int]:
    return [one for one in counts if one is not None]


def _median(counts: Iterable[int | None]) -> str:
    known = _known(counts)
    return f"{np.median(known):.0f}" if known else ""
