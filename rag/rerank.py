"""Cross-encoder: question and passage read together, one probability of relevance a pair."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from rag.settings import Device, Rerank


class CrossEncoderReranker:
    """sentence-transformers' `CrossEncoder`. Thread-safe by a lock: the tokenizer underneath isn't."""

    def __init__(self, path: Path, settings: Rerank, device: Device) -> None:
        from sentence_transformers import CrossEncoder
        from torch.nn import Sigmoid

        self._settings = settings
        self._lock = threading.Lock()
        self._model = CrossEncoder(
            str(path),
            device=device,
            max_length=settings.max_length,
            activation_fn=Sigmoid(),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        with self._lock:
            scores = self._model.predict(
                [(question, passage) for passage in passages],
                batch_size=self._settings.batch_size,
                show_progress_bar=False,
            )
        return [float(score) for score in scores]
