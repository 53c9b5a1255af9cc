"""The cache before a search and before an encoder: each wraps one, and is one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from rag.cache.memory import CacheCounts, Entry, Memory
from rag.core import Encoder, Hits, Matcher, Query, Searcher, Trace

if TYPE_CHECKING:
    from rag.core import Matrix, Vector

V = TypeVar("V")


class QuestionCache(Generic[V]):
    """Finds the earlier question that serves one: of the same words, or the nearest by cosine where the matcher says that it
    asks the same. Thread-safe as far as its matcher is."""

    def __init__(self, memory: Memory[V], matcher: Matcher | None = None, min_cosine: float = 1.0) -> None:
        """Without a `matcher` only repeats serve. `min_cosine` is the lowest of a candidate that it is asked about."""
        self.memory = memory
        self._matcher = matcher
        self._min_cosine = min_cosine

    def vector(self, question: str, where: str | None) -> Vector | None:
        """Of the entry of the same words, so that a repeat isn't encoded to be found."""
        repeat = self.memory.exact(question, where)
        return repeat.vector if repeat is not None else None

    def find(self, query: Query) -> tuple[Entry[V], float] | None:
        """With the cosine of both, 1 for the same words."""
        memory = self.memory
        if (repeat := memory.exact(query.text, query.where)) is not None:
            memory.use(repeat, matched=False)
            return repeat, 1.0
        if self._matcher is None:
            memory.miss(refused=0)
            return None
        nearest = memory.nearest(query, self._min_cosine)
        if nearest is not None and self._matcher.same(query.text, nearest[0].question):
            memory.use(nearest[0], matched=True)
            return nearest
        memory.miss(refused=nearest is not None)
        return None


class CachedSearcher:
    """Looks for a question among earlier ones before it is searched. What is kept is what the search gave: the reranked hits.

    Thread-safe as far as what it wraps is. Everything that shapes the hits is the same for all that its cache holds, the
    index's version too (`rag.cache.file`). So a document that changes takes every entry with it: it may answer questions
    now that it wasn't found for before.
    """

    def __init__(
        self, searcher: Searcher, cache: QuestionCache[Hits], after_put: Callable[[int], None] = lambda _: None
    ) -> None:
        """`after_put` is told of so many new entries."""
        self._searcher = searcher
        self.cache = cache
        self._after_put = after_put

    @property
    def index_version(self) -> str:
        return self._searcher.index_version

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        with trace.span("cache"):
            found = [self.cache.find(query) for query in queries]
        missing = [query for query, one in zip(queries, found, strict=True) if one is None]
        searched = iter(self._searcher.search(missing, trace) if missing else ())
        hits = []
        for query, one in zip(queries, found, strict=True):
            if one is not None:
                entry, similarity = one
                trace.served(query.text, similarity, query.where)
                hits.append(entry.value)
            else:
                hits.append(next(searched))
                self.cache.memory.put(query, hits[-1])
        if missing:
            with trace.span("cache"):
                self._after_put(len(missing))
        return hits


class CachedEncoder:
    """Gives a question that is asked again the vector that it had, without encoding it. Thread-safe as far as what it wraps is."""

    def __init__(self, encoder: Encoder, max_entries: int) -> None:
        self._encoder = encoder
        self._most = max_entries
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, Vector] = OrderedDict()
        """The least recently used first."""
        self.model = encoder.model
        self.dimension = encoder.dimension

    def know(self, text: str, vector: Vector) -> None:
        with self._lock:
            self._vectors[text] = np.array(vector)  # a row would keep all that it was encoded with
            self._vectors.move_to_end(text)
            while len(self._vectors) > self._most:
                self._vectors.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._vectors.clear()

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        with self._lock:
            known = [self._vectors.get(text) for text in texts]
        if not texts:
            return self._encoder.encode_queries(texts)
        new = [text for text, vector in zip(texts, known, strict=True) if vector is None]
        encoded = iter(self._encoder.encode_queries(new) if new else ())
        vectors = [vector if vector is not None else next(encoded) for vector in known]
        for text, vector in zip(texts, vectors, strict=True):
            self.know(text, vector)
        return np.stack(vectors)

    def encode_passages(self, texts: Sequence[str]) -> Matrix:
        return self._encoder.encode_passages(texts)


@dataclass(frozen=True)  # with slots, Python 3.11 makes none by an alias of `QuestionCaches[V]`
class QuestionCaches(Generic[V]):
    """What a pipeline keeps of earlier questions: their vectors, their hits, finished answers; None of what it doesn't."""

    vectors: CachedEncoder | None = None
    hits: QuestionCache[Hits] | None = None
    answers: QuestionCache[V] | None = None

    @property
    def counts(self) -> dict[str, CacheCounts]:
        """Of "hits" and "answers"."""
        found = {"hits": self.hits, "answers": self.answers}
        return {name: cache.memory.counts for name, cache in found.items() if cache is not None}

    def vector(self, question: str, where: str | None) -> Vector | None:
        """Of a repeat, which is known by its words, before anything is encoded."""
        for cache in (self.answers, self.hits):
            if cache is not None and (vector := cache.vector(question, where)) is not None:
                return vector
        return None

    def clear(self) -> None:
        if self.vectors is not None:
            self.vectors.clear()
        for cache in (self.hits, self.answers):
            if cache is not None:
                cache.memory.clear()
