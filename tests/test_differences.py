"""What differs between a sentence and its passage, marked in both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.differences import ELSEWHERE, NEW, marked

PASSAGE = "Gout\nCrystals of urate form in cold joints. Allopurinol lowers urate in adults with gout, slowly."


@pytest.mark.parametrize(
    ("sentence", "ours", "theirs"),
    [
        ("Allopurinol raises urate in adults.", "Allopurinol ⟨raises⟩ urate in adults.", "Allopurinol ⟨lowers⟩ urate"),
        ("Allopurinol lowers urate in adults.", "Allopurinol lowers urate in adults.", "adults with gout"),
        (
            "Allopurinol never lowers urate in adults.",
            "Allopurinol ⟨never⟩ lowers urate in adults.",
            "Allopurinol lowers",
        ),
        ("Allopurinol urate in adults.", "Allopurinol urate in adults.", "Allopurinol ⟨lowers⟩ urate"),
        ("Colchicine lowers urate in adults.", "⟨Colchicine⟩ lowers urate in adults.", "⟨Allopurinol⟩ lowers"),
        ("Allopurinol lowers urate in children.", "Allopurinol lowers urate in ⟨children⟩.", "urate in ⟨adults⟩ with"),
        ("Allopurinol lowers urate in joints.", "Allopurinol lowers urate in «joints».", "urate in ⟨adults⟩ with"),
        ("Allo-purinol low ers urate", "Allo-purinol low ers urate", "Allopurinol lowers urate"),
        ("ALLOPURINOL lowers urate, in adults", "ALLOPURINOL lowers urate, in adults", "Allopurinol lowers urate in"),
    ],
)
def test_what_differs_is_marked_on_both_sides(sentence: str, ours: str, theirs: str) -> None:
    said, passage = marked(sentence, PASSAGE)
    assert said == ours
    assert theirs in passage


def test_what_has_no_like_sentence_stays_as_it_is() -> None:
    assert marked("Insulin is made in the pancreas.", PASSAGE) == ("Insulin is made in the pancreas.", PASSAGE)
    assert marked("Allopurinol lowers urate.", "") == ("Allopurinol lowers urate.", "")


def test_a_long_insertion_of_the_passage_is_no_other_wording() -> None:
    passage = "Urate, which is what remains of purines in food and of the body's own cells, forms crystals."
    assert marked("Urate forms crystals.", passage) == ("Urate forms crystals.", passage)


words = st.lists(st.sampled_from(["gout", "urate", "and", "joints.", "The", "pain", "(cold)", "β", "5.5"]), max_size=12)


@given(words.map(" ".join), words.map(" ".join))
def test_marks_are_all_that_is_added(sentence: str, passage: str) -> None:
    def plain(text: str) -> str:
        return text.translate({ord(mark): None for mark in (*NEW, *ELSEWHERE)})

    said, read = marked(sentence, passage)
    assert (plain(said), plain(read)) == (sentence, passage)


@given(words.map(lambda some: " ".join(some).replace(".", "")))
def test_a_sentence_that_is_the_passage_has_no_marks(text: str) -> None:
    assert marked(text, text) == (text, text)
