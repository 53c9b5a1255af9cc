"""Conditions on metadata."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.core import Metadata
from rag.errors import UsageError
from rag.where import MAX_DEPTH, Value, parse

PAPER: Metadata = {
    "year": 2021,
    "journal": "The Lancet",
    "types": "Review; Journal Article",
    "volume": "12",
    "score": 0.5,
}


@pytest.mark.parametrize(
    "text",
    [
        "year=2021",
        "year >= 2021 and year<=2021",
        "year>2020.5",
        "year != 2020",
        "volume<100",  # as numbers: as text it wouldn't be
        "volume>9",
        'journal~"lancet"',
        "journal~lancet",
        "journal='the lancet'",
        'types~"Review"',
        "score<1",
        "journal",
        "not retracted",
        "retracted!=yes",
        "year=1999 or journal~Lancet",
        "year=1999 and year=1998 or year=2021",  # "and" binds more tightly
        "(year=1999 or year=2021) and not (journal~BMJ or retracted)",
        "NOT retracted AND Year or year",
        "not not year",
        'journal>"A" and journal<"Z"',
        "  year=2021  ",
    ],
)
def test_a_condition_that_is_met(text: str) -> None:
    assert parse(text).meets(PAPER)


@pytest.mark.parametrize(
    "text",
    [
        "year=2020",
        "year!=2021",
        "year<2021",
        "journal=Lancet",  # the whole text
        'journal~"Lancet "',
        "retracted",
        "retracted=yes",
        "retracted<1",
        "retracted~a",
        "not year",
        "year=2021 and retracted",
        "year=1999 and (year=1998 or year=2021)",
        "Year=2021",  # names are as they are written
    ],
)
def test_a_condition_that_is_not_met(text: str) -> None:
    assert not parse(text).meets(PAPER)


def test_it_names_what_it_asks_for() -> None:
    assert parse("year>=2020 and (journal~'and or' or not retracted)").names == {"year", "journal", "retracted"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has the end at character 1, where a name"),
        ("year>>2020", "has '>2020' at character 6, where a value after > is expected"),
        ("year>=", "has the end at character 7, where a value after >= is expected"),
        ("year=2020 2021", 'has \'2021\' at character 11, where "and", "or" or the end is expected'),
        ("(year=2020", 'has the end at character 11, where ")" is expected'),
        ("year=2020)", "has ')' at character 10"),
        (
            'journal~"Lancet',
            "has '\"Lancet' at character 9, where a name, a value or an operator (quotes must be closed)",
        ),
        ("and year", "has 'and year' at character 1, where a name"),
        ("year=(2020)", "has '(2020)' at character 6"),
        ("=2020", "has '=2020' at character 1, where a name"),
        ("'year'=2020", "at character 1, where a name"),
        ("!year", "has '!year' at character 1"),
        ("(" * 100 + "year" + ")" * 100, f"at most {MAX_DEPTH} parentheses in one another"),
        ("not " * 10_000 + "year", f'at most {MAX_DEPTH} times "not"'),
    ],
)
def test_what_is_no_condition_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in str(caught.value)


VALUES: st.SearchStrategy[Value] = st.one_of(st.integers(-99, 99), st.sampled_from(["a", "B", "b c", "7"]))


def test_long_numbers_are_told_apart_to_their_last_digit() -> None:
    condition = parse("id=9007199254740993")
    assert condition.meets({"id": 9007199254740993})
    assert condition.meets({"id": "9007199254740993"})
    assert not condition.meets({"id": 9007199254740992})
    assert parse("n>5.5").meets({"n": 10**400})


@given(left=VALUES, right=VALUES)
def test_exactly_one_of_smaller_equal_and_larger_is_met(left: Value, right: Value) -> None:
    met = [parse(f'x{sign}"{right}"').meets({"x": left}) for sign in ("<", "=", ">")]
    assert sum(met) == 1


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_an_error_of_the_user(text: str) -> None:
    with suppress(UsageError):
        parse(text).meets(PAPER)
