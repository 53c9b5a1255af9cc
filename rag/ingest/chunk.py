"""Documents to passages. Pure.

A passage is a run of whole sentences, at most `max_chars` long, and knows where it stands in its
document. Passages of one document are of about equal length, so that no short rest is left over.
"""

from __future__ import annotations

import re

from rag.core import Document, Passage
from rag.text import Range, sentences, strip


def split(document: Document, max_chars: int, overlap_sentences: int = 0) -> list[Passage]:
    """Passages in the order of the text; each after the first repeats the last `overlap_sentences` before it."""
    ranges = [piece for start, end in sentences(document.text) for piece in _fit(document.text, start, end, max_chars)]
    return [
        Passage(f"{document.id}#{number}", document.id, document.title, document.text[start:end], start, end)
        for number, (start, end) in enumerate(_pack(ranges, max_chars, overlap_sentences))
    ]


def _pack(ranges: list[Range], max_chars: int, overlap: int) -> list[Range]:
    """Each passage takes its share of what is left, so that the last isn't a rest. The overlap comes out of what
    room there is then: it never pushes a sentence into another passage."""
    passages: list[Range] = []
    fewest = _fewest(ranges, max_chars)
    fresh, before = 0, -1  # first sentence not taken yet; first sentence of the passage before
    while fresh < len(ranges):
        start = ranges[fresh][0]
        share = (ranges[-1][1] - start) / fewest[fresh]
        last = fresh
        while last + 1 < len(ranges) and ranges[last][1] - start < share and ranges[last + 1][1] - start <= max_chars:
            last += 1
        first = fresh
        while first > max(before + 1, fresh - overlap) and ranges[last][1] - ranges[first - 1][0] <= max_chars:
            first -= 1
        passages.append((ranges[first][0], ranges[last][1]))
        fresh, before = last + 1, first
    return passages


def _fewest(ranges: list[Range], max_chars: int) -> list[int]:
    """For each sentence, how many passages it and those after it take when each is filled up."""
    counts = [0] * (len(ranges) + 1)
    after = len(ranges)  # first sentence that doesn't fit into a passage beginning with sentence i
    for i in reversed(range(len(ranges))):
        while ranges[after - 1][1] - ranges[i][0] > max_chars:
            after -= 1
        counts[i] = 1 + counts[after]
    return counts


def _fit(text: str, start: int, end: int, max_chars: int) -> list[Range]:
    """A sentence longer than a passage is cut between words."""
    pieces = []
    while end - start > max_chars:
        space = max((match.start() for match in re.finditer(r"\s", text[start : start + max_chars + 1])), default=0)
        middle = start + (space if space > 0 else max_chars)
        pieces.append(strip(text, start, middle))
        start = strip(text, middle, end)[0]
    if start < end:
        pieces.append((start, end))
    return pieces
