"""rag/stats.py: the bootstrap against values known by hand and by formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.stats import Estimate, Floats, bootstrap, bootstrap_clusters, difference, ratio

SAMPLES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20)


def test_the_value_is_the_statistic_of_the_sample_itself() -> None:
    assert bootstrap([5.0, 1.0, 3.0]).value == 3.0
    assert bootstrap([1.0, 2.0, 4.0, 100.0]).value == 3.0
    assert bootstrap([1.0, 2.0, 6.0], np.mean).value == 3.0
    assert bootstrap([1.0, 2.0, 6.0]).n == 3


@pytest.mark.parametrize("values", [[2.5], [2.5] * 7])
def test_a_sample_without_spread_has_an_interval_without_width(values: list[float]) -> None:
    assert bootstrap(values) == Estimate(2.5, 2.5, 2.5, len(values))


def test_the_interval_of_two_values_reaches_from_one_to_the_other() -> None:
    """Of the four equally likely resamples, one is all low and one all high: a quarter each, above 2.5%."""
    assert bootstrap([1.0, 2.0]) == Estimate(1.5, 1.0, 2.0, 2)
    assert bootstrap([1.0, 2.0], np.mean) == Estimate(1.5, 1.0, 2.0, 2)


def test_an_extreme_that_is_the_median_of_few_resamples_lies_outside_the_interval() -> None:
    """An extreme of nine values is the median of a resample with probability P(Bin(9, 1/9) >= 5) = 0.14%,
    one of the two lowest with P(Bin(9, 2/9) >= 5) = 3.0%, above the 2.5% where the interval begins."""
    estimate = bootstrap([float(number) for number in range(1, 10)])
    assert (estimate.value, estimate.lo, estimate.hi) == (5.0, 2.0, 8.0)


def test_the_interval_of_a_mean_is_as_wide_as_the_normal_approximation_says() -> None:
    values = np.random.default_rng(7).normal(10.0, 2.0, 400)
    half = 1.96 * values.std() / math.sqrt(400)
    estimate = bootstrap(list(values), np.mean)
    assert estimate.hi - estimate.lo == pytest.approx(2 * half, rel=0.05)
    assert estimate.value - estimate.lo == pytest.approx(half, rel=0.1)
    assert estimate.hi - estimate.value == pytest.approx(half, rel=0.1)


def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty() -> None:
    source = np.random.default_rng(3)
    estimates = [bootstrap(list(source.normal(0.0, 1.0, 40)), np.mean) for _ in range(200)]
    covering = sum(estimate.lo <= 0.0 <= estimate.hi for estimate in estimates)
    assert 180 <= covering <= 197


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = list(np.random.default_rng(1).normal(size=31))
    assert bootstrap(values, np.mean) == bootstrap(values, np.mean)
    assert bootstrap(values, np.mean, seed=4) == bootstrap(values, np.mean, seed=4)
    assert bootstrap(values, np.mean, seed=4).lo != bootstrap(values, np.mean).lo


def test_the_global_random_state_plays_no_part() -> None:
    np.random.seed(5)
    undisturbed = np.random.random()
    np.random.seed(5)
    bootstrap([1.0, 2.0, 3.0, 5.0, 8.0])
    assert np.random.random() == undisturbed


def test_an_estimate_is_of_plain_numbers() -> None:
    estimate = bootstrap([1, 2, 3])
    assert [type(part) for part in (estimate.value, estimate.lo, estimate.hi, estimate.n)] == [float, float, float, int]


@given(values=SAMPLES)
@settings(max_examples=25, deadline=None)
def test_the_interval_lies_inside_the_sample_and_around_its_median(values: list[float]) -> None:
    estimate = bootstrap(values)
    assert min(values) <= estimate.lo <= estimate.value <= estimate.hi <= max(values)
    assert estimate.n == len(values)


@given(values=SAMPLES)
@settings(max_examples=25, deadline=None)
def test_other_units_give_the_same_estimate_in_other_units(values: list[float]) -> None:
    once, eightfold = bootstrap(values), bootstrap([8 * value for value in values])
    assert (eightfold.value, eightfold.lo, eightfold.hi) == (8 * once.value, 8 * once.lo, 8 * once.hi)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nothing_has_no_estimate() -> None:
    with pytest.raises(ValueError, match=r"empty|no "):
        bootstrap([])


# --- rows and clusters ---------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_means_and_rows_stay_together() -> None:
    """Each row's second number is half of its first, and so it stays in every resample."""
    assert bootstrap([[2.0, 1.0], [10.0, 5.0], [4.0, 2.0]], ratio()) == Estimate(2.0, 2.0, 2.0, 3)
    assert bootstrap([[1.0, 4.0], [5.0, 2.0]], ratio()).value == 1.0
    assert bootstrap([[1.0, 2.0], [9.0, 2.0], [3.0, 1.0]], ratio(np.median)).value == 1.5


def test_a_difference_is_that_of_the_means() -> None:
    estimate = bootstrap([[1.0, 0.0], [1.0, 1.0]], difference)
    assert estimate == Estimate(0.5, 0.0, 1.0, 2)


def test_resamples_without_a_ratio_are_left_out_and_a_sample_without_one_is_an_error() -> None:
    assert bootstrap([[1.0, 0.0], [1.0, 1.0]], ratio()) == Estimate(2.0, 1.0, 2.0, 2)
    with pytest.raises(ValueError, match="is inf"):
        bootstrap([[1.0, 0.0], [1.0, 0.0]], ratio())


def mean_of(values: list[float]) -> Callable[[Floats], Floats]:
    return lambda weights: (weights @ np.array(values)) / weights.sum(axis=1)


def test_a_cluster_of_its_own_for_each_is_the_plain_bootstrap() -> None:
    values = list(np.random.default_rng(2).normal(size=60))
    plain, clustered = bootstrap(values, np.mean), bootstrap_clusters(range(60), mean_of(values))
    assert clustered.value == pytest.approx(plain.value)
    assert (clustered.lo, clustered.hi, clustered.n) == pytest.approx((plain.lo, plain.hi, 60), abs=0.02)


def test_what_is_drawn_together_counts_once() -> None:
    """Ten copies of each value know no more than one of each: plain, the interval would be a third as wide."""
    values = list(np.random.default_rng(2).normal(size=60))
    alone = bootstrap(values, np.mean)
    copied = bootstrap_clusters([*range(60)] * 10, mean_of(values * 10))
    assert copied.hi - copied.lo == pytest.approx(alone.hi - alone.lo, rel=0.05)
    assert copied.n == 600


def test_clusters_may_have_any_number() -> None:
    values = [1.0, 5.0, 2.0, 8.0]
    assert bootstrap_clusters([7, 90, 7, 3], mean_of(values)) == bootstrap_clusters([1, 2, 1, 0], mean_of(values))


def test_one_cluster_has_an_interval_without_width_and_none_is_an_error() -> None:
    assert bootstrap_clusters([4, 4], mean_of([1.0, 3.0])) == Estimate(2.0, 2.0, 2.0, 2)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_clusters([], mean_of([]))
