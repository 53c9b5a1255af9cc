"""Asks the questions of a set, and keeps what comes of each as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rag import build, index
from rag.batch import Outcome, answer_all, for_batch
from rag.bench import results
from rag.core import Clock
from rag.engine import spec
from rag.evaluate import samples
from rag.evaluate.samples import BENCH, Head, Sample, found
from rag.pipeline import Pipeline
from rag.progress import Progress, Report
from rag.questions import Question, QuestionSet, require_gold
from rag.settings import Batch, Loaded

ALONE = Batch(lookahead=0)

Open: TypeAlias = Callable[[Loaded, Report], AbstractAsyncContextManager[Pipeline]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked, how many of them at a time, and the header of the samples, which says what they depend on."""

    loaded: Loaded
    questions: QuestionSet
    at_once: int
    head: Head


def plan(loaded: Loaded, questions: QuestionSet, one_by_one: bool, command: str, report: Report) -> Plan:
    """One question at a time shows what a single one takes; as many as `rag batch` asks at once, on the cores of a batch, are done
    sooner.

    Raises what `depends_on` raises.
    """
    loaded = loaded if one_by_one else for_batch(loaded)
    batch = loaded.settings.batch
    at_once = 1 if one_by_one else loaded.settings.at_once
    ahead = {} if at_once == 1 else batch.model_dump(include={"lookahead", "search_batch", "order", "together"})
    settings = {"questions": questions.head, "at_once": at_once, **ahead, **depends_on(loaded, questions, report)}
    return Plan(loaded, questions, at_once, results.header(BENCH, command, settings=settings))


def depends_on(loaded: Loaded, questions: QuestionSet, report: Report) -> dict[str, Any]:
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
        "index": index_of(checked),
        "weights": weights(loaded, report),
        "pipeline": loaded.settings.model_dump(
            mode="json", exclude={"chat", "chunk", "batch", *(() if loaded.settings.cache.enabled else ("cache",))}
        ),
    }


def index_of(checked: index.CheckedVersion) -> dict[str, Any]:
    """What is in an index, whatever its version is called."""
    return {
        "documents": checked.manifest.documents,
        "passages": checked.manifest.passages,
        "sha256": checked.manifest.documents_sha256,
        "chunking": dict(checked.manifest.chunking),
        "encoder": checked.manifest.model,
    }


def weights(loaded: Loaded, report: Report) -> dict[str, str]:
    """Fingerprints of the models that are on this machine."""
    settings = loaded.settings
    names = {"reranker": settings.rerank.model, "support": settings.verify.model}
    if settings.cache.enabled:
        names["matcher"] = settings.cache.model
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
    async with open_pipeline(plan.loaded, progress) as pipeline:
        began = clock()
        progress("questions", done, len(asked))

        def finished(place: int, outcome: Outcome) -> None:
            nonlocal done
            store.add(samples.row(sample_of(left[place], outcome, run, clock() - began)))
            done += 1
            progress("questions", done, len(asked))

        stream = [(question.question, None) for question in left]
        batch = plan.loaded.settings.batch
        # One question at a time is asked for the time that it takes.
        await answer_all(pipeline, stream, finished, batch if plan.at_once > 1 else ALONE, plan.at_once)


def sample_of(question: Question, outcome: Outcome, run: int, at: float) -> Sample:
    hits = found(outcome.searched.hits) if outcome.searched is not None else None
    return Sample(question.id, question, hits, outcome.answer, outcome.error, run, at)
