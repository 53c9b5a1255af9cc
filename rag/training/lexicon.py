"""Questions put together of a lexicon: expressions that mean the same, and nearly, in frames that ask the same, and nearly.

What a small encoder lacks most is which expressions mean the same: that lockjaw is tetanus, and not rabies. A line of
`data/lexicon/terms.jsonl` says it in a tenth of the words that a cluster of questions takes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rag.training.examples import shuffled

Said = tuple[str, str, bool, str]
"""Two questions, whether they ask the same, and how the pair came about."""


def pairs(
    terms: Sequence[Mapping[str, Any]], frames: Sequence[Mapping[str, Any]], chance: random.Random
) -> Iterator[Said]:
    """Of each term four pairs: two of its names, itself and what it is easily confused with, two aspects of it, and one aspect in two
    wordings. Half of them ask the same."""
    of_kind: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for frame in frames:
        of_kind[frame["kind"]].append(frame)
    for term in shuffled(terms, chance):
        named = [term["term"], *term["same"]]
        wordings = _wordings(chance.choice(of_kind[term["kind"]]))
        one, other = chance.sample(named, 2)
        a, b = chance.choices(wordings, k=2)
        yield filled(a, one), filled(b, other), True, "same term"
        a, b = chance.choices(wordings, k=2)
        yield filled(a, chance.choice(named)), filled(b, chance.choice(term["near"])), False, "other term"
        frame = chance.choice(of_kind[term["kind"]])
        one, other = chance.choices(named, k=2)
        asked = filled(chance.choice(_wordings(frame)), one)
        yield asked, filled(chance.choice(frame["near"]), other), False, "other aspect"
        a, b = chance.sample(_wordings(chance.choice(of_kind[term["kind"]])), 2)
        name = chance.choice(named)
        yield filled(a, name), filled(b, name), True, "same aspect"


def filled(frame: str, term: str) -> str:
    """A question: the term in its slot, with a capital at the beginning, but for what has one further on (mRNA)."""
    text = frame.replace("{}", term)
    return text if text[1:2].isupper() else text[0].upper() + text[1:]


def _wordings(frame: Mapping[str, Any]) -> list[str]:
    return [frame["frame"], *frame["same"]]
