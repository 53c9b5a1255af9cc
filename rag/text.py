"""English text: sentences, shortening, content words. Pure."""

from __future__ import annotations

import re
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

_WORD = re.compile(r"[^\W_]{2,}")


def sentences(text: str) -> list[Range]:
    """(start, end) of each sentence, in characters, without the white space around it."""
    found = []
    for boundary in sentencex.get_sentence_boundaries("en", text):
        start, end = strip(text, boundary["start_index"], boundary["end_index"])
        if start < end:
            found.append((start, end))
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
