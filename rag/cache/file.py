"""The entries in one file, `safetensors`, which nothing is unpickled from; read only where all of it is as it was written, and what
shaped it is as it is now."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.cache.memory import Entry, Key, Memory
from rag.core import Hit, Hits, Passage
from rag.errors import StaleCache
from rag.files import only_writer, replacing_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "2"

VECTORS, RECORDS = "vectors", "records"

PATIENCE = 10.0
"""Seconds that another process may be writing."""


class EntryFile:
    """The file that a memory's entries are kept in. Other processes may write it too: what they have found and used since it was last
    read or written here joins the memory before it is replaced. Not thread-safe."""

    def __init__(self, path: Path, shaped_by: Mapping[str, Any], dimension: int) -> None:
        self._path = path
        self._shaped_by = shaped_by
        self._dimension = dimension
        self._known: Mapping[Key, float] = {}
        """What stood in it then, and its turn: what the memory has no more of it was evicted, or is over, unless another process has
        used it since."""
        self._seen: tuple[int, ...] | None = None

    def load(self) -> list[Entry[Hits]]:
        """As `load`."""
        return self._take(self._stat())

    def save(self, memory: Memory[Hits]) -> None:
        """As `save`. Raises `StorageError` also where another process doesn't stop writing."""
        with only_writer(self._path, PATIENCE):
            if (stat := self._stat()) != self._seen:
                known, here = self._known, {entry.key for entry in memory.entries()}
                with suppress(StaleCache):  # and is replaced
                    found = self._take(stat)
                    memory.join(one for one in found if one.key in here or one.turn > known.get(one.key, -math.inf))
            entries = memory.entries()
            save(self._path, entries, self._shaped_by, self._dimension)
            self._known, self._seen = {entry.key: entry.turn for entry in entries}, self._stat()

    def _take(self, stat: tuple[int, ...] | None) -> list[Entry[Hits]]:
        entries = load(self._path, self._shaped_by, self._dimension)
        self._known, self._seen = {entry.key: entry.turn for entry in entries}, stat
        return entries

    def _stat(self) -> tuple[int, ...] | None:
        """Another one for each time that the file is written."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def save(path: Path, entries: Sequence[Entry[Hits]], shaped_by: Mapping[str, Any], dimension: int) -> None:
    """Write the entries, in their order, with what shaped them. Raises `StorageError`."""
    from safetensors.numpy import save as serialised

    vectors = np.stack([entry.vector for entry in entries]) if entries else np.empty((0, dimension), dtype=np.float32)
    records = np.frombuffer(_pack(entries), dtype=np.uint8)
    told = {"format": FORMAT, "shaped_by": _canonical(shaped_by), "sha256": _sha256(vectors, records)}
    with replacing_file(path) as temporary:
        temporary.write_bytes(serialised({VECTORS: vectors, RECORDS: records}, told))


def load(path: Path, shaped_by: Mapping[str, Any], dimension: int) -> list[Entry[Hits]]:
    """The entries of a file, in their order; none where there is no file. Raises `StaleCache` for one that isn't to be used."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return []
    if not path.is_file():
        raise StaleCache("it is no file")
    try:
        with safe_open(path, "numpy") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                raise StaleCache(f"it has format {told.get('format')}, this version of rag reads {FORMAT}")
            if told.get("shaped_by") != _canonical(shaped_by):
                differs = _differences(told.get("shaped_by", "{}"), shaped_by)
                raise StaleCache(f"not the same as when it was written: {', '.join(differs)}", tuple(differs))
            vectors, records = file.get_tensor(VECTORS), file.get_tensor(RECORDS)
        if told.get("sha256") != _sha256(vectors, records):
            raise StaleCache("it has changed since it was written (SHA-256 differs)")
        if vectors.ndim != 2 or vectors.shape[1] != dimension or vectors.dtype != np.float32:
            raise StaleCache(f"its vectors have shape {vectors.shape}, not (entries, {dimension})")
        return _unpack(records.tobytes(), vectors)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise StaleCache(f"it can't be read ({error})") from error


def _pack(entries: Sequence[Entry[Hits]]) -> bytes:
    """JSON; a passage that several questions found stands there once."""
    passages: dict[str, int] = {}
    packed: list[Any] = []
    of_passage = [field.name for field in fields(Passage)]
    scores = [field.name for field in fields(Hit) if field.name != "passage"]
    questions = []
    for entry in entries:
        hits = []
        for hit in entry.value:
            if hit.passage.id not in passages:
                passages[hit.passage.id] = len(packed)
                packed.append(
                    {
                        **{name: getattr(hit.passage, name) for name in of_passage},
                        "metadata": dict(hit.passage.metadata),
                    }
                )
            hits.append([passages[hit.passage.id], {name: getattr(hit, name) for name in scores}])
        questions.append([entry.question, entry.where, entry.added, entry.turn, hits])
    return json.dumps({"passages": packed, "questions": questions}).encode()


def _unpack(records: bytes, vectors: NDArray[np.float32]) -> list[Entry[Hits]]:
    raw = json.loads(records)
    passages = [Passage(**one) for one in raw["passages"]]
    return [
        Entry(question, where, vector, tuple(Hit(passages[row], **scores) for row, scores in hits), added, turn)
        for (question, where, added, turn, hits), vector in zip(raw["questions"], vectors, strict=True)
    ]


def _sha256(vectors: NDArray[np.float32], records: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(vectors).tobytes())
    digest.update(records.tobytes())
    return digest.hexdigest()


def _canonical(shaped_by: Mapping[str, Any]) -> str:
    return json.dumps(shaped_by, sort_keys=True)


def _differences(written: str, shaped_by: Mapping[str, Any]) -> list[str]:
    then, now = json.loads(written), json.loads(_canonical(shaped_by))
    missing = object()
    return sorted(name for name in {*then, *now} if then.get(name, missing) != now.get(name, missing))
