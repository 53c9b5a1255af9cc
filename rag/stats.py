"""Statistics of repeated measurements. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
AT_ONCE = 250
"""Resamples that are held in memory together."""

ALPHA = 0.025
"""Of a one-sided test: what lies outside a 95% interval on one side."""

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval, of n measurements."""

    value: float
    lo: float
    hi: float
    n: int


def bootstrap(
    values: Sequence[float] | Sequence[Sequence[float]] | Floats,
    statistic: Callable[..., Floats] = np.median,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap (Efron 1979). `statistic` takes an array and the `axis` of the measurements.

    A measurement may be a row of several numbers that were taken together, and stay together: shape (n, columns);
    see `ratio` and `difference`. Resamples in which the statistic isn't finite are left out. Raises ValueError
    without values, or where it isn't finite for the sample itself.
    """
    if len(values) == 0:
        raise ValueError("no values to estimate from")
    sample = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [statistic(random.choice(sample, (AT_ONCE, len(sample))), axis=1) for _ in range(0, RESAMPLES, AT_ONCE)]
        return _estimate(float(statistic(sample, axis=0)), np.concatenate(found), len(sample))


def bootstrap_clusters(
    clusters: Sequence[int] | Sequence[str] | NDArray[Any], statistic: Callable[[Floats], Floats], seed: int = 0
) -> Estimate:
    """Percentile bootstrap of measurements of which some resemble one another: those of a cluster are drawn together
    (Davison and Hinkley 1997, section 3.8). `clusters` names that of each measurement.

    `statistic` takes weights of shape (resamples, n), how often each measurement was drawn, and returns shape
    (resamples,). Otherwise as `bootstrap`.
    """
    if len(clusters) == 0:
        raise ValueError("no values to estimate from")
    names, of = np.unique(np.asarray(clusters), return_inverse=True)
    count = len(names)
    random = np.random.default_rng(seed)
    offsets = np.arange(AT_ONCE)[:, None] * count
    found = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        drawn = random.integers(count, size=(AT_ONCE, count)) + offsets
        times = np.bincount(drawn.ravel(), minlength=AT_ONCE * count).reshape(AT_ONCE, count)
        found.append(statistic(times[:, of].astype(np.float64)))
    return _estimate(float(statistic(np.ones((1, len(of))))[0]), np.concatenate(found), len(of))


def upper_bound(count: int, of: int) -> float:
    """One-sided upper 95% bound of a share of which `count` were seen in `of` (Clopper and Pearson 1934)."""
    from scipy import stats

    return 1.0 if count >= of else float(stats.beta.ppf(0.95, count + 1, of - count))


# --- two runs of the same questions -----------------------------------------------------------------


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, statistic: Callable[..., Floats] = np.mean, seed: int = 0
) -> Estimate:
    """How much higher the statistic is `after` than `before`, of measurements that belong together by their place: pairs
    are drawn, not measurements. Otherwise as `bootstrap`."""

    def gain(pairs: Floats, axis: int) -> Floats:
        first, second = np.moveaxis(pairs, axis + 1, 0)
        return statistic(second, axis=axis) - statistic(first, axis=axis)

    return bootstrap(np.stack([np.asarray(before), np.asarray(after)], axis=1), gain, seed)


def permutation_test(
    before: ArrayLike, after: ArrayLike, statistic: Callable[..., Floats] = np.mean, seed: int = 0
) -> float:
    """Two-sided p of a difference at least as large, were the two of each pair exchangeable (Good 2005, section 3.2).

    Exact as long as there are no more than `RESAMPLES` ways to exchange them, so up to 13 pairs; else of as many drawn ones.
    """
    from scipy import stats

    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    count = len(first)
    if count == 1:  # both ways to exchange one pair are equally far from 0, and SciPy wants two
        return 1.0
    both = np.concatenate([first, second])

    def gain(of_before: NDArray[np.int64], of_after: NDArray[np.int64], axis: int) -> Floats:
        del axis  # the last one of both
        at = of_after.ndim - 1
        return statistic(both[of_after], axis=at) - statistic(both[of_before], axis=at)

    with np.errstate(divide="ignore", invalid="ignore"):
        found = stats.permutation_test(
            (np.arange(count), np.arange(count, 2 * count)),  # places, since a measurement may be a row
            gain,
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=AT_ONCE,
            axis=-1,
            rng=np.random.default_rng(seed),
        )
    # A relabelling that leaves nothing to take the statistic from tells nothing, and is no way to exchange them.
    undefined = np.isnan(found.null_distribution)
    return min(1.0, float(found.pvalue) * len(undefined) / max(1, len(undefined) - int(undefined.sum())))


def non_inferiority(difference: Estimate, margin: float) -> bool:
    """Is it shown, at the one-sided level `ALPHA`, that nothing was lost beyond the `margin` (of a share, 0 to 1)?

    It is where the whole 95% interval lies above `-margin`. Where hardly a pair differs, an interval of resamples has no
    width however few there are. So there also have to be enough pairs that a loss of the margin would have been seen in one
    of them, were it in as few as can make it up: `(1 - margin) ** n <= ALPHA`, which is 36 pairs for 0.10.
    """
    return difference.lo > -margin and _enough(difference.n, margin)


def power(difference: Estimate, margin: float) -> float:
    """Probability that `non_inferiority` is shown by as many pairs that differ as much, were there no difference between the
    two in truth. Normal approximation (Julious, Statistics in Medicine 23, 2004), of the interval's width."""
    from scipy import stats

    if not _enough(difference.n, margin):
        return 0.0
    limit = float(stats.norm.isf(ALPHA))
    error = (difference.hi - difference.lo) / (2 * limit)
    return float(stats.norm.cdf(margin / error - limit)) if error > 0 else 1.0


def reaches(lo: float, n: int, least: float) -> bool:
    """Is it shown, at the one-sided level `ALPHA`, by `n` rounds of whose interval `lo` is the lower end, that they come to no less
    than `least`? An interval of resamples of a few rounds is narrow wherever they lie; so there also have to be so many that they
    wouldn't all lie above it by chance: six (sign test)."""
    return lo >= least and _enough(n, 0.5)


def pairs_needed(margin: float, alpha: float = ALPHA) -> int:
    """Pairs below which nothing is shown of a margin, see `non_inferiority`: were so large a share otherwise, none of fewer might be,
    with a probability above `alpha`."""
    return math.ceil(math.log(alpha) / math.log1p(-margin))


def _enough(pairs: int, margin: float) -> bool:
    return pairs >= pairs_needed(margin)


# --- statistics -------------------------------------------------------------------------------------


def ratio(of: Callable[..., Any] = np.mean) -> Callable[..., Floats]:
    """A statistic of rows of two: that of the first column over that of the second."""

    def statistic(rows: Floats, axis: int) -> Floats:
        found: Floats = of(rows, axis=axis)
        quotient: Floats = found[..., 0] / found[..., 1]
        return quotient

    return statistic


def difference(rows: Floats, axis: int) -> Floats:
    """A statistic of rows of two: the mean of the first column less that of the second."""
    found: Floats = rows.mean(axis=axis)
    less: Floats = found[..., 0] - found[..., 1]
    return less


def quantile(share: float) -> Callable[..., Floats]:
    """A statistic: the value that this share of the measurements lies below."""

    def statistic(values: Floats, axis: int) -> Floats:
        found: Floats = np.quantile(values, share, axis=axis)
        return found

    return statistic


p90, p95, p99 = (quantile(share) for share in (0.90, 0.95, 0.99))


def _estimate(value: float, resampled: Floats, n: int) -> Estimate:
    if not np.isfinite(value):
        raise ValueError(f"the statistic of the sample is {value}")
    lo, hi = np.quantile(resampled[np.isfinite(resampled)], [0.025, 0.975])
    return Estimate(value, float(lo), float(hi), n)


def of_best(values: Floats) -> Floats:
    """Each over the highest, shape (n,); all 0 where none is above it."""
    best = values.max(initial=0.0)
    return values / best if best > 0 else np.zeros_like(values)


def logit(probabilities: Floats) -> Floats:
    """What `sigmoid` makes these of: without bounds for 0 and 1."""
    with np.errstate(divide="ignore"):
        logits: Floats = np.log(probabilities) - np.log1p(-probabilities)
    return logits


def sigmoid(logits: Floats) -> Floats:
    """The probabilities that they stand for, without overflow."""
    probabilities: Floats = 0.5 + 0.5 * np.tanh(0.5 * logits)
    return probabilities
