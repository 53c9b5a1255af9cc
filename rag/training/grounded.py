"""Examples for the generator: a question, numbered passages, and an answer that stands in them.

The answer is taken from the passages word for word, one to three sentences, each with its marker; or it is
the sentence that declines. `diseases` and `papers` make them of the datasets.

A `Sheet` asks several questions about the same passages: what tells its prompts apart is the question alone, so that
nothing but reading it leads to the answer. It also takes a third of the time, since the passages are read once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rag.core import Hit, Message, Passage, Source
from rag.prompt import NOT_IN_SOURCES, build

UNANSWERABLE = 0.2
ASKED = 6
"""Questions of a sheet, at most."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a text's sentences with a title, as a passage of the prompt."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """`gold` are the markers that the answer carries, () where it declines; `kind` says how it was made."""

    id: str
    kind: str
    question: str
    passages: tuple[Piece, ...]
    answer: str
    gold: tuple[int, ...]

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(
            Source(n, Hit(Passage(f"{n}", f"{n}", piece.title, piece.text, 0, len(piece.text)), 0.0), piece.text)
            for n, piece in enumerate(self.passages, start=1)
        )

    @property
    def messages(self) -> tuple[Message, ...]:
        """The product's own prompt."""
        return build(self.question, self.sources).messages

    @property
    def answerable(self) -> bool:
        return bool(self.gold)


Sheet: TypeAlias = tuple[Example, ...]
"""Examples with the same passages."""


def marked(answer: Sequence[tuple[str, int]]) -> str:
    """Sentences with their markers, which stand before the full stop."""
    return " ".join(re.sub(r"[.\s]*(\.[\"')]*)$", rf" [{marker}]\1", sentence) for sentence, marker in answer)


def count_of_passages(chance: random.Random) -> int:
    return chance.choice((2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 8)) if chance.random() < 0.97 else chance.randint(9, 15)


def length_of_passages(count: int, chance: random.Random) -> int:
    """Characters; fewer where there are many passages."""
    longest = 1000 if count <= 4 else 700 if count <= 6 else 350 if count <= 9 else 220
    return min(longest, int(chance.triangular(150, 850, 280)))


def arranged(
    identity: str,
    kind: str,
    question: str,
    answer: Sequence[tuple[str, int]],
    golds: Sequence[Piece],
    others: Sequence[Piece],
    chance: random.Random,
) -> Example:
    """The passages shuffled, and the answer's markers put to where they went. `answer` has positions in `golds`."""
    pieces = [*golds, *others]
    order = list(range(len(pieces)))
    chance.shuffle(order)
    place = {piece: marker for marker, piece in enumerate(order, start=1)}
    text = marked([(sentence, place[gold]) for sentence, gold in answer]) if answer else NOT_IN_SOURCES
    gold = tuple(sorted({place[position] for _, position in answer}))
    return Example(identity, kind, question, tuple(pieces[number] for number in order), text, gold)
