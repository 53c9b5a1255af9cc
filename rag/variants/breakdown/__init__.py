"""Where the time of the source's profiles goes on this machine, stage by stage, beside what the source has for them.

`stages` says what an answer spent where, `lengths` asks for answers of the source's lengths, `source` holds its figures;
`figures`, `tables` and `picture` are made of the samples, and `report` puts them together.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from rag import build
from rag.core import Clock
from rag.errors import UsageError
from rag.progress import Progress
from rag.settings import Loaded
from rag.variants import running, samples
from rag.variants.asking import QUESTIONS, Questions
from rag.variants.breakdown.lengths import LENGTHS, Lengths, check
from rag.variants.breakdown.measured import AGAIN, BENCH, read
from rag.variants.breakdown.picture import Bar
from rag.variants.breakdown.picture import bars as _bars
from rag.variants.breakdown.report import summarise
from rag.variants.planning import Plan

__all__ = ["AGAIN", "BENCH", "PROFILES", "Bar", "bars", "measure", "summarise", "variants"]

PROFILES = ("v3", "v3_1", "v3_2", "auto")


def variants(loads: Mapping[str, Loaded]) -> dict[str, Loaded]:
    """Settings by the names of their profiles: the first a second time after itself, and the names fit for those of figures.

    Raises `UsageError` where two would have the same.
    """
    found: dict[str, Loaded] = {}
    for profile, loaded in loads.items():
        name = re.sub(r"\W+", "_", Path(profile).stem if profile.endswith((".yaml", ".yml")) else profile)
        if name in found:
            raise UsageError(
                f"--variants: {profile!r} would be called {name!r} like another one. Give it another name."
            )
        found[name] = loaded
        if len(found) == 1:
            found[f"{name}{AGAIN}"] = loaded
    return found


async def measure(
    plan: Plan,
    folder: Path,
    count: int | None,
    repeats: int,
    progress: Progress,
    open_pipelines: running.Open = build.open_pipelines,
    clock: Clock = time.monotonic,
) -> None:
    """Take what samples there aren't yet of an earlier run with the same settings: of `count` questions, all for None, and of
    each fixed length so many `repeats`.

    Raises what `samples.resume`, `running.run` and `lengths.check` raise, and `StorageError` where a sample can't be written;
    those before it are kept.
    """
    if repeats > 0:
        check(plan)
    taken = samples.resume(folder, plan.head)
    cold = [name for name in plan.loads if not name.endswith(AGAIN)]
    answers, answered = Questions(plan, folder, taken, clock).jobs(count, cold)
    lengths, long = Lengths(plan, folder, taken, clock).jobs(repeats)
    await running.run(plan.loads, [*answers, *lengths], {QUESTIONS: answered, LENGTHS: long}, progress, open_pipelines)


def bars(folder: Path) -> list[Bar]:
    """One a variant, of the samples on disk."""
    return _bars(read(folder))
