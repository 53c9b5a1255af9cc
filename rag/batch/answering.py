"""Answers many questions over one pipeline: several at a time, so that the engine is never short of work, and the next ones
searched ahead meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass

from rag import workers
from rag.batch.gate import Gate
from rag.cache import CachedEncoder
from rag.core import Answer
from rag.errors import QuestionError, RagError
from rag.pipeline import Pipeline, Searched, check_question
from rag.prefetch import PrefetchCounts, PrefetchSearcher, QuestionKey
from rag.settings import Batch, Loaded


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question: an answer, or an error. `searched` is None where it failed before anything was."""

    searched: Searched | None
    answer: Answer | None = None
    error: str | None = None


Finished = Callable[[int, Outcome], None]
"""Told of each question, by its place, as it ends."""


async def answer_all(
    pipeline: Pipeline, asked: Sequence[QuestionKey], finished: Finished, settings: Batch, at_once: int
) -> PrefetchCounts | None:
    """Ask all, `at_once` at a time; a question that fails doesn't stop the others. What became of the look-ahead, None without.

    Raises `EngineDied`, or whatever error tells that the engine is lost, and what `finished` raises.
    """

    stream = [_searched(*one) for one in asked]
    to_search = [one for one in stream if one is not None]
    ordered = max(settings.search_batch, settings.lookahead // 2)
    window = settings.lookahead
    if settings.order == "prefix":  # room for the next ones beside those that have their turn, and aren't asked yet
        window = max(window, ordered + at_once)
    gate = Gate(settings.together)
    with looking_ahead(pipeline, to_search, window, settings.search_batch) as (ahead, searcher):

        async def one(place: int) -> None:
            try:
                with gate.entering() as passing:
                    outcome = await attempt(ahead.having(departure=passing), *asked[place])
                finished(place, outcome)
            finally:
                if searcher is not None and (key := stream[place]) is not None:
                    searcher.finish(key)

        if searcher is None or settings.order == "input":
            await workers.each(range(len(asked)), at_once, one)
        else:
            await workers.each(_by_prefix(stream, searcher, ordered), at_once, one)
    return searcher.counts if searcher is not None else None


@contextmanager
def looking_ahead(
    pipeline: Pipeline, stream: Iterable[QuestionKey], window: int, batch_size: int
) -> Iterator[tuple[Pipeline, PrefetchSearcher | None]]:
    """The same pipeline for the time of the block, which searches the questions of a stream before they are asked, by the searcher
    beside it, which has to be told of each that has ended (`finish`). The pipeline itself with a window of 0."""
    if window == 0:
        yield pipeline, None
        return
    encoder = CachedEncoder(pipeline.encoder, 2 * window)
    with closing(PrefetchSearcher(pipeline.searcher, encoder, stream, window, batch_size)) as searcher:
        yield pipeline.having(searcher=searcher, encoder=encoder, arrival=searcher.arrival), searcher


def for_batch(loaded: Loaded) -> Loaded:
    """With the engine on the cores that suit a batch. A server in its place shares none with the search: what a profile holds back for
    that isn't held back for it."""
    settings = loaded.settings
    if settings.generator.base_url is not None:
        return loaded if loaded.explicit("batch.together") else loaded.having("batch", together=1)
    cores = settings.batch.cores
    if cores is None or loaded.explicit("generator.cores"):
        return loaded
    return loaded.having("generator", cores=cores)


async def _by_prefix(
    stream: Sequence[QuestionKey | None], searcher: PrefetchSearcher, count: int
) -> AsyncIterator[int]:
    """The places of the stream, so many at a time, so that the next ones are searched while these are answered. Among them prompts
    that begin with the same passages stand together, since the engine has read their beginning."""
    for place, asked in enumerate(stream):
        if asked is None:  # fails at once
            yield place
    known = [(place, asked) for place, asked in enumerate(stream) if asked is not None]
    for first in range(0, len(known), count):
        some = known[first : first + count]
        passages = [await asyncio.to_thread(_passages, asked, searcher) for _, asked in some]
        for _, place in sorted(zip(passages, (place for place, _ in some), strict=True)):
            yield place


def _passages(asked: QuestionKey, searcher: PrefetchSearcher) -> list[str]:
    return [hit.passage.id for hit in searcher.peek(asked)]


def _searched(question: str, where: str | None) -> QuestionKey | None:
    """As the pipeline will ask for it; None where it won't."""
    try:
        return check_question(question), where
    except QuestionError:
        return None


async def attempt(pipeline: Pipeline, question: str, where: str | None = None) -> Outcome:
    """Raises `EngineDied`, or whatever error tells that the engine is lost."""
    searched: Searched | None = None
    try:
        async with aclosing(pipeline.stream(question, where)) as events:
            async for event in events:
                if isinstance(event, Searched):
                    searched = event
                elif isinstance(event, Answer):
                    return Outcome(searched, event)
    except Exception as error:
        if pipeline.lost(error):
            raise
        return Outcome(searched, error=str(error) if isinstance(error, RagError) else f"A defect of rag's: {error!r}")
    raise AssertionError("a stream ends with its answer")
