"""Statistics of repeated measurements. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
AT_ONCE = 250
"""Resamples of clusters that are held in memory together."""

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval, of n measurements."""

    value: float
    lo: float
    hi: float
    n: int


def bootstrap(
    values: Sequence[float] | Sequence[Sequence[float]],
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
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = np.random.default_rng(seed).choice(sample, (RESAMPLES, len(sample)))
        return _estimate(float(statistic(sample, axis=0)), statistic(resampled, axis=1), len(sample))


def bootstrap_clusters(
    clusters: Sequence[int] | NDArray[np.int64], statistic: Callable[[Floats], Floats], seed: int = 0
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


def p99(values: Floats, axis: int) -> Floats:
    """A statistic: the 99th percentile."""
    found: Floats = np.quantile(values, 0.99, axis=axis)
    return found


def _estimate(value: float, resampled: Floats, n: int) -> Estimate:
    if not np.isfinite(value):
        raise ValueError(f"the statistic of the sample is {value}")
    lo, hi = np.quantile(resampled[np.isfinite(resampled)], [0.025, 0.975])
    return Estimate(value, float(lo), float(hi), n)
