"""What a new version is put together from: the version before it, and what was read and encoded since."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rag.core import Document, Passage
from rag.files import replacing_file
from rag.index import dense, lexical, store

if TYPE_CHECKING:
    from rag.core import Matrix

BLOCK = 4096
"""Documents that are copied at a time."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole documents with their passages, as lines, and the passages' vectors. `tokens` are ids of the base's
    vocabulary, None for passages that weren't split into tokens yet."""

    documents: Sequence[bytes]
    passages: Sequence[bytes]
    vectors: Matrix
    tokens: Sequence[NDArray[np.int32]] | None = None


class Base:
    """The version that a new one begins with. What becomes of each document is decided while the sources are read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._documents = store.Lines(folder, store.DOCUMENTS)
        self._rows: dict[str, int] = {}
        self._digests: list[str] = []
        counts = [0]
        for row in range(len(self._documents)):
            record = json.loads(self._documents[row])
            self._rows[record["id"]] = row
            self._digests.append(record["sha256"])
            counts.append(record["passages"])
        self._first = np.cumsum(counts, dtype=np.int64)
        self._fate: dict[int, Literal["kept", "gone"]] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def digest(self, identity: str) -> str | None:
        row = self._rows.get(identity)
        return self._digests[row] if row is not None else None

    def keep(self, identity: str) -> None:
        self._fate[self._rows[identity]] = "kept"

    def drop(self, identity: str) -> None:
        if identity in self._rows:
            self._fate[self._rows[identity]] = "gone"

    @property
    def seen(self) -> int:
        """Documents to keep because a source had them."""
        return sum(fate == "kept" for fate in self._fate.values())

    def kept(self, prune: bool) -> NDArray[np.bool_]:
        """By document. `prune`: without those that no source had."""
        fates = ("kept",) if prune else ("kept", None)
        return np.array([self._fate.get(row) in fates for row in range(len(self))], dtype=np.bool_)

    def passages(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """By passage, whether its document is kept."""
        return np.repeat(kept, np.diff(self._first))

    def blocks(self, kept: NDArray[np.bool_]) -> Iterator[Block]:
        passages = store.Lines(self.folder, store.PASSAGES)
        vectors = dense.read_vectors(self.folder)
        tokens = lexical.TokenFile(self.folder)
        rows = np.flatnonzero(kept)
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            inside = np.concatenate([np.arange(self._first[row], self._first[row + 1]) for row in some])
            yield Block(
                [self._documents[row] for row in some],
                [passages[row] for row in inside],
                vectors[inside],
                [np.array(tokens[row]) for row in inside],
            )


class Unfinished:
    """What a run has encoded, a file a batch: a run that was killed leaves them for the next one.

    One writer at a time: under the lock. `shape` is what shaped them (encoder, chunking): those of another are of no use.
    """

    def __init__(self, folder: Path, shape: Mapping[str, Any]) -> None:
        self._folder = folder
        self._shape = json.dumps(shape, sort_keys=True)
        self._left: dict[str, str] = {}
        self._wanted: dict[str, str] = {}
        self._places: dict[str, tuple[str, int]] = {}
        for path in self._files():
            if (left := self._digests_of(path)) is None:
                path.unlink()
            else:
                self._left |= dict(left)
                self._place(path, [identity for identity, _ in left])

    @property
    def wanted(self) -> Set[str]:
        """The documents of it that go into the new version."""
        return self._wanted.keys()

    def claim(self, identity: str, digest: str) -> bool:
        """Is this document there from an earlier run? Then it is wanted."""
        if self._left.get(identity) != digest:
            return False
        self._wanted[identity] = digest
        return True

    def drop(self, identity: str) -> None:
        self._wanted.pop(identity, None)

    def add(
        self, documents: Sequence[Document], digests: Sequence[str], passages: Sequence[Passage], vectors: Matrix
    ) -> None:
        """Whole documents with all their passages, in order."""
        counts = dict.fromkeys((document.id for document in documents), 0)
        for passage in passages:
            counts[passage.doc_id] += 1
        lines = [
            store.document_line(document, digest, counts[document.id])
            for document, digest in zip(documents, digests, strict=True)
        ]
        files = self._files()
        path = self._folder / f"{int(files[-1].stem) + 1 if files else 1:06d}.npz"
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                shape=_packed([self._shape.encode()]),
                documents=_packed(lines),
                passages=_packed([store.passage_line(passage) for passage in passages]),
                vectors=np.asarray(vectors, dtype=np.float32),
            )
        self._place(path, [document.id for document in documents])
        self._wanted |= {document.id: digest for document, digest in zip(documents, digests, strict=True)}

    def blocks(self) -> Iterator[Block]:
        """What is wanted; of a document that was added twice the later."""
        for path in self._files():
            with np.load(path, allow_pickle=False) as batch:
                lines, passages, vectors = _lines(batch["documents"]), _lines(batch["passages"]), batch["vectors"]
            documents: list[bytes] = []
            rows: list[int] = []
            first = 0
            for position, one in enumerate(lines):
                record = json.loads(one)
                here = self._places[record["id"]] == (path.name, position)
                if here and self._wanted.get(record["id"]) == record["sha256"]:
                    documents.append(one)
                    rows += range(first, first + record["passages"])
                first += record["passages"]
            if documents:
                yield Block(documents, [passages[row] for row in rows], vectors[rows])

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, path: Path, identities: Sequence[str]) -> None:
        self._places |= {identity: (path.name, position) for position, identity in enumerate(identities)}

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.npz"))

    def _digests_of(self, path: Path) -> list[tuple[str, str]] | None:
        """Of each document in order; None for a file that is damaged or of another shape. Reading checks a checksum."""
        try:
            with np.load(path, allow_pickle=False) as batch:
                if _lines(batch["shape"]) != [self._shape.encode()]:
                    return None
                records = [json.loads(one) for one in _lines(batch["documents"])]
                passages = sum(record["passages"] for record in records)
                if not passages == len(batch["vectors"]) == len(_lines(batch["passages"])):
                    return None
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            RuntimeError,
            zipfile.BadZipFile,
        ):  # "is encrypted" is a RuntimeError
            return None
        return [(record["id"], record["sha256"]) for record in records]


def _packed(lines: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(lines), dtype=np.uint8)


def _lines(packed: NDArray[np.uint8]) -> list[bytes]:
    return packed.tobytes().splitlines(keepends=True)
