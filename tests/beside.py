"""Variants on fakes: the five questions of `evaluating`, over a real index of three documents.

As a script (ROOT FOLDER PAUSE) it takes the samples of a breakdown over the index under ROOT, each answer with a pause, to be
killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from evaluating import ANSWERS, SET
from serving import LOADED, search

from rag.bench import results
from rag.core import (
    Answer,
    CacheInfo,
    EngineInfo,
    GenerationParams,
    GenerationStats,
    Message,
    Opening,
    Route,
    StageTimings,
    Technique,
    Tokens,
)
from rag.errors import EngineDied
from rag.evaluate import Question, QuestionSet
from rag.evaluate.samples import Sample
from rag.pipeline import Pipeline
from rag.search import HybridSearcher
from rag.settings import Loaded
from rag.testing import FakeEncoder, FakeGenerator, FakeReranker, FakeSupportChecker
from rag.variants import Plan, breakdown
from rag.variants.samples import Taken, row
from rag.variants.turns import BLOCK

WARM_UP = "?"


class Engine(FakeGenerator):
    """Has an answer to each question, or an error; says nothing to the warm-up, and as many words as it has to where it may
    not end. Dies as it gets the question `dies_at`, so many `times`; `pause` is before each answer.

    `did` tells what was done to it, in order: questions, "?" for the warm-up, "forget".
    """

    def __init__(
        self,
        answers: Mapping[str, str | Exception] = ANSWERS,
        dies_at: str | None = None,
        pause: float = 0.0,
    ) -> None:
        super().__init__(context_window=8192)
        self.answers, self.dies_at, self.pause = answers, dies_at, pause
        self.did: list[str] = []
        self.busy = 0

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[Opening | str | GenerationStats, None]:
        question = messages[-1]["content"].rpartition("Question: ")[2].strip()
        self.did.append(question)
        if question == self.dies_at:
            self.alive = False
            raise EngineDied("The engine died.")
        answer = "" if question == WARM_UP else self.answers.get(question, "")
        if isinstance(answer, Exception):
            raise answer
        speaking = FakeGenerator(["word "] * params.max_tokens if params.ignore_eos else [answer])
        if question != WARM_UP:
            await asyncio.sleep(self.pause)
        async with aclosing(speaking.stream(messages, params)) as items:
            async for item in items:
                yield item

    async def reset_prefix_cache(self) -> bool:
        self.did.append("forget")
        self.busy -= 1
        return self.busy < 0


class Opened:
    """Opens the pipelines of variants, of one engine after the other; keeps of which, and how many times."""

    def __init__(self, root: Path, *engines: FakeGenerator) -> None:
        self.root, self.engines = root, list(engines)
        self.variants: list[list[str]] = []
        self.closed = 0

    @asynccontextmanager
    async def __call__(self, loads: Mapping[str, Loaded], report: Any) -> AsyncIterator[dict[str, Pipeline]]:
        report("starting the engine")
        engine = self.engines[min(len(self.variants), len(self.engines) - 1)]
        self.variants.append(list(loads))
        searcher = HybridSearcher(search(self.root).index, LOADED.settings.retrieve, FakeReranker())
        pipelines = {
            name: Pipeline(one.settings, one.profile, FakeEncoder(), searcher, engine, FakeSupportChecker())
            for name, one in loads.items()
        }
        try:
            yield pipelines
        finally:
            self.closed += 1
            for pipeline in pipelines.values():
                pipeline.close()


def head_of(
    bench: str, variants: Sequence[str], questions: QuestionSet = SET, device: str = "cpu", **more: Any
) -> dict[str, Any]:
    about = {
        "questions": questions.head,
        "block": BLOCK,
        "engines": [[name for name in variants if name != "v3_2"], [name for name in variants if name == "v3_2"]],
        "variants": {name: {"profile": name, "device": device} for name in variants},
        **more,
    }
    return results.header(bench, f"rag bench {bench}", settings=about)


def plan_of(*variants: str, questions: QuestionSet = SET, bench: str = "breakdown", **more: Any) -> Plan:
    return Plan(dict.fromkeys(variants, LOADED), questions, head_of(bench, variants, questions, **more))


async def take(
    root: Path,
    folder: Path,
    *engines: FakeGenerator,
    plan: Plan | None = None,
    count: int | None = None,
    repeats: int = 0,
    progress: Any = lambda *_: None,
) -> Opened:
    """The samples of a breakdown of v3 and v3_1."""
    opened = Opened(root, *(engines or (Engine(),)))
    planned = plan if plan is not None else plan_of("v3", "v3_again", "v3_1")
    await breakdown.measure(planned, folder, count, repeats, progress, opened)
    return opened


# --- samples that nobody took ---------------------------------------------------------------------


def answer(
    question: str,
    total: float,
    text: str = "Plasmodium [1].",
    spans: Sequence[tuple[str, float, float]] | None = None,
    **more: Any,
) -> Answer:
    """One that took `total` seconds, of which all but a tenth were its generation's."""
    found = tuple(spans) if spans is not None else (("retrieve", 0.0, total / 10), ("generate", total / 10, total))
    seconds = {stage: end - start for stage, start, end in found}
    generation = {"queue": 0.0, "ttft": total / 2, "decode": total / 4} if "generate" in seconds else {}
    fields: dict[str, Any] = {
        "question": question,
        "answer": text,
        "abstained": False,
        "confidence": None,
        "withheld": False,
        "truncated": False,
        "sentences": (),
        "citations": (),
        "invalid_markers": 0,
        "route": Route("large", "fake", 512, "one model is configured"),
        "cache": CacheInfo(),
        "timings": StageTimings(**seconds, **generation, total=total),  # type: ignore[arg-type]
        "spans": found,
        "tokens": Tokens(prompt=2500, cached_prompt=64, output=40),
        "engine": EngineInfo("fake", "1", "cpu", {"speculation": Technique(asked=False)}),
        "profile": "fake",
    }
    return Answer(**{**fields, **more})


def taken(
    variant: str,
    question: Question,
    answered: Answer | None,
    block: int = 0,
    cold: bool = False,
    error: str | None = None,
) -> Taken:
    return Taken(variant, block, cold, Sample(question.id, question, None, answered, error, 1, 1.0))


def written(folder: Path, head: Mapping[str, Any], samples: Sequence[Taken | Mapping[str, Any]]) -> Path:
    """A folder that holds these."""
    file = results.Samples(folder)
    file.start(head)
    for one in samples:
        file.add(row(one) if isinstance(one, Taken) else one)
    return folder


def numbered(count: int, key_facts: bool = True) -> list[Question]:
    """Simple questions."""
    facts = (("plasmodium",),) if key_facts else ()
    return [Question(f"q{n:03}", f"Question {n}?", "simple", "So.", {"malaria": 1}, facts) for n in range(count)]


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]), Path(sys.argv[2]), Engine(pause=float(sys.argv[3]))))
