"""The values of one setting beside one another: what they take, and what they give.

`over` reads the setting and its values, `report` makes figures, table and picture of the samples.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rag import build
from rag.core import Clock
from rag.errors import UsageError
from rag.evaluate import QuestionSet
from rag.progress import Progress, Report, quiet
from rag.settings import Loaded
from rag.variants import planning, running, samples
from rag.variants.asking import QUESTIONS, Questions
from rag.variants.planning import Plan
from rag.variants.sweep.over import Over, label, parse
from rag.variants.sweep.report import BENCH, Swept, read, summarise

__all__ = ["BENCH", "Over", "Swept", "measure", "parse", "plan", "read", "summarise"]

TEST_SET = "qa_120"


def plan(over: Over, loads: Mapping[str, Loaded], questions: QuestionSet, command: str, report: Report = quiet) -> Plan:
    """`loads` are `over.loads`. Raises `UsageError` for the test set, which nothing may be chosen on, and what `planning.plan`
    raises."""
    if questions.name == TEST_SET:
        raise UsageError(f"{TEST_SET} is the test set: settings are chosen on another one, e.g. eval/dev_60.jsonl.")
    about = {"setting": over.key, "values": [label(value) for value in over.values]}
    return planning.plan(BENCH, loads, questions, command, report, over=about)


async def measure(
    plan: Plan,
    folder: Path,
    count: int | None,
    progress: Progress,
    open_pipelines: running.Open = build.open_pipelines,
    clock: Clock = time.monotonic,
) -> None:
    """Take what samples there aren't yet of an earlier run with the same settings: of `count` questions, all for None.

    Raises what `samples.resume` and `running.run` raise, and `StorageError` where a sample can't be written; those before it are
    kept.
    """
    taken = samples.resume(folder, plan.head)
    jobs, done = Questions(plan, folder, taken, clock).jobs(count)
    await running.run(plan.loads, jobs, {QUESTIONS: done}, progress, open_pipelines)
