"""Documents to passages: nothing lost, nothing too long, no short rest."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag.core import Document, Passage
from rag.ingest.chunk import split
from rag.text import sentences

quick = settings(deadline=None, max_examples=200)

words = st.text(alphabet="abcdefghijäß", min_size=1, max_size=9)
sentence_texts = st.lists(words, min_size=1, max_size=12).map(lambda some: " ".join(some).capitalize() + ".")
proses = st.lists(st.tuples(sentence_texts, st.sampled_from([" ", "\n", "\n\n"])), max_size=30).map(
    lambda pairs: "".join(sentence + gap for sentence, gap in pairs)
)
texts = st.one_of(proses, st.text(max_size=300), st.text(alphabet="ab. \n\t\u2029é😀。", max_size=300))
limits = st.integers(1, 120)
overlaps = st.integers(0, 3)


def passages_of(text: str, max_chars: int, overlap: int = 0) -> list[Passage]:
    return split(Document("doc", "Title", text), max_chars, overlap)


def prose(*lengths: int) -> str:
    """Sentences of the given lengths with a space between them; each holds its number."""
    return " ".join(f"S{number} {'x' * length}"[: length - 1] + "." for number, length in enumerate(lengths))


def lengths_of(passages: list[Passage]) -> list[int]:
    return [len(passage.text) for passage in passages]


# --- passages ----------------------------------------------------------------------------------


@quick
@given(texts, limits, overlaps)
def test_a_passage_is_what_stands_at_its_offsets(text: str, limit: int, overlap: int) -> None:
    for number, passage in enumerate(passages_of(text, limit, overlap)):
        assert text[passage.start : passage.end] == passage.text
        assert (passage.id, passage.doc_id, passage.title) == (f"doc#{number}", "doc", "Title")
        assert passage.text == passage.text.strip() != ""


@quick
@given(texts, limits, overlaps)
def test_no_passage_is_longer_than_the_limit(text: str, limit: int, overlap: int) -> None:
    assert all(length <= limit for length in lengths_of(passages_of(text, limit, overlap)))


@quick
@given(texts, limits, overlaps)
def test_every_visible_character_is_in_some_passage(text: str, limit: int, overlap: int) -> None:
    covered = {place for passage in passages_of(text, limit, overlap) for place in range(passage.start, passage.end)}
    assert [text[place] for place in range(len(text)) if place not in covered and not text[place].isspace()] == []


@quick
@given(texts, limits)
def test_without_overlap_no_character_is_in_two_passages(text: str, limit: int) -> None:
    passages = passages_of(text, limit)
    assert all(one.end <= two.start for one, two in pairwise(passages))


@quick
@given(texts, limits, overlaps)
@example("A. A a a. A a a a a a a a aa aa aa aaaa. A. ", 21, 1)
def test_every_passage_begins_and_ends_after_the_one_before(text: str, limit: int, overlap: int) -> None:
    passages = passages_of(text, limit, overlap)
    assert all(one.start < two.start and one.end < two.end for one, two in pairwise(passages))


@quick
@given(proses, overlaps)
def test_a_passage_is_a_run_of_whole_sentences(text: str, overlap: int) -> None:
    ranges = sentences(text)
    limit = max((end - start for start, end in ranges), default=1)
    for passage in passages_of(text, limit, overlap):
        assert passage.start in {start for start, _ in ranges}
        assert passage.end in {end for _, end in ranges}


@quick
@given(proses, limits, overlaps)
def test_a_passage_repeats_at_most_the_sentences_asked_for(text: str, limit: int, overlap: int) -> None:
    ranges = sentences(text)
    passages = passages_of(text, limit, overlap)
    for one, two in pairwise(passages):
        repeated = [(start, end) for start, end in ranges if two.start <= start and end <= one.end]
        assert len(repeated) <= overlap


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\u00a0"])
def test_a_text_of_nothing_but_space_has_no_passage(text: str) -> None:
    assert passages_of(text, 100, 1) == []


def test_a_text_within_the_limit_is_one_passage() -> None:
    text = prose(40, 39, 19)
    assert passages_of(text, 100, 1) == [Passage("doc#0", "doc", "Title", text, 0, 100)]
    assert lengths_of(passages_of(text, 99)) == [80, 19]


def test_the_space_between_sentences_counts_towards_the_limit() -> None:
    assert lengths_of(passages_of(prose(50, 49), 100)) == [100]
    assert lengths_of(passages_of(prose(50, 50), 100)) == [50, 50]


def test_a_passage_repeats_the_last_sentences_of_the_one_before() -> None:
    text = prose(30, 30, 30, 30, 30, 30)
    spans = [(passage.start // 31, passage.end // 31) for passage in passages_of(text, 130, 1)]
    assert spans == [(0, 3), (3, 5)]


def test_where_the_sentences_fill_the_passages_nothing_is_repeated() -> None:
    text = prose(30, 30, 30, 30, 30, 30)
    spans = [(passage.start // 31, passage.end // 31) for passage in passages_of(text, 95, 1)]
    assert spans == [(0, 2), (3, 5)]


def test_the_overlap_gives_way_to_a_sentence_that_would_not_fit_beside_it() -> None:
    text = prose(30, 30, 80, 30)
    assert [passage.text[:2] for passage in passages_of(text, 100, 1)] == ["S0", "S2", "S3"]


def test_a_sentence_over_the_limit_is_cut_between_words() -> None:
    text = "one two three four five six seven eight nine ten"
    passages = passages_of(text, 20)
    assert " ".join(passage.text for passage in passages) == text
    assert max(lengths_of(passages)) <= 20


def test_a_word_over_the_limit_is_cut_at_the_limit() -> None:
    assert [passage.text for passage in passages_of("A" * 25, 10)] == ["A" * 10, "A" * 10, "A" * 5]


def test_a_text_of_nothing_but_short_lines_takes_few_times_its_memory() -> None:
    text = "a\n\n" * 60_000
    tracemalloc.start()
    try:
        passages = passages_of(text, 1000, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(passages) == 180
    assert peak < 20 * len(text)


# --- balance -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "passages"),
    [
        (18, 2),  # 1,097 characters: the second passage isn't the 97 that are over
        (33, 3),  # 2,012 characters at 60 a sentence, or 1,979 at 59: close to twice what fits
        (51, 4),
    ],
)
def test_equal_sentences_make_about_equal_passages(count: int, passages: int) -> None:
    found = lengths_of(passages_of(prose(*[59] * count), 1000))
    assert len(found) == passages
    assert max(found) - min(found) <= 2 * 60


@quick
@given(st.lists(st.integers(20, 100), min_size=15, max_size=60))
def test_no_passage_of_a_document_is_shorter_than_half_of_another(lengths: list[int]) -> None:
    found = lengths_of(passages_of(prose(*lengths), 1000))
    assert min(found) * 2 >= max(found), found
