"""The one pipeline of a server: built, lent to requests, built again when its engine is lost, and moved to a new index."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from rag import build
from rag.cache import CacheCounts
from rag.core import EngineInfo, Generator
from rag.errors import EngineDied, EngineError, NotReady, RagError, SettingsError, UsageError
from rag.pipeline import Pipeline
from rag.progress import Report, quiet
from rag.settings import Loaded

ATTEMPTS = 5
"""Starts of an engine in a row that may fail before the server gives up, with pauses of 1, 2, 4, 8 s between them."""

LOOK = 0.5
"""Seconds between two looks at whether the engine lives."""

LOOK_AT_INDEX = 2.0
"""Seconds between two looks at whether there is another version of the index: its pointer and manifest are read."""

LONGEST_LOOK_AT_INDEX = 60.0
"""As long as there is one that can't be used, each time is twice the last one, up to this: all of it is read to see whether it can."""

TICK = 0.02
"""Seconds between two looks at whether the last request has ended."""

GRACE = 2.0
"""Seconds that requests in flight have to notice by themselves that their engine is lost. vLLM tells most of them at once."""

LOST = "rebuilding: the engine was lost"

Open: TypeAlias = Callable[[Loaded, Report], AbstractAsyncContextManager[tuple[build.Stages, Generator]]]


@dataclass(slots=True)
class RequestCounts:
    """Requests that ended with an answer, with an error of the client's, with one that wasn't, by their client going away;
    and how many times the engine was built again."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    left: int = 0
    rebuilt: int = 0


def clients(error: Exception) -> bool:
    """Is it for the client to mend? Not the settings, which are the server's."""
    return isinstance(error, UsageError) and not isinstance(error, SettingsError)


class WarmPipeline:
    """`run` is its life; meanwhile `pipeline` lends it, to many requests at once.

    `doing` says what it is busy with, None when it is ready; `report` is told of that, `log` of each request in a line. `newer`
    looks for a newer version of the index.
    """

    def __init__(
        self,
        loaded: Loaded,
        report: Report = quiet,
        log: Report = quiet,
        open_parts: Open = build.open_parts,
        newer: Callable[[Loaded, build.Search], build.Search | None] = build.newer,
    ) -> None:
        self.counts = RequestCounts()
        self._loaded = loaded
        self._report = report
        self._log = log
        self._open = open_parts
        self._newer = newer
        self._doing: str | None = "starting"
        self._pipeline: Pipeline | None = None
        self._changed = asyncio.Condition()
        self._built = False
        self._stopping = False
        self._drained_by = 0.0
        self._running: set[asyncio.Timeout] = set()
        self._why_ended: EngineError | None = None
        self._refused: str | None = None

    @property
    def ready(self) -> bool:
        return self._pipeline is not None and self._pipeline.alive and not self._stopping

    @property
    def doing(self) -> str | None:
        if self._stopping:
            return "stopping"
        return LOST if self._doing is None and not self.ready else self._doing

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._running)

    @property
    def generating(self) -> int | None:
        """Requests that the engine has, by its own word (`Generator.generating`)."""
        return self._pipeline.generator.generating if self._pipeline is not None else None

    @property
    def index_version(self) -> str | None:
        return self._pipeline.index_version if self._pipeline is not None else None

    @property
    def cached(self) -> dict[str, CacheCounts]:
        """What the query cache has done since this version of the index is in use; empty without one."""
        return self._pipeline.caches.counts if self._pipeline is not None else {}

    @property
    def engine(self) -> EngineInfo | None:
        return self._pipeline.engine if self._pipeline is not None else None

    # --- life -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Build the pipeline, watch over it, build it again; until cancelled, which ends the engine.

        Raises what `build.open_parts` raises where it can't be built at first, or `ATTEMPTS` times in a row later.
        """
        failures = 0
        while True:
            try:
                await self._live()
                failures = 0
                self._report("the engine was lost: starting another one")
                continue
            except Exception as error:  # FAISS raises RuntimeError, and there may be no memory just now
                failures += 1
                if not self._built or failures >= ATTEMPTS:
                    raise
                if not isinstance(error, RagError):
                    logging.getLogger(__name__).exception("a defect")
                self._step(f"it doesn't start: {error if str(error) else repr(error)}")
            # Here and not above: an error holds on to all that there was when it was raised.
            await asyncio.sleep(2 ** (failures - 1))

    async def _live(self) -> None:
        """From nothing to the moment when its engine is lost. Nothing is held on to of a version of the index that another follows:
        its files, and what is in memory of it, would stay as long as the engine lives. (A look at the index that is under way as the
        engine is lost isn't waited for.)"""
        async with self._open(self._loaded, self._step) as (stages, generator):
            pipeline = build.assemble(self._loaded, stages, generator)
            looking = asyncio.create_task(self._newer_search(stages.search))
            try:
                self._step("warming up")
                await pipeline.warm_up()
                self.counts.rebuilt += self._built
                self._built = True
                await self._set(pipeline, None)
                self._report(f"ready, index {pipeline.index_version}")
                while pipeline.alive:
                    await asyncio.wait({looking}, timeout=LOOK)
                    if looking.done():
                        search = stages.search = looking.result()
                        pipeline = pipeline.having(searcher=search.searcher, caches=search.new_caches())
                        await self._set(pipeline, None)
                        self._report(f"index {pipeline.index_version}")
                        looking = asyncio.create_task(self._newer_search(search))
            finally:
                await self._set(None, LOST)
                looking.cancel()
                await asyncio.wait({looking})
                await self._end_running(
                    EngineDied("The engine died. It is being started again: ask again in a minute."), GRACE
                )
                pipeline.close()

    async def _newer_search(self, search: build.Search) -> build.Search:
        """Of the next version, as soon as there is one that can be used."""
        pause = LOOK_AT_INDEX
        while True:
            await asyncio.sleep(pause)
            if (found := await self._look_for_newer(search)) is not None:
                return found
            pause = LOOK_AT_INDEX if self._refused is None else min(2 * pause, LONGEST_LOOK_AT_INDEX)

    async def _look_for_newer(self, search: build.Search) -> build.Search | None:
        """A version that can't be used is told of once; the one at hand stays."""
        try:
            found = await asyncio.to_thread(self._newer, self._loaded, search)
        except Exception as error:  # FAISS raises RuntimeError, and there may be no memory for two versions
            if str(error) != self._refused:
                self._refused = str(error)
                self._report(f"index {search.searcher.index_version} stays in use: {error}")
            return None
        self._refused = None
        return found

    # --- requests ---------------------------------------------------------------------------

    @asynccontextmanager
    async def pipeline(self, wait: float) -> AsyncIterator[Pipeline]:
        """The pipeline for one question, inside one task. Waits up to so many seconds until it is ready.

        Raises `NotReady` where it isn't then, or where the server stops before the block ends; `EngineDied` where the engine is
        lost, at most `GRACE` seconds after that was seen.
        """
        began = time.monotonic()
        outcome = "left by its client"
        try:
            async with self._limited(await self._when_ready(wait)) as pipeline:
                yield pipeline
            self.counts.answered += 1
            outcome = "answered"
        except Exception as error:
            if clients(error):
                self.counts.refused += 1
            else:
                self.counts.failed += 1
            if not isinstance(error, RagError):
                logging.getLogger(__name__).exception("a defect")
            outcome = f"{type(error).__name__}: {error}"
            raise
        except BaseException:  # cancelled
            self.counts.left += 1
            raise
        finally:
            self._log(f"{time.monotonic() - began:7.2f} s  {outcome}")

    @asynccontextmanager
    async def _limited(self, pipeline: Pipeline) -> AsyncIterator[Pipeline]:
        """Counted as running, and ended by `_end_running`."""
        limit = asyncio.timeout(None)
        self._running.add(limit)
        try:
            async with limit:
                yield pipeline
        except TimeoutError:
            if limit.expired() and self._why_ended is not None:
                raise self._why_ended from None
            raise
        finally:
            self._running.discard(limit)

    async def drain(self, seconds: float) -> int:
        """Take no more requests, and let those under way end; how many had to be ended."""
        self._stopping = True
        async with self._changed:
            self._changed.notify_all()
        self._drained_by = time.monotonic() + seconds
        while self._running and time.monotonic() < self._drained_by:
            await asyncio.sleep(TICK)
        left = self.running
        await self._end_running(NotReady("The server stopped before the answer was finished."), 0)
        return left

    def end_now(self) -> None:
        """`drain` waits no longer."""
        self._drained_by = 0.0

    async def _when_ready(self, wait: float) -> Pipeline:
        try:
            async with asyncio.timeout(wait), self._changed:
                await self._changed.wait_for(lambda: self.ready or self._stopping)
        except TimeoutError:
            raise NotReady(f"The server isn't ready: {self.doing}. Ask again in a minute.") from None
        if self._stopping or self._pipeline is None:
            raise NotReady("The server is stopping: it takes no more questions.")
        return self._pipeline

    async def _end_running(self, why: EngineError, grace: float) -> None:
        """Those that have no end of their own within so many seconds get this one."""
        self._why_ended = why
        when = asyncio.get_running_loop().time() + grace
        for limit in self._running:
            if not limit.expired():
                limit.reschedule(when)
        while self._running:
            await asyncio.sleep(TICK)
        self._why_ended = None  # it holds on to all that those had who were told

    async def _set(self, pipeline: Pipeline | None, doing: str | None) -> None:
        self._pipeline, self._doing = pipeline, doing
        async with self._changed:
            self._changed.notify_all()

    def _step(self, what: str) -> None:
        self._doing = f"rebuilding: {what}" if self._built else what
        self._report(what)
