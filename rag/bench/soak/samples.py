"""Takes the samples of an index under attack: those of an earlier run with a corpus of the same size stay."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag import paths
from rag.bench import SEED, commands, results
from rag.bench.results import Sample
from rag.bench.soak.changing import changes
from rag.bench.soak.killing import kills, write_next
from rag.bench.soak.reading import read_during
from rag.bench.soak.target import Soaked, home, prepare
from rag.progress import Progress

BENCH = "index"
SAMPLES, HOME = "soak.jsonl", "soak"
KILL, BYTES, READ = "kill", "bytes", "read"
KINDS = (KILL, BYTES, READ)

CHUNK = 100
"""Changes of a byte that are one sample."""

AT_ONCE = 10
"""Updates that are one sample."""


@dataclass(frozen=True, slots=True)
class Workload:
    kills: int
    changes: int
    updates: int
    readers: int


def measure(folder: Path, size: int, workload: Workload, command: str, progress: Progress) -> None:
    """Take what samples there aren't yet of an earlier run with a corpus of the same size."""
    samples = results.Samples(folder, SAMPLES)
    head = results.header(BENCH, command, settings={"documents": size})
    taken = results.by_kind(samples.resume(head), KINDS)
    place = results.unpublished(folder, HOME)
    with home(place):
        if not any(taken.values()):
            # What a run by other code left may be in another format.
            shutil.rmtree(paths.indexes_dir(), ignore_errors=True)
        progress("preparing")
        soaked = prepare(place, size)
        _kill(soaked, workload.kills, samples, taken[KILL], progress)
        if soaked.newest() == 0:
            write_next(soaked)
        _change(soaked, workload.changes, samples, sum(one["changes"] for one in taken[BYTES]), progress)
        _update(soaked, workload, samples, sum(one["updates"] for one in taken[READ]), progress)


def _kill(soaked: Soaked, count: int, samples: results.Samples, taken: Sequence[Sample], progress: Progress) -> None:
    done = sum(sample["killed"] for sample in taken)
    if done >= count:
        return
    progress("kills", done, count)
    for sample in kills(soaked, count, taken):
        samples.add({"kind": KILL, **sample})
        done += sample["killed"]
        progress("kills", done, count)


def _change(soaked: Soaked, count: int, samples: results.Samples, taken: int, progress: Progress) -> None:
    for done in range(taken, count, CHUNK):
        few = min(CHUNK, count - done)
        missed = changes(soaked.loaded, few, random.Random(f"{SEED}-{done}"))
        samples.add({"kind": BYTES, "id": done, "changes": few, "missed": missed})
        progress("changed bytes", done + few, count)


def _update(soaked: Soaked, workload: Workload, samples: results.Samples, taken: int, progress: Progress) -> None:
    def update(revision: int) -> None:
        commands.run(soaked.write(revision))

    for done in range(taken, workload.updates, AT_ONCE):
        progress("updates while readers search", done, workload.updates)
        first = soaked.check() + 1
        some = range(first, first + min(AT_ONCE, workload.updates - done))
        samples.add({"kind": READ, "id": done, **read_during(soaked, some, workload.readers, update)})
