"""A trace of questions of which a few are asked again and again, in other words each time, answered with the cache and without."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag import metrics
from rag.batch import attempt
from rag.bench import SEED, results
from rag.core import Clock
from rag.errors import UsageError
from rag.evaluate import QuestionSet
from rag.evaluate.scores import text
from rag.pipeline import Pipeline
from rag.progress import Progress
from rag.settings import Loaded
from rag.variants import running
from rag.variants.asking import prepare

KIND = "trace"

HOT_TOPICS, HOT_SHARE = 0.03, 0.6
"""Of the questions that can be answered so many are asked in so many of all cases."""

PASSES = ("plain", "cached", "cached", "plain")
"""In this order, so that what changes with time is the same for both."""


@dataclass(frozen=True, slots=True)
class Wording:
    """`id` is the question's of the set, `text` how it is put this time."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    questions: QuestionSet
    asked: tuple[Wording, ...]

    @property
    def head(self) -> dict[str, object]:
        texts = "\n".join(one.text for one in self.asked)
        known = {question.question for question in self.questions.questions}
        return {
            "asked": len(self.asked),
            "hot": sorted({one.id for one in self.asked if one.text not in known}),
            "topics": HOT_TOPICS,
            "share": HOT_SHARE,
            "seed": SEED,
            "sha256": hashlib.sha256(texts.encode()).hexdigest(),
        }


def plan(questions: QuestionSet, wordings: Path, count: int) -> Plan:
    """`count` questions. The hot ones are the first of `wordings`, JSON lines of the id of a question and other ways to put it; the
    others are asked as they are. Raises `UsageError` where the file has too few, or names a question that the set hasn't."""
    answerable = {question.id: question for question in questions.questions if question.answerable}
    hot_count = max(1, round(HOT_TOPICS * len(answerable)))
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(wordings.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if row["id"] not in answerable:
            raise UsageError(
                f"{wordings}:{number}: {row['id']!r} is no question of {questions.name} that can be answered."
            )
        rows[row["id"]] = row["wordings"]
    if len(rows) < hot_count:
        raise UsageError(f"{wordings} puts {len(rows)} questions in other words, {hot_count} are needed.")
    hot = [Wording(name, wording) for name, wordings_of in list(rows.items())[:hot_count] for wording in wordings_of]
    names = {one.id for one in hot}
    cold = [Wording(name, question.question) for name, question in answerable.items() if name not in names]
    of_hot = round(HOT_SHARE * count)
    if of_hot > len(hot) or count - of_hot > len(cold):
        raise UsageError(
            f"A trace of {count} questions is too long: {len(hot)} wordings and {len(cold)} other questions are there."
        )
    chance = random.Random(SEED)
    asked = [
        *chance.sample(hot, of_hot),
        *chance.sample(cold, count - of_hot),
    ]  # no words twice: a repeat needs no second look
    chance.shuffle(asked)
    return Plan(questions, tuple(asked))


async def measure(
    loads: Mapping[str, Loaded],
    plan: Plan,
    samples: results.Samples,
    taken: Sequence[results.Sample],
    progress: Progress,
    open_pipelines: running.Open,
    clock: Clock = time.monotonic,
) -> None:
    """The passes that aren't there whole; one that was interrupted begins anew, since its cache is gone."""
    count = len(plan.asked)
    whole = [n for n in range(len(PASSES)) if sum(s["kind"] == KIND and s["pass"] == n for s in taken) == count]
    broken = [s for s in taken if s["kind"] == KIND and s["pass"] not in whole]
    if broken:
        head, rows = samples.read()
        samples.replace(head, [row for row in rows if row not in broken])
    if len(whole) == len(PASSES):
        return
    async with open_pipelines(loads, progress) as pipelines:
        for number in (n for n in range(len(PASSES)) if n not in whole):
            name = PASSES[number]
            pipeline = pipelines[name]
            pipeline.caches.clear()
            await prepare(pipeline)
            for place, asked in enumerate(plan.asked):
                row = await _ask(pipeline, asked, plan.questions, clock)
                samples.add({"kind": KIND, "pass": number, "variant": name, "place": place, "id": asked.id, **row})
                progress("questions of the trace", number * count + place + 1, len(PASSES) * count)


async def _ask(pipeline: Pipeline, asked: Wording, questions: QuestionSet, clock: Clock) -> dict[str, Any]:
    began = clock()
    outcome = await attempt(pipeline, asked.text)
    seconds = clock() - began
    answer = outcome.answer
    if answer is None:
        return {"seconds": seconds, "error": outcome.error, "hit": False, "similarity": None, "key_facts": 0.0}
    [question] = [question for question in questions.questions if question.id == asked.id]
    found = metrics.key_facts_found(text(answer), question.key_facts)
    return {
        "seconds": seconds,
        "error": None,
        "hit": answer.cache.hit,
        "similarity": answer.cache.similarity,
        "key_facts": sum(found) / len(found) if found else None,
    }
