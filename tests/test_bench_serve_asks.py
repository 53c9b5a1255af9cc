"""A warm `rag ask` beside the same question over HTTP, and the server that a benchmark starts: on fakes and small scripts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import serving as fakes
from serving import ANSWER, QUESTION, Engines, SlowGenerator, running, warm_pipeline, write

from rag import settings
from rag.bench import commands
from rag.bench.serve import asks
from rag.bench.serve import server as servers
from rag.bench.serve.asks import questions
from rag.bench.serve.server import Server
from rag.errors import RagError, UsageError
from rag.progress import Progress
from rag.server import launching


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "LOOK", 0.01)
    monkeypatch.setattr(asks, "PAUSE", 0.0)


# --- questions to a warm server ------------------------------------------------------------------


@pytest.mark.usefixtures("home")
async def test_rag_ask_is_timed_beside_the_same_question_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    assignments = ["verify.model=null", "rerank.model=null", "abstain.weigh=false"]
    loaded = settings.load(environ={}, assignments=assignments)
    of_the_sample = settings.load(environ={}, assignments=[*assignments, "index.name=sample"])
    monkeypatch.setattr(fakes, "LOADED", of_the_sample)  # the server's
    async with running(warm_pipeline(Engines(tmp_path, SlowGenerator(ANSWER, pause=0.1)))) as server:
        sample = await asyncio.to_thread(
            asks.ask, Server("127.0.0.1", server.state.port, server.state.pid), loaded, QUESTION
        )
        assert server.warm.counts.answered == 2
    assert sample["same"] is True
    assert 0 < sample["interpreter"] < sample["ask"] - sample["ask_inside"] < 5
    assert 0 < sample["http"] - sample["http_inside"] < 1
    assert min(sample["ask_inside"], sample["http_inside"]) >= 0.3


class Answering(Server):
    def ask(self, question: str) -> dict[str, Any]:
        return {"answer": f"Of {question}", "timings": {"total": 0.25}}


def pretend(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """`rag ask QUESTION` is this script."""
    monkeypatch.setattr(commands, "rag", lambda _, *arguments: [sys.executable, "-c", script, arguments[-1]])


SAYS = """import json, sys
print(json.dumps({"answer": "Of " + sys.argv[1], "timings": {"total": 0.125}}))
print("server 127.0.0.1:1", file=sys.stderr)
"""


@pytest.mark.parametrize("ends", ["", "sys.exit(3)"])
def test_the_seconds_are_those_from_start_to_end(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    pretend(monkeypatch, SAYS + ends)
    now = iter([0.0, 0.5, 1.0, 3.0, 4.0, 8.0])
    sample = asks.ask(Answering("127.0.0.1", 1, 0), fakes.LOADED, "gout", clock=lambda: next(now))
    assert sample == {
        "interpreter": 0.5,
        "ask": 2.0,
        "ask_inside": 0.125,
        "http": 4.0,
        "http_inside": 0.25,
        "same": True,
    }


def test_an_answer_that_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, SAYS.replace('"Of "', '"About "'))
    assert asks.ask(Answering("127.0.0.1", 1, 0), fakes.LOADED, "gout")["same"] is False


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import sys; sys.exit('no such luck')", "rag ask failed: no such luck"),
        (SAYS.replace("127.0.0.1:1", "127.0.0.1:11"), r"without the server at 127\.0\.0\.1:1\. It said: 'server"),
    ],
)
def test_what_is_not_answered_by_the_server_is_no_sample(
    monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    pretend(monkeypatch, script)
    with pytest.raises(RagError, match=says):
        asks.ask(Answering("127.0.0.1", 1, 0), fakes.LOADED, "gout")


def test_the_questions_are_those_of_dev_60() -> None:
    found = questions()
    assert (len(found), found[0].id, found[0].type) == (60, "d001", "simple")
    assert found[0].question == "Why does the flu jab have to be updated every year?"


# --- the server that is started ------------------------------------------------------------------


def telling(told: list[str]) -> Progress:
    """Keeps what it is told."""

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        del done, total
        told.append(what)

    return progress


SERVES = """import http.server, json, os, signal, sys
from pathlib import Path
from rag import settings
from rag.server import state
class Ready(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Ready.asked += 1
        body = json.dumps({"ready": Ready.asked > 2, "doing": "warming up", "pid": os.getpid()}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = http.server.HTTPServer(("127.0.0.1", 0), Ready)
with state.announced(state.of_this_process(settings.load(), "127.0.0.1", server.server_port, Path("/nowhere/ask"))):
    server.serve_forever()
"""


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("option", ["willing", "deaf"])
def test_a_server_is_ready_in_the_block_and_gone_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str
) -> None:
    pretend(monkeypatch, SERVES)
    monkeypatch.setattr(servers, "STOP", 0.5)
    told: list[str] = []

    found: list[psutil.Process] = []

    def use() -> None:
        with servers.serving(fakes.LOADED, tmp_path / "log", telling(told), option) as server:
            assert server.status()["ready"] is True
            found.append(psutil.Process(server.pid))
            raise KeyError("whatever happens in it")

    with pytest.raises(KeyError):
        use()
    assert not found[0].is_running()
    assert set(told) == {"starting the server", "starting the server: warming up"}


@pytest.mark.usefixtures("home")
def test_a_server_ends_with_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    bench = f"""import os, sys
from pathlib import Path
from rag import settings
from rag.bench import commands
from rag.bench.serve import server
commands.rag = lambda *_: [sys.executable, "-c", {SERVES!r}]
with server.serving(settings.load(), Path(sys.argv[1]), lambda *_: None) as found:
    print(found.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", bench, str(tmp_path / "log")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -9, done.stderr
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(10)


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        ("import sys; sys.exit('rag: no such luck')", RagError, r"rag serve ended: no such luck Its log: .*/log$"),
        ("import sys; print('rag: one runs'); sys.exit(2)", UsageError, "^one runs$"),
        ("", RagError, "rag serve ended: It said nothing"),
        ("import time; time.sleep(60)", RagError, r"rag serve isn't ready after 0\.3 s"),
    ],
)
def test_a_server_that_does_not_start_is_an_error_with_its_last_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, error: type[RagError], says: str
) -> None:
    pretend(monkeypatch, script)
    if "sleep" in script:
        monkeypatch.setattr(servers, "START", 0.3)
    with (
        pytest.raises(error, match=says) as caught,
        servers.serving(fakes.LOADED, tmp_path / "log", telling([])),
    ):
        pass
    assert type(caught.value) is error


def test_the_engine_is_the_process_of_that_name_below_the_server() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()', *sys.argv[1:]])"
    for names, count in ((["VLLM::EngineCore"], 1), (["Worker"], 0)):
        child = subprocess.Popen([sys.executable, "-c", script, *names], stdin=subprocess.PIPE)
        try:
            process = psutil.Process(child.pid)
            end = time.monotonic() + 20
            while not process.children() or len(process.children()[0].cmdline()) < 4:
                assert time.monotonic() < end
                time.sleep(0.01)
            server = Server("127.0.0.1", 1, child.pid)
            if count:
                assert server.engine() == process.children()[0]
            else:
                with pytest.raises(RagError, match=r"0 processes of pid .* are named EngineCore, expected one"):
                    server.engine()
        finally:
            child.communicate()
