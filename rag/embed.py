"""Query and passage encoder, vectors of unit length: by a model's fast form on a CPU, by sentence-transformers elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag import bert
from rag.settings import Device, Embed

if TYPE_CHECKING:
    from rag.core import Encoder, Matrix

TOGETHER = 1024
"""Texts that are tokenised at a time: that takes 26 kB of memory a passage, and a document may have tens of thousands."""


def open_encoder(folder: Path, fingerprint: str, settings: Embed, device: Device) -> Encoder:
    """`fingerprint` names the model in an index's manifest. Its vectors are the same by both ways to within a hundredth.

    Raises `ModelError` where the folder or its fast form is damaged or missing.
    """
    if bert.choose(folder, device, settings.backend) == "openvino":
        return OpenVinoEncoder(folder, fingerprint, settings)
    return SentenceTransformerEncoder(folder, fingerprint, settings, device)


class OpenVinoEncoder:
    """The fast form on a CPU. Imports no torch. Thread-safe."""

    def __init__(self, folder: Path, fingerprint: str, settings: Embed) -> None:
        self.model = fingerprint
        self._settings = settings
        self.dimension: int = bert.read_json(folder, "config.json")["hidden_size"]
        self._longest: int = bert.read_json(folder, "sentence_bert_config.json")["max_seq_length"]
        self._tokenizer = bert.read_tokenizer(folder)
        self._tokenizer.enable_truncation(self._longest)
        self._network = bert.Network(folder, "vectors", self.dimension)

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        return self._encode([self._settings.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Matrix:
        return self._encode([self._settings.passage_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Matrix:
        parts = (texts[start : start + TOGETHER] for start in range(0, max(1, len(texts)), TOGETHER))
        tokenised = (self._tokenizer.encode_batch(part) for part in parts)
        return np.concatenate([self._network.run(one, self._longest, self._settings.batch_size) for one in tokenised])


class SentenceTransformerEncoder:
    """Thread-safe by a lock: the tokenizer underneath isn't."""

    def __init__(self, path: Path, fingerprint: str, settings: Embed, device: Device) -> None:
        """`path` is a model folder, `fingerprint` names it in an index's manifest."""
        from sentence_transformers import SentenceTransformer

        self._settings = settings
        self._lock = threading.Lock()
        self._model = SentenceTransformer(
            str(path),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        self.model = fingerprint

    @property
    def dimension(self) -> int:
        dimension: int = self._model.get_embedding_dimension()
        return dimension

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        return self._encode([self._settings.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Matrix:
        return self._encode([self._settings.passage_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Matrix:
        with self._lock:
            vectors = self._model.encode(
                texts,
                batch_size=self._settings.batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.ascontiguousarray(vectors, dtype=np.float32)
