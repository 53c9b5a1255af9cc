"""Expressions that mean the same, put in each other's place: a small model can't know that lockjaw is tetanus, a list can. Pure.

The list is `data/lexicon/terms.jsonl`, of all of medicine.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from rag import paths

_WORD = re.compile(r"[^\W_]+")

_ARTICLE = re.compile(r"^(?:a|an|the)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Named:
    """An expression in a text: its words `start` to `end`, and which of the list's groups it stands in."""

    words: tuple[str, ...]
    start: int
    end: int
    groups: frozenset[int]


class Synonyms:
    """Groups of expressions that mean the same. One may stand in several: "MI" is mitral insufficiency too."""

    def __init__(self, groups: Iterable[Sequence[str]]) -> None:
        """Articles before an expression are left out."""
        known: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for number, group in enumerate(groups):
            for expression in group:
                known[tuple(word.lower() for word in _WORD.findall(_ARTICLE.sub("", expression)))].add(number)
        known.pop((), None)
        self._known = {words: frozenset(groups) for words, groups in known.items()}
        self._longest = max(map(len, self._known), default=0)

    def reworded(self, text: str, like: str) -> str:
        """`text` with the expressions of `like` in the place of its own that mean the same; the longest first, each once. What
        stands in both, or differs in the number alone, is left."""
        ours, theirs = list(_WORD.finditer(text)), list(_WORD.finditer(like))
        wanted, had = self._outside(theirs, ours), self._outside(ours, theirs)
        pairs = [
            (one, other) for one in had for other in wanted if one.groups & other.groups and not _alike(one, other)
        ]
        pairs.sort(key=lambda pair: len(pair[0].words) + len(pair[1].words), reverse=True)
        taken: list[tuple[_Named, _Named]] = []
        for one, other in pairs:
            if not any(_overlap(one, done) or _overlap(other, source) for done, source in taken):
                taken.append((one, other))
        for one, other in sorted(taken, key=lambda pair: pair[0].start, reverse=True):
            said = like[theirs[other.start].start() : theirs[other.end - 1].end()]
            text = text[: ours[one.start].start()] + said + text[ours[one.end - 1].end() :]
        return text

    def _outside(self, words: Sequence[re.Match[str]], others: Sequence[re.Match[str]]) -> list[_Named]:
        """Expressions of the first text that the second lacks."""
        elsewhere = f" {' '.join(word[0].lower() for word in others)} "
        return [named for named in self._named(words) if f" {' '.join(named.words)} " not in elsewhere]

    def _named(self, words: Sequence[re.Match[str]]) -> Iterator[_Named]:
        lower = [word[0].lower() for word in words]
        for start in range(len(lower)):
            for end in range(start + 1, min(start + self._longest, len(lower)) + 1):
                said = tuple(lower[start:end])
                if groups := self._known.get(said) or self._known.get(_singular(said)):
                    yield _Named(said, start, end, groups)


def _singular(words: tuple[str, ...]) -> tuple[str, ...]:
    return (*words[:-1], words[-1].removesuffix("s"))


def _alike(one: _Named, other: _Named) -> bool:
    return _singular(one.words) == _singular(other.words)


def _overlap(one: _Named, other: _Named) -> bool:
    return one.start < other.end and other.start < one.end


@cache
def shipped() -> Synonyms:
    """Those of the lexicon, read once."""
    lines = paths.shipped("data", "lexicon", "terms.jsonl").read_text(encoding="utf-8").splitlines()
    terms = (json.loads(line) for line in lines)
    return Synonyms([term["term"], *term["same"]] for term in terms)
