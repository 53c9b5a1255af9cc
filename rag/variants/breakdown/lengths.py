"""Requests of a fixed length: so many prompt tokens, so many answer tokens, whatever the answer says.

The sample corpus' documents are shorter than the source's, and so are its answers. Here both are as long as the source has them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rag import build, prompt
from rag.bench import SEED, results
from rag.core import Clock, GenerationParams, GenerationStats, Generator, Hit, Message, Passage, Source
from rag.errors import UsageError
from rag.evaluate.samples import Head
from rag.index import PassageStore
from rag.pipeline import Pipeline
from rag.settings import Loaded
from rag.variants.asking import prepare
from rag.variants.breakdown.source import MEAN_ANSWER, PUBLISHED
from rag.variants.planning import Plan
from rag.variants.running import Job
from rag.variants.samples import Row
from rag.variants.turns import order

LENGTH = "length"
"""Kind of the samples, and what the jobs are called in `LENGTHS`."""
LENGTHS = "fixed lengths"

PROMPTS = (6000, 3000)
ANSWERS = (512, 384, MEAN_ANSWER)

QUESTION = "What do these sources say?"
FILLER = " the"


@dataclass(frozen=True, slots=True)
class Shape:
    """Tokens."""

    prompt: int
    answer: int


SHAPES = tuple(Shape(*both) for both in product(PROMPTS, ANSWERS))


def engines(head: Head) -> dict[str, list[str]]:
    """The source's profiles by the engine that they run on, each of which the first of them stands for."""
    groups: list[list[str]] = head["settings"]["engines"]
    named = [[name for name in names if name in PUBLISHED] for names in groups]
    return {names[0]: names for names in named if names}


def check(loaded: Loaded) -> None:
    """Raises `UsageError` where the model's window is too small."""
    window, needed = loaded.settings.generator.max_model_len, max(PROMPTS) + max(ANSWERS)
    if window < needed:
        raise UsageError(
            f"generator.max_model_len={window} (from {loaded.origin('generator.max_model_len').name}): prompts of {max(PROMPTS):,} "
            f"tokens and answers of {max(ANSWERS)} need {needed:,}. Raise it, or leave them out with --repeats 0."
        )


class Lengths:
    """The requests that an earlier run left, as jobs."""

    def __init__(self, plan: Plan, folder: Path, taken: Sequence[Row], clock: Clock = time.monotonic) -> None:
        """`taken` are the folder's samples."""
        self._plan = plan
        self._store = results.Samples(folder)
        self._keys = {
            (one["variant"], one["prompt"], one["answer"], one["repeat"]) for one in taken if one["kind"] == LENGTH
        }
        self._clock = clock
        self._passages: PassageStore | None = None

    def jobs(self, repeats: int) -> tuple[list[Job], int]:
        """Each shape by each engine, so many times, in an order drawn anew each time; and how many are done."""
        names = engines(self._plan.head)
        for name in names if repeats else ():
            check(self._plan.loads[name])
        wanted = [
            (variant, shape, repeat) for repeat in range(repeats) for variant, shape in _order(list(names), repeat)
        ]
        left = [one for one in wanted if (one[0], one[1].prompt, one[1].answer, one[2]) not in self._keys]
        return [Job(LENGTHS, one[0], self._asking(*one)) for one in left], len(wanted) - len(left)

    def _asking(self, variant: str, shape: Shape, repeat: int) -> Callable[[Pipeline], Awaitable[None]]:
        async def ask(pipeline: Pipeline) -> None:
            loaded = self._plan.loads[variant]
            if self._passages is None:
                self._passages = PassageStore(build.check_index(loaded).folder)
            messages = exactly(shape.prompt, drawn(self._passages, repeat), pipeline.generator)
            await prepare(pipeline)
            asked = await request(pipeline.generator, messages, shape.answer, loaded, self._clock)
            key = {"variant": variant, "prompt": shape.prompt, "answer": shape.answer, "repeat": repeat}
            self._store.add({"kind": LENGTH, **key, **asked})

        return ask


def _order(variants: Sequence[str], repeat: int) -> list[tuple[str, Shape]]:
    """Engines beside one another for each shape."""
    shapes = random.Random(f"{SEED}/{repeat}").sample(SHAPES, len(SHAPES))
    return [(variant, shape) for number, shape in enumerate(shapes) for variant in order(variants, repeat + number)]


async def request(
    generator: Generator, messages: Sequence[Message], tokens: int, loaded: Loaded, clock: Clock
) -> dict[str, Any]:
    """Seconds of a request for exactly so many tokens, and what the engine reports of it."""
    settings = loaded.settings.generator
    params = GenerationParams(tokens, settings.temperature, settings.top_p, settings.seed, ignore_eos=True)
    stats = GenerationStats(output_tokens=0)
    began = clock()
    async with aclosing(generator.stream(messages, params)) as items:
        async for item in items:
            if isinstance(item, GenerationStats):
                stats = item
    return {"seconds": clock() - began, "stats": asdict(stats)}


def drawn(passages: PassageStore, repeat: int) -> Iterator[Passage]:
    """The corpus' passages in an order drawn for each repeat, over and over."""
    rows = random.Random(f"{SEED}/{repeat}").sample(range(len(passages)), len(passages))
    while True:
        for row in rows:
            yield from passages.get([row])


def exactly(tokens: int, passages: Iterator[Passage], generator: Generator) -> tuple[Message, ...]:
    """A prompt of exactly so many tokens, the chat template's included: as the product builds it of these passages, of the last
    one as much as fits, and words that say nothing for the rest.

    Raises `UsageError` where not even one passage begins to fit.
    """
    sources: list[Source] = []

    def built() -> tuple[Message, ...]:
        return prompt.build(QUESTION, tuple(sources)).messages

    def count(last: str) -> int:
        sources[-1] = replace(sources[-1], quote=last)
        return generator.count_prompt_tokens(built())

    while generator.count_prompt_tokens(built()) < tokens:
        passage = next(passages)
        sources.append(Source(len(sources) + 1, Hit(passage, 1.0), passage.text))
    if sources and count("") > tokens:  # its title alone is too much
        sources.pop()
    if not sources:
        raise UsageError(f"A prompt of {tokens} tokens has no room for a source beside instructions and question.")
    text = sources[-1].hit.passage.text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text[:middle]) <= tokens else (low, middle - 1)
    for end in range(low, -1, -1):
        padded = text[:end]
        while (now := count(padded)) < tokens:
            padded += FILLER
        if now == tokens:
            return built()
    raise UsageError(f"No prompt of exactly {tokens} tokens can be made of these passages.")
