"""What a look-up takes among many questions: of one in other words, and of a repeat."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rag import build, calibrate, paths
from rag.bench import results
from rag.bench.timing import timed
from rag.cache import Memory, QuestionCache
from rag.core import Clock, Encoder, Matcher, Query
from rag.matching import comparable
from rag.progress import Progress
from rag.settings import Loaded
from rag.training import datasets
from rag.variants.caching.pairs import HELD_OUT

KIND = "hit"

ENTRIES, ROUNDS, WARM_UP = 10_000, 200, 20

AT_ONCE = 256


def measure(
    loaded: Loaded, root: Path, samples: results.Samples, taken: Sequence[results.Sample], progress: Progress
) -> None:
    done = sum(sample["kind"] == KIND for sample in taken)
    if done < ROUNDS:
        progress("filling the cache")
        encoder, matcher = build.open_encoder(loaded), build.open_matcher(loaded, anyhow=True)
        assert matcher is not None
        others = list(dict.fromkeys(record.question for record in datasets.medquad(root)))[:ENTRIES]
        samples.take(hits(encoder, matcher, others, done), progress, "look-ups", done, ROUNDS)


class _Passing:
    """Asks a matcher, and takes all for the same."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    def same(self, question: str, earlier: str) -> bool:
        self._matcher.same(question, earlier)
        return True


def hits(
    encoder: Encoder, matcher: Matcher, others: Sequence[str], done: int = 0, clock: Clock = time.perf_counter
) -> Iterator[dict[str, Any]]:
    """Of a question in other words than one that the cache holds among `others`, and of one in the same words. Each is a hit, whatever
    the matcher says."""
    read = calibrate.read_pairs(paths.shipped("eval", "paraphrases.jsonl"), HELD_OUT)
    pairs = [pair for pair in read if pair.same and comparable(pair.a, pair.b)]  # others aren't read
    asked = pairs[: ROUNDS + WARM_UP]
    kept = [*others[: ENTRIES - len(asked)], *(pair.a for pair in asked)]
    memory: Memory[int] = Memory(encoder.dimension, ENTRIES)
    for start in range(0, len(kept), AT_ONCE):
        some = kept[start : start + AT_ONCE]
        for question, vector in zip(some, encoder.encode_queries(some), strict=True):
            memory.put(Query(question, vector), 0)
    cache = QuestionCache(memory, _Passing(matcher), min_cosine=-1.0)

    def look(question: str) -> bool:  # as the pipeline does
        vector = cache.vector(question, None)
        if vector is None:
            vector = encoder.encode_queries([question])[0]
        return cache.find(Query(question, vector)) is not None

    for number, pair in enumerate(asked, start=-WARM_UP):
        seconds, found = timed(partial(look, pair.b), clock)
        repeat, repeated = timed(partial(look, pair.a), clock)
        if number >= done:
            yield {"kind": KIND, "round": number, "seconds": seconds, "repeat": repeat, "hit": found and repeated}
