"""A server's life: listen, answer, and when told to stop let running answers end before the engine does."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from rag.errors import UsageError
from rag.progress import Report
from rag.server.warm import WarmPipeline

DRAIN = 30.0
"""Seconds that running answers have to end once the server is told to stop."""

MAX_LINE = 1 << 20
"""Bytes of the line that `rag ask` sends: a command line and its settings are far shorter."""

Entrance = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Answers one connection of the Unix socket."""


class Http(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()  # signals are the command's, which lets answers end first


def listen(host: str, port: int) -> socket.socket:
    """Raises `UsageError` where the address can't be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # in brackets stands the address once more
        taken = error.errno == errno.EADDRINUSE
        fix = "Choose another --port, or 0 for a free one" if taken else "Choose another --host"
        raise UsageError(f"Can't listen at {host} port {port}: {reason}. {fix}.") from error


async def serve(
    warm: WarmPipeline,
    app: Starlette,
    listener: socket.socket,
    entrance: tuple[Path, Entrance],
    stop: asyncio.Event,
    report: Report,
    drain: float = DRAIN,
) -> None:
    """Until `stop` is set and the answers under way have ended, or had `drain` seconds to; the engine is gone then.

    Raises what `WarmPipeline.run` raises, which ends the server.
    """
    path, answer = entrance
    asks = await asyncio.start_unix_server(answer, path, limit=MAX_LINE)
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    http = Http(config)
    serving = asyncio.create_task(http.serve([listener]))
    living = asyncio.create_task(warm.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((living, serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if warm.running and stopping.done():
            report(f"stopping: {warm.running} running answers have {drain:g} s to end")
        if left := await warm.drain(drain if stopping.done() else 0):
            report(f"{left} answers were ended")
    finally:
        http.should_exit = True
        asks.close()
        for task in (living, stopping):
            task.cancel()
        await asyncio.gather(living, serving, stopping, return_exceptions=True)
    for task in (living, serving):
        if not task.cancelled():
            task.result()
