"""Encodes passages by the product's encoder and by sentence-transformers, and keeps the vectors of both."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag import files
from rag.bench import results
from rag.bench.timing import PAUSE, in_turn
from rag.core import Clock, Passage
from rag.settings import Device, Embed

if TYPE_CHECKING:
    from rag.core import Encoder, Matrix

BLOCK = 500
WARM_UP = 256
"""Passages: enough for what an encoder prepares only for many."""
VECTORS = "vectors"


class Float32Encoder:
    """sentence-transformers by its defaults, in FP32 whatever the weights are stored in."""

    def __init__(self, folder: Path, settings: Embed, device: Device) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._settings = settings
        self._model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        return self._encode([self._settings.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Matrix:
        return self._encode([self._settings.passage_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Matrix:
        return np.asarray(self._model.encode(texts, show_progress_bar=False), dtype=np.float32)


class Blocks:
    """Passages, `BLOCK` at a time, and a file for what both encoders make of each block."""

    def __init__(self, folder: Path, passages: Sequence[Passage]) -> None:
        self._folder = results.unpublished(folder, VECTORS)
        self._passages = passages

    def __len__(self) -> int:
        return -(-len(self._passages) // BLOCK)

    def texts(self, number: int) -> list[str]:
        return [passage.titled for passage in self._passages[number * BLOCK : (number + 1) * BLOCK]]

    def kept(self, number: int) -> bool:
        return self._path(number).is_file()

    def keep(self, number: int, ours: Matrix, reference: Matrix) -> None:
        with files.replacing_file(self._path(number)) as temporary, temporary.open("wb") as file:
            np.savez(file, ours=ours, reference=reference)

    def vectors(self) -> tuple[Matrix, Matrix]:
        """Of all passages, ours and the reference's."""
        parts: dict[str, list[Matrix]] = {"ours": [], "reference": []}
        for number in range(len(self)):
            with np.load(self._path(number), allow_pickle=False) as block:
                for name, vectors in parts.items():
                    vectors.append(block[name])
        return np.concatenate(parts["ours"]), np.concatenate(parts["reference"])

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"


def encode(
    blocks: Blocks, numbers: Iterable[int], ours: Encoder, reference: Float32Encoder
) -> Iterator[dict[str, Any]]:
    """Seconds of each of these blocks, warm; its vectors are kept by then."""
    warm_up = blocks.texts(0)[:WARM_UP]
    for one in (reference, ours):
        one.encode_passages(warm_up)
    for number in numbers:
        texts = blocks.texts(number)
        seconds, vectors = encode_both(ours, reference, texts)
        blocks.keep(number, vectors["ours"], vectors["reference"])
        yield {"id": number, "passages": len(texts), **seconds}


def encode_both(
    ours: Encoder, reference: Float32Encoder, texts: Sequence[str], clock: Clock = time.perf_counter
) -> tuple[dict[str, float], dict[str, Matrix]]:
    """Seconds and vectors: the reference's, ours, and ours again for what two runs of the same differ by."""
    order: dict[str, Encoder | Float32Encoder] = {"reference": reference, "ours": ours, "ours_again": ours}
    runs = {name: partial(encoder.encode_passages, texts) for name, encoder in order.items()}
    seconds, vectors = in_turn(runs, clock, PAUSE)
    del vectors["ours_again"]
    return seconds, vectors
