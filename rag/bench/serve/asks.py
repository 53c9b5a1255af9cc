"""A warm `rag ask` beside the same question by HTTP, and the start of the interpreter that it can't do without.

What each costs is what its process, or its request, takes beyond the time that the pipeline gives for the same answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from rag import paths
from rag.bench import commands
from rag.bench.serve.server import Server
from rag.bench.timing import timed
from rag.core import Clock
from rag.errors import RagError, UsageError
from rag.questions import Question, read
from rag.settings import Loaded

PAUSE = 0.3
"""Seconds before whatever is timed: for 0.2 s after its work OpenMP's threads still spin on the cores."""

INTERPRETER = (sys.executable, "-c", "pass")

EXIT_CODES = (0, 3)
"""Answered, and abstained."""


def questions() -> tuple[Question, ...]:
    """Those of dev_60, in order. Raises `UsageError` where they aren't."""
    path = paths.shipped("eval", "dev_60.jsonl")
    if not path.is_file():
        raise UsageError(f"No {path}: question sets are in a checkout of rag alone. Run this benchmark in one.")
    return read(path).questions


def ask(server: Server, loaded: Loaded, question: str, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """Seconds of Python alone, of `rag ask`, and of the request; of the last two also those inside the server's process.

    Raises `RagError` where one isn't answered, or not by this server.
    """
    interpreter, _ = _run(INTERPRETER, clock)
    seconds, done = _run(commands.rag(loaded, "ask", "--sample", "--json", "--", question), clock)
    if done.returncode not in EXIT_CODES:
        raise RagError(f"rag ask failed: {done.stderr[-500:]}")
    if f"server {server.address}" not in done.stderr.splitlines():
        raise RagError(f"rag ask was answered without the server at {server.address}. It said: {done.stderr[-500:]!r}")
    answer = json.loads(done.stdout)
    http, beside = timed(lambda: server.ask(question), clock, PAUSE)
    return {
        "interpreter": interpreter,
        "ask": seconds,
        "ask_inside": answer["timings"]["total"],
        "http": http,
        "http_inside": beside["timings"]["total"],
        "same": answer["answer"] == beside["answer"],
    }


def _run(command: Sequence[str], clock: Clock) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds from before the process starts to when it has ended. Not `commands.run`, which looks every 50 ms."""
    return timed(
        lambda: subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False),
        clock,
        PAUSE,
    )
