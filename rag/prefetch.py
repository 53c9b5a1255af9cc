"""Searches the next questions of a stream while earlier ones are answered, as batches: each stage of a search runs once a batch."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from rag.core import Encoder, Hits, Query, Searcher, Trace

Asked: TypeAlias = tuple[str, str | None]
"""A question, and the condition that its sources have to meet."""


Found: TypeAlias = tuple[Hits, float | None]
"""And the cosine of the earlier question that a cache had it of, None where it was searched."""


@dataclass(slots=True)
class Counts:
    """What became of questions: when they were asked, their hits were there (`ahead`), were being searched for (`late`), or they were
    searched then, since their turn hadn't come or their batch failed (`alone`). Some were searched and never asked (`wasted`)."""

    ahead: int = 0
    late: int = 0
    alone: int = 0
    wasted: int = 0


class PrefetchSearcher:
    """Before a searcher, over a stream of questions that will be asked of it, about in this order.

    A thread of its own searches at most `window` questions that aren't asked for yet, `batch_size` at a time. What goes wrong with a
    batch isn't told: each of its questions is searched again when it is asked for, and the one that is at fault fails there.

    Thread-safe. `close` ends the thread.
    """

    def __init__(
        self, searcher: Searcher, encoder: Encoder, stream: Iterable[Asked], window: int, batch_size: int
    ) -> None:
        """`encoder` should remember its vectors (`rag.cache.RememberingEncoder`): else each question is encoded again when it is
        asked. Raises ValueError where a batch is larger than the window."""
        if not 1 <= batch_size <= window:
            raise ValueError(f"batches of {batch_size} in a window of {window}")
        self._searcher = searcher
        self._encoder = encoder
        self._stream = iter(stream)
        self._window = window
        self._batch_size = batch_size
        self._changed = threading.Condition()
        self._fetched: dict[Asked, deque[Future[Found | None]]] = {}
        """Of a question that is asked twice, two."""
        self._passed_over: Counter[Asked] = Counter()
        """Asked before their turn came: nothing is searched for them when it does."""
        self._asked: Counter[Asked] = Counter()
        self._finished: Counter[Asked] = Counter()
        self._closed = self._ended = False
        self.counts = Counts()
        self._thread = threading.Thread(target=self._run, name="rag-prefetch", daemon=True)
        self._thread.start()

    @property
    def index_version(self) -> str:
        return self._searcher.index_version

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        asked = [(query.text, query.where) for query in queries]
        with trace.span("retrieve") if any(self._turn_came(one) for one in asked) else nullcontext():
            found = [self._take(one) for one in asked]
        left = [query for query, one in zip(queries, found, strict=True) if one is None]
        searched = iter(self._searcher.search(left, trace) if left else ())
        hits = []
        for query, one in zip(queries, found, strict=True):
            if one is None:
                hits.append(next(searched))
            else:
                hits.append(one[0])
                if one[1] is not None:
                    trace.served(query.text, one[1], query.where)
        return hits

    def finish(self, asked: Asked) -> None:
        """A question has ended. Where it did so before it was searched, what was found for it makes room."""
        with self._changed:
            self._finished[asked] += 1
            if self._finished[asked] > self._asked[asked]:
                self.counts.wasted += self._claim(asked) is not None

    def peek(self, asked: Asked) -> Hits:
        """What will be found for a question of the stream that isn't asked yet, as soon as it is there; nothing where its batch
        failed, the window has no room for it, or the stream has ended without it."""
        with self._changed:
            self._changed.wait_for(lambda: asked in self._fetched or self._ended or not self._has_room)
            futures = self._fetched.get(asked)
            future = futures[0] if futures else None
        found = future.result() if future is not None else None
        return found[0] if found is not None else ()

    def close(self) -> None:
        """The batch under way is let end, and thrown away."""
        with self._changed:
            before, self._closed = self._closed, True
            self._changed.notify_all()
        self._thread.join()
        if not before:
            left = [future for futures in self._fetched.values() for future in futures]
            self.counts.wasted += sum(future.done() and future.result() is not None for future in left)

    @property
    def _waiting(self) -> int:
        """Questions that were searched, or are, and not asked yet."""
        return sum(map(len, self._fetched.values()))

    @property
    def _has_room(self) -> bool:
        return self._waiting + self._batch_size <= self._window

    def _turn_came(self, asked: Asked) -> bool:
        with self._changed:
            return asked in self._fetched

    def _take(self, asked: Asked) -> Found | None:
        """None where it has to be searched now."""
        with self._changed:
            future = self._claim(asked)
        ready = future is not None and future.done()
        found = future.result() if future is not None else None
        with self._changed:
            self.counts.alone += found is None
            self.counts.ahead += found is not None and ready
            self.counts.late += found is not None and not ready
        return found

    def _claim(self, asked: Asked) -> Future[Found | None] | None:
        """Under the lock: it is waited for no more."""
        self._asked[asked] += 1
        futures = self._fetched.get(asked)
        if futures is None:
            self._passed_over[asked] += 1
            return None
        future = futures.popleft()
        if not futures:
            del self._fetched[asked]
        self._changed.notify_all()
        return future

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while batch := self._next():
                found = self._search([asked for asked, _ in batch])
                for (_, future), one in zip(batch, found, strict=True):
                    future.set_result(one)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _next(self) -> list[tuple[Asked, Future[Found | None]]]:
        """The next batch, as soon as the window has room for it; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room)
            batch: list[tuple[Asked, Future[Found | None]]] = []
            while not self._closed and len(batch) < self._batch_size and (asked := self._read()) is not None:
                if self._passed_over[asked] > 0:
                    self._passed_over[asked] -= 1
                    continue
                batch.append((asked, Future()))
                self._fetched.setdefault(asked, deque()).append(batch[-1][1])
            self._changed.notify_all()
            return batch

    def _read(self) -> Asked | None:
        """None at the end, also of a stream that fails: its questions are searched when they are asked."""
        try:
            return next(self._stream, None)
        except Exception:
            self._stream = iter(())
            return None

    def _search(self, batch: Sequence[Asked]) -> list[Found | None]:
        trace = Trace()
        try:
            vectors = self._encoder.encode_queries([text for text, _ in batch])
            queries = [Query(text, vector, where) for (text, where), vector in zip(batch, vectors, strict=True)]
            hits = self._searcher.search(queries, trace)
            return [
                (one, trace.cache_info(query.text, self.index_version, query.where).similarity)
                for query, one in zip(queries, hits, strict=True)
            ]
        except Exception:  # whose it is shows when each is searched alone
            return [None] * len(batch)
