"""Cross-encoder: question and passage read together, one probability of relevance a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rag.core import Encoder, Hit, Query, Reranker
from rag.errors import ModelError
from rag.pairs import PairModel
from rag.stats import of_best, sigmoid


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """How much what the search says of a passage counts beside a logit of 1: its cosine, and its BM25 score as a share of the
    best one among the candidates."""

    cosine: float = 0.0
    lexical: float = 0.0


class CrossEncoderReranker:
    """Thread-safe as far as its model is, and it is.

    A small cross-encoder knows less of the language than the encoder that found the passages, which has seen a thousand
    times as much text, and less of rare words than BM25, which counts them: what both say is added to its logit, and the
    sum is what is calibrated.
    """

    def __init__(self, model: PairModel, weights: ScoreWeights = ScoreWeights()) -> None:
        """Raises `ModelError` for a model that doesn't give one number a pair."""
        if len(model.labels) != 1:
            raise ModelError(
                f"A reranker gives one score a pair, this model gives {len(model.labels)} ({', '.join(model.labels)}). "
                "Name another one in rerank.model."
            )
        self._model = model
        self.weights = weights

    def scores(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[list[float]]:
        pairs = [(question, hit.passage.titled) for question, hits in found for hit in hits]
        logits = self._model.logits(pairs)[:, 0].astype(np.float64)
        logits += self.weights.cosine * np.array([hit.dense for _, hits in found for hit in hits], dtype=np.float64)
        logits += self.weights.lexical * np.concatenate([np.zeros(0), *(lexical_shares(hits) for _, hits in found)])
        scores = iter(sigmoid(logits).tolist())
        return [[next(scores) for _ in hits] for _, hits in found]


def scored(
    query: Query,
    hits: Sequence[Hit],
    encoder: Encoder,
    reranker: Reranker | None,
    lexical: Sequence[float] | None = None,
) -> list[Hit]:
    """Passages that no search has scored, with their cosine with the query, their BM25 scores where `lexical` has them, and the
    reranker's probability where there is one."""
    if not hits:
        return []
    cosines = encoder.encode_passages([hit.passage.titled for hit in hits]) @ query.vector
    found = [
        replace(hit, dense=float(cosine), lexical=bm25, rerank=None)
        for hit, cosine, bm25 in zip(hits, cosines, lexical if lexical is not None else [None] * len(hits), strict=True)
    ]
    if reranker is None:
        return found
    [scores] = reranker.scores([(query.text, found)])
    return [replace(hit, rerank=score) for hit, score in zip(found, scores, strict=True)]


def lexical_shares(hits: Sequence[Hit]) -> NDArray[np.float64]:
    """BM25 scores over the best one, shape (hits,): 0 where the lexical search didn't find a passage, or is off."""
    return of_best(np.array([hit.lexical or 0.0 for hit in hits], dtype=np.float64))
