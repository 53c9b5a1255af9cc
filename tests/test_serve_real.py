"""`rag serve` as somebody runs it: the real engine, in processes of its own, asked, killed, and stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import psutil
import pytest
from conftest import Cli

from rag.bench.serve import losses
from rag.bench.serve.server import Server
from rag.engine import processes
from rag.server import state

QUESTION = "What causes malaria?"
RAMBLING = ("--sample", *losses.RAMBLING)


@pytest.fixture(autouse=True)
def _real(in_real_home: Path) -> None:
    del in_real_home


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def shared_memory() -> set[Path]:
    return {*Path("/dev/shm").glob("psm_*"), *Path("/dev/shm").glob("sem.loky-*")}


@pytest.fixture
def stopping(cli: Cli) -> Iterator[None]:
    try:
        yield
    finally:
        for one in state.servers():
            below = processes.started(psutil.Process(one.pid))
            processes.kill({psutil.Process(one.pid), *below})
    del cli


@pytest.mark.usefixtures("stopping")
def test_a_warm_engine_answers_at_once_survives_its_loss_and_leaves_nothing(cli: Cli) -> None:
    before = shared_memory()
    started = cli("serve", "--port", "0", "--detach", *RAMBLING)
    assert started.returncode == 0, started.stderr
    [one] = state.servers()
    assert started.stdout.startswith(f"http://{one.address}  pid {one.pid}  log ")
    below = processes.started(psutil.Process(one.pid))
    assert len(below) == 1

    for port in ("0", str(one.port)):
        again = cli("serve", "--port", port, *RAMBLING)
        assert (again.returncode, f"runs already: http://{one.address}, pid {one.pid}" in again.stderr) == (2, True)

    # Two clients that go away: the same settings, spelt in two ways.
    for spelt in (RAMBLING, RAMBLING[::-1]):
        process = asking(*spelt)
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    wait_until(lambda: status(one)["counts"]["running"] == 0, 1)
    assert status(one)["counts"]["left"] == 2

    # And those of the benchmark, several at once. An answer that nobody reads any more isn't generated any more.
    server, questions = Server(one.host, one.port, one.pid), repeat(QUESTION)
    assert losses.leave(server, questions, 4) == {
        "clients": 4,
        "before": {"running": 4, "generating": 4},
        "after": {"running": 0, "generating": 0},
    }

    # The engine is killed in the middle of answers.
    process = asking(*RAMBLING)
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 1)
    sample = losses.kill(server, questions)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.decode().splitlines()[-1].startswith("rag: The engine died")
    assert {(client["end"], client["seconds"] < 5) for client in sample["clients"]} == {("error", True)}
    assert (sample["problem"], sample["answered"]) == (None, True)
    assert status(one)["counts"]["rebuilt"] == 1

    # Ctrl-C, which reaches every process of a terminal: the answer goes on, until the server is told once more.
    process = asking(*RAMBLING)
    assert process.stdout is not None
    assert process.stderr is not None
    assert os.read(process.stdout.fileno(), 1)
    below = processes.started(psutil.Process(one.pid))
    os.killpg(one.pid, signal.SIGINT)
    wait_until(lambda: not status(one)["ready"], 5)
    time.sleep(1)
    assert process.poll() is None
    stopped = cli("stop")
    _, errors = process.communicate(timeout=10)
    assert errors.decode().splitlines()[-1].startswith("rag: The server stopped before the answer was finished.")
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.startswith(f"stopped {one.address} (pid {one.pid}")
    assert not psutil.pid_exists(one.pid)
    assert not any(other.is_running() for other in below)
    assert state.servers() == []
    assert not Path(one.socket).parent.exists()
    wait_until(lambda: shared_memory() <= before, 5)  # Python's resource tracker tidies up after the last of us


def asking(*options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rag", "ask", *options, QUESTION],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def status(one: state.ServerState) -> dict[str, dict[str, int]]:
    connection = http.client.HTTPConnection(one.host, one.port, timeout=10)
    connection.request("GET", "/v1/status")
    said: dict[str, dict[str, int]] = json.loads(connection.getresponse().read())
    return said
