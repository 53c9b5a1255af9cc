"""The processes and files that an engine puts on the machine, so that nothing of them stays.

Run as a program this is a guard: it waits until the process that started it has gone, however that ended, and removes what is
still there of an engine. vLLM's engine doesn't notice that its client was killed, and holds its memory for ever.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import psutil

RUNTIME = "VLLM_RPC_BASE_PATH"
"""Variable by which vLLM, and whoever looks for its processes, finds their folder."""

LOOKS = 10
"""Times that a guard looks for processes at most: one may start another while it is being killed."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a running engine has: its processes, its folder of sockets, and its guard."""

    processes: frozenset[psutil.Process]
    folder: Path
    guard: subprocess.Popen[bytes] | None = None

    def remove(self) -> None:
        """Kill the processes, and remove their files. They hold nothing worth an orderly end, which takes 5 s."""
        kill(self.processes)
        # A killed process' semaphores carry its number in their names.
        for process in self.processes:
            for semaphore in Path("/dev/shm").glob(f"sem.*-{process.pid}-*"):
                semaphore.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.guard is not None:
            self.guard.kill()
            self.guard.wait()
            assert self.guard.stdin is not None
            self.guard.stdin.close()


def started(by: psutil.Process | None = None) -> frozenset[psutil.Process]:
    """Processes below this one, or another, but for Python's resource tracker and our guards: they clean up after the last of us,
    and end by themselves."""
    found = set()
    for process in (by if by is not None else psutil.Process()).children(recursive=True):
        with suppress(psutil.Error):
            command = process.cmdline()
            if __file__ not in command and not any("resource_tracker" in part for part in command):
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
def runtime_folder() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Where an engine that is started inside the block puts its sockets and rendezvous files, and the guard of that engine."""
    # It tidies up after the last of us: with RUNTIME the guard would take it for one of the engine's.
    resource_tracker.ensure_running()
    folder = Path(tempfile.mkdtemp(prefix="rag-engine-"))
    # A session of its own: it has to outlive what ends this one's. -P: no module of this folder's.
    command = [sys.executable, "-P", __file__, str(folder)]
    nowhere = subprocess.DEVNULL
    # Without RUNTIME: where another engine is being started meanwhile, this guard would be taken for one of its processes.
    environment = {name: value for name, value in os.environ.items() if name != RUNTIME}
    try:
        guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=nowhere,
            stderr=nowhere,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    except OSError:
        folder.rmdir()
        raise
    # `watch` finds vLLM's processes by their environment: they write their titles over it, and forked ones don't have this one
    # (nor does the guard notice that this process has gone, whose end of the pipe they hold).
    ours = {
        "TMPDIR": str(folder),
        RUNTIME: str(folder),
        "SPT_NOENV": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield folder, guard
    finally:
        set_environment(before)


def watch(folder: Path) -> None:
    """What a guard does. Processes are the engine's where they were started with this folder as theirs."""
    sys.stdin.buffer.read()  # ends as nobody is left who could write
    for _ in range(LOOKS):
        left = {process for process in psutil.process_iter() if _runs_in(process, folder)}
        Footprint(frozenset(left), folder).remove()
        if not left:
            break


def _runs_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get(RUNTIME) == str(folder) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


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


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
