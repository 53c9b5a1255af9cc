"""Statistics of repeated measurements. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval, of n measurements."""

    value: float
    lo: float
    hi: float
    n: int


def bootstrap(
    values: Sequence[float], statistic: Callable[..., NDArray[np.float64]] = np.median, seed: int = 0
) -> Estimate:
    """Percentile bootstrap (Efron 1979). `statistic` takes an array and `axis`. Raises ValueError without values."""
    if len(values) == 0:
        raise ValueError("no values to estimate from")
    sample = np.asarray(values, dtype=np.float64)
    resampled = np.random.default_rng(seed).choice(sample, (RESAMPLES, len(sample)))
    lo, hi = np.quantile(statistic(resampled, axis=1), [0.025, 0.975])
    return Estimate(float(statistic(sample, axis=0)), float(lo), float(hi), len(sample))
