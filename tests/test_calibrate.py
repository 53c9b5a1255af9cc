"""From which probability on two questions are the same: pairs of a file, and the threshold that they give, over fakes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag import paths
from rag.calibrate import Calibration, Pair, at, calibrate, cosines, read_pairs
from rag.errors import UsageError
from rag.matching import LABEL, QuestionMatcher
from rag.stats import upper_bound
from rag.testing import FakeEncoder

if TYPE_CHECKING:
    from rag.core import Matrix
    from rag.pairs import Logits


class Angles(FakeEncoder):
    """Encodes a question as the angle, in degrees, that a table has for it, else 0. `asked` keeps the texts of each call."""

    dimension = 2

    def __init__(self, degrees: Mapping[str, float] | None = None) -> None:
        self.degrees = degrees if degrees is not None else {}
        self.asked: list[list[str]] = []

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        self.asked.append(list(texts))
        angles = [math.radians(self.degrees.get(text, 0.0)) for text in texts]
        return np.array([[math.cos(one), math.sin(one)] for one in angles], dtype=np.float32)


class Table:
    """A pair model with a logit for each two questions, whichever comes first."""

    labels = (LABEL,)

    def __init__(self, logits: Mapping[tuple[str, str], float]) -> None:
        self.of = {frozenset(pair): logit for pair, logit in logits.items()}

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        rows = [[self.of[frozenset(map(unmarked, pair))]] for pair in pairs]
        return np.array(rows, dtype=np.float32).reshape(len(pairs), 1)


def unmarked(text: str) -> str:
    return re.sub("[⟨⟩«»]", "", text)


def asked(number: int, what: str) -> str:
    """A question without a numeral, since of those with others a matcher reads none."""
    return f"What {what} {''.join('abcdefghij'[int(digit)] for digit in str(number))}?"


def pair(number: int, same: bool) -> Pair:
    return Pair(a=asked(number, "causes"), b=asked(number, "is the cause of" if same else "comes of"), same=same)


def judged(same: Sequence[float], others: Sequence[float]) -> tuple[list[Pair], Any]:
    """Pairs that have these logits, and a matcher that gives them."""
    pairs = [pair(number, True) for number in range(len(same))]
    pairs += [pair(number, False) for number in range(len(others))]
    table = {(one.a, one.b): logit for one, logit in zip(pairs, [*same, *others], strict=True)}
    return pairs, QuestionMatcher(Table(table), 0.5)


# --- the file --------------------------------------------------------------------------------------

ONE: Mapping[str, Any] = {"a": "What causes gout?", "b": "What is gout caused by?", "same": True}
EXPECTED = '; expected like {"a": "…", "b": "…", "same": false}.'


def written(path: Path, *lines: str | Mapping[str, Any]) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_lines_of_a_split_are_read_and_those_without_one(tmp_path: Path) -> None:
    path = written(
        tmp_path / "pairs.jsonl",
        {**ONE, "split": "heldout", "topic": "gout", "kind": "paraphrase", "id": "p1"},
        {**ONE, "split": "calibration"},
        "",
        {**ONE, "same": False, "added by": "a colleague"},
        "   \t",
    )
    unsplit = Pair(a=ONE["a"], b=ONE["b"], same=False)
    assert read_pairs(path) == [Pair(**ONE, split="calibration"), unsplit]
    assert read_pairs(path, "heldout") == [Pair(**ONE, split="heldout", topic="gout", kind="paraphrase"), unsplit]


def test_what_other_editors_write_is_read_too(tmp_path: Path) -> None:
    """A byte order mark, and the ends of lines of Windows."""
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{json.dumps(ONE)}\r\n\r\n{json.dumps(ONE)}\r\n".encode())
    assert read_pairs(path) == [Pair(**ONE)] * 2


def test_a_separator_inside_a_question_ends_no_line(tmp_path: Path) -> None:
    asks = {**ONE, "a": "What causes\u2028gout?"}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(asks, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [one.a for one in read_pairs(path)] == ["What causes\u2028gout?"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"a": "What causes gout?", "b', "Invalid JSON"),
        ("What causes gout?", "Invalid JSON"),
        ('["What causes gout?", "What is gout caused by?", true]', "object"),
        ({"a": "What causes gout?", "same": True}, "b: Field required"),
        ({"a": "What causes gout?", "b": "What is gout?"}, "same: Field required"),
        ({**ONE, "same": "false"}, "same: Input should be a valid boolean"),
        ({**ONE, "same": 0}, "same: Input should be a valid boolean"),
        ({**ONE, "b": None}, "b: Input should be a valid string"),
        ({**ONE, "split": 1}, "split: Input should be a valid string"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_its_problem(
    tmp_path: Path, line: str | Mapping[str, Any], problem: str
) -> None:
    """Also where it belongs to the other split: somebody has to mend it."""
    path = written(tmp_path / "pairs.jsonl", ONE, "", line, ONE)
    with pytest.raises(UsageError) as caught:
        read_pairs(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:3: ")
    assert problem in said
    assert said.endswith(EXPECTED)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [([], "has 0 pairs"), ([{**ONE, "split": "heldout"}] * 2, "has 2 pairs, none of them for calibration")],
)
def test_where_no_pair_is_left_the_split_is_named(tmp_path: Path, lines: list[Mapping[str, Any]], said: str) -> None:
    path = written(tmp_path / "pairs.jsonl", *lines)
    with pytest.raises(UsageError) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path} {said}")


def test_what_is_no_readable_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"a": "Ménière?"}'.encode("latin-1"))
    for path in (tmp_path / "nowhere.jsonl", tmp_path, tmp_path / "latin.jsonl"):
        with pytest.raises(UsageError, match=f"^Can't read {re.escape(str(path))}: ") as caught:
            read_pairs(path)
        assert "\n" not in str(caught.value)


def test_every_shipped_pair_is_for_one_of_both() -> None:
    path = paths.shipped("eval", "paraphrases.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    splits = {split: read_pairs(path, split) for split in ("calibration", "heldout")}
    assert sum(map(len, splits.values())) == len(lines)
    assert {split: {one.split for one in some} for split, some in splits.items()} == {one: {one} for one in splits}


# --- cosines ---------------------------------------------------------------------------------------


def test_a_cosine_is_of_both_questions_and_each_text_is_encoded_once() -> None:
    encoder = Angles({"b": 60, "c": 90, "d": 180})
    pairs = [Pair(a=a, b=b, same=True) for a, b in (("a", "b"), ("a", "c"), ("d", "a"), ("c", "b"), ("a", "a"))]
    assert cosines(encoder, pairs) == pytest.approx([0.5, 0, -1, math.cos(math.radians(30)), 1], abs=1e-6)
    assert encoder.asked == [["a", "b", "c", "d"]]


# --- the threshold ---------------------------------------------------------------------------------


def test_the_figures_at_a_threshold_are_those_counted_by_hand() -> None:
    probabilities = [0.9, 0.5, 0.49, 0.7, 0.5, 0.1, 0.2]
    same = [True, True, True, False, False, False, False]
    assert at(0.5, probabilities, same) == Calibration(0.5, 3, 2, 4, 2, upper_bound(2, 4))
    assert at(0.71, probabilities, same) == Calibration(0.71, 3, 1, 4, 0, upper_bound(0, 4))
    assert at(0.5, probabilities, same).lines == [
        "2 of 3 pairs that ask the same are served (67%)",
        f"2 of 4 others are, wrongly: at most {100 * upper_bound(2, 4):.2f}% at 95%",
    ]


def test_without_pairs_of_a_kind_nothing_is_promised() -> None:
    assert at(0.5, [0.9, 0.1], [True, True]) == Calibration(0.5, 2, 1, 0, 0, 1.0)
    assert at(0.5, [0.9, 0.1], [False, False]).lines[0] == "0 of 0 pairs that ask the same are served (0%)"


def test_as_many_wrong_hits_are_let_through_as_the_bound_has_room_for() -> None:
    """Of 400 others three may be served for a bound of 2%, and not four."""
    others = [number / 100 for number in range(400)]
    allowed = max(count for count in range(400) if upper_bound(count, 400) <= 0.02)
    assert allowed == 3
    pairs, matcher = judged([5.0, 3.97, 3.955, 3.0], others)
    found = calibrate(Angles(), matcher, pairs, 0.02)
    highest_refused = 1 / (1 + math.exp(-others[-1 - allowed]))
    assert found.min_same == pytest.approx(highest_refused, abs=1.1e-4)
    assert (found.wrong, found.near_misses, found.wrong_upper95) == (3, 400, upper_bound(3, 400))
    assert (found.hits, found.paraphrases) == (2, 4)
    probabilities = matcher.probabilities([(one.a, one.b) for one in pairs])
    below = at(found.min_same - 2e-4, probabilities.tolist(), [one.same for one in pairs])
    assert below.wrong_upper95 > 0.02


logits = st.lists(st.floats(-20, 20, width=32), min_size=60, max_size=90)


@settings(deadline=None, max_examples=40)
@given(logits, st.lists(st.floats(-20, 20, width=32), max_size=20), st.sampled_from([0.05, 0.1, 0.4]))
def test_whatever_the_scores_a_matcher_with_the_threshold_keeps_the_bound(
    others: list[float], same: list[float], max_wrong: float
) -> None:
    pairs, matcher = judged(same, others)
    found = calibrate(Angles(), matcher, pairs, max_wrong)
    chosen = QuestionMatcher(matcher._model, found.min_same)
    served = [one.same for one in pairs if chosen.same(one.a, one.b)]
    assert (served.count(True), served.count(False)) == (found.hits, found.wrong)
    assert found.wrong_upper95 == upper_bound(found.wrong, len(others)) <= max_wrong


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_the_matcher_s_own_threshold_does_not_count(threshold: float) -> None:
    pairs, matcher = judged([0.5], [number / 100 for number in range(100)])
    found = calibrate(Angles(), matcher, pairs, 0.03)
    assert calibrate(Angles(), QuestionMatcher(matcher._model, threshold), pairs, 0.03) == found


def test_what_the_cache_would_not_look_at_twice_neither_serves_nor_counts_as_wrong() -> None:
    """The highest of the others, and one that asks the same, are too far from one another for the cache."""
    others = [number / 100 for number in range(100)]
    pairs, matcher = judged([3.0, 3.0], others)
    far = {pairs[0].b: 61.0, pairs[-1].b: 61.0, pairs[1].b: 59.0}
    strict = calibrate(Angles(far), matcher, pairs, 0.03, min_cosine=0.5)
    anything = calibrate(Angles(far), matcher, pairs, 0.03)
    assert (anything.hits, strict.hits) == (2, 1)
    sigmoid = {number: 1 / (1 + math.exp(-others[number])) for number in (98, 99)}
    assert anything.min_same == pytest.approx(sigmoid[99], abs=1.1e-4)
    assert strict.min_same == pytest.approx(sigmoid[98], abs=1.1e-4)
    assert (strict.paraphrases, strict.near_misses) == (2, 100), "they are asked all the same"


def test_a_cosine_of_exactly_the_lowest_is_looked_at() -> None:
    pairs, matcher = judged([3.0], [0.0] * 100)
    [cosine] = cosines(Angles({pairs[0].b: 60}), pairs[:1])
    assert calibrate(Angles({pairs[0].b: 60}), matcher, pairs, 0.03, cosine).hits == 1
    assert calibrate(Angles({pairs[0].b: 60}), matcher, pairs, 0.03, float(np.nextafter(cosine, 1))).hits == 0


def test_pairs_that_are_told_apart_by_their_numbers_are_no_hits_however_high_they_score() -> None:
    pairs, matcher = judged([3.0], [0.0] * 100)
    apart = Pair(a="Are 5 mg of it safe?", b="Are 10 mg of it safe?", same=False)
    matcher._model.of[frozenset((apart.a, apart.b))] = 20.0
    found = calibrate(Angles(), matcher, [*pairs, apart], 0.03)
    assert (found.near_misses, found.wrong, found.hits) == (101, 0, 1)
    assert found.min_same == pytest.approx(0.5, abs=1.1e-4)


def test_where_every_other_is_told_apart_by_its_numbers_what_is_not_looked_at_is_not_served_either() -> None:
    others = [Pair(a=f"Are {n} mg safe?", b=f"Are {n + 1} mg safe?", same=False) for n in range(100)]
    pairs, matcher = judged([-3.0, 3.0], [])
    found = calibrate(Angles({pairs[1].b: 90}), matcher, [*pairs, *others], 0.03, min_cosine=0.5)
    assert (found.hits, found.wrong) == (1, 0)
    assert found.min_same > 0


@pytest.mark.parametrize(("count", "max_wrong", "needed"), [(0, 0.01, 299), (298, 0.01, 299), (58, 0.05, 59)])
def test_too_few_pairs_are_refused_with_how_many_are_needed_and_what_can_be_done(
    count: int, max_wrong: float, needed: int
) -> None:
    pairs, matcher = judged([3.0] * 5, [0.0] * count)
    with pytest.raises(UsageError) as caught:
        calibrate(Angles(), matcher, pairs, max_wrong)
    assert str(caught.value) == (
        f"No threshold: {count} pairs that ask something else, at least {needed} are needed for a bound of {max_wrong:g}. "
        "Add pairs, or raise cache.max_wrong_hits."
    )
    assert caught.value.exit_code == 2


def test_where_the_model_is_quite_sure_of_too_many_others_no_threshold_is_given() -> None:
    """None that can be set tells them from what asks the same."""
    pairs, matcher = judged([50.0] * 5, [50.0] * 4 + [0.0] * 196)
    with pytest.raises(UsageError, match="4 of 200"):
        calibrate(Angles(), matcher, pairs, 0.03)
