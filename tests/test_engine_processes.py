"""What the engine's processes inherit, and how one is stopped. That nothing of them stays: test_engine_local, test_whole_path."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from rag.engine import local, processes

SCRIPT = """
import multiprocessing, threading, time
from pathlib import Path
from rag.engine import processes

def start(process):
    {start}

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    thread = threading.Thread(target=start, args=(process,))
    thread.start()
    thread.join()
    print(next(line for line in Path(f"/proc/{{process.pid}}/status").read_text().splitlines() if line.startswith("SigBlk")))
    process.kill()
"""


@pytest.mark.parametrize(
    ("start", "blocked"),
    [("process.start()", False), ("with processes.without_interrupts():\n        process.start()", True)],
)
def test_ctrl_c_does_not_reach_a_process_that_was_started_without_interrupts(
    tmp_path: Path, start: str, blocked: bool
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(start=start))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100, check=True)
    mask = int(done.stdout.split()[1], 16)
    assert bool(mask & 1 << signal.SIGINT - 1) == blocked
    assert not mask & 1 << signal.SIGTERM - 1


WITH_AN_ENGINE = """
import os, subprocess, sys, time
from rag.engine import processes
with processes.runtime_folder() as (folder, guard):
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(engine.pid, other.pid, guard.pid, folder, flush=True)
sys.stdin.readline()
{then}
"""


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("then", ["os.kill(os.getpid(), 9)", "pass", "os._exit(3)", "time.sleep(60)"])
def test_an_engine_ends_with_the_process_that_started_it_however_that_ended(then: str) -> None:
    script = WITH_AN_ENGINE.format(then=then)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) as process:  # type: ignore[call-overload]
        *pids, folder = process.stdout.readline().split()
        engine, other, guard = (psutil.Process(int(pid)) for pid in pids)
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            if "sleep" in then:
                assert os.getpgid(guard.pid) != os.getpgid(process.pid), "Ctrl-C would reach it"
                process.terminate()
            psutil.wait_procs([engine, guard], timeout=20)
            assert (gone(engine), gone(guard), gone(other)) == (True, True, False)
            assert not Path(folder).exists()
        finally:
            processes.kill([engine, other, guard])


def test_a_guard_goes_with_the_engine_that_it_guards_and_is_none_of_its_processes() -> None:
    others = processes.started()
    with processes.runtime_folder() as (folder, guard):
        engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    found = processes.started() - others
    assert [process.pid for process in found] == [engine.pid]
    processes.Footprint(found, folder, guard).remove()
    assert not psutil.pid_exists(engine.pid)
    engine.wait()
    assert guard.poll() is not None
    assert not folder.exists()


async def test_a_start_that_is_given_up_before_its_process_runs_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What loads beside it may fail at once, and a thread can't be cancelled."""
    begun, started = threading.Event(), []

    def construct(*_: object) -> None:
        begun.set()
        time.sleep(0.3)
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
            started.append(process.pid)
        raise RuntimeError("the engine's process is gone")

    monkeypatch.setattr(local, "_construct", construct)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others, began = processes.started(), time.monotonic()
    starting = asyncio.create_task(local.LocalGenerator.start(None, None, "cpu"))  # type: ignore[arg-type]
    await asyncio.to_thread(begun.wait)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert len(started) == 1
    assert time.monotonic() - began < 30
    assert processes.started() <= others
    assert list(tmp_path.iterdir()) == []


WITH_ONE_BELOW = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, {handler})
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(below.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("handler", "by_itself"), [("signal.SIG_DFL", True), ("signal.SIG_IGN", False)])
def test_a_process_that_does_not_end_in_time_is_killed_with_all_below_it(handler: str, by_itself: bool) -> None:
    script = WITH_ONE_BELOW.format(handler=handler)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        below = psutil.Process(int(process.stdout.readline()))
        try:
            assert processes.stop(psutil.Process(process.pid), 20 if by_itself else 0.1) is by_itself
            assert process.poll() is not None
            # One that ends by itself is left to see to its own.
            assert (below.is_running() and below.status() != psutil.STATUS_ZOMBIE) is by_itself
        finally:
            processes.kill([below])
