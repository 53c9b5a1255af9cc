"""Takes a sample a turn: from caches in a known state, with nothing else under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

from rag.batch import attempt
from rag.bench import results
from rag.core import Clock, Generator
from rag.errors import EngineError
from rag.evaluate.runner import sample_of
from rag.pipeline import Pipeline
from rag.variants import samples
from rag.variants.planning import Plan
from rag.variants.running import Job
from rag.variants.samples import Row, Taken
from rag.variants.turns import Turn, turns

QUESTIONS = "questions"
"""What the jobs are called."""

PAUSE = 0.3
"""Seconds before a question: for 0.2 s after its work OpenMP's threads still spin on the cores."""

TRIES = 40
"""Times that an engine is asked to empty its cache, `LOOK` seconds apart: a request that was ended early is in it for a step more."""
LOOK = 0.05


class Questions:
    """The questions of a plan that an earlier run left, as jobs."""

    def __init__(self, plan: Plan, folder: Path, taken: Sequence[Row], clock: Clock = time.monotonic) -> None:
        """`taken` are the folder's samples."""
        known = samples.answers(folder, taken)
        self._plan = plan
        self._store = results.Samples(folder)
        self._keys = {one.key for one in known}
        self._run = 1 + max((one.sample.run for one in known), default=0)
        self._clock = clock
        self._began: float | None = None

    def jobs(self, count: int | None, cold: Collection[str] = ()) -> tuple[list[Job], int]:
        """Of the turns of `count` questions, all for None, those left, and how many are done; see `turns` for `cold`."""
        all_turns = list(turns(self._plan.questions.first(count), list(self._plan.loads), cold))
        left = [turn for turn in all_turns if turn.key not in self._keys]
        return [Job(QUESTIONS, turn.variant, self._asking(turn)) for turn in left], len(all_turns) - len(left)

    def _asking(self, turn: Turn) -> Callable[[Pipeline], Awaitable[None]]:
        async def ask(pipeline: Pipeline) -> None:
            """Raises `EngineDied`, or whatever error tells that the engine is lost."""
            if self._began is None:
                self._began = self._clock()
            await prepare(pipeline, turn.cold)
            outcome = await attempt(pipeline, turn.question.question)
            sample = sample_of(turn.question, outcome, self._run, self._clock() - self._began)
            self._store.add(samples.row(Taken(turn.variant, turn.block, turn.cold, sample)))

        return ask


async def prepare(pipeline: Pipeline, cold: bool = False) -> None:
    """Have nothing in the engine's cache, or, unless `cold`, the instruction that all prompts begin with: other variants share
    the engine, and what they read before would be read from the cache. Raises what `empty` raises."""
    await empty(pipeline.generator)
    if not cold:
        await pipeline.warm_up()
    await asyncio.sleep(PAUSE)


async def empty(generator: Generator) -> None:
    """Raises `EngineError` where the engine's cache can't be emptied."""
    for _ in range(TRIES):
        if await generator.reset_prefix_cache():
            return
        await asyncio.sleep(LOOK)
    raise EngineError(f"The engine didn't empty its prefix cache within {TRIES * LOOK:g} s: a request is still in it.")
