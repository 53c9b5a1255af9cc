"""Figures of the query cache from its samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag import metrics, stats
from rag.bench import results
from rag.bench.results import Sample
from rag.stats import Estimate, paired_bootstrap, ratio, upper_bound
from rag.variants.caching import latency, pairs, trace

BENCH = "cache"

USUAL = (0.80, 0.85, 0.90, 0.95)
"""Thresholds of a cosine that caches are shipped with."""

MARGIN = 0.10


def summarise(folder: Path) -> list[results.Figure]:
    """Raises `UsageError` where there is no pair."""
    head, samples = results.Samples(folder).read()
    of = results.by_kind(samples, (pairs.KIND, latency.KIND, trace.KIND))
    if not of[pairs.KIND]:
        raise results.lacking("pair", folder / results.SAMPLES)
    figures = results.Figures()
    settings = head["settings"]
    notes = _of_pairs(figures, of[pairs.KIND], settings["min_same"], settings["min_cosine"])
    looked_up = results.columns(of[latency.KIND], "seconds", "repeat")
    figures.ms("hit_p50_ms", [seconds for seconds, _ in looked_up], at_most=5)
    figures.ms("exact_hit_p50_ms", [repeat for _, repeat in looked_up], at_most=0.2)
    notes += _of_trace(figures, of[trace.KIND])
    results.write(folder, head, figures.all, [*notes, *figures.notes])
    return figures.all


# --- pairs -------------------------------------------------------------------------------------


def _of_pairs(figures: results.Figures, samples: Sequence[Sample], min_same: float, min_cosine: float) -> list[str]:
    same = np.array([sample["same"] for sample in samples])
    # Below that cosine the model isn't asked.
    served = np.array([sample["probability"] if sample["cosine"] >= min_cosine else 0.0 for sample in samples])
    cosine = np.array([sample["cosine"] for sample in samples])
    others = int((~same).sum())
    wrong = int((served[~same] >= min_same).sum())
    hits = served[same] >= min_same
    bound = upper_bound(wrong, others)
    figures.all.append(
        results.figure(
            "wrong_hit_upper95", Estimate(bound, wrong / max(1, others), bound, others), "share", at_most=0.01
        )
    )
    figures.add("paraphrase_hit_rate", hits.astype(float), np.mean, "share", at_least=0.60)
    figures.estimated("auroc", lambda: _area(served, same), "area")
    figures.estimated("auroc_cosine", lambda: _area(cosine, same), "area")
    # As many paraphrases served by the cosine alone: how many others are, too.
    alike = float(np.quantile(cosine[same], 1 - hits.mean())) if hits.any() else 1.0
    figures.add("cosine_wrong_rate_at_same_hit_rate", (cosine[~same] >= alike).astype(float), np.mean, "share")
    for least in USUAL:
        figures.add(f"cosine_{least:.2f}_hit_rate", (cosine[same] >= least).astype(float), np.mean, "share")
        figures.add(f"cosine_{least:.2f}_wrong_rate", (cosine[~same] >= least).astype(float), np.mean, "share")
    rows = [f"| {source} | {of} | {kept} | {n} |" for source, of, kept, n in _by_kind(samples, served >= min_same)]
    return [
        f"{len(samples) - others} pairs that ask the same and {others} that don't, none of a topic that was calibrated on; served "
        f"from a probability of {min_same:.4f} on. `wrong_hit_upper95` is the one-sided upper 95% bound (Clopper and Pearson) of "
        f"{wrong} wrong hits of {others}; its interval begins at the rate itself.",
        "",
        "| source | kind | served | of |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _by_kind(samples: Sequence[Sample], served: NDArray[np.bool_]) -> list[tuple[str, str, int, int]]:
    groups: dict[tuple[str, str], list[bool]] = {}
    for sample, one in zip(samples, served.tolist(), strict=True):
        groups.setdefault((sample["source"], sample["of"]), []).append(one)
    return [(source, of, sum(kept), len(kept)) for (source, of), kept in groups.items()]


def _area(scores: stats.Floats, same: NDArray[np.bool_]) -> Estimate:
    return stats.bootstrap_clusters(range(len(same)), lambda weights: metrics.auroc(scores, same, weights))


# --- trace -------------------------------------------------------------------------------------


def _of_trace(figures: results.Figures, samples: Sequence[Sample]) -> list[str]:
    """Of passes that belong together: the first plain one and the first cached one, and so on."""
    passes: dict[str, list[list[Sample]]] = {"plain": [], "cached": []}
    of_pass: dict[int, list[Sample]] = {}
    for sample in samples:
        of_pass.setdefault(sample["pass"], []).append(sample)
    longest = max(map(len, of_pass.values()), default=0)
    for _, some in sorted(of_pass.items()):
        if len(some) == longest:  # one that was interrupted begins anew
            passes[some[0]["variant"]].append(sorted(some, key=lambda sample: int(sample["place"])))
    both = [
        (plain, cached)
        for one, other in zip(passes["plain"], passes["cached"], strict=False)
        for plain, cached in zip(one, other, strict=True)
    ]
    figures.add("skewed_trace_gain", [(p["seconds"], c["seconds"]) for p, c in both], ratio(), "ratio", at_least=1.3)
    figures.add("trace_hit_rate", [float(cached["hit"]) for _, cached in both], np.mean, "share")
    facts = [
        (p["key_facts"], c["key_facts"]) for p, c in both if p["key_facts"] is not None and c["key_facts"] is not None
    ]
    before, after = [p for p, _ in facts], [c for _, c in facts]
    figures.estimated("trace_key_fact_difference", lambda: paired_bootstrap(before, after), "share")
    if not facts:
        return []
    difference = paired_bootstrap(before, after)
    shown = "is shown" if stats.non_inferiority(difference, MARGIN) else "isn't shown"
    failed = sum(sample["error"] is not None for sample in samples)
    return [
        f"The trace: {len(both)} questions by both, each pass with empty caches; {HOT}. Key facts of the cached pipeline's answers "
        f"less those of the plain one's ({np.mean(before):.3f}): that no more than {MARGIN:g} is lost {shown}. {failed} failed.",
        "",
    ]


HOT = (
    f"{trace.HOT_TOPICS:.0%} of the questions are asked in {trace.HOT_SHARE:.0%} of the cases, in other words each time"
)
