"""Who is asked what, and when: variants take turns in blocks of a few questions, forth and back. Pure.

A shared machine is slower for a while now and then. Within a block that hits all variants about alike, and from one block to
the next each pair of them changes places, so that what drifts slowly is on neither's side.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from rag.bench import SEED
from rag.evaluate import Question

T = TypeVar("T")

BLOCK = 4
"""Questions."""

Key: TypeAlias = tuple[str, str, bool]
"""Variant, id of the question, and whether it was asked cold: there is one sample of each."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question for a variant. `cold`: with nothing in the caches; else they hold what every prompt begins with."""

    variant: str
    block: int
    question: Question
    cold: bool = False

    @property
    def key(self) -> Key:
        return self.variant, self.question.id, self.cold


def turns(questions: Sequence[Question], variants: Sequence[str], cold: Collection[str] = ()) -> Iterator[Turn]:
    """All of them, in their order. The variants in `cold` get the first question of each block cold as well, before the others."""
    for block, start in enumerate(range(0, len(questions), BLOCK)):
        asked = questions[start : start + BLOCK]
        for variant in order(variants, block):
            if variant in cold:
                yield Turn(variant, block, asked[0], cold=True)
            for question in asked:
                yield Turn(variant, block, question)


def order(variants: Sequence[T], block: int) -> list[T]:
    """What takes turns, in a block or round: drawn for each second block, and backwards in the one after it."""
    drawn = random.Random(f"{SEED}/{block // 2}").sample(variants, len(variants))
    return drawn if block % 2 == 0 else drawn[::-1]
