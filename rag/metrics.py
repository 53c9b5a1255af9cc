"""Quality of ranked lists, of texts against a reference, and of scores. Pure.

What takes `weights`, one for each score, takes them of shape (..., n) and returns shape (...): how often each score
stands in each of many resamples.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import log2

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDING = 1e-9
"""Sums of weights are compared with a share of their total, which may not be a binary fraction."""


def ranks(found: Iterable[str], relevant: Iterable[str]) -> list[int]:
    """Where in a ranked list the relevant ones stand, from 1. One that stands there several times counts each time."""
    wanted = frozenset(relevant)
    return [rank for rank, name in enumerate(found, start=1) if name in wanted]


def ndcg(ranks: Iterable[int], relevant: int, k: int) -> float:
    """nDCG@k (Jarvelin and Kekalainen, TOIS 20, 2002) where a passage is relevant or isn't: the sum of 1 / log2(rank + 1)
    over the relevant ones among the first k, over that of a list that begins with all of the `relevant` ones there are.
    Raises ValueError where there are none."""
    if relevant < 1:
        raise ValueError(f"nDCG of a question with {relevant} relevant passages")
    return sum(1 / log2(rank + 1) for rank in ranks if rank <= k) / _discounted([1] * min(relevant, k))


def graded_ndcg(found: Iterable[str], grades: Mapping[str, int], k: int) -> float:
    """nDCG@k of a list that names each document once, by grades of relevance from 1, as trec_eval's `ndcg_cut` has it: a
    grade is the gain, divided by log2(rank + 1). Raises ValueError where nothing is relevant."""
    best = _discounted(sorted(grades.values(), reverse=True)[:k])
    if best == 0:
        raise ValueError("nDCG of a question to which nothing is relevant")
    return _discounted([grades.get(name, 0) for name in found][:k]) / best


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def reciprocal_rank(ranks: Iterable[int]) -> float:
    """Of the first relevant one; 0.0 where there is none. Its mean over questions is the MRR."""
    return max((1 / rank for rank in ranks), default=0.0)


def hit(ranks: Iterable[int], k: int) -> float:
    """1.0 where a relevant one is among the first k, else 0.0."""
    return float(any(rank <= k for rank in ranks))


def recall(found: Iterable[str], relevant: Collection[str]) -> float:
    """The share of the relevant ones that is among those found. Raises ZeroDivisionError where there are none."""
    wanted = frozenset(relevant)
    return len(wanted & frozenset(found)) / len(wanted)


# --- texts against a reference --------------------------------------------------------------------


def key_facts_found(text: str, facts: Iterable[Iterable[str]]) -> list[bool]:
    """Of each fact, whether one of its accepted variants stands in the text, whatever its capitals and white space."""
    plain = _plain(text)
    return [any(_plain(variant) in plain for variant in variants) for variants in facts]


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin, ACL workshop 2004), words as Google's rouge-score has them without
    stemming: runs of a-z and 0-9 in small letters. 0.0 where one of the two has none."""
    ours, theirs = _words(text), _words(reference)
    if not ours or not theirs:
        return 0.0
    return 2 * _longest_common(ours, theirs) / (len(ours) + len(theirs))


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by rows of the usual table."""
    above = [0] * (len(second) + 1)
    for one in first:
        row = [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if one == other else max(above[column + 1], row[column]))
        above = row
    return above[-1]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


# --- scores ---------------------------------------------------------------------------------------


def risk_coverage(confidence: ArrayLike, wrong: ArrayLike, weights: ArrayLike = 1.0) -> tuple[NDArray[np.float64], ...]:
    """The risk-coverage curve (El-Yaniv and Wiener, JMLR 11, 2010), a point for each confidence that occurs, highest first:
    that confidence, the share that has it or a higher one, and the share of those that are wrong."""
    values, losses = np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    weighted = _of_each(weights, values)[..., order]
    last = np.flatnonzero(np.diff(values[order], append=-np.inf) < 0)
    covered = np.cumsum(weighted, axis=-1)[..., last]
    with np.errstate(invalid="ignore"):
        risk = np.cumsum(weighted * losses[order], axis=-1)[..., last] / covered
        return values[order][last], covered / covered[..., -1:], risk


def aurc(confidence: ArrayLike, wrong: ArrayLike, weights: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Area under the risk-coverage curve: the mean risk over the coverages that there are (Geifman, Uziel and El-Yaniv, ICLR
    2019); those of one confidence are covered together. Low is good; NaN where all weights are 0."""
    _, coverage, risk = risk_coverage(confidence, wrong, weights)
    steps = np.diff(coverage, prepend=0.0)
    area: NDArray[np.float64] = np.where(steps > 0, steps * risk, 0.0).sum(axis=-1) + 0 * coverage[..., -1]
    return area


def auroc(scores: ArrayLike, positive: ArrayLike, weights: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Area under the ROC curve: the share of pairs of a positive and a negative in which the positive has the higher score,
    ties counting half (Hanley and McNeil, Radiology 143, 1982). NaN where there is no such pair."""
    values, positives = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    order = np.argsort(values, kind="stable")
    weighted = _of_each(weights, values)[..., order]
    # One column for each score that occurs, lowest first.
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0)
    above = np.add.reduceat(weighted * positives[order], starts, axis=-1)
    below = np.add.reduceat(weighted * ~positives[order], starts, axis=-1)
    lower = np.cumsum(below, axis=-1) - below
    wins = (above * (lower + below / 2)).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        area: NDArray[np.float64] = wins / (above.sum(axis=-1) * below.sum(axis=-1))
    return area


def threshold(scores: ArrayLike, share: float, weights: ArrayLike = 1.0) -> NDArray[np.float64]:
    """The highest of the scores that no more than `share` of them, by weight, lie below. NaN where all weights are 0."""
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(_of_each(weights, values)[..., order], axis=-1)
    total = upto[..., -1]
    reached = upto > share * total[..., None] + ROUNDING
    found: NDArray[np.float64] = np.where(total > 0, values[order][np.argmax(reached, axis=-1)], np.nan)
    return found


def share_below(scores: ArrayLike, limit: ArrayLike, weights: ArrayLike = 1.0) -> NDArray[np.float64]:
    """The share of the scores, by weight, below a limit of shape (...). NaN where all weights are 0."""
    values = np.asarray(scores, dtype=np.float64)
    weighted = _of_each(weights, values)
    with np.errstate(invalid="ignore"):
        share: NDArray[np.float64] = (weighted * (values < np.asarray(limit)[..., None])).sum(axis=-1) / weighted.sum(
            axis=-1
        )
    return share


def _of_each(weights: ArrayLike, values: NDArray[np.float64]) -> NDArray[np.float64]:
    given = np.asarray(weights, dtype=np.float64)
    return np.broadcast_to(given, np.broadcast_shapes(given.shape, values.shape))
