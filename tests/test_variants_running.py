"""rag/variants/running.py: jobs in turn, and engines that are lost on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from serving import LOADED

from rag.errors import EngineDied, StorageError
from rag.variants.running import Job, run


class Alive:
    """What of a pipeline is looked at here."""

    def __init__(self) -> None:
        self.alive = True

    def lost(self, _: Exception) -> bool:
        return not self.alive


class Openings:
    """The variants that were opened each time."""

    def __init__(self) -> None:
        self.variants: list[list[str]] = []
        self.open = 0

    @asynccontextmanager
    async def __call__(self, loads: Mapping[str, Any], report: Callable[[str], None]) -> AsyncIterator[Any]:
        self.variants.append(list(loads))
        report("starting the engine")
        self.open += 1
        try:
            yield {name: Alive() for name in loads}
        finally:
            self.open -= 1


class Jobs:
    """Named jobs that note that they were done; those that lose their engine do it as often as `losses` says."""

    def __init__(self, losses: Mapping[str, list[Exception]] | None = None) -> None:
        self.done: list[str] = []
        self.losses = losses if losses is not None else {}

    def __call__(self, variant: str, name: str, what: str = "questions") -> Job:
        async def do(pipeline: Any) -> None:
            if self.losses.get(name):
                error = self.losses[name].pop()
                pipeline.alive = isinstance(error, StorageError)
                raise error
            self.done.append(name)

        return Job(what, variant, do)


LOADS = {"a": LOADED, "b": LOADED}


def quiet(what: str, done: int = 0, total: int = 0) -> None:
    del what, done, total


async def test_jobs_are_done_in_order_by_the_variants_that_are_needed() -> None:
    jobs, openings = Jobs(), Openings()
    await run(LOADS, [jobs("b", "1"), jobs("b", "2")], {}, quiet, openings)
    assert (jobs.done, openings.variants, openings.open) == (["1", "2"], [["b"]], 0)


async def test_without_a_job_nothing_is_opened() -> None:
    openings = Openings()
    await run(LOADS, [], {"questions": 3}, quiet, openings)
    assert openings.variants == []


async def test_progress_counts_each_sort_with_what_was_done_before() -> None:
    told: list[tuple[str, int, int]] = []

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        if told[-1:] != [(what, done, total)]:
            told.append((what, done, total))

    jobs = Jobs()
    await run(
        LOADS, [jobs("a", "1"), jobs("b", "2"), jobs("a", "3", "lengths")], {"questions": 4}, progress, Openings()
    )
    assert told == [
        ("starting the engine", 0, 0),
        ("questions", 4, 6),
        ("questions", 5, 6),
        ("questions", 6, 6),
        ("lengths", 0, 1),
        ("lengths", 1, 1),
    ]


@pytest.mark.parametrize("error", [EngineDied("gone"), ConnectionResetError("gone")])
async def test_a_lost_engine_is_started_again_with_the_others_and_its_job_done_again(error: Exception) -> None:
    jobs, openings = Jobs({"2": [error]}), Openings()
    await run(LOADS, [jobs("a", "1"), jobs("b", "2"), jobs("a", "3")], {}, quiet, openings)
    assert jobs.done == ["1", "2", "3"]
    assert (openings.variants, openings.open) == ([["a", "b"], ["a", "b"]], 0)


async def test_a_job_that_loses_its_engine_each_time_ends_the_run() -> None:
    jobs, openings = Jobs({"2": [EngineDied("second"), EngineDied("first")]}), Openings()
    with pytest.raises(EngineDied, match="second"):
        await run(LOADS, [jobs("a", "1"), jobs("b", "2")], {}, quiet, openings)
    assert (jobs.done, len(openings.variants), openings.open) == (["1"], 2, 0)


async def test_an_engine_that_is_lost_at_once_ends_the_run() -> None:
    jobs, openings = Jobs({"1": [EngineDied("gone")]}), Openings()
    with pytest.raises(EngineDied, match="gone"):
        await run(LOADS, [jobs("a", "1")], {}, quiet, openings)
    assert len(openings.variants) == 1


async def test_another_error_ends_the_run_at_once() -> None:
    jobs, openings = Jobs({"2": [StorageError("full")]}), Openings()
    with pytest.raises(StorageError, match="full"):
        await run(LOADS, [jobs("a", "1"), jobs("a", "2"), jobs("a", "3")], {}, quiet, openings)
    assert (jobs.done, len(openings.variants), openings.open) == (["1"], 1, 0)
