"""Jobs that are done by several pipelines in turn, whose engines may be lost on the way."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

from rag import build
from rag.pipeline import Pipeline
from rag.progress import Progress, Report
from rag.settings import Loaded

Open: TypeAlias = Callable[[Mapping[str, Loaded], Report], AbstractAsyncContextManager[Mapping[str, Pipeline]]]


@dataclass(frozen=True, slots=True)
class Job:
    """What one variant's pipeline is to do. Done or not: whatever it keeps it keeps at its end. `what` names its sort."""

    what: str
    variant: str
    do: Callable[[Pipeline], Awaitable[None]]


async def run(
    loads: Mapping[str, Loaded],
    jobs: Sequence[Job],
    done: Mapping[str, int],
    progress: Progress,
    open_pipelines: Open = build.open_pipelines,
) -> None:
    """Do the jobs in their order. `done` counts those of each sort that an earlier run did.

    Where an engine is lost all are started again, and the job that it was lost at is done again; where it is lost before a job
    was done since, that error is raised. Raises what `open_pipelines` and the jobs raise.
    """
    left = deque(jobs)
    totals = Counter(done) + Counter(job.what for job in jobs)
    finished = Counter(done)
    while left:
        before = len(left)
        needed = {job.variant for job in left}
        lost: Exception | None = None
        async with open_pipelines(
            {name: loaded for name, loaded in loads.items() if name in needed}, progress
        ) as pipelines:
            while left and lost is None:
                job = left[0]
                progress(job.what, finished[job.what], totals[job.what])
                lost = await _do(job, pipelines[job.variant])
                if lost is None:
                    left.popleft()
                    finished[job.what] += 1
                    progress(job.what, finished[job.what], totals[job.what])
        if lost is not None:
            if len(left) == before:
                raise lost
            progress("an engine was lost, and is started again")


async def _do(job: Job, pipeline: Pipeline) -> Exception | None:
    """The error that told that the engine was lost, if it was."""
    try:
        await job.do(pipeline)
    except Exception as error:
        if pipeline.lost(error):
            return error
        raise
    return None
