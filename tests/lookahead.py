"""What looks ahead, on fakes: a search and an encoder that keep what they are asked for, and guards against what hangs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import TypeVar

import numpy as np

from rag.core import Hit, Hits, Passage, Query, Trace
from rag.prefetch import QuestionKey
from rag.testing import FakeEncoder

T = TypeVar("T")

PREFETCH = "rag-prefetch"
"""The name of the thread that looks ahead."""

PATIENCE = 10.0
"""Seconds after which something hangs."""


@dataclass(frozen=True, slots=True)
class Call:
    """Questions that were searched together, in advance or not, and how many had been asked by then."""

    asked: list[QuestionKey]
    ahead: bool
    started: int


class Finding:
    """A search that finds one passage for a question, its own, and fails where it meets one of `failing`. While `gate` is closed,
    what is searched in advance waits before it. A vector that isn't the question's is seen by a cosine below 1."""

    index_version = "test/000007"

    def __init__(self, failing: Collection[str] = (), passage: Callable[[str], str] = str) -> None:
        """`passage` gives what is found for a question its name."""
        self.failing = failing
        self.passage = passage
        self.calls: list[Call] = []
        self.started: list[QuestionKey] = []
        self.gate = threading.Event()
        self.gate.set()

    @property
    def batches(self) -> list[list[str]]:
        """The questions that were searched in advance."""
        return [[text for text, _ in call.asked] for call in self.calls if call.ahead]

    @property
    def alone(self) -> list[list[str]]:
        """Those that were searched when they were asked."""
        return [[text for text, _ in call.asked] for call in self.calls if not call.ahead]

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        ahead = threading.current_thread().name == PREFETCH
        self.calls.append(Call([(query.text, query.where) for query in queries], ahead, len(self.started)))
        if ahead:
            assert self.gate.wait(PATIENCE)
        with trace.span("finding"):
            for query in queries:
                if query.text in self.failing:
                    raise ValueError(f"nothing can be found for {query.text}")
            return [self.hits((query.text, query.where), query) for query in queries]

    def hits(self, asked: QuestionKey, query: Query | None = None) -> Hits:
        """What a question should find; of a query, what it finds."""
        text, where = asked
        name = f"{self.passage(text)} where {where}"
        passage = Passage(f"{name}#0", name, "A paper", f"This tells of {text}", 0, 20)
        vector = query.vector if query is not None else query_of(asked).vector
        return (Hit(passage, dense=round(float(vector @ query_of(asked).vector), 3)),)


class Encoding(FakeEncoder):
    """Keeps what it encodes, and by which thread; fails where it meets one of `failing`."""

    def __init__(self, failing: Collection[str] = ()) -> None:
        self.failing = failing
        self.batches: list[list[str]] = []
        self.alone: list[list[str]] = []

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        ahead = threading.current_thread().name == PREFETCH
        (self.batches if ahead else self.alone).append(list(texts))
        if any(text in self.failing for text in texts):
            raise ValueError("a text that can't be encoded")
        return super().encode_queries(texts)


@cache
def query_of(asked: QuestionKey) -> Query:
    text, where = asked
    return Query(text, FakeEncoder().encode_queries([text])[0], where)


def looking() -> set[threading.Thread]:
    """The threads that look ahead."""
    return {thread for thread in threading.enumerate() if thread.name == PREFETCH}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.001)


def in_thread(work: Callable[[], T]) -> Callable[[], T]:
    """Begins with it beside the test; calling what comes back waits for what it gives."""
    given: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            given.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)  # one that hangs doesn't hold up the end of the tests
    thread.start()

    def wait() -> T:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it hangs"
        if failed:
            raise failed[0]
        return given[0]

    return wait


@contextmanager
def nothing_hangs_and_no_thread_stays() -> Iterator[None]:
    """A test that waits for what never comes fails, and so does one that leaves a thread that looks ahead."""

    def give_up(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise TimeoutError("it hangs")

    before = looking()
    earlier = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 60, PATIENCE)  # once more where what clears up after it hangs too
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert looking() <= before, "a thread that looks ahead is left"
