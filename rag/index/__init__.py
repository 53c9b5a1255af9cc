"""The index of a corpus: passages, their vectors and their tokens.

It takes vectors and tokens and never calls the encoder. `versions` owns the folders, `manifest` what
a version holds, `dense` and `lexical` the two searches, `store` the texts; `update` makes a new version, of `parts`.
"""

from __future__ import annotations

from dataclasses import dataclass

from rag.index import lexical
from rag.index.checks import CheckedVersion, VersionStatus, all_versions, check, check_current, folder_size
from rag.index.dense import DenseIndex
from rag.index.lexical import LexicalIndex, Tokenizer
from rag.index.manifest import Manifest
from rag.index.manifest import read as read_manifest
from rag.index.store import PassageStore, document_ids
from rag.index.update import Changes, Shape, Update, content_sha256, corpus_sha256, updating
from rag.index.versions import Versions, versions_of
from rag.settings import Device, Index, Retrieve

__all__ = [
    "Changes",
    "CheckedVersion",
    "IndexReader",
    "PassageStore",
    "Shape",
    "Update",
    "VersionStatus",
    "Versions",
    "all_versions",
    "check",
    "check_current",
    "content_sha256",
    "corpus_sha256",
    "document_ids",
    "folder_size",
    "open_index",
    "read_manifest",
    "updating",
    "versions_of",
]


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
