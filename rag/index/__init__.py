"""The index of a corpus: passages, their vectors and their tokens.

It takes vectors and tokens and never calls the encoder. `versions` owns the folders, `manifest` what
a version holds, `dense` and `lexical` the two searches, `store` the texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.core import Document, Passage
from rag.errors import CorpusError
from rag.index import dense, lexical, manifest, store
from rag.index.dense import DenseIndex
from rag.index.lexical import LexicalIndex, Tokenizer
from rag.index.manifest import Manifest
from rag.index.store import PassageStore
from rag.index.versions import Versions
from rag.settings import Device, Index, Retrieve

if TYPE_CHECKING:
    from rag.core import Matrix

__all__ = ["CheckedVersion", "IndexReader", "Versions", "check_current", "open_index", "write_version"]


@dataclass(frozen=True, slots=True)
class IndexReader:
    """One version of an index, open for searching."""

    name: str
    version: str
    manifest: Manifest
    dense: DenseIndex
    lexical: LexicalIndex
    tokenizer: Tokenizer
    passages: PassageStore


@dataclass(frozen=True, slots=True)
class CheckedVersion:
    """A version whose files are what its manifest says. Stays readable while newer ones are written."""

    name: str
    version: str
    folder: Path
    manifest: Manifest


def check_current(versions: Versions) -> CheckedVersion:
    """The current version, every file's checksum compared before native code reads any.

    Raises `IndexMissing` where there is none, `SearchIndexError` where it is damaged.
    """
    version, folder = versions.current()
    contents = manifest.read(folder)
    manifest.verify(folder, contents)
    return CheckedVersion(versions.name, version, folder, contents)


def open_index(checked: CheckedVersion, settings: Index, retrieve: Retrieve, device: Device) -> IndexReader:
    folder = checked.folder
    return IndexReader(
        checked.name,
        checked.version,
        checked.manifest,
        DenseIndex(folder, checked.manifest.dense, settings, device),
        lexical.open_index(folder, retrieve.lexical),
        Tokenizer(),
        PassageStore(folder),
    )


def write_version(
    versions: Versions,
    batches: Iterable[tuple[Sequence[Document], Sequence[Passage], Matrix]],
    *,
    model: str,
    settings: Index,
    chunking: Mapping[str, int],
    report: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a new version beside the old one and switch to it.

    `batches` yields documents with all their passages and the passages' vectors; `report` is told the
    steps that follow the last of them. Whatever `batches` raises leaves the old version in use.
    """
    with versions.write() as folder:
        tokenizer = Tokenizer()
        digests: list[str] = []
        vectors: list[Matrix] = []
        tokens: list[list[str]] = []
        with (
            store.LineWriter(folder, store.DOCUMENTS) as documents,
            store.LineWriter(folder, store.PASSAGES) as passages,
        ):
            for some_documents, some_passages, matrix in batches:
                for document in some_documents:
                    digest = content_sha256(document)
                    digests.append(digest)
                    documents.add(store.document_record(document, digest))
                for passage in some_passages:
                    passages.add(store.passage_record(passage))
                    tokens.append(tokenizer(passage.titled))
                vectors.append(matrix)
        if len(passages) == 0:
            raise CorpusError("The corpus holds no text to index.")
        report("dense index")
        stacked = np.concatenate(vectors)
        kind = dense.write(folder, stacked, settings)
        report("lexical index")
        lexical.write(folder, tokens)
        report("checksums")
        contents = Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model=model,
            dimension=stacked.shape[1],
            documents=len(documents),
            passages=len(passages),
            dense=kind,
            chunking=dict(chunking),
            documents_sha256=_join(digests),
            files=manifest.describe_files(folder),
        )
        contents.write(folder)
    return contents


def content_sha256(document: Document) -> str:
    """Of everything a reader found: a change of title or metadata counts as a change."""
    fields = asdict(document)
    fields["metadata"] = sorted(fields["metadata"].items())
    return hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()


def corpus_sha256(documents: Iterable[Document]) -> str:
    """What a manifest calls `documents_sha256`."""
    return _join(content_sha256(document) for document in documents)


def _join(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
