"""The query cache under load and through many histories: `make soak-cache`.

    python scripts/soak_cache.py [--seconds 60] [--histories 2000]

16 threads put and look for so many seconds; then random histories of puts, look-ups, updates and restarts are held against a
model of the cache. Exit code 1 where anything went wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from rag.cache import CachedSearcher, Memory, QuestionCache
from rag.core import Hit, Hits, Passage, Query, Trace
from rag.training import options

ROOT = Path(__file__).parent.parent

THREADS, ENTRIES, QUESTIONS, DIMENSION = 16, 200, 1000, 32


class Numbered:
    """Finds for question N the passage N."""

    index_version = "soak/1"

    def search(self, queries: list[Query], trace: Trace) -> list[Hits]:
        del trace
        return [(Hit(Passage(query.text, query.text, "", "", 0, 0), 1.0),) for query in queries]


def main(
    seconds: Annotated[float, typer.Option(min=0.1, help="Of the threads.")] = 60,
    histories: Annotated[int, typer.Option(min=1, help="Random histories.")] = 2000,
) -> None:
    """Look for a hit of another question, a look-up that isn't counted, an exception, and a cache that grows beyond its size."""
    problems = hammer(seconds)
    for problem in problems[:10]:
        typer.echo(problem)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/test_cache_memory.py",
        "-k",
        "whatever_happens",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "RAG_HISTORIES": str(histories)},
        capture_output=True,
        text=True,
        check=False,
    )
    typer.echo(done.stdout.strip().splitlines()[-1])
    if problems or done.returncode:
        raise typer.Exit(1)


def hammer(seconds: float) -> list[str]:
    """What went wrong."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(QUESTIONS, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    memory: Memory[Hits] = Memory(DIMENSION, ENTRIES)
    searcher = CachedSearcher(Numbered(), QuestionCache(memory))  # type: ignore[arg-type]
    problems: list[str] = []
    asked = [0] * THREADS
    until = time.monotonic() + seconds

    def work(number: int) -> None:
        own = np.random.default_rng(number)
        try:
            while time.monotonic() < until:
                rows = own.integers(QUESTIONS, size=3)
                queries = [Query(str(row), vectors[row]) for row in rows]
                for query, hits in zip(queries, searcher.search(queries, Trace()), strict=True):
                    if [hit.passage.id for hit in hits] != [query.text]:
                        problems.append(f"question {query.text} was given {hits}")
                asked[number] += len(queries)
                if len(memory) > ENTRIES:
                    problems.append(f"{len(memory)} entries, at most {ENTRIES} are allowed")
        except Exception as error:
            problems.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = memory.counts
    counted = counts.exact + counts.matched + counts.missed
    if counted != sum(asked):
        problems.append(f"{sum(asked)} look-ups, {counted} counted")
    said = f"{counts.exact:,} hits, {counts.evicted:,} evictions: {len(problems)} problems"
    typer.echo(f"{sum(asked):,} look-ups by {THREADS} threads, {said}")
    return problems


if __name__ == "__main__":
    options.run(main)
