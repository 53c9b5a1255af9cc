"""Sentences, shortening, content words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.text import STOP_WORDS, content_words, cut, sentences, strip

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
