"""rag/synonyms.py: what is put in, what is left, and the lexicon that ships."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.synonyms import Synonyms, shipped

SYNONYMS = Synonyms(
    [
        ["a heart attack", "a myocardial infarction", "an MI"],
        ["mitral insufficiency", "MI", "a leaking mitral valve"],
        ["tetanus", "lockjaw"],
        ["the stomach", "belly"],
    ]
)


@pytest.mark.parametrize(
    ("text", "like", "expected"),
    [
        ("How is lockjaw treated?", "What is the treatment of tetanus?", "How is tetanus treated?"),
        ("Who gets a myocardial infarction?", "Is a heart attack frequent?", "Who gets a heart attack?"),
        ("Who gets Myocardial Infarction?", "Is it a HEART ATTACK?", "Who gets HEART ATTACK?"),
        # in either of its meanings
        ("Does an MI hurt?", "Is a heart attack painful?", "Does an heart attack hurt?"),
        ("Does MI need surgery?", "Is a leaking mitral valve operated on?", "Does leaking mitral valve need surgery?"),
        # several at once, each once
        ("Does lockjaw cause an MI?", "Can a heart attack follow tetanus?", "Does tetanus cause an heart attack?"),
        ("lockjaw, lockjaw", "tetanus", "tetanus, lockjaw"),
        # the plural of what the list has
        ("Who has heart attacks?", "Who has myocardial infarctions?", "Who has myocardial infarctions?"),
    ],
)
def test_an_expression_is_put_in_the_place_of_one_that_means_the_same(text: str, like: str, expected: str) -> None:
    assert SYNONYMS.reworded(text, like) == expected


@pytest.mark.parametrize(
    ("text", "like"),
    [
        ("How is lockjaw treated?", "How is rabies treated?"),  # which means something else
        ("Is tetanus lockjaw?", "What is tetanus?"),  # both have it
        ("Are heart attacks deadly?", "Is a heart attack deadly?"),  # but for the number the same
        ("mitral insufficiency", "heart attack"),  # what has a name in common needn't mean the same
        ("", "tetanus"),
        ("lockjaw", ""),
    ],
)
def test_what_does_not_mean_the_same_or_stands_in_both_is_left(text: str, like: str) -> None:
    assert SYNONYMS.reworded(text, like) == text


def test_a_longer_expression_goes_before_one_within_it() -> None:
    synonyms = Synonyms([["kidney", "renal"], ["kidney failure", "uraemia"]])
    assert synonyms.reworded("What does kidney failure do?", "What does renal uraemia do?") == "What does uraemia do?"


WORDS = st.lists(
    st.sampled_from(["heart", "attack", "MI", "Tetanus", "lockjaw", "a", "the", "belly", "?", "of"]), max_size=8
)


@given(WORDS, WORDS)
def test_only_words_of_both_are_said(text: list[str], like: list[str]) -> None:
    said = SYNONYMS.reworded(" ".join(text), " ".join(like))
    assert set(said.split()) <= {*text, *like}
    assert SYNONYMS.reworded(said, said) == said


def test_none_are_known_to_an_empty_list() -> None:
    assert Synonyms([]).reworded("lockjaw", "tetanus") == "lockjaw"
    assert Synonyms([["", "the"], ["?", "lockjaw"]]).reworded("lockjaw", "the ?") == "lockjaw"


def test_the_lexicon_that_ships_knows_medicine() -> None:
    known = shipped()
    assert known is shipped()
    assert known.reworded("How is lockjaw treated?", "What is given for tetanus?") == "How is tetanus treated?"
    assert known.reworded("How is rabies treated?", "How is tetanus treated?") == "How is rabies treated?"
