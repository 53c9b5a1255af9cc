"""Searches the next questions of a stream while earlier ones are answered, as batches: each stage of a search runs once a batch."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

from rag.core import Encoder, Hits, Query, Searcher, Trace

QuestionKey: TypeAlias = tuple[str, str | None]
"""A question, and the condition that its sources have to meet."""


Found: TypeAlias = tuple[Hits, float | None]
"""And the cosine of the earlier question that a cache had it of, None where it was searched."""


@dataclass(slots=True)
class PrefetchCounts:
    """What became of questions: when they were asked, their hits were there (`ahead`), were being searched for (`late`), or they were
    searched then, since their turn hadn't come or their batch failed (`alone`). Some were searched and never asked (`wasted`)."""

    ahead: int = 0
    late: int = 0
    alone: int = 0
    wasted: int = 0


def _running() -> Future[Found | None]:
    """A future that whoever waits for it can't cancel: others may wait for it too."""
    future: Future[Found | None] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True, eq=False)
class _Next:
    """A question of the stream that was read. `wanted`: somebody waits for it. `late`: was it asked before it was there? None until it
    is asked."""

    asked: QuestionKey
    found: Future[Found | None] = field(default_factory=_running)
    wanted: bool = False
    late: bool | None = None


class PrefetchSearcher:
    """Before a searcher, over a stream of questions that will be asked of it, about in this order.

    A thread of its own searches at most `window` questions that aren't asked for yet, `batch_size` at a time: fewer where somebody
    waits for one, or the stream ends. What goes wrong with a batch isn't told: each of its questions is searched again when it is
    asked for, and the one that is at fault fails there.

    Thread-safe. `close` ends the thread.
    """

    def __init__(
        self, searcher: Searcher, encoder: Encoder, stream: Iterable[QuestionKey], window: int, batch_size: int
    ) -> None:
        """`encoder` should remember its vectors (`rag.cache.CachedEncoder`): else each question is encoded again when it is
        asked. The stream has to be there: everybody waits while it is read. Raises ValueError where a batch is larger than the
        window."""
        if not 1 <= batch_size <= window:
            raise ValueError(f"batches of {batch_size} in a window of {window}")
        self._searcher = searcher
        self._encoder = encoder
        self._stream = iter(stream)
        self._window = window
        self._batch_size = batch_size
        self._changed = threading.Condition()
        self._fetched: dict[QuestionKey, deque[_Next]] = {}
        """Those that aren't asked for yet; of a question that is asked twice, two."""
        self._waiting = 0
        """How many these are."""
        self._unsearched: deque[_Next] = deque()
        self._passed_over: Counter[QuestionKey] = Counter()
        """Asked before their turn came: nothing is searched for them when it does."""
        self._asked: Counter[QuestionKey] = Counter()
        self._finished: Counter[QuestionKey] = Counter()
        self._closed = self._ended = self._read_all = False
        self.counts = PrefetchCounts()
        with self._changed:
            self._read_ahead()  # who asks at once shall find that its turn has come
        self._thread = threading.Thread(target=self._run, name="rag-prefetch", daemon=True)
        self._thread.start()

    @property
    def index_version(self) -> str:
        return self._searcher.index_version

    async def arrival(self, asked: QuestionKey) -> None:
        """Until `search` needn't wait for a question whose turn has come."""
        with self._changed:
            coming = next((one for one in self._fetched.get(asked, ()) if one.late is None), None)
            if coming is None:
                return
            self._ask_for(coming)
        await asyncio.wrap_future(coming.found)

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

    def finish(self, asked: QuestionKey) -> None:
        """A question has ended. Where it did so before it was searched, what was found for it makes room."""
        with self._changed:
            self._finished[asked] += 1
            if self._finished[asked] > self._asked[asked]:
                self.counts.wasted += self._claim(asked) is not None
            if self._finished[asked] == self._asked[asked]:
                del self._finished[asked], self._asked[asked]

    def peek(self, asked: QuestionKey) -> Hits:
        """What will be found for a question of the stream that isn't asked yet, as soon as it is there; nothing where its batch
        failed, the window has no room for it, or the stream has ended without it."""
        with self._changed:
            self._changed.wait_for(lambda: asked in self._fetched or self._ended or not self._has_room)
            coming = self._fetched[asked][0] if asked in self._fetched else None
            if coming is not None:
                self._want(coming)
        found = coming.found.result() if coming is not None else None
        return found[0] if found is not None else ()

    def close(self) -> None:
        """The batch under way is let end, and thrown away."""
        with self._changed:
            before, self._closed = self._closed, True
            self._changed.notify_all()
        self._thread.join()
        if not before:
            with self._changed:
                left = [one for some in self._fetched.values() for one in some]
                self.counts.wasted += sum(one.found.result() is not None for one in left)

    @property
    def _has_room(self) -> bool:
        """For one more that is read, and not asked for yet."""
        return self._waiting < self._window

    def _turn_came(self, asked: QuestionKey) -> bool:
        with self._changed:
            return asked in self._fetched

    def _take(self, asked: QuestionKey) -> Found | None:
        """None where it has to be searched now."""
        with self._changed:
            coming = self._claim(asked)
        found = coming.found.result() if coming is not None else None
        with self._changed:
            if coming is None or found is None:
                self.counts.alone += 1
            elif coming.late:
                self.counts.late += 1
            else:
                self.counts.ahead += 1
        return found

    def _claim(self, asked: QuestionKey) -> _Next | None:
        """Under the lock: from now on it takes no room."""
        self._asked[asked] += 1
        if asked not in self._fetched:
            self._passed_over[asked] += 1
            return None
        some = self._fetched[asked]
        coming = some.popleft()
        if not some:
            del self._fetched[asked]
        self._waiting -= 1
        self._ask_for(coming)
        return coming

    def _ask_for(self, coming: _Next) -> None:
        if coming.late is None:
            coming.late = not coming.found.done()
        self._want(coming)

    def _want(self, coming: _Next) -> None:
        coming.wanted = True
        self._changed.notify_all()

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while batch := self._next():
                found = self._search([one.asked for one in batch])
                for one, its in zip(batch, found, strict=True):
                    one.found.set_result(its)
        finally:
            with self._changed:
                self._ended = True
                for one in self._unsearched:
                    one.found.set_result(None)
                self._changed.notify_all()

    def _next(self) -> list[_Next]:
        """The next batch, as soon as it is a whole one, somebody waits, or no more will come; empty at the end."""
        with self._changed:
            self._changed.wait_for(self._is_there_work)
            if self._closed:
                return []
            return [self._unsearched.popleft() for _ in range(min(self._batch_size, len(self._unsearched)))]

    def _is_there_work(self) -> bool:
        self._read_ahead()
        whole = len(self._unsearched) >= self._batch_size
        return self._closed or whole or self._read_all or any(one.wanted for one in self._unsearched)

    def _read_ahead(self) -> None:
        """Of the stream what there is room for."""
        while not (self._closed or self._read_all) and self._has_room:
            asked = self._read()
            if asked is None:
                self._read_all = True
            elif self._passed_over[asked] > 0:
                self._passed_over[asked] -= 1
            else:
                self._unsearched.append(_Next(asked))
                self._fetched.setdefault(asked, deque()).append(self._unsearched[-1])
                self._waiting += 1
            self._changed.notify_all()

    def _read(self) -> QuestionKey | None:
        """None at the end, also of a stream that fails: its questions are searched when they are asked."""
        try:
            return next(self._stream, None)
        except Exception:
            self._stream = iter(())
            return None

    def _search(self, batch: Sequence[QuestionKey]) -> list[Found | None]:
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
