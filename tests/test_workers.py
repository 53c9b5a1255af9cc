"""Several at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rag.workers import each, unless


@pytest.mark.parametrize("at_once", [1, 3, 50])
async def test_every_item_is_worked_on_once_in_order_and_no_more_at_once(at_once: int) -> None:
    begun: list[int] = []
    running = most = 0

    async def work(item: int) -> None:
        nonlocal running, most
        begun.append(item)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (item % 3))
        running -= 1

    await each(range(10), at_once, work)
    assert begun == list(range(10))
    assert most == min(at_once, 10)


async def test_the_first_error_ends_the_others() -> None:
    begun: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        if item == 2:
            raise ValueError("two")
        await asyncio.sleep(30 if item == 1 else 0)

    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="two"):
            await each(range(10), 2, work)
    assert begun == [0, 1, 2]


async def coming(count: int, failing: bool = False) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0.001)
        yield number
    if failing:
        raise ValueError("no more")


async def test_items_that_come_later_are_worked_on_too_while_others_are() -> None:
    done: list[int] = []
    first = asyncio.Event()

    async def work(item: int) -> None:
        if item == 0:
            await first.wait()
        done.append(item)
        if item == 4:
            first.set()

    async with asyncio.timeout(10):
        await each(coming(5), 2, work)
    assert done == [1, 2, 3, 4, 0]


async def test_an_error_of_what_comes_is_raised() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        done.append(item)

    with pytest.raises(ValueError, match="no more"):
        await each(coming(3, failing=True), 2, work)
    assert sorted(done) == [0, 1, 2]


async def test_work_is_done_unless_the_leaving_ends_first() -> None:
    async def worked() -> int:
        return 7

    assert await unless(asyncio.sleep(30), worked()) == 7


async def test_a_leaving_cancels_the_work() -> None:
    cancelled = False

    async def works() -> int:
        nonlocal cancelled
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled = True
            raise
        return 7

    async with asyncio.timeout(10):
        assert await unless(asyncio.sleep(0.01), works()) is None
    assert cancelled


async def test_the_error_of_the_work_is_raised() -> None:
    async def fails() -> int:
        raise ValueError("two")

    with pytest.raises(ValueError, match="two"):
        await unless(asyncio.sleep(30), fails())
