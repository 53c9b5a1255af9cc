"""Asks the questions of a set, and keeps what comes of each as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rag import build, index
from rag.bench import Progress, results, workers
from rag.core import Answer, Clock
from rag.engine import spec
from rag.errors import EngineDied, RagError
from rag.evaluate import samples
from rag.evaluate.questions import Question, QuestionSet, require_gold
from rag.evaluate.samples import BENCH, Found, Head, Sample, found
from rag.pipeline import Pipeline, Searched
from rag.settings import Loaded

Open: TypeAlias = Callable[[Loaded, build.Report], AbstractAsyncContextManager[Pipeline]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked, how many of them at a time, and the header of the samples, which says what they depend on."""

    loaded: Loaded
    questions: QuestionSet
    at_once: int
    head: Head


def plan(loaded: Loaded, questions: QuestionSet, one_by_one: bool, command: str, report: build.Report) -> Plan:
    """One question at a time shows what a single one takes; as many as the engine runs at once are done sooner.

    Raises what `depends_on` raises.
    """
    at_once = 1 if one_by_one else loaded.settings.generator.max_num_seqs
    settings = {"questions": questions.head, "at_once": at_once, **depends_on(loaded, questions, report)}
    return Plan(loaded, questions, at_once, results.header(BENCH, command, settings=settings))


def depends_on(loaded: Loaded, questions: QuestionSet, report: build.Report) -> dict[str, Any]:
    """What the samples of these settings depend on: index, weights, and the settings themselves.

    Everything that can be wrong with set and index is found here. Raises `UsageError` where the index lacks gold documents,
    what `build.check_index` raises, and what models raise that can't be had.
    """
    spec.check(loaded)
    checked = build.check_index(loaded, report)
    require_gold(questions.questions, checked.name, frozenset(index.document_ids(checked.folder)))
    return {
        "profile": loaded.profile,
        "models": loaded.models,
        "device": loaded.device,
        "index": {
            "documents": checked.manifest.documents,
            "passages": checked.manifest.passages,
            "sha256": checked.manifest.documents_sha256,
            "chunking": dict(checked.manifest.chunking),
            "encoder": checked.manifest.model,
        },
        "weights": _weights(loaded, report),
        "pipeline": loaded.settings.model_dump(mode="json", exclude={"chat", "chunk"}),
    }


def _weights(loaded: Loaded, report: build.Report) -> dict[str, str]:
    """Fingerprints of the models that are on this machine."""
    settings = loaded.settings
    names = {"reranker": settings.rerank.model, "support": settings.verify.model}
    known = {role: build.resolve(name, report).fingerprint for role, name in names.items() if name is not None}
    if settings.generator.base_url is None:
        known["generator"] = build.resolve(spec.plan(loaded).model, report, settings.generator.revision).fingerprint
    return known


async def measure(
    plan: Plan,
    folder: Path,
    limit: int | None,
    progress: Progress,
    open_pipeline: Open = build.open_pipeline,
    clock: Clock = time.monotonic,
) -> None:
    """Take a sample a question, of `limit` questions at most; those that an earlier run with the same settings took stay.

    A question that fails is kept with its error. Raises what `samples.resume` and `open_pipeline` raise, `EngineDied` where
    the engine is lost on the way, and `StorageError` where a sample can't be written; those before it are kept.
    """
    taken = samples.resume(folder, plan.head)
    known = {sample.id for sample in taken}
    asked = plan.questions.first(limit)
    left = [question for question in asked if question.id not in known]
    if not left:
        return
    store = results.Samples(folder)
    run = 1 + max((sample.run for sample in taken), default=0)
    done = len(asked) - len(left)
    async with open_pipeline(plan.loaded, lambda what: progress(what)) as pipeline:
        began = clock()
        progress("questions", done, len(asked))

        def finished(question: Question, came: Came) -> None:
            nonlocal done
            sample = Sample(question.id, question, came.found, came.answer, came.error, run, clock() - began)
            store.add(samples.row(sample))
            done += 1
            progress("questions", done, len(asked))

        await ask(pipeline, left, plan.at_once, finished)


@dataclass(frozen=True, slots=True)
class Came:
    """What came of a question: an answer or an error."""

    found: Found | None
    answer: Answer | None = None
    error: str | None = None


async def ask(
    pipeline: Pipeline, questions: Sequence[Question], at_once: int, finished: Callable[[Question, Came], None]
) -> None:
    """`finished` is told of each as it ends. Raises `EngineDied`, and what `finished` raises."""

    async def one(question: Question) -> None:
        finished(question, await answer(pipeline, question.question))

    await workers.each(questions, at_once, one)


async def answer(pipeline: Pipeline, question: str) -> Came:
    """Raises `EngineDied`, or whatever error tells that the engine is lost."""
    passages: Found | None = None
    try:
        async with aclosing(pipeline.stream(question)) as events:
            async for event in events:
                if isinstance(event, Searched):
                    passages = found(event.hits)
                elif isinstance(event, Answer):
                    return Came(passages, event)
    except Exception as error:
        if isinstance(error, EngineDied) or not pipeline.alive:
            raise
        return Came(passages, error=str(error) if isinstance(error, RagError) else f"A defect of rag's: {error!r}")
    raise AssertionError("a stream ends with its answer")
