"""The query cache of an index: its file, and what its entries were shaped by."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rag
from rag import index, paths
from rag.build.parts import resolve
from rag.cache import CachedSearcher, Entry, EntryFile, Memory, QuestionCache, RememberingEncoder, load
from rag.cache.file import PATIENCE
from rag.core import Hits, Matcher, Searcher
from rag.errors import IndexMissing, SearchIndexError, StaleCache, StorageError
from rag.files import explaining_storage, only_writer
from rag.progress import Report, quiet
from rag.settings import Loaded

ENDING = ".safetensors"

VERSION = "version of the index"

EVERY = 100
"""New entries after which it is written: what a killed process loses at most."""


class QueryCache:
    """One for a process; `over` gives a searcher of each version of the index its part. Thread-safe. What two processes find at
    the same time, as a server and a `rag ask --no-server` beside it, is kept of both, as far as there is room."""

    def __init__(self, loaded: Loaded, encoder: RememberingEncoder, matcher: Matcher | None, notice: Report) -> None:
        """`notice` is told of a file that can't be used, or written."""
        self._loaded = loaded
        self._encoder = encoder
        self._matcher = matcher
        self._notice = notice
        self._path = cache_path(loaded)
        self._kept = loaded.settings.cache.keep
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._current: tuple[Memory[Hits], EntryFile, index.IndexReader] | None = None
        self._unsaved = 0
        self._failed = 0
        """Those of them that couldn't be written: they wait until there are `EVERY` more, or the end."""

    def over(self, searcher: Searcher, reader: index.IndexReader) -> CachedSearcher:
        """Before this searcher, with what its file holds for this version. From now on its entries are those that are saved."""
        memory: Memory[Hits] = _empty(self._loaded, self._encoder.dimension)
        file = EntryFile(self._path, shape(self._loaded, reader), self._encoder.dimension)
        try:
            if self._kept:
                memory.join(file.load())
        except StaleCache as reason:
            if set(reason.differs) != {VERSION}:  # which is in the order of things
                self._notice(f"the query cache {self._path} is left aside and begun anew: {reason}")
        for entry in memory.entries():
            self._encoder.know(entry.question, entry.vector)
        with self._lock:
            self._current = memory, file, reader
            self._unsaved = self._failed = 0
        settings = self._loaded.settings.cache
        return CachedSearcher(searcher, QuestionCache(memory, self._matcher, settings.min_cosine), self._put)

    def of_answers(self) -> QuestionCache[Any]:
        """For finished answers, which are kept in memory alone."""
        memory: Memory[Any] = _empty(self._loaded, self._encoder.dimension)
        return QuestionCache(memory, self._matcher, self._loaded.settings.cache.min_cosine)

    def save(self) -> None:
        """Where there is something new. A full disk or a folder that can't be written costs the cache, not the answer."""
        with self._saving:
            with self._lock:
                current, unsaved = self._current, self._unsaved + self._failed
                self._unsaved = self._failed = 0
            if current is None or not unsaved or not self._kept:
                return
            memory, file, reader = current
            try:
                # The index may have been removed meanwhile, or have a newer version, whose entries stand in the file.
                if is_current(self._loaded, reader):
                    file.save(memory)
            except (IndexMissing, SearchIndexError):
                return
            except (StorageError, OSError) as error:
                with self._lock:
                    self._failed += unsaved
                self._notice(f"the query cache isn't kept: {error}")

    def _put(self, count: int) -> None:
        with self._lock:
            self._unsaved += count
            due = self._unsaved >= EVERY
        if due:
            self.save()


def index_versions(loaded: Loaded) -> index.Versions:
    return index.Versions(paths.indexes_dir(), loaded.settings.index.name)


def is_current(loaded: Loaded, reader: index.IndexReader) -> bool:
    """An index that was removed begins at its first number again. Raises `IndexMissing` and `SearchIndexError`."""
    version, folder = index_versions(loaded).current()
    return version == reader.version and index.read_manifest(folder) == reader.manifest


def forget(loaded: Loaded) -> list[Path]:
    """Remove the files of all settings, and what killed processes left of them. Raises `StorageError`."""
    folder = cache_path(loaded).parent
    removed = []
    for name in sorted(
        {path.name.removeprefix(".").partition(ENDING)[0] + ENDING for path in folder.glob(f"*queries-*{ENDING}*")}
    ):
        with only_writer(folder / name, PATIENCE):
            for path in [*folder.glob(name), *folder.glob(f".{name}.*")]:
                if path.suffix != ".lock":
                    with explaining_storage(path):
                        path.unlink(missing_ok=True)
                    removed.append(path)
    return removed


def cache_path(loaded: Loaded) -> Path:
    """Beside the versions of the index; other settings of a search have another file."""
    digest = hashlib.sha256(json.dumps(_sections(loaded), sort_keys=True).encode()).hexdigest()
    return index_versions(loaded).root / f"queries-{digest[:12]}{ENDING}"


def _sections(loaded: Loaded) -> dict[str, Any]:
    """The settings of these stages."""
    return loaded.settings.model_dump(mode="json", include={"embed", "index", "retrieve", "rerank"})


def _by_settings(loaded: Loaded) -> dict[str, Any]:
    """Models, the settings of these stages, and what runs them."""
    names = {"embedding model": loaded.settings.embed.model, "reranker": loaded.settings.rerank.model}
    return {
        **{role: resolve(name, quiet).fingerprint if name is not None else None for role, name in names.items()},
        "settings": _sections(loaded),
        "device": loaded.device,
    }


def shape(loaded: Loaded, version: index.IndexReader | index.CheckedVersion) -> dict[str, Any]:
    """Everything that shaped what a search found: the index to its last byte, models and settings."""
    manifest = json.dumps(asdict(version.manifest), sort_keys=True).encode()
    named = f"{version.name}/{version.version} {hashlib.sha256(manifest).hexdigest()}"
    return {VERSION: named, "version of rag": rag.__version__, **_by_settings(loaded)}


def kept_questions(loaded: Loaded) -> list[Entry[Hits]]:
    """What the file of the index's current version holds and isn't over, in order of its use. Raises `StaleCache` where it won't be
    used, and `IndexMissing` and `SearchIndexError` as `check_index` does."""
    path = cache_path(loaded)
    checked = index.check_current(index_versions(loaded))
    if not path.exists():
        return []  # and no model is built to find that out
    memory: Memory[Hits] = _empty(loaded, checked.manifest.dimension)
    memory.join(load(path, shape(loaded, checked), checked.manifest.dimension))
    return memory.entries()


def _empty(loaded: Loaded, dimension: int) -> Memory[Any]:
    settings = loaded.settings.cache
    return Memory(dimension, settings.max_entries, settings.eviction, settings.ttl_s)
