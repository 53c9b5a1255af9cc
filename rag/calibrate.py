"""From which probability on two questions are the same: of pairs of which it is known, the lowest at which wrong hits stay rare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from rag import records
from rag.core import Encoder
from rag.errors import UsageError
from rag.matching import QuestionMatcher, threshold
from rag.stats import upper_bound

SPLIT = "calibration"


class Pair(BaseModel):
    """Two questions, and whether every answer to one is an answer to the other. Other keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)

    a: str
    b: str
    same: bool
    split: str | None = None
    kind: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """At `min_same`: how many of the pairs that ask the same are served, and of the others wrongly, with the bound of that rate."""

    min_same: float
    paraphrases: int
    hits: int
    near_misses: int
    wrong: int
    wrong_upper95: float

    @property
    def lines(self) -> list[str]:
        return [
            f"{self.hits} of {self.paraphrases} pairs that ask the same are served ({self.hits / max(1, self.paraphrases):.0%})",
            f"{self.wrong} of {self.near_misses} others are, wrongly: at most {self.wrong_upper95:.2%} at 95%",
        ]


def read_pairs(path: Path, split: str = SPLIT) -> list[Pair]:
    """Lines of this split, and those without one. Raises `UsageError` for the first that can't be used, and where none is left."""
    expected = 'expected like {"a": "…", "b": "…", "same": false}'
    pairs = [pair for _, pair in records.read(path, Pair, lambda problem: f"{problem}; {expected}.")]
    kept = [pair for pair in pairs if pair.split in (None, split)]
    if not kept:
        raise UsageError(f"{path} has {len(pairs)} pairs, none of them for {split}.")
    return kept


def cosines(encoder: Encoder, pairs: Sequence[Pair]) -> list[float]:
    """Of both questions of each."""
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b)))
    vectors = dict(zip(texts, encoder.encode_queries(texts), strict=True))
    return [float(np.dot(vectors[pair.a], vectors[pair.b])) for pair in pairs]


def calibrate(
    encoder: Encoder, matcher: QuestionMatcher, pairs: Sequence[Pair], max_wrong: float, min_cosine: float = -1.0
) -> Calibration:
    """Whatever the matcher's own threshold; a pair below `min_cosine` isn't served, as in the cache. Raises `UsageError` where there
    are too few that ask something else."""
    alike = cosines(encoder, pairs)
    found = matcher.probabilities([(pair.a, pair.b) for pair in pairs])
    probabilities = [p if cosine >= min_cosine else 0.0 for p, cosine in zip(found.tolist(), alike, strict=True)]
    try:
        exact = threshold(probabilities, [pair.same for pair in pairs], max_wrong)
    except ValueError as error:
        raise UsageError(f"No threshold: {error}. Add pairs, or raise cache.max_wrong_hits.") from None
    least = min(math.ceil(1e4 * exact) / 1e4, 1.0)  # up, so that it holds as it is printed
    return at(least, probabilities, [pair.same for pair in pairs])


def at(min_same: float, probabilities: Sequence[float], same: Sequence[bool]) -> Calibration:
    served = [alike for p, alike in zip(probabilities, same, strict=True) if p >= min_same]
    hits, wrong = sum(served), len(served) - sum(served)
    others = len(same) - sum(same)
    return Calibration(min_same, sum(same), hits, others, wrong, upper_bound(wrong, others) if others else 1.0)
