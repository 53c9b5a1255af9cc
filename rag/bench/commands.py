"""Processes of `rag` that a benchmark starts, with the settings that it was given itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.errors import RagError
from rag.settings import Loaded

EVERY = 0.05
"""Seconds between two looks at a process' memory."""


def rag(loaded: Loaded, *arguments: str) -> list[str]:
    """The command line of `rag ARGUMENTS` with these settings."""
    explicit = [f"--set={key}={json.dumps(value)}" for key, value in loaded.leaves() if loaded.explicit(key)]
    return [sys.executable, "-m", "rag", "--profile", loaded.profile, "--models", loaded.models, *explicit, *arguments]


@dataclass(frozen=True, slots=True)
class Ran:
    """`peak` is the most memory that the process held at once, in bytes; None where the platform doesn't tell."""

    output: str
    seconds: float
    peak: int | None


def run(command: Sequence[str]) -> Ran:
    """Raises `RagError` with the last of what it said where it fails."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        try:
            peak = None
            while process.poll() is None:
                peak = _peak(process.pid) or peak  # a mark that only rises: the last look counts
                time.sleep(EVERY)
        finally:
            process.kill()
            process.wait()
        seconds = time.monotonic() - began
        for file in (output, errors):
            file.seek(0)
        if process.returncode != 0:
            raise RagError(f"{' '.join(command)} failed: {errors.read()[-500:]}")
        return Ran(output.read(), seconds, peak)


def _peak(process: int) -> int | None:
    """Not `ru_maxrss`, which begins with what the parent held when it forked."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(sizes[0]) if sizes else None
