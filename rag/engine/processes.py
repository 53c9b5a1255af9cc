"""The processes and files that an engine leaves on the machine, so that nothing of them stays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """Where the engine's processes, started inside the block, put their sockets and rendezvous files."""
    folder = Path(tempfile.mkdtemp(prefix="rag-engine-"))
    ours = {"TMPDIR": str(folder), "VLLM_RPC_BASE_PATH": str(folder)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield folder
    finally:
        set_environment(before)


def set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def started() -> frozenset[psutil.Process]:
    """Processes below this one, but for Python's resource tracker: it cleans up by itself after the last of us."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if not any("resource_tracker" in part for part in process.cmdline()):
                found.add(process)
    return frozenset(found)


def kill(processes: Collection[psutil.Process]) -> None:
    """Kill processes and remove the shared memory that only they had mapped: nobody else would."""
    shared: set[str] = set()
    for process in processes:
        with suppress(psutil.Error, OSError):
            shared |= {entry.path for entry in process.memory_maps() if entry.path.startswith("/dev/shm/psm_")}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(processes), timeout=5)
    for path in shared:
        Path(path).unlink(missing_ok=True)
