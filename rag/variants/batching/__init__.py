"""`rag bench batch`: how long a set of questions takes one after the other, all at once, and as `rag batch` asks them.

`modes` says what is compared, `measure` times each in turns, several rounds, and `figures` computes from what that leaves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rag import build
from rag.batch import Outcome, answer_all
from rag.bench import results
from rag.core import Clock
from rag.errors import EngineError
from rag.evaluate import Question, QuestionSet
from rag.evaluate.runner import depends_on
from rag.pipeline import Pipeline
from rag.progress import Progress
from rag.settings import Loaded
from rag.variants import running
from rag.variants.asking import prepare
from rag.variants.batching.figures import BENCH, summarise
from rag.variants.batching.modes import MODES, Mode
from rag.variants.turns import order

__all__ = ["BENCH", "measure", "summarise"]

KIND = "run"


async def measure(
    loads: Mapping[str, Loaded],
    questions: QuestionSet,
    count: int | None,
    rounds: int,
    folder: Path,
    command: str,
    progress: Progress,
    open_pipelines: running.Open = build.open_pipelines,
    clock: Clock = time.monotonic,
) -> None:
    """Take what runs there aren't yet of an earlier run with the same settings. `loads` are those of `modes.loads_of`. Raises
    `EngineError` where a question fails: its run can't be held against another."""
    asked = questions.first(count)
    head = results.header(
        BENCH,
        command,
        settings={
            "questions": {**questions.head, "count": len(asked)},
            "variants": {name: depends_on(one, questions, progress) for name, one in loads.items()},
            "batch": {name: one.settings.batch.model_dump(mode="json") for name, one in loads.items()},
        },
    )
    samples = results.Samples(folder)
    taken = {(sample["round"], sample["mode"]) for sample in samples.resume(head)}
    modes = [mode for mode in MODES if mode.can_be_had(loads)]
    turns = [(number, mode) for number in range(rounds) for mode in order(modes, number)]
    left = [(number, mode) for number, mode in turns if (number, mode.name) not in taken]
    if not left:
        return
    async with open_pipelines(loads, progress) as pipelines:
        for number, mode in left:
            progress("runs", len(taken), len(turns))
            row = await _run(pipelines[mode.of], loads[mode.of], mode, asked, clock)
            samples.add({"kind": KIND, "round": number, "mode": mode.name, **row})
            taken.add((number, mode.name))
        progress("runs", len(taken), len(turns))


async def _run(pipeline: Pipeline, loaded: Loaded, mode: Mode, asked: list[Question], clock: Clock) -> dict[str, Any]:
    tokens = 0

    def finished(place: int, outcome: Outcome) -> None:
        nonlocal tokens
        if outcome.answer is None:
            raise EngineError(f"Question {asked[place].id!r} failed: {outcome.error}")
        tokens += outcome.answer.tokens.output or 0

    settings = mode.settings(loaded)
    at_once = mode.at_once if mode.at_once is not None else settings.at_once
    pipeline.caches.clear()
    await prepare(pipeline)
    began = clock()
    counts = await answer_all(
        pipeline, [(one.question, None) for one in asked], finished, settings.batch, min(at_once, len(asked))
    )
    seconds = clock() - began
    return {
        "seconds": seconds,
        "questions": len(asked),
        "output_tokens": tokens,
        "lookahead": asdict(counts) if counts is not None else None,
    }
