"""The query cache under load and through many histories: `make soak-cache`.

    python scripts/soak_cache.py [--seconds 60] [--histories 2000]

16 threads put and look for half of these seconds, a second cache over the same file beside theirs; for the other half they are short
processes that all write one file, of which nothing may be missing in the end. Then random histories of puts, look-ups, updates and
restarts are held against a model of the cache. Exit code 1 where anything went wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from rag.cache import CachedSearcher, EntryFile, Memory, QuestionCache
from rag.cli import ending
from rag.core import Hit, Hits, Passage, Query, Trace

ROOT = Path(__file__).parent.parent

THREADS, ENTRIES, QUESTIONS, DIMENSION = 16, 200, 1000, 32

LIFE = 0.5
"""Seconds after which an entry is none any more."""


class SameNumber:
    """The matcher: "N" and "N again" ask the same."""

    def same(self, question: str, earlier: str) -> bool:
        return question.split()[0] == earlier.split()[0]


class Numbered:
    """Finds for questions "N" and "N again" the passage N."""

    index_version = "soak/1"

    def search(self, queries: list[Query], trace: Trace) -> list[Hits]:
        del trace
        numbers = [query.text.split()[0] for query in queries]
        return [(Hit(Passage(number, number, "", "", 0, 0), 1.0),) for number in numbers]


def main(
    seconds: Annotated[float, typer.Option(min=0.1, help="Of the threads.")] = 60,
    histories: Annotated[int, typer.Option(min=1, help="Random histories.")] = 2000,
) -> None:
    """Look for a hit of another question, a lost update, a look-up that isn't counted, an exception, and a cache beyond its size."""
    problems = [*hammer(seconds / 2), *fill(seconds / 2)]
    for problem in problems[:10]:
        typer.echo(problem)
    command = [
        sys.executable,
        "-m",
        "pytest",
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
    typer.echo((done.stdout.strip() or done.stderr.strip() or "pytest said nothing").splitlines()[-1])
    if problems or done.returncode:
        raise typer.Exit(1)


def hammer(seconds: float) -> list[str]:
    """What went wrong."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(QUESTIONS, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    memory: Memory[Hits] = Memory(DIMENSION, ENTRIES, ttl_s=LIFE)
    searcher = CachedSearcher(Numbered(), QuestionCache(memory, SameNumber(), min_cosine=0.5))  # type: ignore[arg-type]
    problems: list[str] = []
    asked = [0] * THREADS
    until = time.monotonic() + seconds

    def work(number: int) -> None:
        own = np.random.default_rng(number)
        try:
            while time.monotonic() < until:
                rows = own.integers(QUESTIONS, size=3)
                queries = [Query(str(row) + own.choice(["", " again"]), vectors[row]) for row in rows]
                for row, hits in zip(rows, searcher.search(queries, Trace()), strict=True):
                    if [hit.passage.id for hit in hits] != [str(row)]:
                        problems.append(f"question {row} was given {hits}")
                asked[number] += len(queries)
                if len(memory) > ENTRIES:
                    problems.append(f"{len(memory)} entries, at most {ENTRIES} are allowed")
        except Exception as error:
            problems.append(repr(error))

    def keep(folder: Path) -> None:
        """Two caches write one file in turn, and each takes what the other has."""
        path = folder / "queries.safetensors"
        other: Memory[Hits] = Memory(DIMENSION, ENTRIES, ttl_s=LIFE)
        files = [(EntryFile(path, {}, DIMENSION), one) for one in (memory, other)]
        try:
            while time.monotonic() < until:
                for file, one in files:
                    file.save(one)
                for entry in EntryFile(path, {}, DIMENSION).load():
                    if [hit.passage.id for hit in entry.value] != [entry.question.split()[0]]:
                        problems.append(f"question {entry.question} is kept with {entry.value}")
        except Exception as error:
            problems.append(repr(error))

    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        threads.append(threading.Thread(target=keep, args=(Path(folder),)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counts = memory.counts
    counted = counts.exact + counts.matched + counts.missed
    if counted != sum(asked):
        problems.append(f"{sum(asked)} look-ups, {counted} counted")
    said = (
        f"{counts.exact:,} repeats, {counts.matched:,} matched, {counts.evicted:,} evicted, {counts.expired:,} expired: "
        f"{len(problems)} problems"
    )
    typer.echo(f"{sum(asked):,} look-ups by {THREADS} threads, {said}")
    return problems


def fill(seconds: float) -> list[str]:
    """What went wrong where nothing may go: each thread is one short process after the other, that reads the file, finds something
    new, and writes it. In the end all of it has to be there."""
    vector = np.eye(DIMENSION, dtype=np.float32)[0]
    problems: list[str] = []
    put: list[set[str]] = [set() for _ in range(THREADS)]
    until = time.monotonic() + seconds

    def work(number: int, path: Path) -> None:
        try:
            while time.monotonic() < until:
                memory: Memory[Hits] = Memory(DIMENSION, 1_000_000)
                file = EntryFile(path, {}, DIMENSION)
                memory.join(file.load())
                question = f"{number}-{len(put[number])}"
                memory.put(Query(question, vector), (Hit(Passage(question, question, "", "", 0, 0), 1.0),))
                file.save(memory)
                put[number].add(question)
        except Exception as error:
            problems.append(repr(error))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queries.safetensors"
        threads = [threading.Thread(target=work, args=(number, path)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entries = EntryFile(path, {}, DIMENSION).load()
    found = {entry.question for entry in entries if entry.value[0].passage.id == entry.question}
    expected = set[str]().union(*put)
    problems += [f"question {one} was put, and lost" for one in sorted(expected - found)]
    typer.echo(
        f"{len(expected):,} questions of as many caches that {THREADS} threads wrote to one file: {len(problems)} problems"
    )
    return problems


if __name__ == "__main__":
    ending.run_script(main)
