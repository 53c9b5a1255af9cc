"""Prompts go on to the engine several at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Gate:
    """Holds prompts back until `count` of them are there, or no other is on its way.

    For an engine that shares its cores with the search. Given each prompt as soon as it is there, it has a few requests at any time,
    and on a CPU a step for a few takes nearly as long as one for all that it could run; meanwhile the search goes on more slowly.

    Not thread-safe: of one event loop.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._on_their_way = 0
        self._there: list[asyncio.Future[None]] = []

    @contextmanager
    def entering(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """For the time of a question, whose prompt is on its way from now on: yields what it has to wait for then. One that never
        gets there is counted until the end of the block."""
        on_its_way = True
        self._on_their_way += 1

        def arrived() -> None:
            nonlocal on_its_way
            self._on_their_way -= on_its_way
            on_its_way = False
            self._open()

        async def passing() -> None:
            may_pass: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._there.append(may_pass)
            arrived()
            try:
                await asyncio.sleep(0)  # else the last one would go on before those that waited
                await may_pass
            finally:
                may_pass.cancel()  # of no effect on one that has passed

        try:
            yield passing
        finally:
            arrived()

    def _open(self) -> None:
        self._there = [one for one in self._there if not one.done()]  # else it was cancelled
        if len(self._there) >= self._count or self._on_their_way == 0:
            for one in self._there:
                one.set_result(None)
            self._there = []
