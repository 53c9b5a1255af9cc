"""The folders of an index: numbered versions, one writer at a time, an atomic switch between them.

    indexes/NAME/CURRENT            the number of the version in use; replaced by rename
    indexes/NAME/writer.lock        held while a version is being written
    indexes/NAME/versions/000007/   one version, never changed once it is there

A reader that opened a version keeps it: its files stay on disk until three newer ones exist.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rag.errors import IndexMissing, SearchIndexError
from rag.files import explaining_storage, replacing_file, replacing_folder

KEPT = 3


class Versions:
    def __init__(self, indexes: Path, name: str) -> None:
        self.name = name
        self.root = indexes / name

    def all(self) -> list[str]:
        folder = self.root / "versions"
        return sorted(path.name for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def current(self) -> tuple[str, Path]:
        """Version number and folder. Raises `IndexMissing` or `SearchIndexError`."""
        try:
            version = (self.root / "CURRENT").read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            raise IndexMissing(
                f"No index named {self.name!r} yet. Build it: rag index PATH --index {self.name}; "
                "or try the sample corpus: rag ask --sample QUESTION."
            ) from None
        folder = self.root / "versions" / version
        if not version.isdigit() or not folder.is_dir():
            raise SearchIndexError(
                f"Index {self.name!r} points to version {version!r}, which isn't there. Build it again: rag index PATH."
            )
        return version, folder

    @contextmanager
    def write(self) -> Iterator[Path]:
        """An empty folder for a new version, which becomes the current one on success.

        Raises `SearchIndexError` where another process is writing this index.
        """
        with explaining_storage(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "writer.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            raise SearchIndexError(
                f"Index {self.name!r} is being written by another process. Try again later."
            ) from None
        with held:
            self._sweep()
            number = f"{int(self.all()[-1]) + 1 if self.all() else 1:06d}"
            target = self.root / "versions" / number
            with replacing_folder(target) as folder:
                yield folder
            try:
                with replacing_file(self.root / "CURRENT") as pointer:
                    pointer.write_text(number + "\n", encoding="ascii")
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
            for old in self.all()[:-KEPT]:
                shutil.rmtree(self.root / "versions" / old, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a killed writer left behind. Safe under the lock: nobody else writes here."""
        for folder in (self.root / "versions").glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)
        for pointer in self.root.glob(".CURRENT.*"):
            pointer.unlink(missing_ok=True)
