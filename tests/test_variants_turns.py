"""rag/variants/turns.py: who is asked what, and when."""

from __future__ import annotations

from itertools import combinations

from beside import numbered

from rag.variants.turns import BLOCK, order, turns

NAMES = ["a", "b", "c", "d", "e"]


def test_each_variant_gets_each_question_once_and_the_first_of_each_block_cold_before() -> None:
    asked = list(turns(numbered(10), NAMES, cold=["b"]))
    assert len({turn.key for turn in asked}) == len(asked) == 10 * 5 + 3
    assert [turn.question.id for turn in asked if turn.cold] == ["q000", "q004", "q008"]
    for number, turn in enumerate(asked):
        if turn.cold:
            assert asked[number + 1].key == ("b", turn.question.id, False)


def test_within_a_block_each_variant_gets_its_questions_in_one_go() -> None:
    first = [turn for turn in turns(numbered(10), NAMES) if turn.block == 0]
    assert [turn.variant for turn in first[::BLOCK]] == order(NAMES, 0)
    for start in range(0, len(first), BLOCK):
        assert [turn.question.id for turn in first[start : start + BLOCK]] == ["q000", "q001", "q002", "q003"]
        assert len({turn.variant for turn in first[start : start + BLOCK]}) == 1


def test_each_pair_of_variants_is_as_often_one_way_round_as_the_other() -> None:
    orders = [order(NAMES, block) for block in range(20)]
    for one, other in combinations(NAMES, 2):
        assert sum(names.index(one) < names.index(other) for names in orders) == 10
    assert orders[1] == orders[0][::-1]
    assert len({tuple(names) for names in orders}) > 4


def test_more_questions_leave_those_before_where_they_were() -> None:
    few, more = list(turns(numbered(8), NAMES)), list(turns(numbered(20), NAMES))
    assert more[: len(few)] == few


def test_no_questions_no_turns() -> None:
    assert list(turns([], NAMES, cold=NAMES)) == []
