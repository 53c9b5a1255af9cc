"""Quality of ranked lists and of scores. Pure.

What takes `weights`, one for each score, takes them of shape (..., n) and returns shape (...): how often each score
stands in each of many resamples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
    best = sum(1 / log2(rank + 1) for rank in range(1, min(relevant, k) + 1))
    return sum(1 / log2(rank + 1) for rank in ranks if rank <= k) / best


def hit(ranks: Iterable[int], k: int) -> float:
    """1.0 where a relevant one is among the first k, else 0.0."""
    return float(any(rank <= k for rank in ranks))


def recall(found: Iterable[str], relevant: Collection[str]) -> float:
    """The share of the relevant ones that is among those found. Raises ZeroDivisionError where there are none."""
    wanted = frozenset(relevant)
    return len(wanted & frozenset(found)) / len(wanted)


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
