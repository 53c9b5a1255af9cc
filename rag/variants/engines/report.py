"""Figures, tables and picture of engines: from their samples alone, and the same from the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rag.bench import pictures, results
from rag.bench.results import Figures, observed
from rag.evaluate.samples import Head
from rag.figures import Figure, markdown
from rag.variants.breakdown.lengths import RequestShape
from rag.variants.breakdown.source import NAME, PUBLISHED, Published
from rag.variants.engines import samples
from rag.variants.engines.samples import ALIKE, Kind, Samples, Taken

PICTURE = "engines"

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Measured:
    head: Head
    samples: Samples

    @property
    def names(self) -> list[str]:
        """Those that anything was asked of."""
        asked = {one.variant for one in self.samples.taken.values()}
        return [name for name in self.head["settings"]["variants"] if name in asked]

    @property
    def unquantised(self) -> list[str]:
        """Those whose quantisation did nothing: by the engine's own word, or since their weights are as large as another engine's
        without one."""
        variants, weights = self.head["settings"]["variants"], self.samples.weights
        plain = [one.bytes for name, one in weights.items() if variants[name]["quantization"] is None]

        def did_nothing(name: str) -> bool:
            told = self.samples.engaged.get(name)
            if told is not None and (one := told.techniques.get("quantization")) is not None and one.engaged is False:
                return True
            its = weights.get(name)
            return its is not None and (its.quantised == 0 or (bool(plain) and its.bytes > 0.95 * max(plain)))

        return [name for name in self.names if variants[name]["quantization"] is not None and did_nothing(name)]

    @property
    def counting(self) -> list[str]:
        """Those that figures are made of; the others of them are held against the first."""
        return [name for name in self.names if name not in self.unquantised]

    def of(self, kind: Kind, name: str, shape: RequestShape | None = None) -> dict[tuple[RequestShape, int], Taken]:
        """By shape and repeat."""
        return {
            (one.shape, one.repeat): one
            for one in self.samples.taken.values()
            if one.kind == kind and one.variant == name and shape in (None, one.shape)
        }


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk. Raises `UsageError` where there are none."""
    measured = Measured(*samples.read(folder))
    if not measured.samples.taken:
        raise results.lacking("requests", folder / results.SAMPLES)
    figures = Figures()
    for name in measured.counting[1:]:
        _add_ratios(figures, measured, measured.counting[0], name)
    for name in measured.counting:
        _add_engine(figures, measured, name)
    _draw(folder, measured)
    results.write(folder, measured.head, figures.all, [*_notes(measured), *figures.notes])
    return figures.all


def _add_ratios(figures: Figures, measured: Measured, base: str, name: str) -> None:
    """Over the first engine: all of a request at the lengths that the source has for both profiles, and at the same lengths; its
    first token, and each after it; and what is generated where many ask at once."""
    if name in PUBLISHED and base in PUBLISHED:
        over, under = (
            {repeat: one for (_, repeat), one in measured.of("alone", of, own_shape(PUBLISHED[of])).items()}
            for of in (name, base)
        )
        _add_ratio(figures, f"{name}_over_{base}", over, under, _seconds)
    alone = measured.of("alone", name), measured.of("alone", base)
    together = measured.of("together", name), measured.of("together", base)
    _add_ratio(figures, f"{name}_over_{base}_alike", *alone, _seconds)
    _add_ratio(figures, f"{name}_over_{base}_prefill", *alone, _first)
    _add_ratio(figures, f"{name}_over_{base}_decode", *alone, _per_token)
    _add_ratio(figures, f"{name}_over_{base}_throughput", *together, _throughput)


def _add_ratio(
    figures: Figures,
    name: str,
    over: Mapping[Key, Taken],
    under: Mapping[Key, Taken],
    value: Callable[[Taken], float | None],
) -> None:
    pairs = [(value(one), value(under[key])) for key, one in over.items() if key in under]
    ratios = [first / second for first, second in pairs if first is not None and second is not None]
    if ratios:
        figures.add(name, ratios, np.median, "ratio")


def _add_engine(figures: Figures, measured: Measured, name: str) -> None:
    weights, alone = measured.samples.weights.get(name), measured.of("alone", name)
    if weights is not None:
        figures.all.append(observed(f"{name}.weights_gb", weights.bytes / 1e9, "GB", n=1))
    for tokens in sorted({shape.prompt for shape, _ in alone}, reverse=True):
        firsts = _known(_first(one) for (shape, _), one in alone.items() if shape.prompt == tokens)
        if firsts:
            figures.ms(f"{name}.ttft_{tokens}_p50_ms", firsts)
    per_token = _known(map(_per_token, alone.values()))
    if per_token:
        figures.ms(f"{name}.token_p50_ms", per_token)
    speculates = "speculative_config" in measured.head["settings"]["variants"][name]["arguments"]
    if weights is not None and per_token and not speculates:  # whose steps give several tokens
        speeds = [weights.read_bytes / 1e12 / seconds for seconds in per_token]
        figures.add(f"{name}.weights_read", speeds, np.median, "TB/s")
    cached = [
        first / before
        for key, one in measured.of("again", name).items()
        if one.stats.cached_prompt_tokens and (first := _first(one)) and (before := _first(alone[key]))
    ]
    if cached:
        figures.add(f"{name}.cached_ttft_over_ttft", cached, np.median, "ratio")
    together = _known(map(_throughput, measured.of("together", name).values()))
    if together:
        figures.add(f"{name}.throughput", together, np.median, "tokens/s")


def own_shape(published: Published) -> RequestShape:
    """The lengths that the source has for a profile."""
    return RequestShape(published.prompt_tokens, published.max_tokens)


def _seconds(one: Taken) -> float | None:
    return one.seconds


def _first(one: Taken) -> float | None:
    return one.stats.ttft


def _per_token(one: Taken) -> float | None:
    """Seconds of each token after the first."""
    speed = one.length.tokens_per_second
    return 1 / speed if speed else None


def _throughput(one: Taken) -> float | None:
    return one.output_tokens / one.seconds


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


# --- report ------------------------------------------------------------------------------------


def _notes(measured: Measured) -> list[str]:
    requests, variants = measured.head["settings"]["requests"], measured.head["settings"]["variants"]
    failed = [start for start in measured.samples.starts.values() if start.error is not None]
    dummy = measured.head["weights"] == "dummy"
    return [
        EXPLAINED.format(requests=requests, shape=_said(ALIKE)),
        "",
        *([DUMMY, ""] if dummy else []),
        f"![Seconds of a request]({PICTURE}.svg)",
        "",
        *_engines(measured, variants),
        *_techniques(measured),
        *_lengths(measured),
        *(f"- `{name}` is lacking: {UNQUANTISED}" for name in measured.unquantised),
        *(f"- `{start.variant}` is lacking: {start.error}" for start in failed),
        *([""] if failed or measured.unquantised else []),
        PUBLISHES.format(name=NAME, **{name: _range(PUBLISHED[name]) for name in PUBLISHED}),
    ]


def _engines(measured: Measured, variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = []
    for name in measured.names:
        start, variant = measured.samples.starts.get(name), variants[name]
        arguments = variant["arguments"]
        cached = [
            (one.stats.cached_prompt_tokens or 0) / one.shape.prompt for one in measured.of("again", name).values()
        ]
        cells = (
            f"`{name}`",
            variant["model"],
            variant["quantization"] or arguments["dtype"],
            arguments["kv_cache_dtype"],
            arguments.get("speculative_config", {}).get("method", ""),
            f"{start.seconds:.0f}" if start is not None and start.seconds is not None else "",
            f"{np.median(cached):.1%}" if cached else "",
        )
        rows.append(cells)
    heads = ("engine", "model", "weights", "KV cache", "speculation", "start, s", "cached when asked again")
    return ["## Engines", "", *markdown(heads, rows), ""]


def _techniques(measured: Measured) -> list[str]:
    """What was switched on, and whether it engaged, by the engine's own account."""
    rows = [
        (f"`{name}`", f"`{technique}`", results.ENGAGED[found.engaged], found.evidence or "", found.reason or "")
        for name in measured.names
        if name in measured.samples.engaged
        for technique, found in measured.samples.engaged[name].techniques.items()
        if found.asked
    ]
    heads = ("engine", "switched on", "engaged", "evidence", "why not")
    return ["## Techniques", "", "Since each engine's start.", "", *markdown(heads, rows), ""] if rows else []


def _lengths(measured: Measured) -> list[str]:
    rows = []
    for name in measured.names:
        groups: dict[RequestShape, list[Taken]] = {}
        for (shape, _), one in measured.of("alone", name).items():
            groups.setdefault(shape, []).append(one)
        for shape, some in sorted(groups.items(), key=lambda group: (-group[0].prompt, -group[0].answer)):
            cells = (
                f"`{name}`",
                f"{shape.prompt:,}",
                shape.answer,
                len(some),
                _spread(_known(map(_first, some)), 1e3),
                _spread(_known(map(_per_token, some)), 1e3),
                _spread([one.seconds for one in some]),
            )
            rows.append(cells)
    heads = ("engine", "prompt", "answer", "n", "first token, ms", "each after it, ms", "total, s")
    return ["## Lengths", "", "Median and range.", "", *markdown(heads, rows), ""]


def _spread(values: Sequence[float], scale: float = 1) -> str:
    if not values:
        return ""
    shown = [f"{scale * value:.2f}" for value in (np.median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _said(shape: RequestShape) -> str:
    return f"{shape.prompt:,} and {shape.answer}"


def _range(published: Published) -> str:
    low, high = published.stages["generate"]
    return f"{low:g} s" if low == high else f"{low:g} to {high:g} s"


def _draw(folder: Path, measured: Measured) -> None:
    """At the lengths that all engines are held against one another at: the first token, and those after it."""
    bars = {}
    for name in measured.names:
        some = [] if name in measured.unquantised else list(measured.of("alone", name, ALIKE).values())
        firsts, totals = _known(map(_first, some)), [one.seconds for one in some]
        if firsts:
            bars[name] = (float(np.median(firsts)), float(np.median(totals)))
    if not bars:
        pictures.remove(folder, PICTURE)
        return
    with pictures.picture(folder, PICTURE, height=1.2 + 0.42 * len(bars)) as figure:
        axes = figure.subplots()
        firsts, totals = np.array(list(bars.values())).T
        axes.barh(list(bars), firsts, height=0.7, label="first token")
        axes.barh(list(bars), totals - firsts, left=firsts, height=0.7, label="the others")
        for name, (_, total) in bars.items():
            axes.annotate(f" {total:.2f} s", (total, name), va="center", fontsize="small")
        axes.set_xlim(0, 1.15 * max(totals))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"seconds of a request of {_said(ALIKE)} tokens, median")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


UNQUANTISED = (
    "its quantisation did nothing. Its weights take as much memory as those of an engine that isn't quantised, so its times are "
    "that engine's, and no figures are made of them."
)

EXPLAINED = (
    "Each engine in a process of its own, all in memory at once, one asked at a time: prompts and answers of exactly so many tokens "
    "(`ignore_eos`), with an empty prefix cache. `A_over_B` is the median over repeats of A's seconds over B's, each at the lengths "
    "that the source has for its profile; `…_alike` over all lengths, the same for both; `…_decode` of a token after the first and "
    "`…_prefill` of the first one; `…_throughput` of the tokens a second of {requests} requests of {shape} tokens that are made at "
    "once. `cached_ttft_over_ttft`: the first token of a prompt that was asked before, over when it was new. `weights_read`: bytes "
    "of weights that a token needs over its time, to be read against the memory's bandwidth. Intervals: bootstrap over repeats "
    "and lengths."
)

DUMMY = (
    "The weights are random numbers in the shape of the model. Latency, memory and throughput at fixed lengths are those of real "
    "ones. Not measured, since it depends on what is said: quality, the length of answers, and how many drafts are accepted; an "
    "engine that speculates shows here what speculation costs where it finds little, not what it gains."
)

PUBLISHES = (
    '"{name}" has for its generation stage {v3} (V3, measured), {v3_1} (V3.1, expected) and {v3_2} (V3.2, expected).'
)
