"""Work on several items at a time, work that ends when nobody waits for it any more, and on how many cores."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def each(items: Iterable[T] | AsyncIterable[T], at_once: int, work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work on every item, on `at_once` of them at a time, in their order. The first error ends the others."""
    # One for all: each worker takes the next.
    waiting = aiter(items) if isinstance(items, AsyncIterable) else _at_hand(items)
    turn = asyncio.Lock()

    async def worker() -> None:
        while True:
            async with turn:
                try:
                    item = await anext(waiting)
                except StopAsyncIteration:
                    return
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _at_hand(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


async def unless(leaving: Coroutine[Any, Any, object], work: Coroutine[Any, Any, T]) -> T | None:
    """What the work comes to; None where `leaving` ended first, which cancels it."""
    watching, working = asyncio.ensure_future(leaving), asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(watching, working, return_exceptions=True)
    return None if working.cancelled() else working.result()
