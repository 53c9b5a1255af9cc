"""Updates a copy of an index, and tells what its steps take."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag import build
from rag.bench import SEED, articles
from rag.bench.index.encoding import BLOCK
from rag.bench.timing import PAUSE, timed
from rag.core import Clock, Document
from rag.index import versions_of
from rag.settings import Loaded
from rag.training import corpora

if TYPE_CHECKING:
    from rag.core import Encoder

CHANGED = 100
UPDATED = "bench-update"


@contextmanager
def copy_of(loaded: Loaded) -> Iterator[Loaded]:
    """The settings with a copy of their index, which goes again."""
    copy = versions_of(UPDATED)
    shutil.rmtree(copy.root, ignore_errors=True)  # that of a killed run
    shutil.copytree(versions_of(loaded.settings.index.name).root, copy.root)
    try:
        yield corpora.named(loaded, UPDATED)
    finally:
        copy.remove()


def updates(
    copied: Loaded,
    documents: Sequence[Document],
    encoder: Encoder,
    rounds: Sequence[int],
    clock: Clock = time.monotonic,
) -> Iterator[dict[str, Any]]:
    """Seconds of an update of `CHANGED` documents and, before each, of encoding a `BLOCK` of passages: from those, what all
    of the index's would take. The documents of later rounds keep what earlier ones changed."""
    now = list(documents)
    with tempfile.TemporaryDirectory() as scratch:
        for number in rounds:
            chance = random.Random(f"{SEED}-{number}")
            chosen = chance.sample(range(len(now)), min(CHANGED, len(now)))
            for row in chosen:
                now[row] = replace(documents[row], text=f"{documents[row].text} It was revised in round {number}.")
            path = corpora.write(Path(scratch, "articles.jsonl"), now)
            block = articles.split(chance.sample(list(documents), min(BLOCK, len(documents))), copied)
            texts = [passage.titled for passage in block]
            block_seconds, _ = timed(partial(encoder.encode_passages, texts), clock, PAUSE)
            steps = Steps(clock)
            built = build.build_index(copied, [path], steps)
            yield {
                "id": number,
                "changed": built.changes.changed,
                "seconds": built.seconds,
                "steps": steps.seconds(),
                "passages": built.manifest.passages,
                "dense": built.manifest.dense,
                "block": len(block),
                "block_seconds": block_seconds,
            }


class Steps:
    """Told the steps of a build as they begin; a model's are among them where one is built first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: list[tuple[str, float]] = []

    def __call__(self, what: str, *_: object) -> None:
        if not self._begun or what != self._begun[-1][0]:
            self._begun.append((what, self._clock()))

    def seconds(self) -> dict[str, float]:
        """Of each until the next; the last until now."""
        ends = [*(began for _, began in self._begun[1:]), self._clock()]
        return {what: end - began for (what, began), end in zip(self._begun, ends, strict=True)}
