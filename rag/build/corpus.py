"""An index of a corpus: read, encoded, and switched to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rag import index, paths
from rag.build.parts import made_by, open_encoder
from rag.build.search import check_index
from rag.core import Document, Encoder, Passage
from rag.errors import SearchIndexError
from rag.files import require_room
from rag.index import manifest
from rag.ingest import File, LeftOut, chunk, find_files, read_corpus
from rag.progress import Progress, Report, quiet
from rag.settings import Loaded

if TYPE_CHECKING:
    from rag.core import Matrix

SAMPLE = "sample"
"""Name of the index of the corpus that ships with `rag`."""

BATCH = 512
"""Passages that are read, encoded and written together: neither texts nor vectors pile up, and a kill loses no more."""

INDEX_PER_SOURCE = {
    **dict.fromkeys((".jsonl", ".ndjson", ".txt", ".md", ".markdown"), 4),
    **dict.fromkeys((".xml", ".nxml"), 1),
}
"""Bytes of an index for each byte of a source, by suffix: a vector is twice as large as the passage it stands for, and of XML a third
is text. Of the others the size tells nothing."""

READING = "reading and encoding"
"""The step that is counted, in bytes of the corpus."""


@dataclass(frozen=True, slots=True)
class Built:
    name: str
    version: str
    manifest: manifest.Manifest
    changes: index.Changes
    left_out: LeftOut
    pruned: bool
    seconds: float


def build_index(
    loaded: Loaded,
    sources: Sequence[Path],
    progress: Progress = quiet,
    *,
    prune: bool = False,
    rebuild: bool = False,
    wait: bool = False,
) -> Built:
    """Read a corpus into a new version of the index that the settings name.

    Documents that the index has as they are aren't encoded again; others of the same id are replaced. Those that no source
    has stay, unless `prune` and nothing had to be skipped; those that a source deletes go. `rebuild` begins with nothing.
    What was encoded outlives a kill, for the next call. Another writer is waited for, if `wait`. What can't be read is left
    out, and told in the result.

    Raises `CorpusError`, `StorageError` or `SearchIndexError`; the version before it stays in use then.
    """
    settings = loaded.settings
    versions = index.versions_of(settings.index.name)
    left_out = LeftOut()
    files = find_files(sources, left_out)
    total = sum(file.size for file in files)
    shape = index.Shape(made_by(loaded, progress), settings.chunk.model_dump())
    with index.updating(versions, shape, settings.index, rebuild=rebuild, wait=wait, report=progress) as update:
        began = time.monotonic()  # what it waited for another one isn't its own
        progress(READING)
        for batch in _batches(files, left_out, update, loaded, progress, total):
            update.add(*batch)
        for identity in (*left_out.deleted, *left_out.empty):
            update.delete(identity)
        prune = prune and not left_out.skipped  # what can't be read today may be there tomorrow
        contents, changes = update.finish(prune, progress)
        version, _ = versions.current()
    return Built(versions.name, version, contents, changes, left_out, prune, time.monotonic() - began)


def ensure_sample_index(loaded: Loaded, progress: Progress = quiet) -> Built | None:
    """Build the index of the shipped corpus where it isn't there, or isn't of this corpus and these settings."""
    left_out = LeftOut()
    documents = (located.document for located in read_corpus(find_files(sample_corpus(), left_out), left_out))
    if index_holds(loaded, documents, progress):
        return None
    return build_index(loaded, sample_corpus(), progress, rebuild=True, wait=True)


def index_holds(loaded: Loaded, documents: Iterable[Document], report: Report = quiet) -> bool:
    """Is the index that the settings name there, whole, and of these documents and settings?"""
    try:
        contents = check_index(loaded, report).manifest
    except SearchIndexError:
        return False
    wanted = (loaded.settings.chunk.model_dump(), index.corpus_sha256(documents))
    return (dict(contents.chunking), contents.documents_sha256) == wanted


def sample_corpus() -> list[Path]:
    return [paths.shipped("data", "corpus")]


def _batches(
    files: Sequence[File],
    left_out: LeftOut,
    update: index.Update,
    loaded: Loaded,
    progress: Progress,
    total: int,
) -> Iterator[tuple[list[Document], list[Passage], Matrix]]:
    """What the index doesn't hold, encoded. The encoder is loaded where there is any."""
    settings = loaded.settings.chunk
    encoder: Encoder | None = None
    documents: list[Document] = []
    passages: list[Passage] = []
    read = encoded = 0
    began = time.monotonic()
    for located in chain(read_corpus(files, left_out), [None]):
        if located is not None:
            read += located.size
            if not update.holds(located.document):
                documents.append(located.document)
                passages += chunk.split(located.document, settings.max_chars, settings.overlap_sentences)
        if len(passages) >= BATCH or (located is None and documents):
            if encoder is None:  # so not where nothing has changed
                needed = sum(INDEX_PER_SOURCE.get(file.suffix, 0) * file.size for file in files)
                require_room(index.versions_of(loaded.settings.index.name).root, needed)
                encoder = open_encoder(loaded)
            yield documents, passages, encoder.encode_passages([passage.titled for passage in passages])
            encoded += len(passages)
            documents, passages = [], []
        rate = encoded / max(1e-9, time.monotonic() - began)
        progress(READING, read, total, f"{encoded:,} passages, {rate:,.0f}/s")
