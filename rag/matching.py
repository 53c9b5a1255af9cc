"""Do two questions ask the same? A cross-encoder reads both, so that an answer is only given again to who asked for it.

A cosine can't tell: "treatment of X" and "symptoms of X" are closer than most paraphrases (Dasgupta et al. 2018, "Evaluating
compositionality in sentence embeddings"; `rag bench cache`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag.contrasts import contrast
from rag.differences import marked
from rag.errors import ModelError
from rag.pairs import PairModel
from rag.quantities import numbers_stand, one_or_several
from rag.stats import logit, pairs_needed, sigmoid, upper_bound
from rag.synonyms import shipped

LABEL = "same"

LONGEST = 240
"""Characters of a question. One of more isn't compared, and counts as another one: what a model doesn't read, or wasn't trained on
in such a length, may be what differs."""

SURE = 2.0
"""Logits. Two questions are read in both orders, and the mean counts, but no farther than this from what the first order says: so
where that one lies farther from the threshold the other needn't be read, which would take as long again. Of
`eval/paraphrases.jsonl` the mean lies 0.4 from it (standard deviation), and never on the shipped threshold's other side."""

MATCHED_TOKENS = 512
"""Longest pair, which two questions of `LONGEST` characters of prose with their marks stay far under."""


class QuestionMatcher:
    """Thread-safe as far as its model is, and it is."""

    def __init__(self, model: PairModel, min_same: float) -> None:
        """`min_same` is the lowest probability that counts as the same. Raises `ModelError` for a model of other labels."""
        if tuple(model.labels) != (LABEL,):
            raise ModelError(
                f"A matcher of questions gives one score a pair, {LABEL!r}; this model gives {', '.join(model.labels)}. "
                "Name another one in cache.model."
            )
        self._model = model
        self.min_same = min_same
        self._least = float(logit(np.array(min(min_same, 1.0), dtype=np.float64)))

    def same(self, question: str, earlier: str) -> bool:
        if not comparable(question, earlier):
            return False
        [first] = self._logits([compared(question, earlier)])
        if abs(first - self._least) > SURE:
            return bool(first > self._least)
        [second] = self._logits([compared(earlier, question)])
        return bool(_probability(first, second) >= self.min_same)

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Shape (pairs,): what `same` decides by, of (question, earlier). 0 where they aren't `comparable`: one dose, age or year is
        never nearly another one."""
        found = np.zeros(len(pairs))
        rows = [row for row, (a, b) in enumerate(pairs) if comparable(a, b)]
        if rows:
            found[rows] = self._read([pairs[row] for row in rows])
        return found

    def _read(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Of comparable pairs, shape (pairs,)."""
        both = [read for a, b in pairs for read in (compared(a, b), compared(b, a))]
        first, second = self._logits(both).reshape(-1, 2).T
        return _probability(first, second)

    def _logits(self, read: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Shape (pairs,)."""
        return self._model.logits(read)[:, 0].astype(np.float64)


def _probability(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the logits of both orders."""
    return sigmoid(np.clip((first + second) / 2, first - SURE, first + SURE))


def compared(question: str, earlier: str) -> tuple[str, str]:
    """As a matcher reads both, in training too: the earlier one with the question's own words where the lexicon knows that they mean
    the same (`rag.synonyms`), and with marks around what differs then."""
    return marked(question, shipped().reworded(earlier, question))


def comparable(a: str, b: str) -> bool:
    """Are both short enough to be read, do the numbers of one stand in the other, with their units, and do they differ in no opposite
    (`rag.contrasts`)? One may tell more: "the 2020 pandemic"."""
    same_numbers = (numbers_stand(a, b) or numbers_stand(b, a)) and not one_or_several(a, b)
    short = max(len(a), len(b)) <= LONGEST
    alike = all(marks.findall(a) == marks.findall(b) for marks in (_RAISED, _BELOW_ZERO)) and not _other_capitals(a, b)
    bounds = [set(_BOUND.findall(text)) for text in (a, b)]
    return short and same_numbers and alike and (not all(bounds) or bounds[0] == bounds[1]) and not contrast(a, b)


_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070-\u2079]+")
"""Superscripts: 10⁵ is no 10."""

_BELOW_ZERO = re.compile(r"(?<![\w)\]%])[-\u2212]\d")

_BOUND = re.compile(r"[<>\u2264\u2265](?=\s?\d)")
"""Where one of both says it in words, the model is asked."""

_UNIT = re.compile(r"(?<=\d)[ \u00a0]?([A-Za-z]{1,3})\b")

_WORD = re.compile(r"[^\W\d_]+")


def _other_capitals(a: str, b: str) -> bool:
    """Is a unit written as another one but for its capitals, as "5 mM" and "5 mm", or, where both mind capitals, a name that a capital
    makes, as "WHO" and "who" or "Mg" and "mg"? The models read small letters alone."""
    if _written_otherwise(_UNIT.findall(a), _UNIT.findall(b)):
        return True
    if a == a.lower() or b == b.lower():
        return False
    words = _written_otherwise(*(_WORD.findall(text)[1:] for text in (a, b)))
    return any(len(word) <= 2 or word[1:] != word[1:].lower() for word in words)


def _written_otherwise(one: Sequence[str], other: Sequence[str]) -> set[str]:
    """Words of either that the other has with other capitals alone."""
    ours, theirs = set(one), set(other)
    shared = {word.lower() for word in ours} & {word.lower() for word in theirs}
    return {word for word in ours ^ theirs if word.lower() in shared}


def threshold(probabilities: Sequence[float], same: Sequence[bool], max_wrong: float) -> float:
    """The lowest probability at which the one-sided upper 95% bound (Clopper and Pearson 1934) of the share of pairs that aren't
    the same, and would be taken for it, stays under `max_wrong`. Raises ValueError where there are too few of these, or too many
    with the highest probability."""
    wrong = sorted((p for p, alike in zip(probabilities, same, strict=True) if not alike), reverse=True)
    if not wrong or upper_bound(0, len(wrong)) > max_wrong:
        needed = pairs_needed(max_wrong, alpha=0.05)
        raise ValueError(
            f"{len(wrong)} pairs that ask something else, at least {needed} are needed for a bound of {max_wrong:g}"
        )
    if wrong[0] >= 1.0 and upper_bound(sum(p >= 1.0 for p in wrong), len(wrong)) > max_wrong:
        raise ValueError(
            f"{sum(p >= 1.0 for p in wrong)} of {len(wrong)} that ask something else have the highest probability"
        )
    let_through = max(k for k in range(len(wrong)) if upper_bound(k, len(wrong)) <= max_wrong)
    return float(np.nextafter(wrong[let_through], 2.0))
