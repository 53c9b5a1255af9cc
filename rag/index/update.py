"""A new version of an index from the one before it and from what the sources hold now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rag.core import Document, Passage
from rag.errors import CorpusError, IndexMissing, SearchIndexError
from rag.index import dense, lexical, manifest, store
from rag.index.checks import check_current
from rag.index.lexical import Tokenizer
from rag.index.manifest import Manifest
from rag.index.parts import Base, Unfinished
from rag.index.versions import Versions
from rag.progress import Report, quiet
from rag.settings import Index

if TYPE_CHECKING:
    from rag.core import Matrix


@dataclass(frozen=True, slots=True)
class Shape:
    """What vectors and passages come from: those of another encoder or another chunking are of no use."""

    model: str
    chunking: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Changes:
    """Documents against the version before. `unchanged` are those of the sources; others may have been kept as well."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0


class Update:
    """A new version in the making; see `updating`. Its documents are told one by one, in the order of the sources."""

    def __init__(self, versions: Versions, shape: Shape, settings: Index, base: Base | None) -> None:
        self._versions = versions
        self._shape = shape
        self._settings = settings
        self._base = base
        self._unfinished = Unfinished(versions.root / "unfinished", asdict(shape))

    def holds(self, document: Document) -> bool:
        """Is it there as it is, also from a run that was killed? Then there is nothing to encode."""
        digest = content_sha256(document)
        if self._base is not None and self._base.digest(document.id) == digest:
            self.delete(document.id)
            self._base.keep(document.id)
            return True
        if self._unfinished.claim(document.id, digest):
            self._drop_before(document)
            return True
        return False

    def add(self, documents: Sequence[Document], passages: Sequence[Passage], vectors: Matrix) -> None:
        """Documents that it doesn't hold, with all their passages in order. They outlive a kill of this process."""
        self._unfinished.add(documents, [content_sha256(document) for document in documents], passages, vectors)
        for document in documents:
            self._drop_before(document)

    def delete(self, identity: str) -> None:
        """Also where an earlier source of this run had it."""
        if self._base is not None:
            self._base.drop(identity)
        self._unfinished.drop(identity)

    def finish(self, prune: bool, report: Report = quiet) -> tuple[Manifest, Changes]:
        """Write the new version and switch to it; nothing is written where nothing changed.

        `prune` leaves out what no source had. `report` is told the steps. Raises `CorpusError` where nothing is left.
        """
        changes, kept = self._changes(prune)
        if self._base is not None and not (changes.added or changes.changed or changes.removed):
            self._unfinished.remove()
            return manifest.read(self._base.folder), changes
        with self._versions.new() as folder:
            contents = self._write(folder, kept, report)
            report("switching")  # once all of it is on the disk
        self._unfinished.remove()
        return contents, changes

    def _drop_before(self, document: Document) -> None:
        """What the version before has of it."""
        if self._base is not None:
            self._base.drop(document.id)

    def _changes(self, prune: bool) -> tuple[Changes, NDArray[np.bool_]]:
        fresh = self._unfinished.wanted
        if self._base is None:
            return Changes(added=len(fresh)), np.zeros(0, dtype=np.bool_)
        kept = self._base.kept(prune)
        changed = sum(self._base.digest(identity) is not None for identity in fresh)
        gone = len(kept) - int(kept.sum())
        return Changes(len(fresh) - changed, changed, self._base.seen, gone - changed), kept

    def _write(self, folder: Path, kept: NDArray[np.bool_], report: Report) -> Manifest:
        report("passages and vectors")
        tokenizer = Tokenizer()
        digests: list[str] = []
        counts: list[int] = []
        base = self._base
        with (
            store.LineWriter(folder, store.DOCUMENTS) as documents,
            store.LineWriter(folder, store.PASSAGES) as passages,
            dense.vector_writer(folder) as vectors,
            lexical.TokenWriter(folder, lexical.vocabulary(base.folder) if base is not None else {}) as tokens,
        ):
            for block in chain(base.blocks(kept) if base is not None else (), self._unfinished.blocks()):
                for line in block.documents:
                    documents.add(line)
                    record = json.loads(line)
                    digests.append(record["sha256"])
                    counts.append(record["passages"])
                for line in block.passages:
                    passages.add(line)
                vectors.add(block.vectors)
                if block.tokens is not None:
                    tokens.copy(block.tokens)
                else:
                    for line in block.passages:
                        tokens.add(tokenizer(store.passage_of(line, {}).titled))
            if len(passages) == 0:
                raise CorpusError("The corpus holds no text to index.")
            store.write_owners(folder, counts)
            report("lexical index")
        report("dense index")
        grown = dense.Grown(base.folder, base.passages(kept)) if base is not None else None
        kind = dense.write_graph(folder, self._settings, grown)
        report("checksums")
        contents = Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model=self._shape.model,
            dimension=vectors.shape[1],
            documents=len(documents),
            passages=len(passages),
            dense=kind,
            chunking=dict(self._shape.chunking),
            documents_sha256=_join(digests),
            files=manifest.describe_files(folder),
        )
        contents.write(folder)
        return contents


@contextmanager
def updating(
    versions: Versions,
    shape: Shape,
    settings: Index,
    *,
    rebuild: bool = False,
    wait: bool = False,
    report: Report = quiet,
) -> Iterator[Update]:
    """A new version that begins with the current one; with nothing, where `rebuild` or where there is none.

    Other writers have to `wait` until the block is left, and `report` that. Without `finish`, or where it raises, the version
    before stays in use, and what was added is there for the next update. Raises `SearchIndexError` where another process is
    writing, or where the current version is damaged or has another shape.
    """
    with versions.writing(wait, report):
        yield Update(versions, shape, settings, None if rebuild else _base(versions, shape))


def _base(versions: Versions, shape: Shape) -> Base | None:
    try:
        checked = check_current(versions)
    except IndexMissing:
        return None
    was = Shape(checked.manifest.model, dict(checked.manifest.chunking))
    if was != shape:
        raise SearchIndexError(
            f"Index {versions.name!r} was built with {_said(was)}, the settings say {_said(shape)}: none of its "
            f"{checked.manifest.documents:,} documents can be used again. Index all of your sources with --rebuild."
        )
    return Base(checked.folder)


def _said(shape: Shape) -> str:
    chunking = ", ".join(f"chunk.{name}={value}" for name, value in shape.chunking.items())
    return f"{shape.model} and {chunking}" if chunking else shape.model


def content_sha256(document: Document) -> str:
    """Of everything a reader found: a change of title or metadata counts as a change."""
    # Not `asdict`, which copies what it finds: an update asks this of every document that it reads.
    found: dict[str, Any] = {field.name: getattr(document, field.name) for field in fields(document)}
    found["metadata"] = sorted(document.metadata.items())
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def corpus_sha256(documents: Iterable[Document]) -> str:
    """What a manifest calls `documents_sha256`."""
    return _join(content_sha256(document) for document in documents)


def _join(digests: Iterable[str]) -> str:
    """In whatever order: an update puts what is new at the end."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
