"""English text: sentences, shortening, content words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

import sentencex

Range: TypeAlias = tuple[int, int]
"""(start, end) in characters."""

# English function words: in every passage and every question, so they tell nothing apart.
STOP_WORDS = frozenset(
    """a about after all also am an and any are as at be because been before being between both but by can could did do
    does doing down during each few for from had has have having he her here hers him his how i if in into is it its
    itself just me more most my no nor not of off on once only or other our out over own same she should so some such
    than that the their them then there these they this those through to too under until up very was we were what when
    where which while who whom why will with would you your""".split()  # noqa: SIM905
)

BLOCK = 8 * 1024
"""Characters that sentencex is given at once. What it makes of them takes many times their memory, and quotation marks that
nothing closes take it a time that grows by their square."""

_BLANK_LINES = ("\n\n", "\n\r\n")
"""What ends a paragraph for sentencex."""

_WORD = re.compile(r"[^\W_]{2,}")
# sentencex 1.0.32 panics at a capital, such a space and a full stop. A blank there changes none of its sentences.
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f](?=\.)")


def sentences(text: str) -> list[Range]:
    """(start, end) of each sentence, in characters, without the white space around it."""
    return list(each_sentence(text))


def each_sentence(text: str) -> Iterator[Range]:
    """What `sentences` lists, of a text of any size."""
    start = 0
    while start < len(text):
        block = text[start : start + BLOCK]
        if start + BLOCK < len(text):
            block = block[: _end(block)]
        for first, after in _sentences(block):
            yield start + first, start + after
        start += len(block)


def _end(block: str) -> int:
    """Where a block ends behind which the text goes on: at the end of a paragraph, which is where sentencex doesn't look back. In
    a paragraph that is longer, before the last sentence; in a sentence that is, between words."""
    if end := max((block.rfind(blank) + len(blank) for blank in _BLANK_LINES if blank in block), default=0):
        return end
    last_sentence = max((start for start, _ in _sentences(block)), default=0)
    words = block.rsplit(None, 1)
    last_word = len(words[0]) if len(words) > 1 else 0
    # From the middle on: else a block could end at its beginning, one after the other.
    return next((end for end in (last_sentence, last_word) if 2 * end > len(block)), len(block))


def _sentences(block: str) -> list[Range]:
    found, at = [], 0
    block = _WIDE_SPACE.sub(" ", block)
    for piece in sentencex.segment("en", block):
        if sentence := piece.strip():
            start = block.index(sentence, at)  # above 10 KiB, not every blank line is among the pieces
            at = start + len(sentence)
            found.append((start, at))
    return found


def cut(text: str, max_chars: int) -> str:
    """The beginning of `text`: at most `max_chars`, up to a sentence's end where one lies in the last
    third, else up to a word's end and with an ellipsis."""
    if len(text) <= max_chars:
        return text
    ends = [end for _, end in sentences(text) if max_chars * 2 // 3 <= end <= max_chars]
    if ends:
        return text[: ends[-1]]
    space = max((match.start() for match in re.finditer(r"\s", text[:max_chars])), default=0)
    return text[: space if space > 0 else max_chars - 1].rstrip() + "…"


def content_words(text: str) -> frozenset[str]:
    """Lower-cased words of a text that say what it is about."""
    return frozenset(_WORD.findall(text.lower())) - STOP_WORDS


def strip(text: str, start: int, end: int) -> Range:
    """The range without the white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
