"""Documents to passages. Pure.

A passage is a run of whole sentences, at most `max_chars` long, and knows where it stands in its
document. Passages of one document are of about equal length, so that no short rest is left over.
"""

from __future__ import annotations

import math
import re

import sentencex

from rag.core import Document, Passage

_Range = tuple[int, int]


def split(document: Document, max_chars: int, overlap_sentences: int = 0) -> list[Passage]:
    """Passages in the order of the text; each after the first repeats the last `overlap_sentences` before it."""
    ranges = [piece for start, end in sentences(document.text) for piece in _fit(document.text, start, end, max_chars)]
    return [
        Passage(f"{document.id}#{number}", document.id, document.title, document.text[start:end], start, end)
        for number, (start, end) in enumerate(_pack(ranges, max_chars, overlap_sentences))
    ]


def sentences(text: str) -> list[_Range]:
    """(start, end) of each sentence, in characters, without the white space around it."""
    found = []
    for boundary in sentencex.get_sentence_boundaries("en", text):
        start, end = _strip(text, boundary["start_index"], boundary["end_index"])
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
    space = text.rfind(" ", 0, max_chars - 1)
    return text[: space if space > 0 else max_chars - 1].rstrip() + "…"


def _pack(ranges: list[_Range], max_chars: int, overlap: int) -> list[_Range]:
    if not ranges:
        return []
    whole = ranges[-1][1] - ranges[0][0]
    target = whole / math.ceil(whole / max_chars)
    passages: list[_Range] = []
    first = fresh = 0  # where the passage starts; where what isn't repeated in it starts
    for i, (_, end) in enumerate(ranges):
        last = i == len(ranges) - 1
        following = ranges[i + 1][1] if not last else end
        too_long = following - ranges[first][0] > max_chars
        if last or too_long or end - ranges[fresh][0] >= target:
            passages.append((ranges[first][0], end))
            if last:
                break
            # The overlap may not push the next sentence out: then the passage starts without it.
            first = fresh = i + 1
            while first > i + 1 - overlap and following - ranges[first - 1][0] <= max_chars:
                first -= 1
    return passages


def _fit(text: str, start: int, end: int, max_chars: int) -> list[_Range]:
    """A sentence longer than a passage is cut between words."""
    pieces = []
    while end - start > max_chars:
        space = max((match.start() for match in re.finditer(r"\s", text[start : start + max_chars + 1])), default=0)
        middle = start + (space if space > 0 else max_chars)
        pieces.append(_strip(text, start, middle))
        start = _strip(text, middle, end)[0]
    if start < end:
        pieces.append((start, end))
    return pieces


def _strip(text: str, start: int, end: int) -> _Range:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
