"""The folders of an index: numbered versions, one writer at a time, an atomic switch between them.

    indexes/.NAME.lock              held while a version is being written
    indexes/NAME/CURRENT            the number of the version in use, and its checksum; replaced by rename
    indexes/NAME/versions/000007/   one version, never changed once it is there
    indexes/NAME/unfinished/        what a writer has encoded and not put into a version yet

A reader that opened a version keeps it: its files stay on disk until three newer ones exist, or, where it was rolled back from,
the next one is written.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from rag import paths
from rag.errors import IndexMissing, SearchIndexError
from rag.files import explaining_storage, only_writer, replacing_file, replacing_folder
from rag.progress import Report, quiet

KEPT = 3


class Versions:
    def __init__(self, indexes: Path, name: str) -> None:
        self.name = name
        self.root = indexes / name
        self.pointer = self.root / "CURRENT"

    def all(self) -> list[str]:
        folder = self.root / "versions"
        return sorted(path.name for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def folder(self, version: str) -> Path:
        return self.root / "versions" / version

    def current(self) -> tuple[str, Path]:
        """Version number and folder. Raises `IndexMissing` or `SearchIndexError`."""
        try:
            version = _number(self.pointer.read_bytes())
        except FileNotFoundError:
            raise IndexMissing(
                f"No index named {self.name!r} yet. Build it: rag index PATH --index {self.name}; "
                "or try the sample corpus: rag ask --sample QUESTION."
            ) from None
        if version is None:
            raise SearchIndexError(f"The index file {self.pointer} has changed since it was written. {self.choices()}")
        folder = self.folder(version)
        if not folder.is_dir():
            raise SearchIndexError(
                f"Index {self.name!r} points to version {version!r}, which isn't there. {self.choices()}"
            )
        return version, folder

    @contextmanager
    def writing(self, wait: bool = False, report: Report = quiet) -> Iterator[None]:
        """One process at a time. Raises `SearchIndexError` where another one is writing this index, unless told to `wait`, which
        `report` is told."""
        written = SearchIndexError(
            f"Index {self.name!r} is being written by another process. Try again later, or with --wait."
        )
        waiting = partial(report, "waiting for another process that writes this index")
        with only_writer(self.root, -1 if wait else 0, written, waiting if wait else quiet):
            self._sweep()
            yield

    @contextmanager
    def new(self) -> Iterator[Path]:
        """An empty folder for a new version, which becomes the current one on success. Only while `writing`. Later ones that were
        rolled back from go with the oldest."""
        before = self._current_or_none()
        number = f"{int(self.all()[-1]) + 1 if self.all() else 1:06d}"
        target = self.folder(number)
        with replacing_folder(target) as folder:
            yield folder
        try:
            self._point_to(number)
        except BaseException:
            if self._current_or_none() != number:  # it may come after the switch
                shutil.rmtree(target, ignore_errors=True)
            raise
        left = [version for version in self.all() if before is None or not before < version < number]
        for version in {*self.all()} - {*left[-KEPT:]}:
            _remove(self.folder(version), ignore_errors=True)

    def roll_back(self, to: str | None = None) -> str:
        """Switch to version `to`, else to the one before the current one; its number.

        Raises `IndexMissing`, and `SearchIndexError` where that one isn't there or another process is writing.
        """
        if not self.root.is_dir():
            self.current()
        with self.writing():
            chosen, wanted = to.zfill(6) if to is not None else None, to
            if to is None:
                current, _ = self.current()
                wanted = f"before {current}"
                chosen = max((version for version in self.all() if version < current), default=None)
            if chosen is None or chosen not in self.all():
                raise SearchIndexError(f"Index {self.name!r} has no version {wanted}. It has {', '.join(self.all())}.")
            self._point_to(chosen)
            return chosen

    def remove(self) -> None:
        """All versions. Raises `IndexMissing` where there is none, `SearchIndexError` where another process is writing."""
        if not self.root.is_dir():
            self.current()
        with self.writing(), explaining_storage(self.root):
            _remove(self.root)

    def _point_to(self, number: str) -> None:
        with replacing_file(self.pointer) as pointer:
            pointer.write_bytes(_pointing_to(number))

    def choices(self, damaged: str | None = None) -> str:
        """What to do where the current version is of no use, for an error's message."""
        others = [version for version in self.all() if version != damaged]
        again = f"uild it again: rag index PATH --index {self.name} --rebuild."
        back = f"rag index rollback VERSION --index {self.name}"
        return f"Choose one of {', '.join(others)}: {back}; or b{again}" if others else f"B{again}"

    def _current_or_none(self) -> str | None:
        try:
            return self.current()[0]
        except SearchIndexError:
            return None

    def _sweep(self) -> None:
        """Remove what a killed writer left behind. Safe under the lock: nobody else writes here."""
        for folder in (self.root / "versions").glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)
        for pointer in self.root.glob(".CURRENT.*"):
            pointer.unlink(missing_ok=True)


def versions_of(name: str) -> Versions:
    """Of an index in the user's folder."""
    return Versions(paths.indexes_dir(), name)


def _pointing_to(number: str) -> bytes:
    """With a checksum, else one changed digit would name another whole version."""
    return f"{number} {hashlib.sha256(number.encode()).hexdigest()[:16]}\n".encode()


def _number(content: bytes) -> str | None:
    """None where that isn't what was written."""
    number = content.partition(b" ")[0].decode("ascii", errors="replace")
    return number if number.isdigit() and content == _pointing_to(number) else None


def _remove(folder: Path, ignore_errors: bool = False) -> None:
    """At once for a reader, who mustn't find half of it."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)  # of one that was killed here
    with suppress(OSError) if ignore_errors else nullcontext():
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=ignore_errors)
