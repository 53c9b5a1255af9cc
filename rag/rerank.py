"""Cross-encoder: question and passage read together, one probability of relevance a pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.core import Hit
from rag.errors import ModelError
from rag.pairs import PairModel


class CrossEncoderReranker:
    """Thread-safe as far as its model is, and it is.

    A small cross-encoder knows less of the language than the encoder that found the passages, which has seen a thousand
    times as much text: the cosine, times `cosine_weight`, is added to its logit, and the sum is what is calibrated.
    """

    def __init__(self, model: PairModel, cosine_weight: float = 0.0) -> None:
        """Raises `ModelError` for a model that doesn't give one number a pair."""
        if len(model.labels) != 1:
            raise ModelError(
                f"A reranker gives one score a pair, this model gives {len(model.labels)} ({', '.join(model.labels)}). "
                "Name another one in rerank.model."
            )
        self._model = model
        self.cosine_weight = cosine_weight

    def score(self, question: str, hits: Sequence[Hit]) -> list[float]:
        logits = self._model.logits([(question, hit.passage.titled) for hit in hits])[:, 0].astype(np.float64)
        logits += self.cosine_weight * np.array([hit.dense for hit in hits], dtype=np.float64)
        scores: list[float] = (0.5 + 0.5 * np.tanh(0.5 * logits)).tolist()  # the sigmoid, without overflow
        return scores
