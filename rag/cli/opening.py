"""A pipeline for a command that answers by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from rag.cli.console import Terminal
    from rag.pipeline import Pipeline
    from rag.settings import Loaded


@asynccontextmanager
async def opened(loaded: Loaded, sample: bool, terminal: Terminal) -> AsyncIterator[Pipeline]:
    """Warm, over the sample corpus if asked for; its `startup_s` counts from the process' start, with all that was built on
    the way. Raises what `build.open_pipeline` raises."""
    from rag import build

    async with AsyncExitStack() as stack:
        with terminal.step("preparing") as report:
            if sample:
                await asyncio.to_thread(build.ensure_sample_index, loaded, report)
            pipeline = await stack.enter_async_context(build.open_pipeline(loaded, report))
            pipeline.startup_s = time.time() - psutil.Process().create_time()
        yield pipeline
