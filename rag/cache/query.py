"""The query cache of a process: over each version of an index, and in its file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.cache.file import EntryFile
from rag.cache.memory import Memory
from rag.cache.searcher import CachedEncoder, CachedSearcher, QuestionCache, QuestionCaches
from rag.core import Hits, Matcher, Searcher
from rag.errors import SearchIndexError, StaleCache, StorageError
from rag.settings import Cache

VERSION = "version of the index"
"""Of what shapes the entries."""

EVERY = 100
"""New entries after which it is written: about what a killed process loses at most."""


@dataclass(slots=True)
class _Kept:
    """The entries of a version of the index, and their file, which has what they were after so many `changes`."""

    memory: Memory[Hits]
    file: EntryFile
    is_current: Callable[[], bool]
    changes: int


class QueryCache:
    """One for a process; `over` gives a searcher of each version of the index its part. Thread-safe. What two processes find and use
    at the same time, as a server and a `rag ask --no-server` beside it, is kept of both, as far as there is room."""

    def __init__(
        self,
        settings: Cache,
        path: Path,
        encoder: CachedEncoder,
        matcher: Matcher | None,
        notice: Callable[[str], None],
    ) -> None:
        """`notice` is told of a file that can't be used, or written."""
        self._settings = settings
        self._path = path
        self._encoder = encoder
        self._matcher = matcher
        self._notice = notice
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._writing: threading.Thread | None = None
        """Beside an answer, which needn't wait for the disk."""
        self._current: _Kept | None = None
        self._new = 0
        """Entries since it was written, or that was tried: what couldn't be written waits for `EVERY` more, or the end."""

    def over(self, searcher: Searcher, shaped_by: Mapping[str, Any], is_current: Callable[[], bool]) -> CachedSearcher:
        """Before this searcher, with what its file holds for this version. From now on its entries are those that are saved, as
        long as the version `is_current`, which may raise `SearchIndexError`."""
        memory = self._empty()
        file = EntryFile(self._path, shaped_by, self._encoder.dimension)
        try:
            if self._settings.keep:
                memory.join(file.load())
        except StaleCache as reason:
            if set(reason.differs) != {VERSION}:  # which is in the order of things
                self._notice(f"the query cache {self._path} is left aside and begun anew: {reason}")
        for entry in memory.entries():
            self._encoder.know(entry.question, entry.vector)
        with self._lock:
            self._current = _Kept(memory, file, is_current, memory.changes)
            self._new = 0
        return CachedSearcher(searcher, self._of(memory), self._put)

    def of_pipeline(self, hits: QuestionCache[Hits] | None) -> QuestionCaches[Any]:
        """With these hits; finished answers are the pipeline's own, and kept in memory alone."""
        return QuestionCaches(self._encoder, hits, self._of(self._empty()) if self._settings.answers else None)

    def save(self) -> None:
        """Where something is new, or was used. A full disk or a folder that can't be written costs the cache, not the answer."""
        with self._saving:
            with self._lock:
                kept, self._new = self._current, 0
            if kept is None or kept.memory.changes == kept.changes or not self._settings.keep:
                return
            changes = kept.memory.changes
            try:
                # The index may have been removed meanwhile, or have a newer version, whose entries stand in the file.
                if kept.is_current():
                    kept.file.save(kept.memory)
                    kept.changes = changes
            except SearchIndexError:
                return
            except (StorageError, OSError) as error:
                self._notice(f"the query cache isn't kept: {error}")

    def _empty(self) -> Memory[Any]:
        return empty(self._settings, self._encoder.dimension)

    def _of(self, memory: Memory[Any]) -> QuestionCache[Any]:
        return QuestionCache(memory, self._matcher, self._settings.min_cosine)

    def _put(self, count: int) -> None:
        with self._lock:
            self._new += count
            due = self._new >= EVERY and not (self._writing is not None and self._writing.is_alive())
            if due:
                self._writing = threading.Thread(target=self.save, name="rag-cache")
                with suppress(RuntimeError):  # no room for a thread, which costs the cache
                    self._writing.start()


def empty(settings: Cache, dimension: int) -> Memory[Any]:
    return Memory(dimension, settings.max_entries, settings.eviction, settings.ttl_s)
