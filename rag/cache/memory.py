"""Entries by their question and by their vector, at most so many, the least used or the oldest going first."""

from __future__ import annotations

import math
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np

from rag.settings import Eviction

if TYPE_CHECKING:
    from rag.core import Matrix, Query, Vector

V = TypeVar("V")
Key: TypeAlias = tuple[str, str | None]
"""A question's words (`normalised`), and the condition that its sources have to meet."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """What was found for a question. `added` is seconds since 1970, so that it counts after a restart too. What goes first has the
    least `turn`: when it was added or, with LRU, last used, but later than all before it, also where the clock was set back."""

    question: str
    where: str | None
    vector: Vector
    value: V
    added: float
    turn: float = 0.0

    @property
    def key(self) -> Key:
        return normalised(self.question), self.where


@dataclass(slots=True)
class CacheCounts:
    """Since the cache was opened, which it is for each version of the index. A look-up is an exact repeat, a matched question, or a
    miss; `refused` counts candidates that were near enough to be looked at twice, and ask something else."""

    exact: int = 0
    matched: int = 0
    missed: int = 0
    refused: int = 0
    evicted: int = 0
    expired: int = 0


class Memory(Generic[V]):
    """Thread-safe."""

    def __init__(
        self,
        dimension: int,
        max_entries: int,
        eviction: Eviction = "lru",
        ttl_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ttl_s`: after so many seconds an entry is none any more."""
        self.dimension = dimension
        self.counts = CacheCounts()
        self.changes = 0
        """How often something was added or, with LRU, used."""
        self._most = max_entries
        self._eviction = eviction
        self._ttl = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0.0
        """The last one."""
        self._entries: OrderedDict[Key, Entry[V]] = OrderedDict()
        """The first goes first."""
        self._rows: dict[Key, int] = {}
        self._keys: list[Key] = []
        """By row of `_vectors`; what is behind them isn't used yet."""
        self._vectors: Matrix = np.empty((0, dimension), dtype=np.float32)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def entries(self) -> list[Entry[V]]:
        """Those that are still valid; the one that would go first stands first."""
        with self._lock:
            self._expire(self._entries)
            return list(self._entries.values())

    def exact(self, question: str, where: str | None = None) -> Entry[V] | None:
        """The entry of the same words. It is counted when it is put to `use`."""
        with self._lock:
            return self._valid((normalised(question), where))

    def nearest(self, query: Query, min_cosine: float) -> tuple[Entry[V], float] | None:
        """The entry with the same condition whose vector has the highest cosine with the query's, and that cosine; None where it
        is below `min_cosine`."""
        with self._lock:
            cosines = self._vectors[: len(self._keys)] @ query.vector
            over = []
            nearest = None
            for row in _nearest_first(cosines, min_cosine):
                key = self._keys[row]
                if self._is_over(self._entries[key]):
                    over.append(key)
                elif key[1] == query.where:
                    nearest = self._entries[key], float(cosines[row])
                    break
            self._expire(over)
            return nearest

    def use(self, entry: Entry[V], matched: bool) -> None:
        """It serves a question, of the same words or of others (`matched`): with LRU it goes last now, if it is still there."""
        with self._lock:
            self.counts.matched += matched
            self.counts.exact += not matched
            here = self._entries.get(entry.key)
            if self._eviction == "lru" and here is not None:
                self._entries[entry.key] = replace(here, turn=self._next_turn())
                self._entries.move_to_end(entry.key)
                self.changes += 1

    def miss(self, refused: int) -> None:
        """Nothing serves a question; so many candidates were looked at."""
        with self._lock:
            self.counts.missed += 1
            self.counts.refused += refused

    def put(self, query: Query, value: V) -> None:
        """In place of an entry of the same words."""
        self.add([Entry(query.text, query.where, query.vector, value, self._clock())])

    def add(self, entries: Iterable[Entry[V]]) -> None:
        """In this order behind all that are here, each `added` when it was. Raises ValueError for a vector of another dimension."""
        with self._lock:
            for entry in entries:
                if entry.vector.shape != (self.dimension,):
                    raise ValueError(f"a vector of shape {entry.vector.shape}, not ({self.dimension},)")
                self._drop(entry.key)
                if len(self._entries) == self._most:
                    self._expire(self._entries)
                self._insert(replace(entry, turn=self._next_turn()))
                self._evict()
                self.changes += 1

    def join(self, entries: Iterable[Entry[V]]) -> None:
        """Entries from elsewhere, as if they had been added and used here when they were there: where there are too many now, those go
        whose turn it is. Of the same words the newer one stays."""
        with self._lock:
            self._expire(self._entries)
            for entry in entries:
                if self._is_over(entry):
                    continue
                here = self._entries.get(entry.key, entry)
                newer = here if here.added >= entry.added else entry
                self._drop(entry.key)
                self._insert(replace(newer, turn=max(here.turn, entry.turn)))
                self._turn = max(self._turn, entry.turn)
            for one in sorted(self._entries.values(), key=lambda one: one.turn):
                self._entries.move_to_end(one.key)
            self._evict()

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._rows.clear()
            self._keys.clear()

    # --- under the lock ---------------------------------------------------------------------

    def _valid(self, key: Key) -> Entry[V] | None:
        self._expire([key])
        return self._entries.get(key)

    def _expire(self, keys: Iterable[Key]) -> None:
        """Of these, drop what is over."""
        if self._ttl is None:
            return
        for key in [key for key in keys if key in self._entries and self._is_over(self._entries[key])]:
            self._drop(key)
            self.counts.expired += 1

    def _evict(self) -> None:
        while len(self._entries) > self._most:
            self._drop(next(iter(self._entries)))
            self.counts.evicted += 1

    def _next_turn(self) -> float:
        self._turn = max(self._clock(), math.nextafter(self._turn, math.inf))
        return self._turn

    def _is_over(self, entry: Entry[V]) -> bool:
        """Also where the clock was set back since."""
        return self._ttl is not None and not 0 <= self._clock() - entry.added < self._ttl

    def _insert(self, entry: Entry[V]) -> None:
        row = len(self._keys)
        if row == len(self._vectors):
            larger = np.empty((max(64, 2 * row), self.dimension), dtype=np.float32)
            larger[:row] = self._vectors
            self._vectors = larger
        self._vectors[row] = entry.vector
        self._keys.append(entry.key)
        self._rows[entry.key] = row
        self._entries[entry.key] = replace(entry, vector=np.array(entry.vector))  # a row would keep its whole matrix

    def _drop(self, key: Key) -> None:
        """The last row takes its place, so that the rows in use stay together."""
        if self._entries.pop(key, None) is None:
            return
        row, last = self._rows.pop(key), self._keys.pop()
        if last != key:
            self._vectors[row] = self._vectors[len(self._keys)]
            self._keys[row] = last
            self._rows[last] = row


def _nearest_first(cosines: Vector, least: float) -> Iterator[int]:
    """The rows of `cosines` that are at least so high, the highest first. It is nearly always all that is asked for, and sorting
    10,000 takes longer than finding it."""
    if not len(cosines):
        return
    first = int(np.argmax(cosines))
    if cosines[first] >= least:
        yield first
        near = np.flatnonzero(cosines >= least)
        ordered = near[np.argsort(-cosines[near], kind="stable")]
        yield from ordered[1:].tolist()


def normalised(question: str) -> str:
    """The same for a question however its letters are encoded and spaced, whether it begins with a capital, and whatever mark it
    ends with. Numbers stay what they are, since NFKC would make 105 of 10⁵, and so do other capitals: "mM" is no "mm", "WHO" is
    nobody, and Turkey a country."""
    first, *others = " ".join(unicodedata.normalize("NFC", question).split()).rstrip(" ?.!").split() or [""]
    return " ".join([first.casefold() if first[1:] == first[1:].casefold() else first, *others])
