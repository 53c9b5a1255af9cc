"""What is in one version of an index, and the SHA-256 of each of its files.

FAISS loads damaged files without complaint (and native code that reads them is no place to find out),
so nothing is opened before `verify` has passed. The manifest's own SHA-256 lies beside it, as `sha256sum -c` reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rag.errors import SearchIndexError
from rag.files import sha256

FORMAT = 3
NAME = "manifest.json"
CHECKSUM = "manifest.sha256"


@dataclass(frozen=True, slots=True)
class FileEntry:
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`model` is the encoder's fingerprint, `dense` the kind of FAISS index ("flat" or "hnsw"),
    `chunking` the settings that made the passages; `documents_sha256` stands for the whole corpus."""

    created: str
    model: str
    dimension: int
    documents: int
    passages: int
    dense: str
    chunking: Mapping[str, int]
    documents_sha256: str
    files: Mapping[str, FileEntry]
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        content = f"{json.dumps(asdict(self), indent=1, sort_keys=True)}\n".encode()
        (folder / NAME).write_bytes(content)
        (folder / CHECKSUM).write_bytes(_checksum(content))


def _checksum(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {NAME}\n".encode()


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Entries of every file in a folder but the manifest and its checksum, by relative name."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (NAME, CHECKSUM)
    }


def read(folder: Path) -> Manifest:
    """Raises `SearchIndexError` where the manifest is missing, damaged or of another format."""
    damaged = f"The manifest in {folder} is damaged."
    try:
        content = (folder / NAME).read_bytes()
        raw: dict[str, Any] = json.loads(content)
        found = raw["format"]
    except FileNotFoundError:
        raise SearchIndexError(f"The index in {folder} has no manifest.") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise SearchIndexError(damaged) from error
    if found != FORMAT:
        raise SearchIndexError(f"The index in {folder} has format {found}, this version of rag reads {FORMAT}.")
    try:
        if (folder / CHECKSUM).read_bytes() != _checksum(content):
            raise SearchIndexError(damaged)
        raw["files"] = {name: FileEntry(**entry) for name, entry in raw["files"].items()}
        if not raw["files"]:
            raise KeyError("files")
        return Manifest(**raw)
    except (OSError, TypeError, KeyError, AttributeError) as error:
        raise SearchIndexError(damaged) from error


def verify(folder: Path, manifest: Manifest) -> None:
    """Raises `SearchIndexError`, naming the file, where one is missing, cut short, changed or unreadable."""
    for name, entry in manifest.files.items():
        path = folder / name
        if (problem := _problem(path, entry)) is not None:
            raise SearchIndexError(f"The index file {path} {problem}.")


def _problem(path: Path, entry: FileEntry) -> str | None:
    if not path.is_file():
        return "is missing"
    try:
        if (size := path.stat().st_size) != entry.size:
            return f"has {size:,} bytes instead of {entry.size:,}"
        return None if sha256(path) == entry.sha256 else "has changed since it was written (SHA-256 differs)"
    except OSError as error:  # also where its version goes in this moment
        return f"can't be read ({error.strerror})"
