"""Figures of a breakdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from rag.bench.results import Figures, observed
from rag.core import covered
from rag.evaluate import Difference
from rag.evaluate.samples import Sample
from rag.stats import Floats, bootstrap, p90, p95, ratio
from rag.variants.breakdown.lengths import Length, RequestShape, engines
from rag.variants.breakdown.measured import Measured
from rag.variants.breakdown.source import MEAN_ANSWER, PUBLISHED
from rag.variants.breakdown.stages import ROWS, TOTAL, spent
from rag.variants.paired import difference_figure, given, key_facts, pairs, total, total_ratios

GOALS: Mapping[str, float] = {"v3_1": 0.70, "v3_2": 0.55, "auto": 0.25}
"""Of V3's total, at most, on a CPU."""

COLD = "cold"
"""In the names of figures of answers from empty caches: `v3.cold.generate.p50_ms`, where `v3.generate.p50_ms` is the warm ones'."""

COVERED = 0.95
"""Of an answer's time the stages should account for, at least."""


def headlines(measured: Measured) -> Figures:
    """What the breakdown is for: the noise floor first."""
    figures = Figures()
    base = measured.warm[measured.base]
    _add_noise(figures, measured)
    for name in measured.others:
        goal = GOALS.get(name) if measured.on_cpu and measured.base == "v3" else None
        ratios = total_ratios(base, measured.warm[name])
        figures.add(f"{name}_over_{measured.base}_total", ratios, np.median, "ratio", at_most=goal)
        if name in PUBLISHED and measured.base in PUBLISHED:
            theirs = sum(PUBLISHED[name].over(PUBLISHED[measured.base])) / 2
            figures.add(f"{name}_ratio_of_ratios", [one / theirs for one in ratios], np.median, "ratio")
    for name, found in qualities(measured).items():
        if found is not None:
            figures.all.append(difference_figure(f"{name}_key_fact_difference", found))
            if found.power is not None:
                figures.all.append(observed(f"{name}_key_fact_power", found.power, "probability", n=found.n))
    answers = [*measured.warm.values(), measured.again, *measured.cold.values()]
    shares = [covered(given(one).spans) / total(one) for some in answers for one in some.values()]
    figures.all.append(observed("span_coverage_min", min(shares), "share", at_least=COVERED, n=len(shares)))
    for name, cold in measured.cold.items():
        extra = [total(one) - total(warm) for one, warm in zip(*pairs(cold, measured.warm.get(name, {})), strict=True)]
        if extra:
            figures.ms(f"{name}_cold_extra_ms", extra)
    _add_fixed(figures, measured)
    return figures


def qualities(measured: Measured) -> dict[str, Difference | None]:
    """By variant, how many more of the key facts its answers hold than those of the first."""
    base = measured.warm[measured.base]
    return {name: key_facts(base, measured.warm[name]) for name in measured.others}


def details(measured: Measured) -> Figures:
    """Of each variant its stages, warm and cold, and its tokens, and each fixed length. Their names have dots in them, those of the
    headlines none."""
    figures = Figures()
    for name, some in measured.warm.items():
        add_stages(figures, name, list(some.values()))
        add_tokens(figures, name, list(some.values()))
        if cold := measured.cold[name]:
            add_stages(figures, f"{name}.{COLD}", list(cold.values()))
    for (name, shape), lengths in by_shape(measured.lengths).items():
        add_shape(figures, f"fixed.{name}.{shape.prompt}.{shape.answer}", lengths)
    return figures


def _add_noise(figures: Figures, measured: Measured) -> None:
    """What the same ratio shows where there is no difference."""
    ratios = total_ratios(measured.warm[measured.base], measured.again)
    if not ratios:
        return
    noise = bootstrap(ratios)
    figures.estimated(f"{measured.base}_over_{measured.base}_total", lambda: noise, "ratio")
    figures.all.append(observed("noise_half_width", (noise.hi - noise.lo) / 2, "ratio", n=noise.n))


def add_stages(figures: Figures, name: str, some: Sequence[Sample]) -> None:
    """Share of the total over all questions, and median and 95th percentile of those in which the stage ran."""
    times = [spent(given(one)) for one in some]
    for stage in ROWS:
        ran = [one[stage] for one in times if stage in one]
        if not ran:
            continue
        if stage != TOTAL:
            rows = [(one.get(stage, 0.0), one[TOTAL]) for one in times]
            figures.add(f"{name}.{stage}.share", rows, ratio(np.sum), "share")
        figures.ms(f"{name}.{stage}.p50_ms", ran)
        figures.ms(f"{name}.{stage}.p95_ms", ran, p95)


def add_tokens(figures: Figures, name: str, some: Sequence[Sample]) -> None:
    """Of the prompts that were read, and of the answers given to them, refusals left out."""
    prompts = [given(one).tokens.prompt for one in some]
    answers = [one.given.tokens.output for one in some if one.given is not None]
    rows: list[tuple[str, list[int | None], Callable[..., Floats]]] = [
        ("prompt_tokens.p50", prompts, np.median),
        ("answer_tokens.mean", answers, np.mean),
        ("answer_tokens.p90", answers, p90),
    ]
    for what, counts, statistic in rows:
        known = [one for one in counts if one is not None]
        if known:
            figures.add(f"{name}.{what}", known, statistic, "tokens")


# --- requests of a fixed length -----------------------------------------------------------------


def by_shape(lengths: Iterable[Length]) -> dict[tuple[str, RequestShape], list[Length]]:
    """By engine, which one of its variants stands for, and length, in order."""
    groups: dict[tuple[str, RequestShape], list[Length]] = {}
    for one in sorted(lengths, key=lambda one: (one.variant, -one.shape.prompt, -one.shape.answer, one.repeat)):
        groups.setdefault((one.variant, one.shape), []).append(one)
    return groups


def add_shape(figures: Figures, prefix: str, lengths: Sequence[Length]) -> None:
    figures.ms(f"{prefix}.p50_ms", [one.seconds for one in lengths])
    firsts = [one.stats.ttft for one in lengths if one.stats.ttft is not None]
    if firsts:
        figures.ms(f"{prefix}.ttft_p50_ms", firsts)
    speeds = [speed for one in lengths if (speed := one.tokens_per_second) is not None]
    if speeds:
        figures.add(f"{prefix}.tokens_per_s", speeds, np.median, "tokens/s")


def _add_fixed(figures: Figures, measured: Measured) -> None:
    """The source's profiles at the lengths that it has for them, and at its mean length of an answer."""
    base = PUBLISHED.get(measured.base)
    if base is None:
        return
    engine_of = {name: engine for engine, names in engines(measured.head).items() for name in names}
    seconds = {one.key: one.seconds for one in measured.lengths}
    repeats = sorted({one.repeat for one in measured.lengths})
    for name in measured.others:
        if (other := PUBLISHED.get(name)) is None:
            continue
        for ending, answers in (("", (base.max_tokens, other.max_tokens)), (f"_{MEAN_ANSWER}", (MEAN_ANSWER,) * 2)):
            both = [
                (
                    seconds.get((engine_of[name], RequestShape(other.prompt_tokens, answers[1]), repeat)),
                    seconds.get((engine_of[measured.base], RequestShape(base.prompt_tokens, answers[0]), repeat)),
                )
                for repeat in repeats
            ]
            ratios = [after / before for after, before in both if after is not None and before is not None]
            if ratios:
                figures.add(f"fixed{ending}_{name}_over_{measured.base}", ratios, np.median, "ratio")
