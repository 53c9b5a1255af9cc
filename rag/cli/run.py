"""Runs a command's coroutine so that an interrupt ends it soon and leaves no process behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from rag.engine import processes

T = TypeVar("T")


def run(command: Coroutine[Any, Any, T]) -> T:
    """What the command returns; the process ends with 130 after SIGINT, with 143 after SIGTERM.

    The command is cancelled, so its `finally` blocks release the engine; one that is just starting has some seconds to notice. Then
    the process ends without joining worker threads: one that is in the middle of `import vllm` would hold it up.
    """
    return asyncio.run(supervise(command))


async def supervise(command: Coroutine[Any, Any, T]) -> T:
    """What the command returns, unless a signal ends the process."""
    task = asyncio.ensure_future(command)
    received: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        leave(128 + received[0])
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def leave(code: int) -> NoReturn:
    """End this process, and what is left below it, without waiting for threads."""
    # A thread that was just starting a process when the command was cancelled may have started it since.
    processes.kill(processes.started())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
