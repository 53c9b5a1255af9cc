"""rag/matching.py over a fake model, and the bound (rag/stats.py) that its threshold keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from rag.differences import marked
from rag.errors import ModelError
from rag.matching import LABEL, LONGEST, QuestionMatcher, comparable, threshold
from rag.stats import upper_bound

if TYPE_CHECKING:
    from rag.pairs import Logits

CAUSE, CAUSE_TOO = "What causes malaria?", "What is the cause of malaria?"


class Reading:
    """Its logit is the length of the first text less half that of the second. `read` keeps the pairs of each call."""

    def __init__(self, labels: Sequence[str] = (LABEL,), logit: float | None = None) -> None:
        self.labels = tuple(labels)
        self.logit = logit
        self.read: list[list[tuple[str, str]]] = []

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        self.read.append(list(pairs))
        return np.array([[self.of(*pair)] for pair in pairs], dtype=np.float32)

    def of(self, first: str, second: str) -> float:
        return self.logit if self.logit is not None else (len(first) - len(second) / 2) / 10


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def matcher(model: Reading, min_same: float = 0.5) -> QuestionMatcher:
    return QuestionMatcher(model, min_same)


# --- what is read --------------------------------------------------------------------------------


def test_a_logit_is_the_mean_of_both_orders_with_what_differs_marked() -> None:
    model = Reading()
    [found] = matcher(model).probabilities([(CAUSE, CAUSE_TOO)])
    one, other = marked(CAUSE, CAUSE_TOO), marked(CAUSE_TOO, CAUSE)
    assert any("⟨" in text or "«" in text for text in one)
    assert model.read == [[one, other]]
    assert model.of(*one) != model.of(*other)
    assert found == pytest.approx(sigmoid((model.of(*one) + model.of(*other)) / 2), abs=1e-6)


def test_it_makes_no_difference_which_question_was_asked_first() -> None:
    questions = (CAUSE, CAUSE_TOO, "How is malaria treated?", "Why does gout hurt at night?")
    pairs = [(a, b) for a in questions for b in questions]
    one = matcher(Reading()).probabilities(pairs)
    other = matcher(Reading()).probabilities([(b, a) for a, b in pairs])
    np.testing.assert_allclose(one, other, rtol=1e-6)
    assert len(set(one.round(6))) > 5


def test_pairs_are_judged_together_as_they_are_one_by_one() -> None:
    pairs = [(CAUSE, CAUSE_TOO), ("Are 5 mg safe?", "Are 10 mg safe?"), ("Is it?", "Is it so?"), (CAUSE, "x" * 300)]
    model = Reading()
    together = matcher(model).probabilities(pairs)
    alone = [matcher(Reading()).probabilities([pair])[0] for pair in pairs]
    np.testing.assert_allclose(together, alone)
    assert together.shape == (4,)
    assert len(model.read) == 1
    assert len(model.read[0]) == 4, "two of them, in both orders: the others are never the same"
    for row in (0, 2):
        logit = (model.of(*marked(*pairs[row])) + model.of(*marked(*pairs[row][::-1]))) / 2
        assert together[row] == pytest.approx(sigmoid(logit), rel=1e-5)


def test_without_pairs_nothing_is_read() -> None:
    model = Reading()
    assert matcher(model).probabilities([]).shape == (0,)
    assert model.read == []


@pytest.mark.parametrize(("logit", "expected"), [(1.25, sigmoid(1.25)), (-800.0, 0.0), (800.0, 1.0)])
def test_the_logistic_of_a_logit_is_its_probability_however_far_from_zero(logit: float, expected: float) -> None:
    assert matcher(Reading(logit=logit)).probabilities([(CAUSE, CAUSE_TOO)]) == pytest.approx([expected], abs=1e-9)


# --- what is the same ----------------------------------------------------------------------------


@pytest.mark.parametrize("logit", [-2.0, -0.25, 0.0, 0.5, 3.0])
def test_exactly_the_lowest_probability_is_the_same_and_the_next_below_is_not(logit: float) -> None:
    model = Reading(logit=logit)
    [probability] = matcher(model).probabilities([(CAUSE, CAUSE_TOO)])
    assert matcher(model, float(probability)).same(CAUSE, CAUSE_TOO) is True
    assert matcher(model, float(np.nextafter(probability, 2))).same(CAUSE, CAUSE_TOO) is False
    assert matcher(model, float(np.nextafter(probability, -1))).same(CAUSE, CAUSE_TOO) is True


@pytest.mark.parametrize(("logit", "same"), [(3.01, True), (-1.01, False)])
def test_where_one_order_leaves_no_doubt_the_other_is_not_read(logit: float, same: bool) -> None:
    model = Reading(logit=logit)
    assert matcher(model, sigmoid(1.0)).same(CAUSE, CAUSE_TOO) is same
    assert model.read == [[marked(CAUSE, CAUSE_TOO)]]


@pytest.mark.parametrize(("logits", "same"), [((2.4, -0.5), False), ((-0.4, 2.5), True)])
def test_where_one_order_leaves_doubt_both_decide(logits: tuple[float, float], same: bool) -> None:
    model = Reading()
    of = dict(zip((marked(CAUSE, CAUSE_TOO), marked(CAUSE_TOO, CAUSE)), logits, strict=True))
    model.of = lambda first, second: of[first, second]  # type: ignore[method-assign]
    assert matcher(model, sigmoid(1.0)).same(CAUSE, CAUSE_TOO) is same
    assert model.read == [[pair] for pair in of]


@given(first=st.floats(-9, 9), second=st.floats(-9, 9), least=st.floats(-6, 6))
def test_what_is_calibrated_is_what_serves(first: float, second: float, least: float) -> None:
    model = Reading()
    of = dict(zip((marked(CAUSE, CAUSE_TOO), marked(CAUSE_TOO, CAUSE)), (first, second), strict=True))
    model.of = lambda one, other: of[one, other]  # type: ignore[method-assign]
    [probability] = matcher(model).probabilities([(CAUSE, CAUSE_TOO)])
    assume(abs(probability - sigmoid(least)) > 1e-6)
    assert matcher(model, sigmoid(least)).same(CAUSE, CAUSE_TOO) is bool(probability >= sigmoid(least))


OTHER_NUMBERS = [
    ("Is it safe at an age of 60?", "Is it safe at an age of sixty-five?"),
    ("What was known in 1918?", "What was known in 1919?"),
    ("Is type 1 diabetes curable?", "Is type 2 diabetes curable?"),
    ("Is 1.5 the limit?", "Is 15 the limit?"),
    ("Who needs vitamin B6?", "Who needs vitamin B12?"),
]


@pytest.mark.parametrize(("a", "b"), OTHER_NUMBERS)
def test_questions_with_other_numbers_are_never_the_same_and_not_read(a: str, b: str) -> None:
    model = Reading(logit=100.0)
    assert not matcher(model, 1e-9).same(a, b)
    assert not matcher(model, 1e-9).same(b, a)
    assert matcher(model).probabilities([(a, b)]).tolist() == [0.0]
    assert model.read == []


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Are 5 mg of it safe?", "Are 5 g of it safe?"),
        ("Is it gone after 2 weeks?", "Is it gone after 2 months?"),
        ("Are 10\u2075 bacteria many?", "Are 10\u2076 bacteria many?"),
        ("Is it seen at 5 mM?", "Is it seen at 5mm?"),
        ("Is Mg toxic?", "Is mg toxic?"),
        ("Whom does WHO advise on it?", "Whom does who advise on it?"),
        ("Are 5 \u00b5mol/l of it much?", "Are 5 nmol/l of it much?"),
        ("Are 5 units of it enough?", "Are 5 mg of it enough?"),
        ("Is one dose of it enough?", "Are two doses of it enough?"),
        ("Does it live at -5 °C?", "Does it live at 5 °C?"),
        ("Is potassium <3 mmol/l a danger?", "Is potassium >3 mmol/l a danger?"),
    ],
    ids=[
        "mg or g",
        "weeks or months",
        "powers of ten",
        "mM or mm",
        "a metal or a unit",
        "an organisation or anybody",
        "micro or nano",
        "units or mg",
        "one or two",
        "cold",
        "below",
    ],
)
def test_a_dose_or_a_time_of_another_unit_is_never_the_same(a: str, b: str) -> None:
    """A dose is never nearly another one, and its unit is half of it."""
    assert matcher(Reading(logit=100.0)).probabilities([(a, b)]).tolist() == [0.0]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Are 5 mg of it safe?", "Is it safe to take five mg?"),
        ("Is it safe at 60?", "Is it safe at sixty?"),
        ("Are 1,200 mg too many?", "Are 1200 mg too many?"),
        ("Is one dose of it enough?", "Is a single dose of it enough?"),
        ("Is one of two doses enough?", "Is one dose out of two doses enough?"),
        ("How do HIV-1 and HIV-2 differ?", "How does HIV-2 differ from HIV-1?"),
        ("Is potassium <3 mmol/l a danger?", "Is potassium below 3 mmol/l a danger?"),
        ("Is 2-5 mg safe?", "Is 2\u20135 mg safe?"),
        (CAUSE, CAUSE_TOO),
    ],
)
def test_the_same_numbers_in_other_spellings_are_read(a: str, b: str) -> None:
    model = Reading(logit=100.0)
    assert matcher(model).same(a, b)
    assert len(model.read) == 1


def test_one_that_is_too_long_is_never_the_same_and_not_read() -> None:
    longest = "w" * (LONGEST - 1) + "?"
    model = Reading(logit=100.0)
    assert matcher(model).same(longest, longest)
    assert len(model.read) == 1
    for a, b in ((longest + "?", CAUSE), (CAUSE, longest + "?"), (longest + "?", longest + "?")):
        assert not comparable(a, b)
        assert not matcher(model, 1e-9).same(a, b)
    assert len(model.read) == 1


def test_what_is_never_the_same_is_not_at_a_lowest_probability_of_0_either() -> None:
    """Which `cache.min_same` may be."""
    everything = matcher(Reading(logit=-5.0), 0.0)
    assert everything.same(CAUSE, "Who was Avicenna?")
    assert not everything.same("Are 5 mg of it safe?", "Are 10 mg of it safe?")
    assert not everything.same(CAUSE, "w" * (LONGEST + 1))


@pytest.mark.parametrize(
    "labels", [("relevant",), ("contradicted", "supported", "not_stated"), (LABEL, "other"), ("LABEL_0",), ()]
)
def test_a_model_for_something_else_is_refused_and_the_message_says_where_to_name_another(labels: list[str]) -> None:
    with pytest.raises(ModelError, match=r"cache\.model") as caught:
        matcher(Reading(labels))
    assert all(label in str(caught.value) for label in labels)


# --- from which probability on -------------------------------------------------------------------


def wrong_hits(probabilities: Sequence[float], same: Sequence[bool], lowest: float) -> int:
    return sum(p >= lowest for p, alike in zip(probabilities, same, strict=True) if not alike)


judged = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.99, 1.0])), st.booleans()),
    min_size=30,
    max_size=200,
)


@settings(deadline=None, max_examples=150)
@given(judged, st.sampled_from([0.3, 0.5, 0.8]))
def test_the_bound_holds_at_the_threshold_and_at_none_below_it(
    pairs: list[tuple[float, bool]], max_wrong: float
) -> None:
    probabilities, same = [p for p, _ in pairs], [alike for _, alike in pairs]
    others = same.count(False)
    if others == 0 or 0.05 ** (1 / others) < 1 - max_wrong:
        with pytest.raises(ValueError, match="needed"):
            threshold(probabilities, same, max_wrong)
        return
    certain = wrong_hits(probabilities, same, 1.0)
    if certain and upper_bound(certain, others) > max_wrong:
        with pytest.raises(ValueError, match="highest probability"):
            threshold(probabilities, same, max_wrong)
        return
    lowest = threshold(probabilities, same, max_wrong)
    assert upper_bound(wrong_hits(probabilities, same, lowest), others) <= max_wrong
    below = float(np.nextafter(lowest, -1))
    assert upper_bound(wrong_hits(probabilities, same, below), others) > max_wrong


def test_with_299_pairs_none_may_be_wrong_for_a_bound_of_a_hundredth() -> None:
    probabilities = [number / 1000 for number in range(299)]
    lowest = threshold(probabilities, [False] * 299, 0.01)
    assert lowest == pytest.approx(0.298)
    assert lowest > 0.298


def test_with_more_pairs_some_may_be_wrong() -> None:
    """7 of 1,312 is the most that has an upper bound of a hundredth (Clopper and Pearson)."""
    count = next(n for n in range(299, 3000) if upper_bound(7, n) <= 0.01)
    assert (count, upper_bound(8, count) > 0.01) == (1312, True)
    probabilities = [number / 2000 for number in range(count)]
    lowest = threshold(probabilities, [False] * count, 0.01)
    assert wrong_hits(probabilities, [False] * count, lowest) == 7


def test_pairs_that_ask_the_same_neither_help_nor_hurt() -> None:
    probabilities = [number / 1000 for number in range(299)]
    alone = threshold(probabilities, [False] * 299, 0.01)
    beside = threshold([*probabilities, *[0.9] * 500], [*[False] * 299, *[True] * 500], 0.01)
    assert beside == alone


@pytest.mark.parametrize("same", [0, 1000])
@pytest.mark.parametrize(("others", "max_wrong", "needed"), [(298, 0.01, 299), (0, 0.01, 299), (58, 0.05, 59)])
def test_too_few_pairs_to_tell_are_refused_with_how_many_are_needed(
    others: int, max_wrong: float, needed: int, same: int
) -> None:
    alike = [*[False] * others, *[True] * same]
    with pytest.raises(ValueError, match=f"^{others} pairs that ask something else, at least {needed} are needed"):
        threshold([0.5] * len(alike), alike, max_wrong)
    threshold([0.5] * needed, [False] * needed, max_wrong)


@pytest.mark.parametrize("max_wrong", [0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5])
def test_as_many_as_the_message_says_are_enough_and_one_less_is_not(max_wrong: float) -> None:
    with pytest.raises(ValueError, match="at least") as caught:
        threshold([], [], max_wrong)
    needed = int(str(caught.value).partition("at least ")[2].split()[0])
    assert upper_bound(0, needed) <= max_wrong
    assert upper_bound(0, needed - 1) > max_wrong


# --- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "of", "bound"),
    [(0, 300, 0.009936), (0, 299, 0.009969), (0, 298, 0.010003), (0, 1, 0.95), (1, 100, 0.046560), (5, 10, 0.777559)],
)
def test_the_upper_bound_has_its_known_values(count: int, of: int, bound: float) -> None:
    assert upper_bound(count, of) == pytest.approx(bound, abs=1e-6)


@pytest.mark.parametrize("of", [1, 2, 7, 60, 300, 1500])
def test_the_upper_bound_is_scipy_s(of: int) -> None:
    for count in sorted({0, 1, 2, of // 100, of // 10, of // 2, of - 1, of}):
        if count <= of:
            expected = stats.binomtest(count, of, alternative="less").proportion_ci(0.95, "exact")
            assert upper_bound(count, of) == pytest.approx(expected.high, abs=1e-9)


@given(st.integers(0, 200), st.integers(1, 200))
def test_the_upper_bound_lies_above_the_share_and_falls_with_more_pairs(count: int, more: int) -> None:
    of = count + more
    assert count / of < upper_bound(count, of) <= 1
    assert upper_bound(count, of + 1) <= upper_bound(count, of) <= upper_bound(count + 1, of)


def test_where_all_or_nothing_was_seen_the_bound_says_nothing() -> None:
    assert (upper_bound(10, 10), upper_bound(0, 0)) == (1.0, 1.0)
