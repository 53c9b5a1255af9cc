"""Where a sentence differs from the passage that it is checked against, marked in both. Pure.

A small cross-encoder sees well that a word doesn't fit, and badly that it isn't the one of the passage. Which words differ
is found without it, by alignment, and told to it: what it has to judge is whether they mean the same. (Chen et al., ACL
2017, tell a reader which words of a passage stand in the question, for the same reason.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeAlias

from rag.text import Range, content_words, sentences

Mark: TypeAlias = tuple[str, str]

NEW: Mark = ("⟨", "⟩")
"""Around what only one of both has. Tokens of their own in BERT's vocabulary, which hardly a text uses."""

ELSEWHERE: Mark = ("«", "»")
"""Around words of the sentence that stand elsewhere in the passage."""

LONGEST = 8
"""Words of the passage in a mark. More aren't another wording of something, they are something else."""

SHARED = 0.5
"""Of the sentence's words, in their order. With fewer the two aren't alike enough to be compared word by word."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Aligned:
    """A sentence beside that sentence of a passage which shares the most content words with it, word by word."""

    ours: Sequence[re.Match[str]]
    theirs: Sequence[re.Match[str]]
    operations: Sequence[tuple[str, int, int, int, int]]
    """As `difflib` has them: a name, start and end in ours, start and end in theirs."""

    @property
    def texts(self) -> tuple[str, str]:
        """The sentence, and that of the passage, from their first word to their last."""
        return _between(self.ours), _between(self.theirs)

    @property
    def words(self) -> tuple[frozenset[str], frozenset[str]]:
        """Of both, in lower case."""
        return frozenset(_lower(self.ours)), frozenset(_lower(self.theirs))

    def replaced(self) -> Iterator[tuple[list[str], list[str]]]:
        """Words of ours, and what theirs has in their place, in lower case."""
        for name, start, end, first, last in self.operations:
            if name == "replace":
                yield _lower(self.ours[start:end]), _lower(self.theirs[first:last])


def _between(words: Sequence[re.Match[str]]) -> str:
    return words[0].string[words[0].start() : words[-1].end()] if words else ""


def align(sentence: str, passage: str) -> Aligned | None:
    """None where no sentence of the passage is alike."""
    nearest = _nearest(sentence, passage)
    if nearest is None:
        return None
    ours, theirs = list(_WORD.finditer(sentence)), list(_WORD.finditer(passage, *nearest))
    alignment = SequenceMatcher(None, _lower(ours), _lower(theirs), autojunk=False)
    if sum(block.size for block in alignment.get_matching_blocks()) < SHARED * len(ours):
        return None
    return Aligned(ours, theirs, alignment.get_opcodes())


def marked(sentence: str, passage: str) -> tuple[str, str]:
    """Both with marks around what differs between the sentence and that sentence of the passage which shares the most
    content words with it; as they are where no sentence is alike. A support checker reads pairs so, in training too."""
    return mark(sentence, passage, align(sentence, passage))


def mark(sentence: str, passage: str, aligned: Aligned | None) -> tuple[str, str]:
    """As `marked`, of both as they were aligned."""
    if aligned is None:
        return sentence, passage
    ours, theirs, operations = aligned.ours, aligned.theirs, aligned.operations
    known = frozenset(_lower(_WORD.finditer(passage)))
    left: list[tuple[Range, Mark]] = []
    right: list[tuple[Range, Mark]] = []
    for row, (name, start, end, first, last) in enumerate(operations):
        if name == "equal" or "".join(_lower(ours[start:end])) == "".join(_lower(theirs[first:last])):
            continue  # "flower pots" is "flowerpots"
        # Before the first word that both share, and after the last, a passage goes on: as many words as the sentence has there.
        if row == 0:
            first = max(first, last - (end - start))
        elif row == len(operations) - 1:
            last = min(last, first + (end - start))
        if start < end:
            elsewhere = known.issuperset(_lower(ours[start:end]))
            left.append((_span(ours[start:end]), ELSEWHERE if elsewhere else NEW))
        if 0 < last - first <= LONGEST:
            right.append((_span(theirs[first:last]), NEW))
    return _put(sentence, left), _put(passage, right)


def _nearest(sentence: str, passage: str) -> Range | None:
    words = content_words(sentence)
    return max(sentences(passage), key=lambda r: len(words & content_words(passage[slice(*r)])), default=None)


def _lower(words: Iterable[re.Match[str]]) -> list[str]:
    return [word[0].lower() for word in words]


def _span(words: Sequence[re.Match[str]]) -> Range:
    return words[0].start(), words[-1].end()


def _put(text: str, spans: Sequence[tuple[Range, Mark]]) -> str:
    parts, done = [], 0
    for (start, end), (opening, closing) in spans:
        parts += [text[done:start], opening, text[start:end], closing]
        done = end
    return "".join([*parts, text[done:]])
