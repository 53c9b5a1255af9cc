"""Several at a time."""

from __future__ import annotations

import asyncio

import pytest

from rag.workers import each


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
