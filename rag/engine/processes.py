"""The processes and files that an engine puts on the machine, so that nothing of them stays."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a running engine has: its processes, the shared memory that they map, its folder of sockets."""

    processes: frozenset[psutil.Process]
    shared_memory: frozenset[Path]
    folder: Path

    @classmethod
    def take(cls, processes: frozenset[psutil.Process], folder: Path) -> Footprint:
        """Taken while the processes run: one that has died no longer tells what it had mapped."""
        shared: set[Path] = set()
        for process in processes:
            with suppress(psutil.Error, OSError):
                paths = (entry.path for entry in process.memory_maps())
                shared |= {Path(path) for path in paths if path.startswith("/dev/shm/psm_")}
        return cls(processes, frozenset(shared), folder)

    def remove(self) -> None:
        """Kill the processes, and remove their files. They hold nothing worth an orderly end, which takes 5 s."""
        kill(self.processes)
        # A killed process' semaphores carry its number in their names.
        semaphores = (path for p in self.processes for path in Path("/dev/shm").glob(f"sem.*-{p.pid}-*"))
        for path in (*self.shared_memory, *semaphores):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def started(by: psutil.Process | None = None) -> frozenset[psutil.Process]:
    """Processes below this one, or another, but for Python's resource tracker: it cleans up by itself after the last of us."""
    found = set()
    for process in (by if by is not None else psutil.Process()).children(recursive=True):
        with suppress(psutil.Error):
            if not any("resource_tracker" in part for part in process.cmdline()):
                found.add(process)
    return frozenset(found)


def stop(process: psutil.Process, patience: float) -> bool:
    """Tell a process to end, and kill it with all below it where it hasn't after `patience` seconds. Did it end by itself?

    Raises `psutil.NoSuchProcess` where it has gone before.
    """
    below = started(process)
    process.terminate()
    try:
        process.wait(patience)
        return True
    except psutil.TimeoutExpired:
        kill({process, *below})
        return False


def kill(processes: Collection[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(processes), timeout=5)


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """Where an engine that is started inside the block puts its sockets and rendezvous files."""
    folder = Path(tempfile.mkdtemp(prefix="rag-engine-"))
    ours = {"TMPDIR": str(folder), "VLLM_RPC_BASE_PATH": str(folder)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield folder
    finally:
        set_environment(before)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """A process that this thread starts inside the block never gets SIGINT.

    Ctrl-C reaches every process of a terminal. What becomes of the engine's is for the one that started them to say.
    """
    resource_tracker.ensure_running()  # starting it unblocks the signal again (Python 3.11)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def set_environment(values: Mapping[str, str | None]) -> None:
    """Set variables, or unset those whose value is None."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
