"""rag/metrics.py: against values computed by hand, and against the definitions, pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.metrics import auroc, hit, ndcg, ranks, recall, share_below, threshold

TIED = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30)
"""(score, positive, weight), with ties."""


def test_ranks_begin_at_one_and_count_every_time_a_relevant_one_is_found() -> None:
    assert ranks(["b", "a", "c", "a"], {"a", "z"}) == [2, 4]
    assert ranks([], {"a"}) == []


def test_ndcg_of_a_list_that_was_computed_by_hand() -> None:
    """Two of three relevant ones, at 2 and 3: (1/log2(3) + 1/log2(4)) / (1 + 1/log2(3) + 1/log2(4))."""
    assert ndcg([2, 3], 3, 10) == pytest.approx((0.63093 + 0.5) / (1 + 0.63093 + 0.5), abs=1e-5)


def test_ndcg_is_one_where_nothing_could_be_better_and_counts_no_rank_beyond_k() -> None:
    assert ndcg([1, 2, 3], 3, 10) == 1.0
    assert ndcg([1, 2], 7, 2) == 1.0, "more are relevant than fit"
    assert ndcg([11], 1, 10) == ndcg([], 1, 10) == 0.0
    assert ndcg([10], 1, 10) == pytest.approx(1 / math.log2(11))


def test_ndcg_of_a_question_that_nothing_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 relevant"):
        ndcg([], 0, 10)


def test_a_hit_is_among_the_first_k() -> None:
    assert [hit([3, 9], k) for k in (2, 3, 10)] == [0.0, 1.0, 1.0]
    assert hit([], 10) == 0.0


def test_recall_is_the_share_of_the_relevant_ones_whatever_else_is_found() -> None:
    assert recall(["a", "x", "a", "y"], ["a", "b"]) == 0.5
    assert recall([], {"a"}) == 0.0
    with pytest.raises(ZeroDivisionError):
        recall(["a"], [])


def test_auroc_counts_the_pairs_that_are_in_order_and_half_of_those_that_tie() -> None:
    """Positives 3, 2; negatives 1, 2, 4: of six pairs 3 > 1, 3 > 2 and 2 > 1 are in order, 2 and 2 tie."""
    assert auroc([3, 2, 1, 2, 4], [True, True, False, False, False]) == pytest.approx(3.5 / 6)
    assert auroc([1, 0], [True, False]) == 1.0
    assert auroc([1, 0], [False, True]) == 0.0


def test_auroc_without_both_kinds_is_undefined() -> None:
    assert math.isnan(auroc([1, 2], [True, True]))
    assert np.isnan(auroc([1, 2], [True, False], [[1, 0], [1, 1]])).tolist() == [True, False]


@given(TIED)
def test_auroc_is_its_definition(rows: list[tuple[int, bool, int]]) -> None:
    scores, positive, weights = (list(column) for column in zip(*rows, strict=True))
    pairs = [
        (w * v, 1.0 if a > b else 0.5 if a == b else 0.0)
        for a, up, w in rows
        if up
        for b, other, v in rows
        if not other
    ]
    total = sum(weight for weight, _ in pairs)
    expected = sum(weight * won for weight, won in pairs) / total if total else math.nan
    assert auroc(scores, positive, weights) == pytest.approx(expected, nan_ok=True)


def test_the_threshold_is_the_highest_that_leaves_few_enough_below() -> None:
    scores = [0.9, 0.1, 0.5, 0.7, 0.3, *[0.95] * 15]
    assert threshold(scores, 0.05) == 0.3, "one of twenty may lie below"
    assert threshold(scores, 0.049) == 0.1
    assert threshold(scores, 0.20) == 0.9
    assert threshold([0.2, 0.2, 0.8], 0.4) == 0.2, "two that tie are below together"


@given(TIED, st.sampled_from([0.0, 0.05, 0.25, 1 / 3, 0.5]))
def test_no_more_lie_below_the_threshold_and_above_it_more_would(
    rows: list[tuple[int, bool, int]], share: float
) -> None:
    scores, _, weights = (list(column) for column in zip(*rows, strict=True))
    found = threshold(scores, share, weights)
    if sum(weights) == 0:
        assert math.isnan(found)
        return
    assert share_below(scores, found, weights) <= share + 1e-9
    higher = [score for score, weight in zip(scores, weights, strict=True) if score > found and weight]
    assert all(share_below(scores, score, weights) > share for score in higher)


def test_the_share_below_a_limit_leaves_out_what_lies_on_it() -> None:
    assert share_below([1, 2, 2, 3], 2.0) == 0.25
    assert share_below([1, 2, 2, 3], [2.0, 9.0], [[1, 0, 0, 3], [1, 1, 1, 1]]).tolist() == [0.25, 1.0]
    assert math.isnan(share_below([1], 2.0, [0]))


def test_a_resample_is_what_its_rows_written_out_are() -> None:
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 9, 40), random.random(40) < 0.4
    drawn = random.integers(40, size=(5, 40))
    weights = np.stack([np.bincount(row, minlength=40) for row in drawn])
    for row, area, limit in zip(drawn, auroc(scores, positive, weights), threshold(scores, 0.1, weights), strict=True):
        assert area == pytest.approx(auroc(scores[row], positive[row]))
        assert limit == threshold(scores[row], 0.1)
