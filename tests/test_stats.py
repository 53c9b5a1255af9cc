"""rag/stats.py: the bootstrap against values known by hand and by formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.stats import (
    Estimate,
    Floats,
    bootstrap,
    bootstrap_clusters,
    difference,
    non_inferiority,
    paired_bootstrap,
    permutation_test,
    power,
    ratio,
    reaches,
    sigmoid,
)

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


# --- two runs of the same questions ----------------------------------------------------------------


def test_a_paired_difference_is_the_second_less_the_first_and_pairs_stay_together() -> None:
    before = [1.0, 5.0, 9.0, 2.0]
    assert paired_bootstrap(before, [value + 0.5 for value in before]) == Estimate(0.5, 0.5, 0.5, 4)
    assert paired_bootstrap([0.0, 0.0], [1.0, 0.0]) == Estimate(0.5, 0.0, 1.0, 2)
    assert paired_bootstrap([1.0, 1.0, 4.0], [2.0, 2.0, 2.0], np.median).value == 1.0


def test_a_paired_difference_is_as_wide_as_that_of_the_differences() -> None:
    source = np.random.default_rng(5)
    before = source.normal(0.0, 3.0, 200)
    after = before + source.normal(0.2, 0.5, 200)
    paired, of_differences = paired_bootstrap(before, after, seed=3), bootstrap(after - before, np.mean, seed=3)
    assert (paired.value, paired.lo, paired.hi) == pytest.approx(
        (of_differences.value, of_differences.lo, of_differences.hi)
    )


def test_a_paired_difference_of_ratios() -> None:
    """1 of 2 and 1 of 2 before, 2 of 2 and 0 of 1 after: 2/3 less 2/4."""
    before, after = [[1.0, 2.0], [1.0, 2.0]], [[2.0, 2.0], [0.0, 1.0]]
    assert paired_bootstrap(before, after, ratio(np.sum)).value == pytest.approx(2 / 3 - 1 / 2)


def test_few_pairs_are_exchanged_in_every_way() -> None:
    """Of the 2**n ways to exchange pairs that all gained, two are as extreme: none exchanged, and all."""
    for count in (1, 2, 5, 12):
        assert permutation_test([0.0] * count, [1.0] * count) == pytest.approx(2 / 2**count)
    assert permutation_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1.0
    # Of two pairs of which each has something on one side alone, half of the ways to exchange them leave one side empty.
    nothing, right, wrong = (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)
    assert permutation_test([right, nothing], [nothing, wrong], ratio(np.sum)) == 1.0


def test_the_exact_p_of_pairs_of_different_sizes() -> None:
    """Gains 3, 2 and -1 sum to 4. Of the eight sums of +-3 +-2 +-1, 6, 4, -4 and -6 are as far from 0."""
    assert permutation_test([0.0, 0.0, 1.0], [3.0, 2.0, 0.0]) == pytest.approx(4 / 8)


def test_the_p_of_many_pairs_is_that_of_the_sign_test_and_of_the_seed() -> None:
    """Of 40 pairs that differ by one, 28 gained: twice P(Bin(40, 1/2) >= 28) = 0.0166."""
    before, after = [0.0] * 28 + [1.0] * 12, [1.0] * 28 + [0.0] * 12
    exact = 2 * sum(math.comb(40, k) for k in range(28, 41)) / 2**40
    assert permutation_test(before, after) == pytest.approx(exact, abs=0.004)
    assert permutation_test(before, after) == permutation_test(before, after)
    assert permutation_test(before, after, seed=1) != permutation_test(before, after)


def test_the_p_of_ratios_exchanges_whole_rows() -> None:
    before, after = [[0.0, 1.0], [0.0, 3.0]], [[1.0, 1.0], [3.0, 3.0]]
    assert permutation_test(before, after, ratio(np.sum)) == pytest.approx(0.5), "of four ways two are as extreme"


def test_the_p_is_even_where_nothing_differs_in_truth() -> None:
    source = np.random.default_rng(8)
    found = [permutation_test(*source.normal(size=(2, 10))) for _ in range(200)]
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.10
    assert 0.40 <= np.mean(found) <= 0.60


@pytest.mark.parametrize(
    ("lo", "n", "shown"),
    [
        (-0.0999, 120, True),
        (-0.1, 120, False),
        (-0.2, 120, False),
        (0.05, 120, True),
        (0.0, 36, True),
        (0.0, 35, False),
    ],
)
def test_no_loss_is_shown_by_an_interval_above_the_margin_and_by_enough_pairs(lo: float, n: int, shown: bool) -> None:
    assert non_inferiority(Estimate(0.1, lo, 0.2, n), 0.10) is shown


@pytest.mark.parametrize(("lo", "n", "shown"), [(1.0, 6, True), (1.2, 5, False), (0.999, 60, False)])
def test_a_ratio_is_shown_to_reach_a_value_by_its_interval_and_by_six_rounds(lo: float, n: int, shown: bool) -> None:
    assert reaches(lo, n, 1.0) is shown


def test_a_smaller_margin_takes_more_pairs() -> None:
    equal = [Estimate(0.0, 0.0, 0.0, n) for n in (71, 72)]
    assert [non_inferiority(estimate, 0.05) for estimate in equal] == [False, True], "0.95 ** 72 = 0.0249"


def test_the_power_of_an_interval_as_wide_as_the_margin_is_one_half() -> None:
    assert power(Estimate(-0.3, -0.4, -0.2, 120), 0.10) == pytest.approx(0.5), "whatever was found"
    assert power(Estimate(0.0, -0.05, 0.05, 120), 0.10) == pytest.approx(0.975), "1.96 standard errors more"
    assert power(Estimate(0.0, 0.0, 0.0, 120), 0.10) == 1.0
    assert power(Estimate(0.0, 0.0, 0.0, 20), 0.10) == 0.0


def test_the_power_is_how_often_equal_runs_are_shown_to_be_so() -> None:
    """Runs of 120 questions that differ by 0.6 at random: by the formula 0.45 of them are shown to lose less than 0.10."""
    source = np.random.default_rng(2)
    estimates = [paired_bootstrap(np.zeros(120), source.normal(0.0, 0.6, 120)) for _ in range(80)]
    assert np.mean([power(one, 0.10) for one in estimates]) == pytest.approx(0.446, abs=0.03)
    assert np.mean([non_inferiority(one, 0.10) for one in estimates]) == pytest.approx(0.446, abs=0.12)


def test_a_loss_of_the_margin_is_called_none_in_one_of_forty_runs() -> None:
    source = np.random.default_rng(4)
    estimates = [paired_bootstrap(np.zeros(120), source.normal(-0.10, 0.4, 120)) for _ in range(120)]
    assert sum(non_inferiority(one, 0.10) for one in estimates) <= 8


def test_a_logit_of_any_size_stands_for_a_probability() -> None:
    found = sigmoid(np.array([-1e4, -2.0, 0.0, 1e4]))
    assert found.tolist() == pytest.approx([0, 1 / (1 + math.exp(2)), 0.5, 1])
