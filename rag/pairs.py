"""Text pairs in, logits out: cross-encoders, by their fast form on a CPU, by torch elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from rag import bert
from rag.errors import SettingsError
from rag.settings import Backend, Device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits: TypeAlias = NDArray[np.float32]
    """Shape (pairs, labels)."""

FIRST_AT_MOST = 3 / 4
"""Of a pair's tokens: a question of more is cut after all, or nothing of the passage would be read."""


class PairModel(Protocol):
    """Reads two texts together. Synchronous, thread-safe."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What the logits stand for, in their order."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        """Shape (len(pairs), len(labels)), in the order of the pairs. A pair that is too long loses the end
        of its second text."""
        ...


def open_pairs(folder: Path, device: Device, max_length: int, batch_size: int, backend: Backend = "auto") -> PairModel:
    """`max_length` is tokens of a pair, `batch_size` pairs per forward pass.

    Raises `ModelError` where the folder or its fast form is damaged or missing, `SettingsError` where the
    model can't read pairs of `max_length`.
    """
    if bert.choose(folder, device, backend) == "openvino":
        return OpenVinoPairs(folder, max_length, batch_size)
    return TorchPairs(folder, device, max_length, batch_size)


class TorchPairs:
    """sentence-transformers' `CrossEncoder`: any architecture, any device.

    Thread-safe by a lock: the tokenizer underneath isn't. Of a pair that is too long it cuts the longer
    text, until both are equally long.
    """

    def __init__(self, folder: Path, device: Device, max_length: int, batch_size: int) -> None:
        from sentence_transformers import CrossEncoder
        from torch.nn import Identity

        self.labels = _labels(_config(folder, max_length))
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._model = CrossEncoder(
            str(folder),
            device=device,
            max_length=max_length,
            activation_fn=Identity(),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        with self._lock:
            found = self._model.predict(list(pairs), batch_size=self._batch_size, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32).reshape(len(pairs), len(self.labels))


class OpenVinoPairs:
    """The fast form on a CPU. Imports no torch. Thread-safe."""

    def __init__(self, folder: Path, max_length: int, batch_size: int) -> None:
        self.labels = _labels(_config(folder, max_length))
        self._max_length = max_length
        self._batch_size = batch_size
        self._tokenizer = bert.read_tokenizer(folder)
        self._network = bert.Network(folder, "logits", len(self.labels))

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        return self._network.run(self._encode(pairs), self._max_length, self._batch_size)

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """`tokenizers.Encoding`s. The first texts, which are few, are read once each."""
        tokenizer = self._tokenizer
        room = self._max_length - tokenizer.num_special_tokens_to_add(True)
        unique = list(dict.fromkeys(first for first, _ in pairs))
        firsts = dict(zip(unique, tokenizer.encode_batch(unique, add_special_tokens=False), strict=True))
        for first in firsts.values():
            first.truncate(int(room * FIRST_AT_MOST))
        seconds = tokenizer.encode_batch([second for _, second in pairs], add_special_tokens=False)
        encoded = []
        for (text, _), second in zip(pairs, seconds, strict=True):
            first = firsts[text]
            second.truncate(room - len(first.ids))
            encoded.append(tokenizer.post_process(first, second))
        return encoded


def _config(folder: Path, max_length: int) -> dict[str, Any]:
    config = bert.read_json(folder, "config.json")
    positions = config.get("max_position_embeddings", max_length)
    if max_length > positions:
        raise SettingsError(
            f"max_length is {max_length}, and {folder.name} reads {positions} tokens at most. "
            "Lower rerank.max_length or verify.max_length."
        )
    return config


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers' default
    return tuple(named[key] for key in sorted(named, key=int))
