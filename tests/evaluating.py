"""An evaluation on fakes: five questions over a real index of three documents, and a generator that has their answers.

As a script (ROOT FOLDER PAUSE) it evaluates them over the index under ROOT, each answer with a pause, to be killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from serving import LOADED, search

from rag import evaluate
from rag.abstain import Weighing
from rag.bench import results
from rag.core import GenerationParams, GenerationStats, Message, Opening
from rag.errors import EngineDied
from rag.evaluate import Plan, Question, QuestionSet
from rag.pipeline import Pipeline
from rag.prompt import NOT_IN_SOURCES
from rag.search import HybridSearcher
from rag.settings import Loaded
from rag.testing import FakeEncoder, FakeGenerator, FakeReranker, FakeSupportChecker

MALARIA = Question(
    "q1",
    "What is malaria caused by?",
    "simple",
    "Plasmodium parasites.",
    {"malaria": 1},
    (("plasmodium", "plasmodia"),),
)
SCURVY = Question("q2", "What cures scurvy?", "simple", "Lemons do.", {"scurvy": 1}, (("lemons",), ("vitamin C",)))
BOTH = Question(
    "q3",
    "What are gout and scurvy caused by?",
    "synthesis",
    "Gout by urate, scurvy by a lack of vitamin C.",
    {"gout": 1, "scurvy": 1},
    (("urate",), ("vitamin C",)),
)
MUMPS = Question("q4", "What is mumps caused by?", "unanswerable", "The corpus doesn't hold this.", {}, ())
RABIES = Question("q5", "What is rabies caused by?", "unanswerable", "The corpus doesn't hold this.", {}, ())
SET = QuestionSet("five", (MALARIA, SCURVY, BOTH, MUMPS, RABIES))

ANSWERS: Mapping[str, str | Exception] = {
    MALARIA.question: "Malaria is caused by Plasmodium parasites [1].",
    SCURVY.question: "Lemons cure it [1].",
    BOTH.question: "Gout is caused by crystals of urate [1]. Joints swell.",
    MUMPS.question: NOT_IN_SOURCES,
    RABIES.question: "Malaria is caused by Plasmodium parasites [1].",
}


class Answering(FakeGenerator):
    """Has an answer to each question, or an error. Dies as it gets the question `dies_at`; `pause` is before each answer."""

    def __init__(
        self, answers: Mapping[str, str | Exception] = ANSWERS, dies_at: str | None = None, pause: float = 0.0
    ) -> None:
        super().__init__()
        self.answers, self.dies_at, self.pause = answers, dies_at, pause
        self.open = self.most_open = 0
        self.opening = Opening(0.4, taken=False, otherwise="No", stats=GenerationStats(1, prompt_tokens=50))

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[Opening | str | GenerationStats, None]:
        question = messages[-1]["content"].rpartition("Question: ")[2].strip()
        if question == self.dies_at:
            self.alive = False
            raise EngineDied("The engine died.")
        answer = self.answers[question]
        if isinstance(answer, Exception):
            raise answer
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            await asyncio.sleep(self.pause)
            speaking = FakeGenerator([answer])  # its own for each, since several are asked at once
            speaking.opening, speaking.asked = self.opening, self.asked
            async with aclosing(speaking.stream(messages, params)) as items:
                async for item in items:
                    await asyncio.sleep(0)
                    yield item
        finally:
            self.open -= 1

    @property
    def questions(self) -> list[str]:
        return [messages[-1]["content"].rpartition("Question: ")[2].strip() for messages, _ in self.asked]


class Opened:
    """Opens pipelines with one generator after the other over the index under `root`, and counts them."""

    def __init__(self, root: Path, *generators: FakeGenerator) -> None:
        self.root, self.generators, self.count = root, list(generators), 0

    @asynccontextmanager
    async def __call__(self, loaded: Loaded, report: Any) -> AsyncIterator[Pipeline]:
        report("starting the engine")
        generator = self.generators[min(self.count, len(self.generators) - 1)]
        self.count += 1
        searcher = HybridSearcher(search(self.root).index, loaded.settings.retrieve, FakeReranker())
        weighing = Weighing(of_word=1.0, of_relevance=-1.0, shift=0.0, min_confidence=0.0)
        pipeline = Pipeline(
            loaded.settings, loaded.profile, FakeEncoder(), searcher, generator, FakeSupportChecker(), weighing
        )
        try:
            yield pipeline
        finally:
            pipeline.close()


def plan_of(questions: QuestionSet = SET, at_once: int = 1, **settings: Any) -> Plan:
    about = {
        "questions": {"name": questions.name, "count": len(questions.questions), "sha256": questions.sha256},
        "at_once": at_once,
        "profile": "auto-cpu",
        "models": "embedded",
        "index": {"documents": 3},
        **settings,
    }
    return Plan(LOADED, questions, at_once, results.header("eval", "rag eval", settings=about))


async def take(
    root: Path,
    folder: Path,
    *generators: FakeGenerator,
    questions: QuestionSet = SET,
    at_once: int = 1,
    limit: int | None = None,
    **settings: Any,
) -> Opened:
    """An evaluation of the set; of its pipelines it gives back what opened them."""
    opened = Opened(root, *(generators or (Answering(),)))
    await evaluate.measure(plan_of(questions, at_once, **settings), folder, limit, lambda *_: None, opened)
    return opened


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]), Path(sys.argv[2]), Answering(pause=float(sys.argv[3])), at_once=2))
