"""Documents and passages by row: JSON lines with a table of offsets, so that only the hits of a search are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rag.core import Document, Passage

PASSAGES, DOCUMENTS = "passages.jsonl", "documents.jsonl"


def offsets_of(file: str) -> str:
    return file.replace(".jsonl", ".offsets.npy")


class LineWriter:
    """Writes lines, and at the end of its `with` block a table of where each begins."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._offsets_path = folder / offsets_of(name)
        self._file = self._path.open("wb")
        self._offsets = [0]

    def add(self, line: bytes) -> None:
        self._file.write(line)
        self._offsets.append(self._file.tell())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            np.save(self._offsets_path, np.array(self._offsets, dtype=np.int64), allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1


class Lines:
    """What a `LineWriter` wrote. Thread-safe: reads through a memory map."""

    def __init__(self, folder: Path, name: str) -> None:
        self._offsets: NDArray[np.int64] = np.load(folder / offsets_of(name), allow_pickle=False)
        self._bytes = np.memmap(folder / name, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes()


def line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def document_line(document: Document, digest: str, passages: int) -> bytes:
    """A document without its text, which its `passages`, so many, hold."""
    return line(
        {
            "id": document.id,
            "title": document.title,
            "sha256": digest,
            "passages": passages,
            "metadata": dict(document.metadata),
        }
    )


def passage_line(passage: Passage) -> bytes:
    return line(asdict(passage))


def passage_of(line: bytes) -> Passage:
    return Passage(**json.loads(line))


class PassageStore:
    """Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._lines = Lines(folder, PASSAGES)

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, rows: Sequence[int]) -> list[Passage]:
        return [passage_of(self._lines[row]) for row in rows]
