"""Readers of an index while it is updated, and what they see."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rag.bench import SEED
from rag.bench.soak.target import Soaked
from rag.errors import Mixed


@dataclass(slots=True)
class Reading:
    """What readers saw, together. Each opens the index anew after a while, and may keep a version that is long out of date."""

    soaked: Soaked
    answers: int = 0
    opened: int = 0
    problems: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, seed: str) -> None:
        chance, newest = random.Random(seed), 0
        while not self.stop.is_set():
            try:
                revision, searcher = self.soaked.open()
                with self.lock:
                    self.opened += 1
                if revision < newest:
                    raise Mixed(f"revision {revision} after {newest}")
                newest = revision
                for _ in range(chance.randrange(1, 20)):
                    self.soaked.search(searcher, revision)
                    with self.lock:
                        self.answers += len(self.soaked.queries)
                    if self.stop.wait(0.01):
                        break
            except Exception as error:
                with self.lock:
                    self.problems.append(f"{type(error).__name__}: {error}")
                self.stop.wait(0.1)


def read_during(soaked: Soaked, updates: Sequence[int], readers: int, update: Callable[[int], None]) -> dict[str, Any]:
    """What `readers` threads saw while the index went through these revisions."""
    reading = Reading(soaked)
    threads = [threading.Thread(target=reading.read, args=(f"{SEED}-{n}-{updates[0]}",)) for n in range(readers)]
    for thread in threads:
        thread.start()
    try:
        for revision in updates:
            update(revision)
    finally:
        reading.stop.set()
        for thread in threads:
            thread.join()
    return {
        "updates": len(updates),
        "answers": reading.answers,
        "opened": reading.opened,
        "problems": reading.problems,
    }
