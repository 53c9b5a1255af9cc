"""Measures of one answer, against values worked out by hand."""

from __future__ import annotations

import pytest

from rag.bench.grounding import Score, score, supported
from rag.core import Hit, Passage, Sentence, Source
from rag.metrics import token_f1
from rag.prompt import NOT_IN_SOURCES, unmarked


def source(marker: int, title: str, text: str) -> Source:
    return Source(marker, Hit(Passage(f"{marker}", f"{marker}", title, text, 0, len(text)), 0.0), text)


SOURCES = (
    source(1, "Gout", "Gout is caused by urate crystals. It affects 4 in 100 adults, 1,200 a year."),
    source(2, "Malaria", "Malaria is caused by parasites, which mosquitoes carry."),
    source(3, "Scurvy", "Scurvy is caused by a lack of vitamin C."),
)
REFERENCE = "Gout is caused by urate crystals [1]."


def scored(answer: str, gold: tuple[int, ...] = (1,), truncated: bool = False, reference: str = REFERENCE) -> Score:
    return score(answer, truncated, reference, gold, SOURCES)


# --- words in common -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The urate, crystals!", "urate crystals", 1.0),  # small letters, no punctuation, no articles
        ("urate", "urate crystals", 2 / 3),  # precision 1, recall 1/2
        ("urate urate crystals", "urate crystals", 0.8),  # a word counts as often as both have it: 2 of 3 and 2 of 2
        ("lemons", "urate crystals", 0.0),
        ("", "urate", 0.0),
        ("the", "a", 1.0),  # nothing is left of either
    ],
)
def test_token_f1(answer: str, reference: str, expected: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(expected)
    assert token_f1(reference, answer) == pytest.approx(expected)


def test_markers_are_no_words_and_other_brackets_are() -> None:
    assert unmarked("Gout [1][2] is caused [12]. See [x] and [1234].") == "Gout is caused. See [x] and [1234]."


# --- support ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "markers", "expected"),
    [
        ("Gout is caused by urate crystals.", (1,), True),
        ("Gout is caused by urate crystals.", (), False),  # cites nothing
        ("Gout is caused by urate crystals.", (2,), False),  # cites another
        ("Gout is caused by urate crystals.", (2, 1), True),  # one of those cited is enough
        ("Gout affects 4 in 100 adults.", (1,), True),
        ("Gout affects 5 in 100 adults.", (1,), False),  # a number that isn't there
        ("Gout affects 1,200 adults.", (1,), True),
        ("Gout affects 200 adults.", (1,), False),  # part of a number isn't the number
        ("Gout crystals affects urate painfully.", (1,), True),  # 4 of 5 content words: exactly 0.8
        ("Gout crystals urate always painfully.", (1,), False),  # 3 of 5
        ("Gout is carried by mosquitoes.", (1, 2), False),  # one word here, two there, no passage with all
    ],
)
def test_a_sentence_is_supported_by_one_cited_passage(text: str, markers: tuple[int, ...], expected: bool) -> None:
    assert supported(Sentence(text, markers), SOURCES) is expected


def test_the_title_counts() -> None:
    untitled = source(1, "", "It is caused by urate crystals.")
    titled = source(1, "Gout", "It is caused by urate crystals.")
    sentence = Sentence("Gout urate.", (1,))
    assert (supported(sentence, [untitled]), supported(sentence, [titled])) == (False, True)


# --- a whole answer --------------------------------------------------------------------------------


def test_a_right_answer() -> None:
    assert scored(REFERENCE) == Score((1,), 0, False, True, 1.0, 1, 1)


@pytest.mark.parametrize(
    ("answer", "gold", "exact"),
    [
        ("Gout is caused by urate crystals [2].", (1,), False),
        ("Gout is caused by urate crystals.", (1,), False),
        ("Gout is caused by urate crystals [1][2].", (1,), False),  # one too many
        ("Gout is caused by urate crystals [1].", (1, 3), False),  # one too few
        ("Scurvy has a cause [3]. Gout has one too [1].", (1, 3), True),  # in any order
        ("Gout is caused by urate crystals [1, 3].", (1, 3), True),
        ("Gout is caused by urate crystals [1][9].", (1,), True),  # the one that points nowhere is taken out
    ],
)
def test_citations_are_exact_where_the_sets_of_markers_agree(answer: str, gold: tuple[int, ...], exact: bool) -> None:
    assert scored(answer, gold).citation_exact is exact


def test_markers_that_point_nowhere_are_counted_and_are_no_words() -> None:
    one = scored("Gout is caused by urate crystals [1][9][0].")
    assert (one.invalid_markers, one.markers, one.token_f1) == (2, (1,), 1.0)


def test_a_refusal_has_no_words_in_common_and_no_sentences() -> None:
    assert scored(NOT_IN_SOURCES) == Score((), 0, True, False, 0.0, 0, 0)


def test_without_an_answer_in_the_sources_there_is_nothing_to_compare_with() -> None:
    refused, answered = (scored(text, (), reference=NOT_IN_SOURCES) for text in (NOT_IN_SOURCES, REFERENCE))
    assert (refused.declined, refused.citation_exact, refused.token_f1) == (True, None, None)
    assert (answered.declined, answered.citation_exact, answered.token_f1) == (False, None, None)
    assert (answered.sentences, answered.supported) == (1, 1)


def test_the_sentence_that_was_cut_does_not_count() -> None:
    answer = "Gout is caused by urate crystals [1]. It then leads to a"
    assert (scored(answer, truncated=True).sentences, scored(answer).sentences) == (1, 2)
    assert scored(answer, truncated=True).token_f1 == 1.0


def test_sentences_are_counted_one_by_one() -> None:
    one = scored("Gout is caused by urate crystals [1]. Gout is caused by lemons and dogs [1]. Urate crystals.")
    assert (one.sentences, one.supported) == (3, 1)
