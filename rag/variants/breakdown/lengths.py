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

from pydantic import TypeAdapter

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
from rag.variants.samples import LENGTH, Row, of_kind
from rag.variants.turns import order

LENGTHS = "fixed lengths"
"""What the jobs are called."""

PROMPTS = (6000, 3000)
ANSWERS = (512, 384, MEAN_ANSWER)

QUESTION = "What do these sources say?"
FILLER = " the"


@dataclass(frozen=True, slots=True)
class RequestShape:
    """Tokens."""

    prompt: int
    answer: int


SHAPES = tuple(RequestShape(*both) for both in product(PROMPTS, ANSWERS))


@dataclass(frozen=True, slots=True)
class Length:
    """What came of one request of the engine that `variant` stands for: the seconds of all of it, and what the engine reported."""

    variant: str
    shape: RequestShape
    repeat: int
    seconds: float
    stats: GenerationStats

    @property
    def key(self) -> tuple[str, RequestShape, int]:
        return self.variant, self.shape, self.repeat

    @property
    def tokens_per_second(self) -> float | None:
        """Of the tokens after the first; None where the engine doesn't tell."""
        tokens, decode = self.stats.output_tokens, self.stats.decode
        return (tokens - 1) / decode if tokens is not None and decode else None


_LENGTH = TypeAdapter(Length)


def row(length: Length) -> dict[str, Any]:
    return {"kind": LENGTH, **asdict(length)}


def read(folder: Path, rows: Sequence[Row]) -> list[Length]:
    """Those among a file's rows. Raises what `samples.of_kind` raises."""
    return of_kind(LENGTH, _LENGTH, lambda one: one.key, folder, rows)


def engines(head: Head) -> dict[str, list[str]]:
    """The source's profiles by the engine that they run on, each of which the first of them stands for."""
    groups: list[list[str]] = head["settings"]["engines"]
    named = [[name for name in names if name in PUBLISHED] for names in groups]
    return {names[0]: names for names in named if names}


def check(plan: Plan) -> None:
    """Raises `UsageError` where a model's window is too small."""
    for loaded in (plan.loads[name] for name in engines(plan.head)):
        window, needed = loaded.settings.generator.max_model_len, max(PROMPTS) + max(ANSWERS)
        if window >= needed:
            continue
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
        self._keys = {one.key for one in read(folder, taken)}
        self._clock = clock
        self._passages: PassageStore | None = None

    def jobs(self, repeats: int) -> tuple[list[Job], int]:
        """Each shape by each engine, so many times, in an order drawn anew each time; and how many are done."""
        names = engines(self._plan.head)
        wanted = [
            (variant, shape, repeat) for repeat in range(repeats) for variant, shape in _order(list(names), repeat)
        ]
        left = [one for one in wanted if one not in self._keys]
        return [Job(LENGTHS, one[0], self._asking(*one)) for one in left], len(wanted) - len(left)

    def _asking(self, variant: str, shape: RequestShape, repeat: int) -> Callable[[Pipeline], Awaitable[None]]:
        async def ask(pipeline: Pipeline) -> None:
            loaded = self._plan.loads[variant]
            if self._passages is None:
                self._passages = PassageStore(build.check_index(loaded).folder)
            passages = drawn(len(self._passages), self._passage, str(repeat))
            messages = exactly(shape.prompt, passages, pipeline.generator.count_prompt_tokens)
            await prepare(pipeline)
            params = fixed(shape, loaded)
            seconds, stats = await request(pipeline.generator, messages, params, self._clock)
            self._store.add(row(Length(variant, shape, repeat, seconds, stats)))

        return ask

    def _passage(self, row: int) -> Passage:
        assert self._passages is not None
        return self._passages.get([row])[0]


def _order(variants: Sequence[str], repeat: int) -> list[tuple[str, RequestShape]]:
    """Engines beside one another for each shape."""
    shapes = random.Random(f"{SEED}/{repeat}").sample(SHAPES, len(SHAPES))
    return [(variant, shape) for number, shape in enumerate(shapes) for variant in order(variants, repeat + number)]


def fixed(shape: RequestShape, loaded: Loaded) -> GenerationParams:
    """As the settings have it, but for exactly so many tokens."""
    settings = loaded.settings.generator
    return GenerationParams(shape.answer, settings.temperature, settings.top_p, settings.seed, ignore_eos=True)


async def request(
    generator: Generator, messages: Sequence[Message], params: GenerationParams, clock: Clock
) -> tuple[float, GenerationStats]:
    """Seconds of a request, and what the engine reports of it."""
    stats = GenerationStats(output_tokens=None)
    began = clock()
    async with aclosing(generator.stream(messages, params)) as items:
        async for item in items:
            if isinstance(item, GenerationStats):
                stats = item
    return clock() - began, stats


def drawn(count: int, get: Callable[[int], Passage], seed: str) -> Iterator[Passage]:
    """So many passages in an order drawn for each seed, over and over."""
    rows = random.Random(f"{SEED}/{seed}").sample(range(count), count)
    while True:
        yield from map(get, rows)


def exactly(
    tokens: int, passages: Iterator[Passage], tokens_of: Callable[[Sequence[Message]], int]
) -> tuple[Message, ...]:
    """A prompt of exactly so many tokens, the chat template's included: as the product builds it of these passages, of the last
    one as much as fits, and words that say nothing for the rest.

    Raises `UsageError` where not even one passage begins to fit.
    """
    sources: list[Source] = []

    def built() -> tuple[Message, ...]:
        return prompt.build(QUESTION, tuple(sources)).messages

    def count(last: str) -> int:
        sources[-1] = replace(sources[-1], quote=last)
        return tokens_of(built())

    while tokens_of(built()) < tokens:
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
