"""Sentences, shortening, content words."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
import sentencex
from hypothesis import given, settings
from hypothesis import strategies as st

from rag import text as module
from rag.text import BLOCK, STOP_WORDS, Range, content_words, cut, each_sentence, sentences, strip

quick = settings(deadline=None, max_examples=200)

words = st.text(alphabet="abcdefghijäß", min_size=1, max_size=9)
sentence_texts = st.lists(words, min_size=1, max_size=12).map(lambda some: " ".join(some).capitalize() + ".")
proses = st.lists(st.tuples(sentence_texts, st.sampled_from([" ", "\n", "\n\n"])), max_size=30).map(
    lambda pairs: "".join(sentence + gap for sentence, gap in pairs)
)
texts = st.one_of(proses, st.text(max_size=300), st.text(alphabet="ab. \n\t\u2029é😀。", max_size=300))
limits = st.integers(1, 120)


def prose(*lengths: int) -> str:
    """Sentences of the given lengths with a space between them; each holds its number."""
    return " ".join(f"S{number} {'x' * length}"[: length - 1] + "." for number, length in enumerate(lengths))


# --- sentences ---------------------------------------------------------------------------------


@quick
@given(texts)
def test_sentences_hold_every_visible_character_once_and_in_order(text: str) -> None:
    ranges = sentences(text)
    assert "".join("".join(text[start:end].split()) for start, end in ranges) == "".join(text.split())
    assert ranges == sorted(ranges)
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in ranges)


def test_offsets_count_characters_and_not_bytes() -> None:
    text = "Größe 😀 zählt. Ångström folgt."
    assert [text[start:end] for start, end in sentences(text)] == ["Größe 😀 zählt.", "Ångström folgt."]


def test_abbreviations_and_decimal_points_end_no_sentence() -> None:
    text = "Dr. Smith gave 3.5 mg of it, e.g. at night. It worked."
    assert [text[start:end] for start, end in sentences(text)] == [
        "Dr. Smith gave 3.5 mg of it, e.g. at night.",
        "It worked.",
    ]


def test_a_paragraph_ends_a_sentence_without_a_full_stop() -> None:
    text = "Gout\n\nJoints swell."
    assert [text[start:end] for start, end in sentences(text)] == ["Gout", "Joints swell."]


@pytest.mark.parametrize("space", ["\u00a0", "\u2009", "\u2029", "\u3000", "\x85"])
def test_a_capital_and_a_space_of_several_bytes_before_a_full_stop_end_no_run(space: str) -> None:
    """sentencex panics there, which no `except Exception` catches."""
    text = f"It takes vitamin D{space}. It worked."
    assert [text[start:end] for start, end in sentences(text)] == [f"It takes vitamin D{space}.", "It worked."]


# --- blocks ------------------------------------------------------------------------------------

blank_lines = st.sampled_from(["\n\n", "\n\n\n", "\r\n\r\n", "\n" * 40])
odd = st.text(alphabet='aA1.!?\u2026 \n\r\u00a0()[]"\u201c\u201d\u00e9\U0001f600\u3002-*', max_size=20)


def by_the_whole(text: str) -> list[Range]:
    """What sentencex makes of the text at once; a space that it panics at is another one."""
    for space in "\u00a0\u2029\u3000\x85":
        text = text.replace(f"{space}.", " .")
    found = [strip(text, one["start_index"], one["end_index"]) for one in sentencex.get_sentence_boundaries("en", text)]
    return [(start, end) for start, end in found if start < end]


def in_blocks(text: str, size: int) -> list[Range]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", size)
        return sentences(text)


@quick
@given(st.one_of(proses, odd, st.text(alphabet="ab. \n\t\u2029\u00e9\U0001f600\u3002", max_size=300)))
def test_a_text_of_one_block_has_the_sentences_that_sentencex_finds(text: str) -> None:
    assert len(text) < BLOCK
    assert sentences(text) == by_the_whole(text)


@quick
@given(st.lists(st.tuples(odd, blank_lines), max_size=12), st.integers(70, 120))
def test_blocks_of_whole_paragraphs_have_the_sentences_of_the_whole(pairs: list[tuple[str, str]], size: int) -> None:
    text = "".join(paragraph + blank for paragraph, blank in pairs)
    assert in_blocks(text, size) == by_the_whole(text)


@quick
@given(texts, st.integers(1, 40))
def test_blocks_of_any_size_hold_every_visible_character_once_and_in_order(text: str, size: int) -> None:
    ranges = in_blocks(text, size)
    assert "".join("".join(text[start:end].split()) for start, end in ranges) == "".join(text.split())
    assert all(one[1] <= two[0] for one, two in pairwise(ranges))
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in ranges)


@pytest.mark.parametrize("gap", [" ", "\n", "\n\n", "\r\n\r\n", "\n" * 500])
def test_a_long_text_is_divided_between_sentences(gap: str) -> None:
    text = gap.join(f"S{number}{'x' * (number % 90)}." for number in range(2000))
    assert len(text) > 5 * BLOCK
    assert [text[start:end] for start, end in sentences(text)] == text.split(gap)


def test_a_sentence_longer_than_a_block_is_divided_between_words() -> None:
    text = "word " * BLOCK
    pieces = [text[start:end] for start, end in sentences(text)]
    assert " ".join(pieces) == text.strip()
    assert 5 <= len(pieces) <= 10


def test_a_word_longer_than_a_block_is_divided_at_its_end() -> None:
    assert sentences("x" * (2 * BLOCK + 1)) == [(0, BLOCK), (BLOCK, 2 * BLOCK), (2 * BLOCK, 2 * BLOCK + 1)]


@pytest.mark.parametrize("text", ["word. " * (1 << 20), "\n" * (1 << 22) + "word."])
def test_the_first_sentence_of_a_long_text_is_there_at_once(text: str) -> None:
    tracemalloc.start()
    try:
        start, end = next(each_sentence(text))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert text[start:end] == "word."
    assert peak < 100 * BLOCK


# --- cut ---------------------------------------------------------------------------------------


@quick
@given(texts, limits)
def test_a_cut_text_is_within_the_limit_and_a_beginning_of_the_text(text: str, limit: int) -> None:
    shorter = cut(text, limit)
    assert len(shorter) <= limit
    if len(text) <= limit:
        assert shorter == text
    else:
        assert text.startswith(shorter) or text.startswith(shorter.removesuffix("…"))


@quick
@given(proses, limits)
def test_what_is_cut_within_a_sentence_ends_in_an_ellipsis(text: str, limit: int) -> None:
    shorter = cut(text, limit)
    if shorter != text and not shorter.endswith("…"):
        assert len(shorter) in {end for _, end in sentences(text)}


@pytest.mark.parametrize("limit", [50, 60, 74])
def test_a_cut_keeps_whole_sentences_where_one_ends_in_the_last_third(limit: int) -> None:
    assert cut(prose(30, 19, 80), limit) == prose(30, 19)


def test_a_cut_takes_the_last_of_several_sentence_ends() -> None:
    assert cut(prose(20, 10, 10, 60), 45) == prose(20, 10, 10)


def test_a_cut_falls_between_words_where_no_sentence_ends_nearby() -> None:
    text = "Short. The infection spreads along the nerves"
    assert cut(text, 30) == "Short. The infection spreads…"


def test_a_cut_between_lines_keeps_words_whole() -> None:
    assert cut("lemons\noranges\nsauerkraut and limes", 20) == "lemons\noranges…"


def test_a_single_word_is_cut_at_the_limit() -> None:
    assert cut("A" * 30, 10) == "A" * 9 + "…"


def test_a_text_at_the_limit_is_left_alone() -> None:
    assert cut("A" * 10, 10) == "A" * 10


# --- words -------------------------------------------------------------------------------------


def test_content_words_are_without_function_words_single_letters_and_case() -> None:
    assert content_words("What causes the B12 DEFICIENCY, a deficiency of vitamin K?") == {
        *("causes", "b12", "deficiency", "vitamin")
    }


def test_no_function_word_is_a_content_word() -> None:
    assert content_words(" ".join(STOP_WORDS).upper()) == frozenset()


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(0, 8, (2, 6)), (2, 6, (2, 6)), (1, 3, (2, 3)), (0, 2, (2, 2)), (6, 8, (8, 8))]
)
def test_a_range_is_stripped_of_the_space_at_its_ends(start: int, end: int, expected: tuple[int, int]) -> None:
    assert strip(" \na bc\t ", start, end) == expected
