"""Asks a generator, as the product does: greedily, and with what makes it decline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from rag import build, prompt, workers
from rag.abstain import Confidence, Weighing, weighed
from rag.core import GenerationParams, GenerationStats, Generator
from rag.settings import Loaded
from rag.training import abstention
from rag.training.grounded import Example

MAX_TOKENS = 192
"""Of an answer: three sentences and some room; one that reaches it is counted as truncated."""


@dataclass(frozen=True, slots=True)
class Declining:
    """How the product decides that the sources don't answer; `score` scores an example's passages as a search does."""

    weighing: Weighing
    score: abstention.Scorer


def open_declining(loaded: Loaded) -> Declining | None:
    """None where the generator's word alone decides."""
    weighing = build.weighing(loaded.settings)
    return Declining(weighing, abstention.open_scorer(loaded)) if weighing is not None else None


@dataclass(frozen=True, slots=True)
class Answered:
    """`confidence` that the sources answer; None where it isn't weighed."""

    text: str
    stats: GenerationStats
    confidence: float | None = None


async def ask(
    generator: Generator,
    prompts: Sequence[Example],
    at_once: int,
    finished: Callable[[Example, Answered], None],
    declining: Declining | None = None,
) -> None:
    """Answer the prompts, `at_once` of them at a time; `finished` is told of each as it ends. Raises what the engine does."""

    async def one(example: Example) -> None:
        finished(example, await _answer(generator, example, declining))

    await workers.each(prompts, at_once, one)


async def _answer(generator: Generator, example: Example, declining: Declining | None) -> Answered:
    sources = await asyncio.to_thread(declining.score, example) if declining is not None else example.sources
    weighing = declining.weighing if declining is not None else None
    text, stats, confidence = "", GenerationStats(0), None
    params = GenerationParams(MAX_TOKENS)
    stream = weighed(generator, example.messages, params, sources, prompt.NOT_IN_SOURCES, weighing)
    async with aclosing(stream) as items:
        async for item in items:
            if isinstance(item, GenerationStats):
                stats = item
            elif isinstance(item, Confidence):
                confidence = item.value
            else:
                text += item
    return Answered(text, stats, confidence)
