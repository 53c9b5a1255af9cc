"""Passages by row: JSON lines with a table of offsets, so that only the hits of a search are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from rag.core import Document, Passage

PASSAGES, DOCUMENTS = "passages.jsonl", "documents.jsonl"


def offsets_of(file: str) -> str:
    return file.replace(".jsonl", ".offsets.npy")


class LineWriter:
    """Writes JSON lines, and at the end of its `with` block a table of where each begins."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._offsets_path = folder / offsets_of(name)
        self._file = self._path.open("wb")
        self._offsets = [0]

    def add(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._offsets.append(self._file.tell())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            np.save(self._offsets_path, np.array(self._offsets, dtype=np.int64), allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1


def document_record(document: Document, digest: str) -> dict[str, Any]:
    """A document without its text, which the passages hold."""
    return {"id": document.id, "title": document.title, "sha256": digest, "metadata": dict(document.metadata)}


def passage_record(passage: Passage) -> dict[str, Any]:
    return asdict(passage)


class PassageStore:
    """Thread-safe: reads through a memory map."""

    def __init__(self, folder: Path) -> None:
        self._offsets = np.load(folder / offsets_of(PASSAGES), allow_pickle=False)
        self._bytes = np.memmap(folder / PASSAGES, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def get(self, rows: Sequence[int]) -> list[Passage]:
        return [self._read(row) for row in rows]

    def _read(self, row: int) -> Passage:
        start, end = self._offsets[row], self._offsets[row + 1]
        return Passage(**json.loads(self._bytes[start:end].tobytes()))
