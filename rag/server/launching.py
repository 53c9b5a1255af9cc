"""A `rag serve` in a process of its own: started, and awaited."""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rag.progress import Report
from rag.server import state
from rag.server.state import ServerState

LOOK = 0.1
"""Seconds between two looks at whether it is ready."""


def start(
    command: Sequence[str],
    log: Path,
    first: Callable[[], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """What it says is in `log`; Ctrl-C isn't for it. `first` is called in the new process."""
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=first,
            env=environ,
        )


def until_ready(process: subprocess.Popen[bytes], report: Report, patience: float = math.inf) -> ServerState | None:
    """None where it ends before, or isn't ready after `patience` seconds. `report` is told what it does meanwhile."""
    doing = None
    end = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < end:
        found = next((one for one in state.servers() if one.pid == process.pid), None)
        status = state.ask_status(found) if found is not None else None
        if found is not None and status is not None:
            if status["ready"]:
                return found
            if status["doing"] != doing:
                doing = status["doing"]
                report(doing)
        time.sleep(LOOK)
    return None


def last_line(log: Path) -> str | None:
    """Of what it said; None where that is nothing."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else None
