"""rag/metrics.py: against values computed by hand, and against the definitions, pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.metrics import (
    aurc,
    auroc,
    key_facts_found,
    precision,
    ranked,
    ranked_at,
    ranks,
    recall,
    risk_coverage,
    rouge_l,
    share_below,
    threshold,
)

TIED = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30)
"""(score, positive, weight), with ties."""


# --- ranked lists ------------------------------------------------------------------------------------


def test_a_ranked_list_that_was_computed_by_hand() -> None:
    """Grades 1 at 2 and 2 at 4, of 2, 1, 1: nDCG (1/log2(3) + 2/log2(5)) / (2 + 1/log2(3) + 1/log2(4))."""
    found, grades = ["x", "b", "y", "a"], {"a": 2, "b": 1, "c": 1}
    values = {name: ranked(found, grades, name) for name in ("nDCG@10", "nDCG@2", "R@2", "R@10", "RR", "Success@1")}
    assert values == pytest.approx(
        {
            "nDCG@10": (0.63093 + 2 / 2.32193) / (2 + 0.63093 + 0.5),
            "nDCG@2": 0.63093 / (2 + 0.63093),
            "R@2": 1 / 3,
            "R@10": 2 / 3,
            "RR": 0.5,
            "Success@1": 0.0,
        },
        abs=1e-5,
    )


@pytest.mark.parametrize("measure", ["nDCG@10", "R@10", "RR", "Success@1"])
def test_a_list_is_best_with_what_is_relevant_first_and_worth_nothing_without(measure: str) -> None:
    assert ranked(["a", "b", "x"], {"a": 2, "b": 1}, measure) == 1.0
    assert ranked(["x", "y"], {"a": 1}, measure) == ranked([], {"a": 1}, measure) == 0.0


def test_what_has_no_rank_of_its_own_is_an_error() -> None:
    with pytest.raises(ValueError, match="R@5 of a question to which nothing is relevant"):
        ranked(["a"], {}, "R@5")
    with pytest.raises(ValueError, match="RR of a list that names a document twice"):
        ranked(["a", "b", "a"], {"b": 1}, "RR")


def test_a_document_may_have_any_name() -> None:
    """JSON can name one by half a surrogate pair, or by NUL, at which C's strings end."""
    assert ranked(["\ud800", "a\0x", "a\0y", ""], {"a\0y": 1, "\udfff": 1}, "RR") == pytest.approx(1 / 3)


DOCUMENTS = [f"d{number}" for number in range(15)]
"""Their names aren't in the order of their numbers."""


@given(st.permutations(DOCUMENTS), st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(1, 3), min_size=1))
def test_each_measure_is_its_definition_whatever_the_documents_are_called(
    found: list[str], grades: dict[str, int]
) -> None:
    """nDCG after Jarvelin and Kekalainen, TOIS 20, 2002, the gain being the grade."""
    found = found[:12]
    at = [rank for rank, name in enumerate(found, start=1) if name in grades]
    gained = sum(grades[found[rank - 1]] / math.log2(rank + 1) for rank in at if rank <= 10)
    best = sum(g / math.log2(r + 1) for r, g in enumerate(sorted(grades.values(), reverse=True)[:10], start=1))
    assert ranked(found, grades, "nDCG@10") == pytest.approx(gained / best)
    assert ranked(found, grades, "R@5") == pytest.approx(sum(rank <= 5 for rank in at) / len(grades))
    assert ranked(found, grades, "RR") == pytest.approx(max((1 / rank for rank in at), default=0.0))


def test_where_the_relevant_ones_stand_is_enough() -> None:
    """Two of three, at 2 and 3: nDCG (1/log2(3) + 1/log2(4)) / (1 + 1/log2(3) + 1/log2(4))."""
    best = 1 + 0.63093 + 0.5
    assert ranked_at([2, 3], 3, "nDCG@10") == pytest.approx((0.63093 + 0.5) / best, abs=1e-5)
    assert ranked_at([1, 2], 7, "nDCG@2") == 1.0, "more are relevant than fit"
    assert ranked_at([11], 1, "nDCG@10") == ranked_at([], 1, "nDCG@10") == 0.0
    assert [ranked_at([3, 9], 2, f"Success@{k}") for k in (2, 3, 10)] == [0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="nothing is relevant"):
        ranked_at([], 0, "nDCG@10")


@given(st.permutations(DOCUMENTS), st.sets(st.sampled_from(DOCUMENTS), min_size=1), st.integers(0, 15))
def test_ranks_and_their_list_have_the_same_measures(found: list[str], relevant: set[str], length: int) -> None:
    shown, grades = found[:length], dict.fromkeys(relevant, 1)
    for measure in ("nDCG@10", "R@10", "RR", "Success@1"):
        assert ranked_at(ranks(shown, relevant), len(relevant), measure) == ranked(shown, grades, measure)


def test_ranks_begin_at_one_and_count_every_time_a_relevant_one_is_found() -> None:
    assert ranks(["b", "a", "c", "a"], {"a", "z"}) == [2, 4]
    assert ranks([], {"a"}) == []


def test_recall_is_the_share_of_the_relevant_ones_whatever_else_is_found() -> None:
    assert recall(["a", "x", "a", "y"], ["a", "b"]) == 0.5
    assert recall([], {"a"}) == 0.0
    with pytest.raises(ZeroDivisionError):
        recall(["a"], [])


def test_precision_is_the_share_of_what_was_found_that_is_relevant() -> None:
    assert precision({"a", "x"}, ["a", "b", "c"]) == 0.5
    assert precision({"x"}, []) == 0.0
    with pytest.raises(ZeroDivisionError):
        precision(set(), ["a"])


def test_a_key_fact_is_found_by_any_of_its_variants_whatever_its_capitals_and_white_space() -> None:
    facts = [["Plasmodium", "plasmodia"], ["than 5 per cent", "< 5%"], ["mosquito"]]
    text = "It is PLASMODIA,\nfewer than  5\u00a0per\tcent."
    assert key_facts_found(text, facts) == [True, True, False]
    assert key_facts_found("", facts) == [False, False, False]


def test_rouge_l_of_the_example_of_its_paper() -> None:
    """ "police killed the gunman" against "police kill the gunman" and "the gunman kill police": 3 and 2 of 4 words."""
    assert rouge_l("police kill the gunman", "Police killed the gunman.") == 0.75
    assert rouge_l("the gunman kill police", "police killed the gunman") == 0.5


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [
        ("a b c d", "a c", 2 * 2 / 6),
        ("a c", "a b c d", 2 * 2 / 6),
        ("17D-vaccine", "17d vaccine", 1.0),
        ("", "a", 0.0),
        ("...", "...", 0.0),
        ("b a b a", "a b a b", 2 * 3 / 8),
    ],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(text: str, reference: str, f1: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(f1)


def test_the_risk_at_each_coverage_by_hand() -> None:
    """By confidence 0.9 right, 0.7 wrong, two of 0.5 of which one is wrong: they are covered together."""
    confidence, wrong = [0.5, 0.9, 0.7, 0.5], [1, 0, 1, 0]
    levels, coverage, risk = risk_coverage(confidence, wrong)
    assert levels.tolist() == [0.9, 0.7, 0.5]
    assert coverage.tolist() == [0.25, 0.5, 1.0]
    assert risk.tolist() == [0.0, 0.5, 0.5]
    assert aurc(confidence, wrong) == pytest.approx(0.25 * 0 + 0.25 * 0.5 + 0.5 * 0.5)


def test_aurc_is_lowest_where_all_that_is_wrong_comes_last() -> None:
    wrong = [0, 0, 0, 1]
    good, bad = aurc([4, 3, 2, 1], wrong), aurc([1, 2, 3, 4], wrong)
    assert good == pytest.approx(0.25 * 0.25)
    assert bad == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert aurc([1, 1, 1, 1], wrong) == 0.25, "without any order it is the share that is wrong"


@given(TIED)
def test_a_resample_s_aurc_is_that_of_its_rows_written_out(rows: list[tuple[int, bool, int]]) -> None:
    scores, wrong, weights = (list(column) for column in zip(*rows, strict=True))
    area = aurc(scores, wrong, weights)
    if sum(weights) == 0:
        assert math.isnan(area)
        return
    written = [(score, bad) for score, bad, weight in rows for _ in range(weight)]
    assert area == pytest.approx(aurc(*zip(*written, strict=True)))


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
