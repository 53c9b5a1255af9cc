"""Prompts that go on together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import workers
from rag.batch.gate import Gate


class Road:
    """Questions on their way to a gate. `ready` is what their prompts wait for, `passed` the numbers of those that went on."""

    def __init__(self, count: int) -> None:
        self.gate = Gate(count)
        self.ready: dict[int, asyncio.Event] = {}
        self.passed: list[int] = []
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def sets_out(self, *numbers: int, lost: bool = False) -> None:
        for number in numbers:
            self.ready[number] = asyncio.Event()
            self.tasks[number] = asyncio.create_task(self._go(number, lost))
        await self.settle()

    async def arrives(self, *numbers: int) -> None:
        for number in numbers:
            self.ready[number].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def _go(self, number: int, lost: bool) -> None:
        with self.gate.entering() as passing:
            await self.ready[number].wait()
            if lost:
                return
            await passing()
            self.passed.append(number)
            await asyncio.Event().wait()  # is answered


@asynccontextmanager
async def road(count: int) -> AsyncIterator[Road]:
    made = Road(count)
    try:
        yield made
    finally:
        for task in made.tasks.values():
            task.cancel()
        await asyncio.gather(*made.tasks.values(), return_exceptions=True)


async def test_so_many_go_on_together_and_no_fewer() -> None:
    async with road(3) as on:
        await on.sets_out(*range(7))
        await on.arrives(5, 2)
        assert on.passed == []
        await on.arrives(0)
        assert on.passed == [5, 2, 0]
        await on.arrives(1, 3)
        assert on.passed == [5, 2, 0]


async def test_those_that_are_left_go_on_when_no_other_is_on_its_way() -> None:
    async with road(3) as on:
        await on.sets_out(0, 1)
        await on.arrives(1)
        assert on.passed == []
        await on.arrives(0)
        assert on.passed == [1, 0]


async def test_with_one_at_a_time_nobody_waits() -> None:
    async with road(1) as on:
        await on.sets_out(0, 1, 2)
        for number in (1, 0, 2):
            await on.arrives(number)
            assert on.passed[-1] == number


@pytest.mark.parametrize("ends", ["without a prompt", "cancelled"])
async def test_a_question_that_ends_on_its_way_is_not_waited_for(ends: str) -> None:
    async with road(3) as on:
        await on.sets_out(0, 1)
        await on.sets_out(2, lost=True)
        await on.arrives(0, 1)
        assert on.passed == []
        if ends == "cancelled":
            on.tasks[2].cancel()
            await on.settle()
        else:
            await on.arrives(2)
        assert on.passed == [0, 1]


async def test_a_question_that_is_cancelled_while_it_waits_does_not_count() -> None:
    async with road(2) as on:
        await on.sets_out(0, 1, 2)
        await on.arrives(0)
        on.tasks[0].cancel()
        await on.settle()
        await on.arrives(1)
        assert on.passed == []
        await on.arrives(2)
        assert on.passed == [1, 2]


async def test_nor_does_one_that_is_cancelled_as_soon_as_it_is_there() -> None:
    async with road(2) as on:
        await on.sets_out(0, 1, 2)
        on.ready[0].set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        on.tasks[0].cancel()
        await on.settle()
        await on.arrives(1)
        assert on.passed == []


@given(count=st.integers(1, 6), at_once=st.integers(1, 6), steps=st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_however_many_are_asked_all_get_through(count: int, at_once: int, steps: list[int]) -> None:
    """A question takes `steps` turns of the loop to its prompt, and as many more to its answer; with 0 it has no prompt."""

    async def run() -> list[int]:
        gate, answered = Gate(count), list[int]()

        async def one(place: int) -> None:
            with gate.entering() as passing:
                for _ in range(steps[place]):
                    await asyncio.sleep(0)
                if steps[place]:
                    await passing()
                    for _ in range(steps[place]):
                        await asyncio.sleep(0)
            answered.append(place)

        async with asyncio.timeout(10):
            await workers.each(range(len(steps)), at_once, one)
        return answered

    assert sorted(asyncio.run(run())) == list(range(len(steps)))
