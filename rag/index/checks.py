"""What is there, and whether it is whole: versions are looked at before they are opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rag.errors import SearchIndexError
from rag.index import manifest
from rag.index.manifest import Manifest
from rag.index.versions import Versions


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
    while True:
        version, folder = versions.current()
        try:
            contents = manifest.read(folder)
            manifest.verify(folder, contents)
        except SearchIndexError as error:
            if versions.current()[0] != version:  # newer ones were written meanwhile, and this one went
                continue
            raise SearchIndexError(f"{error} {versions.choices(version)}") from error
        return CheckedVersion(versions.name, version, folder, contents)


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """What `rag index list` tells of a version; `problem` where its manifest can't be read."""

    name: str
    version: str
    is_current: bool
    created: str | None = None
    documents: int | None = None
    passages: int | None = None
    model: str | None = None
    bytes: int = 0
    problem: str | None = None


def all_versions(indexes: Path) -> Iterator[VersionStatus]:
    for root in sorted(indexes.glob("[!.]*")):
        versions = Versions(indexes, root.name)
        for version in versions.all():
            yield _status(versions, version)


def _status(versions: Versions, version: str) -> VersionStatus:
    try:
        is_current = versions.current()[0] == version
    except SearchIndexError:
        is_current = False
    folder = versions.folder(version)
    try:
        contents = manifest.read(folder)
    except SearchIndexError as error:
        return VersionStatus(versions.name, version, is_current, bytes=folder_size(folder), problem=str(error))
    return VersionStatus(
        versions.name,
        version,
        is_current,
        contents.created,
        contents.documents,
        contents.passages,
        contents.model,
        folder_size(folder),
    )


def check(versions: Versions, version: str) -> str | None:
    """What is wrong with a version: None where every file is what it was when it was written."""
    folder = versions.folder(version)
    try:
        manifest.verify(folder, manifest.read(folder))
    except SearchIndexError as error:
        return str(error)
    return None


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
