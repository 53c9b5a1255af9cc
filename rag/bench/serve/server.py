"""A `rag serve` for a benchmark, and what is seen of one from outside: over HTTP, and of its processes."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from rag.bench import commands
from rag.engine import processes
from rag.errors import RagError, UsageError
from rag.progress import Progress
from rag.server import launching
from rag.settings import Loaded

START = 600.0
"""Seconds that a start may take: a machine of two cores with nothing else to do needs 30."""

STOP = 45.0
"""Seconds that a server has to stop: its answers have 30 of them."""

ANSWER = 300.0
"""Seconds of silence after which a server counts as one that doesn't answer."""

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

ENGINE = "EngineCore"
"""Stands in the name of vLLM's process that schedules, or in its command line."""


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int
    pid: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def ready(self) -> bool:
        return self._request("GET", "/readyz")[0] == 200

    def status(self) -> dict[str, Any]:
        """What it says of itself. Raises `RagError` where it doesn't answer."""
        return self._request("GET", "/v1/status")[1]

    def ask(self, question: str) -> dict[str, Any]:
        """The whole answer, not streamed. Raises `RagError` with the server's own words where there is none."""
        code, said = self._request("POST", "/v1/ask", {"question": question, "stream": False})
        if code != 200:
            raise RagError(f"The server answered {code}: {said.get('error')}")
        return said

    def engine(self) -> psutil.Process:
        """Raises `RagError` where the server has no engine's process, or several."""
        found = [one for one in processes.started(psutil.Process(self.pid)) if _is_engine(one)]
        if len(found) != 1:
            raise RagError(f"{len(found)} processes of pid {self.pid} are named {ENGINE}, expected one.")
        return found[0]

    def _request(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection(self.host, self.port, timeout=ANSWER)
        try:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise RagError(f"The server at {self.address} doesn't answer {method} {path}: {error!r}") from error
        finally:
            connection.close()


def _is_engine(process: psutil.Process) -> bool:
    try:
        return ENGINE in process.name() or any(ENGINE in part for part in process.cmdline())
    except psutil.Error:  # it has gone since
        return False


@contextmanager
def serving(loaded: Loaded, log: Path, progress: Progress, *options: str) -> Iterator[Server]:
    """A server of these settings and `options` over the sample corpus, ready; gone with the block. What it says is in `log`.

    Raises `RagError` with its last word where it doesn't start, and `UsageError` where one runs already.
    """
    command = commands.rag(loaded, "serve", "--port", "0", "--sample", *options)
    process = launching.start(command, log, _end_with_parent)
    try:
        yield _when_ready(process, log, progress)
    finally:
        _stop(process)


def _end_with_parent() -> None:
    """In the new process: SIGTERM once the benchmark is gone, also where that was killed (Linux, prctl(2))."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _when_ready(process: subprocess.Popen[bytes], log: Path, progress: Progress) -> Server:
    progress("starting the server")
    found = launching.until_ready(process, lambda doing: progress(f"starting the server: {doing}"), START)
    if found is not None:
        return Server(found.host, found.port, found.pid)
    last = (launching.last_line(log) or "It said nothing.").removeprefix("rag: ")
    if process.returncode == UsageError.exit_code:
        raise UsageError(last)
    how = "ended" if process.poll() is not None else f"isn't ready after {START:g} s"
    raise RagError(f"rag serve {how}: {last} Its log: {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Whatever happens meanwhile, nothing of it stays."""
    if process.poll() is not None:
        return
    itself = psutil.Process(process.pid)
    try:
        processes.stop(itself, STOP)
    finally:
        if process.poll() is None:
            processes.stop(itself, 0)
            process.wait()
