"""Documents to passages. Pure.

A passage is a run of whole sentences, at most `max_chars` long, and knows where it stands in its
document. Passages of one document are of about equal length, so that no short rest is left over.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator

from rag.core import Document, Passage
from rag.text import Range, each_sentence, strip


def split(document: Document, max_chars: int, overlap_sentences: int = 0) -> list[Passage]:
    """Passages in the order of the text; each after the first repeats the last `overlap_sentences` before it."""
    # Arrays: as tuples the sentences of a text of nothing but short lines take 50 times its memory.
    starts, ends = array("q"), array("q")
    for first, after in each_sentence(document.text):
        for start, end in _fit(document.text, first, after, max_chars):
            starts.append(start)
            ends.append(end)
    return [
        Passage(f"{document.id}#{number}", document.id, document.title, document.text[start:end], start, end)
        for number, (start, end) in enumerate(_pack(starts, ends, max_chars, overlap_sentences))
    ]


def _pack(starts: array[int], ends: array[int], max_chars: int, overlap: int) -> Iterator[Range]:
    """Each passage takes its share of what is left, so that the last isn't a rest. The overlap comes out of what
    room there is then: it never pushes a sentence into another passage."""
    fewest = _fewest(starts, ends, max_chars)
    fresh, before = 0, -1  # first sentence not taken yet; first sentence of the passage before
    while fresh < len(starts):
        start = starts[fresh]
        share = (ends[-1] - start) / fewest[fresh]
        last = fresh
        while last + 1 < len(starts) and ends[last] - start < share and ends[last + 1] - start <= max_chars:
            last += 1
        first = fresh
        while first > max(before + 1, fresh - overlap) and ends[last] - starts[first - 1] <= max_chars:
            first -= 1
        yield starts[first], ends[last]
        fresh, before = last + 1, first


def _fewest(starts: array[int], ends: array[int], max_chars: int) -> array[int]:
    """For each sentence, how many passages it and those after it take when each is filled up."""
    counts = array("q", bytes(8 * (len(starts) + 1)))
    after = len(starts)  # first sentence that doesn't fit into a passage beginning with sentence i
    for i in reversed(range(len(starts))):
        while ends[after - 1] - starts[i] > max_chars:
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
