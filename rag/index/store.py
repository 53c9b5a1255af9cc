"""Documents and passages by row: JSON lines with a table of offsets, so that only the hits of a search are read."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rag import where
from rag.core import Document, Metadata, Passage
from rag.errors import UsageError
from rag.where import NOTICES, Where, is_number

PASSAGES, DOCUMENTS = "passages.jsonl", "documents.jsonl"
_OWNERS = "passage_documents.npy"
"""For each passage the row of its document."""

REMEMBERED = 32
"""Conditions whose passages are known: each takes a byte a passage."""


def offsets_of(file: str) -> str:
    return file.replace(".jsonl", ".offsets.npy")


class ArrayWriter:
    """Writes a NumPy file row by row, however many there will be: at most a buffer of it is in memory."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._file = path.open("wb")
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.shape: tuple[int, ...] = ()
        """Of all that was added; () before."""

    def add(self, rows: NDArray[Any]) -> None:
        """Shape (rows, ...), all of one shape but for their number."""
        if not self.shape:
            self._begin((0, *rows.shape[1:]))
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self.shape = (self.shape[0] + len(rows), *self.shape[1:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._begin(self.shape or (0,))

    def _begin(self, shape: tuple[int, ...]) -> None:
        """The header is equally long for any number of rows, so that the last one takes the first one's place: NumPy pads it."""
        self.shape = shape
        kind = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, kind)  # type: ignore[no-untyped-call]


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
    """Without the metadata, which is its document's."""
    fields = asdict(passage)
    del fields["metadata"]
    return line(fields)


def passage_of(line: bytes, metadata: Metadata) -> Passage:
    return Passage(**json.loads(line), metadata=metadata)


def write_owners(folder: Path, passages: Sequence[int]) -> None:
    """`passages` are the numbers of each document's, in order."""
    np.save(folder / _OWNERS, np.repeat(np.arange(len(passages), dtype=np.int32), passages), allow_pickle=False)


def document_ids(folder: Path) -> Iterator[str]:
    """Of every document of a version."""
    documents = Lines(folder, DOCUMENTS)
    return (json.loads(documents[row])["id"] for row in range(len(documents)))


class PassageStore:
    """Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._passages = Lines(folder, PASSAGES)
        self._documents = Lines(folder, DOCUMENTS)
        self._met: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()
        self._owners: NDArray[np.int32] = np.load(folder / _OWNERS, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self._passages)

    def get(self, rows: Sequence[int]) -> list[Passage]:
        return [passage_of(self._passages[row], self._metadata(self._owners[row])) for row in rows]

    def where(self, condition: str) -> NDArray[np.bool_]:
        """By passage, whether its document meets a condition. The last ones are remembered. Raises `UsageError` for what
        is none, for a name that no document has, but for `NOTICES`, and for a word that numbers alone are compared with."""
        with self._lock:
            met = self._met.get(condition)
        if met is None:
            met = self._meeting(where.parse(condition))
        with self._lock:
            self._met[condition] = met
            self._met.move_to_end(condition)
            while len(self._met) > REMEMBERED:
                self._met.popitem(last=False)
        return met

    def _meeting(self, where: Where) -> NDArray[np.bool_]:
        known: set[str] = set()
        in_words: set[str] = set()
        met = np.empty(len(self._documents), dtype=np.bool_)
        for row in range(len(met)):
            metadata = self._metadata(row)
            known.update(metadata)
            in_words.update(name for name in where.words if name in metadata and not is_number(metadata[name]))
            met[row] = where.meets(metadata)
        if unknown := sorted(where.names - known - NOTICES):
            raise UsageError(
                f"No document of this index has {', '.join(map(repr, unknown))}, which {where.text!r} asks for. "
                f"There is {', '.join(sorted(known)) or 'no metadata at all'}."
            )
        for name, word in where.words.items():
            if name not in in_words | NOTICES:
                raise UsageError(
                    f"{where.text!r} compares {name} with {word!r}. Every {name} of this index is a number: give one."
                )
        return met[self._owners]

    def _metadata(self, document: int) -> Metadata:
        metadata: Metadata = json.loads(self._documents[document])["metadata"]
        return metadata
