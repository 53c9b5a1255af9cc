"""What the engine's processes inherit. That nothing of them stays: test_engine_local, test_whole_path."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
