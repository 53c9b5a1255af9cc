"""A corpus' files as readers see them, and the account of what isn't read."""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rag.errors import CorpusError

MAX_RATIO = 100
"""How often its own size a `.gz` may expand to. A PubMed file expands 6 times, a bomb 1,030 times."""

RATIO_SLACK = 64 * 1024 * 1024
"""Bytes that are expanded before the ratio counts: a small file of one repeated line is no bomb."""

MAX_EXPANDED = 64 * 1024**3
"""Bytes that any `.gz` may expand to."""

BUFFER = 1 << 16
"""Bytes read at once. A long line is passed over in pieces of this size."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, a line or a record that isn't in the index, and why."""

    where: str
    reason: str


@dataclass(slots=True)
class LeftOut:
    """What of a corpus isn't among its documents.

    `skipped`: what should have been read and couldn't, each with its reason. `counts`: what is left out by design
    (tables, files of other types), by kind in the plural. `deleted`: ids of documents that the corpus itself takes back.
    `empty`: ids of those that it has without a text, and where: what an index holds of one isn't its text any more.
    """

    skipped: list[Skipped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    deleted: set[str] = field(default_factory=set)
    empty: dict[str, str] = field(default_factory=dict)

    def skip(self, where: str | Path, reason: str) -> None:
        self.skipped.append(Skipped(_shown(str(where)), _shown(reason)))


@dataclass(frozen=True, slots=True)
class File:
    """`name` is the path from the folder given on, that folder's own name first, or the bare name of a file given by itself.
    Ids are made of it. `.gz` is expanded in passing."""

    path: Path
    name: str

    @property
    def suffix(self) -> str:
        return suffix(self.name)

    @property
    def stem(self) -> str:
        return PurePosixPath(_without_gz(self.name)).stem

    @property
    def size(self) -> int:
        """Bytes, expanded. An estimate for a `.gz`: its last four bytes hold it where it is below 4 GiB. 0 of what can't be opened:
        reading it tells."""
        try:
            size = self.path.stat().st_size
            if not self._is_gz or size < 4:
                return size
            with self.path.open("rb") as file:
                file.seek(-4, io.SEEK_END)
                return min(int.from_bytes(file.read(4), "little"), MAX_RATIO * size)
        except OSError:
            return 0

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes, expanded. Reading raises `CorpusError` where a `.gz` is damaged or expands without bounds."""
        with self.path.open("rb", buffering=BUFFER) as raw:
            yield io.BufferedReader(_Expanding(raw), BUFFER) if self._is_gz else raw

    def read(self, limit: int, advice: str = "Split it.") -> bytes:
        """All of it. Raises `CorpusError` where that is more than `limit` bytes."""
        with self.open() as file:
            content = file.read(limit + 1) if self._is_gz or self.path.stat().st_size <= limit else None
        if content is None or len(content) > limit:
            raise CorpusError(f"larger than {limit >> 20} MiB. {advice}")
        return content

    @property
    def _is_gz(self) -> bool:
        return self.name.lower().endswith(".gz")


def suffix(name: str) -> str:
    """In small letters; that below `.gz`."""
    return PurePosixPath(_without_gz(name)).suffix.lower()


class _Expanding(io.RawIOBase):
    """A gzip file that stops at a bomb."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._gzip, self._expanded = raw, gzip.GzipFile(fileobj=raw), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # a buffer of `BufferedReader` is one
        try:
            read = self._gzip.readinto(buffer)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CorpusError(f"a damaged gzip file ({error}). Fetch it again.") from error
        self._expanded += read
        bound = min(MAX_EXPANDED, max(RATIO_SLACK, MAX_RATIO * self._raw.tell()))
        if self._expanded > bound:
            raise CorpusError(f"expands to more than {bound >> 20} MiB: a bomb? Expand it yourself if it is well.")
        return read


def _without_gz(name: str) -> str:
    return name[:-3] if name.lower().endswith(".gz") else name


def _shown(text: str) -> str:
    """On one line of valid Unicode, whatever a file is named: it reaches terminals and JSON."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
