"""`rag serve`, `rag stop` and `rag status` where no engine is needed; with one: test_serve_real."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import typer
from conftest import Cli
from serving import ANSWER, LOADED, QUESTION, Engines, NoOp, running, search, warm_pipeline, write

from rag import build, server
from rag.cache import CachedEncoder, QueryCache
from rag.cli import commands, serve
from rag.cli.console import Stream, Terminal
from rag.core import Generator
from rag.errors import IndexMissing, UsageError
from rag.server import launching, serving, state
from rag.server.warm import WarmPipeline
from rag.testing import FakeEncoder, FakeGenerator

pytestmark = pytest.mark.usefixtures("home")

WAITS = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); print(flush=True); time.sleep(60)"
)
DEAF = WAITS.replace("lambda *_: sys.exit()", "signal.SIG_IGN")


@contextmanager
def announced(script: str, digest: str) -> Iterator[psutil.Process]:
    """A process that stands for a server, and can be found."""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    process = psutil.Process(child.pid)
    assert child.stdout is not None
    child.stdout.readline()
    me = state.of_this_process(LOADED, "127.0.0.1", 1, Path("/nowhere/ask"))
    folder = Path(server.runtime_folder())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    record = {**{name: getattr(me, name) for name in me.__slots__}, "pid": child.pid, "digest": digest * 16}
    (folder / f"{digest * 16}.json").write_text(json.dumps({**record, "created": process.create_time()}))
    try:
        yield process
    finally:
        with suppress(psutil.Error):
            child.kill()
        child.wait()


def test_without_a_server_status_and_stop_say_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        serve.status()
    assert ended.value.exit_code == 1
    assert "No server runs. Start one: rag serve --detach" in capsys.readouterr().err
    with pytest.raises(UsageError, match="No server runs"):
        serve.stop()


def test_stop_tells_the_server_to_end_and_waits_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    with announced(WAITS, "a") as process:
        serve.stop()
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert capsys.readouterr().out == f"stopped 127.0.0.1:1 (pid {process.pid}, index default)\n"
    assert state.servers() == []


def test_one_that_does_not_end_is_killed_and_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "KILL_AFTER", 0.1)
    with announced(DEAF, "a") as process:
        serve.stop([process.pid])
        assert capsys.readouterr().out.startswith("killed, since it didn't stop in 0.1 s: 127.0.0.1:1")
    assert state.servers() == []


def test_of_several_servers_one_is_named_or_all_are_stopped() -> None:
    with announced(WAITS, "a") as one, announced(WAITS, "b") as other:
        with pytest.raises(UsageError, match=r"2 servers run: pid \d+ .*, pid \d+ .*\. Name one, or stop --all"):
            serve.stop()
        with pytest.raises(UsageError, match=rf"No server of that number runs\. Running: pid {one.pid} "):
            serve.stop([1])
        serve.stop([one.pid])
        assert [found.pid for found in state.servers()] == [other.pid]
        with announced(WAITS, "c"):
            serve.stop(everyone=True)
            assert state.servers() == []


def test_a_server_that_does_not_answer_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    with announced(WAITS, "a"):
        with pytest.raises(typer.Exit) as ended:
            serve.status()
        assert ended.value.exit_code == 0
        assert "http://127.0.0.1:1  doesn't answer" in capsys.readouterr().out


async def test_the_status_of_a_server_that_answers(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(warm_pipeline(Engines(tmp_path, FakeGenerator(ANSWER)))) as one:
        await one.http("POST", "/v1/ask", {"question": QUESTION})

        async def shown(*arguments: str) -> str:
            command = [sys.executable, "-m", "rag", "status", *arguments]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
            return done.stdout.decode()

        text = await shown()
        assert f"http://{one.state.address}  ready\n" in text
        assert "  index test/000001: 1 answered\n" in text
        [said] = json.loads(await shown("--json"))
        assert (said["ready"], said["counts"]["answered"], said["pid"]) == (True, 1, one.state.pid)
        assert said["index_version"] == "test/000001"


async def test_the_status_tells_what_the_query_cache_has_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    notices: list[str] = []

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[tuple[build.Stages, Generator]]:
        found, encoder = search(tmp_path), CachedEncoder(FakeEncoder(), 1)
        cache = QueryCache(
            LOADED.settings.cache.having(max_entries=1), tmp_path / "cache", encoder, None, notices.append
        )
        cached = cache.over(found.searcher, {}, lambda: True)
        with_cache = replace(found, encoder=encoder, searcher=cached, cache=cache, hits=cached.cache)
        yield build.Stages(with_cache, None), FakeGenerator(ANSWER)

    async with running(WarmPipeline(LOADED, open_parts=opened, newer=lambda *_: None)) as one:
        _, before = await one.json("GET", "/v1/status")
        for question in (QUESTION, QUESTION, "What cures scurvy?"):
            await one.http("POST", "/v1/ask", {"question": question})
        _, said = await one.json("GET", "/v1/status")
        asked = {name: number - before["cache"]["hits"][name] for name, number in said["cache"]["hits"].items()}
        assert asked == {"exact": 1, "matched": 0, "missed": 2, "refused": 0, "evicted": 1, "expired": 0}
        with suppress(typer.Exit):
            await asyncio.to_thread(serve.status)
        shown = capsys.readouterr().out
        looked = said["cache"]["hits"]["exact"] + said["cache"]["hits"]["missed"]
        assert (
            f"  cache of hits: 1 repeats and 0 in other words of {looked} questions served, 0 candidates refused"
            in shown
        )
    assert notices == []


async def test_the_status_tells_what_each_technique_has_done_since_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    async with running(warm_pipeline(Engines(tmp_path, NoOp(ANSWER)))) as one:

        async def lines() -> list[str]:
            with suppress(typer.Exit):
                await asyncio.to_thread(serve.status)
            return capsys.readouterr().out.splitlines()

        first, *_ = [line for line in await lines() if "prefix_caching" in line]
        assert first.startswith("  prefix_caching: not known to have engaged, 0 of ")
        assert first.endswith("prompt tokens came from the cache, there is no earlier prompt to share anything with")
        await one.http("POST", "/v1/ask", {"question": QUESTION})
        assert (await lines())[-1] == (
            "  speculation: not engaged, 0 of 0 draft tokens accepted among 2 decoded, nothing was drafted"
        )
        _, said = await one.json("GET", "/v1/status")
        assert said["engine"]["since_start"]["speculation"]["engaged"] is False
        assert said["engine"]["techniques"]["speculation"]["engaged"] is None, "there is no answer to judge it by"


def test_a_port_that_is_taken_is_a_wrong_usage(cli: Cli) -> None:
    with serving.listen("127.0.0.1", 0) as taken:
        done = cli("serve", "--port", str(taken.getsockname()[1]))
        assert (done.returncode, "Address already in use. Choose another --port" in done.stderr) == (2, True)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("detached", [True, False])
def test_a_server_that_cannot_start_says_why_and_leaves_no_word_of_itself(cli: Cli, detached: bool) -> None:
    done = cli("serve", "--port", "0", *(["--detach"] if detached else []))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("rag: No index named 'default' yet.")
    assert state.servers() == []
    assert list(Path(server.runtime_folder()).glob("*.json")) == []


def test_interrupted_before_it_is_ready_it_ends_the_server_that_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def interrupted(child: subprocess.Popen[bytes], *_: object) -> state.ServerState:
        children.append(child)
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "until_ready", interrupted)
    monkeypatch.setattr("sys.argv", ["rag", "serve", "--port", "0", "--detach"])
    with pytest.raises(KeyboardInterrupt):
        serve._detach(Terminal())
    assert [child.returncode for child in children] == [-signal.SIGTERM]


def test_an_address_that_others_reach_is_warned_of(cli: Cli) -> None:
    done = cli("serve", "--port", "0", "--host", "0.0.0.0")
    assert done.stderr.startswith("Whoever reaches 0.0.0.0 can ask: there is no authentication.")


@pytest.mark.parametrize("flags", [["-d"], ["-di", "papers"], ["-vdi", "papers"], ["--detach", "--index", "papers"]])
def test_what_runs_detached_does_not_detach_once_more_whatever_the_flags(
    monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    class Child:
        returncode = 7

        def __init__(self, command: list[str], env: dict[str, str], **_: object) -> None:
            started.append((command, env))

        def poll(self) -> int:
            return self.returncode

    monkeypatch.setattr(launching.subprocess, "Popen", Child)
    monkeypatch.setattr(sys, "argv", ["rag", "serve", *flags])
    assert commands.app(["serve", *flags], standalone_mode=False) == Child.returncode
    [(command, environ)] = started
    assert command[1:] == ["-P", "-m", "rag", "serve", *flags]
    monkeypatch.setattr(serve.os, "environ", environ)
    with pytest.raises(IndexMissing, match="No index named"):
        commands.app(["serve", "--port=0", *flags], standalone_mode=False)
    assert len(started) == 1


async def test_a_line_that_cannot_be_written_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk, or where nobody reads the log any more."""
    told: list[Callable[[str], None]] = []

    class Told(Exception):
        pass

    def warm(_: object, say: Callable[[str], None], __: object) -> None:
        told.append(say)
        raise Told

    monkeypatch.setattr("rag.server.warm.WarmPipeline", warm)
    with Path("/dev/full").open("w") as full:
        with pytest.raises(Told):
            await serve._serve(LOADED, "127.0.0.1", 0, Terminal(Stream(full), Stream(full)), None)
        told[0]("a line " * 2000)


def test_a_server_that_ends_before_it_is_told_to_was_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending:
        def children(self, **_: object) -> list[psutil.Process]:
            raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(state.ServerState, "process", property(lambda _: Ending()))
    assert serve._stop(state.of_this_process(LOADED, "127.0.0.1", 1, Path("socket"))) == "was gone:"
