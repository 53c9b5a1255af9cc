"""Cross-encoder: question and passage read together, one probability of relevance a pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.errors import ModelError
from rag.pairs import PairModel


class CrossEncoderReranker:
    """Thread-safe as far as its model is, and it is."""

    def __init__(self, model: PairModel) -> None:
        """Raises `ModelError` for a model that doesn't give one number a pair."""
        if len(model.labels) != 1:
            raise ModelError(
                f"A reranker gives one score a pair, this model gives {len(model.labels)} ({', '.join(model.labels)}). "
                "Name another one in rerank.model."
            )
        self._model = model

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        logits = self._model.logits([(question, passage) for passage in passages])[:, 0].astype(np.float64)
        scores: list[float] = (0.5 + 0.5 * np.tanh(0.5 * logits)).tolist()  # the sigmoid, without overflow
        return scores
