"""Figures of the query cache from its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag import metrics, stats
from rag.bench import results
from rag.bench.results import Sample
from rag.figures import Figure, markdown
from rag.stats import Estimate, ratio, upper_bound
from rag.variants.caching import latency, pairs, trace

BENCH = "cache"

USUAL = (0.80, 0.85, 0.90, 0.95)
"""Thresholds of a cosine that caches are shipped with."""

MARGIN = 0.10


def summarise(folder: Path) -> list[Figure]:
    """Raises `UsageError` where there is no pair."""
    head, samples = results.Samples(folder).of(BENCH)
    of = results.by_kind(samples, (pairs.KIND, latency.KIND, trace.KIND))
    if not of[pairs.KIND]:
        raise results.lacking("pair", folder / results.SAMPLES)
    figures = results.Figures()
    settings = head["settings"]
    notes = _of_pairs(figures, of[pairs.KIND], settings["min_same"], settings["min_cosine"])
    looked_up = results.columns((sample for sample in of[latency.KIND] if sample["hit"]), "seconds", "repeat")
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
    figures.all.append(_bound("wrong_hit_upper95", wrong, others, at_most=0.01))
    topics = np.array([sample["topic"] or f"{sample['source']} {number}" for number, sample in enumerate(samples)])
    figures.estimated("paraphrase_hit_rate", lambda: _share(hits, topics[same]), "share", at_least=0.60)
    figures.estimated("auroc", lambda: _area(served, same, topics), "area")
    figures.estimated("auroc_cosine", lambda: _area(cosine, same, topics), "area")
    # As many paraphrases served by the cosine alone: how many others are, too.
    alike = float(np.quantile(cosine[same], 1 - hits.mean())) if hits.any() else 1.0
    wrongly = partial(_share, cosine[~same] >= alike, topics[~same])
    figures.estimated("cosine_wrong_rate_at_same_hit_rate", wrongly, "share")
    for least in USUAL:
        for name, rows in (("hit", same), ("wrong", ~same)):
            figures.estimated(
                f"cosine_{least:.2f}_{name}_rate", partial(_share, cosine[rows] >= least, topics[rows]), "share"
            )
    for source in sorted({sample["source"] for sample in samples if not sample["same"]}):
        rows = ~same & np.array([sample["source"] == source for sample in samples])
        some = int((served[rows] >= min_same).sum())
        figures.all.append(_bound(f"wrong_hit_upper95@{source}", some, int(rows.sum())))
    return [
        f"{len(samples) - others} pairs that ask the same and {others} that don't, none of a topic that was calibrated on; served "
        f"from a probability of {min_same:.4f} on. `wrong_hit_upper95` is the one-sided upper 95% bound (Clopper and Pearson) of "
        f"{wrong} wrong hits of {others}, as if no two were of one topic, and beside it that of each source; its interval begins at "
        "the rate itself. Those of other figures are by topic.",
        "",
        *markdown(("source", "kind", "served", "of"), _by_kind(samples, served >= min_same)),
        "",
    ]


def _bound(name: str, wrong: int, of: int, at_most: float | None = None) -> Figure:
    bound = upper_bound(wrong, of)
    return results.figure(name, Estimate(bound, wrong / max(1, of), bound, of), "share", at_most=at_most)


def _by_kind(samples: Sequence[Sample], served: NDArray[np.bool_]) -> list[tuple[str, str, int, int]]:
    groups: dict[tuple[str, str], list[bool]] = {}
    for sample, one in zip(samples, served.tolist(), strict=True):
        groups.setdefault((sample["source"], sample["of"]), []).append(one)
    return [(source, of, sum(kept), len(kept)) for (source, of), kept in groups.items()]


def _area(scores: stats.Floats, same: NDArray[np.bool_], topics: NDArray[np.str_]) -> Estimate:
    return stats.bootstrap_clusters(topics, lambda weights: metrics.auroc(scores, same, weights))


def _share(hits: NDArray[np.bool_], topics: NDArray[np.str_]) -> Estimate:
    return stats.bootstrap_clusters(topics, lambda weights: (weights * hits).sum(axis=1) / weights.sum(axis=1))


# --- trace -------------------------------------------------------------------------------------


def _of_trace(figures: results.Figures, samples: Sequence[Sample]) -> list[str]:
    """Of whole passes; what is asked twice by one pipeline, at the same place of two passes, is one measurement, its mean."""
    of_pass: dict[int, list[Sample]] = {}
    for sample in samples:
        of_pass.setdefault(sample["pass"], []).append(sample)
    longest = max(map(len, of_pass.values()), default=0)
    whole = [sample for some in of_pass.values() if len(some) == longest for sample in some]
    by_variant = {name: _by_place([s for s in whole if s["variant"] == name]) for name in ("plain", "cached")}
    both = [
        (by_variant["plain"][place], cached)
        for place, cached in by_variant["cached"].items()
        if place in by_variant["plain"]
    ]
    seconds = [
        (plain.seconds, cached.seconds)
        for plain, cached in both
        if plain.seconds is not None and cached.seconds is not None
    ]
    figures.add("skewed_trace_gain", seconds, ratio(), "ratio", at_least=1.3)
    figures.add("trace_hit_rate", [cached.hit for _, cached in both], np.mean, "share")
    facts = [
        (plain.id, plain.key_facts, cached.key_facts)
        for plain, cached in both
        if plain.key_facts is not None and cached.key_facts is not None
    ]
    figures.estimated("trace_key_fact_difference", lambda: _lost(facts), "share")
    if not facts:
        return []
    difference, before = _lost(facts), np.mean([before for _, before, _ in facts])
    shown = "is shown" if stats.non_inferiority(difference, MARGIN) else "isn't shown"
    failed = sum(sample["error"] is not None for sample in samples)
    return [
        f"The trace: {len(both)} questions by both, each pass with empty caches; {HOT}. Key facts of the cached pipeline's answers "
        f"less those of the plain one's ({before:.3f}), by question: that no more than {MARGIN:g} is lost {shown}. "
        f"{failed} failed, and count for the facts alone. Intervals of time and hits are over the places of this very trace.",
        "",
    ]


def _lost(facts: Sequence[tuple[str, float, float]]) -> Estimate:
    """Of the question's id, and key facts before and after. Wordings of one question are answered alike: they are drawn together."""
    names = [name for name, _, _ in facts]
    more = np.array([after - before for _, before, after in facts])
    found = stats.bootstrap_clusters(names, lambda weights: (weights * more).sum(axis=1) / weights.sum(axis=1))
    return replace(found, n=len(set(names)))


@dataclass(frozen=True, slots=True)
class Place:
    """A place of the trace: means over the passes. `id` is the question's; no `seconds` where it failed, however fast."""

    id: str
    seconds: float | None
    hit: float
    key_facts: float | None


def _by_place(samples: Sequence[Sample]) -> dict[int, Place]:
    places: dict[int, list[Sample]] = {}
    for sample in samples:
        places.setdefault(sample["place"], []).append(sample)
    return {
        place: Place(
            some[0]["id"],
            None if any(one["error"] for one in some) else float(np.mean([one["seconds"] for one in some])),
            float(np.mean([one["hit"] for one in some])),
            None if some[0]["key_facts"] is None else float(np.mean([one["key_facts"] or 0.0 for one in some])),
        )
        for place, some in sorted(places.items())
    }


HOT = (
    f"{trace.HOT_TOPICS:.0%} of the questions are asked in {trace.HOT_SHARE:.0%} of the cases, in other words each time"
)
