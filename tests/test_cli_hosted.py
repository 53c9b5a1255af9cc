"""`rag ask` answered by a server: a process of its own on one side, a server on fakes in this one on the other."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from serving import (
    ANSWER,
    LOADED,
    QUESTION,
    Engines,
    NoOp,
    Running,
    SlowGenerator,
    running,
    until,
    warm_pipeline,
    write,
)

from rag.cli import client
from rag.cli.ask import Asked, show
from rag.cli.console import Stream, Terminal
from rag.cli.hosted import Caller, read_options, understand
from rag.errors import RagError
from rag.server import state
from rag.server.state import settings_digest
from rag.testing import FakeGenerator

SETTINGS = ["--set=verify.model=null", "--set=rerank.model=null", "--set=abstain.weigh=false"]
ASK = ["ask", *SETTINGS]

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def start(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    """`rag ...`, that may only answer by a server: without one there is no index here."""
    pipes = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    return subprocess.Popen([sys.executable, "-m", "rag", *arguments], **{**pipes, **options})  # type: ignore[call-overload, no-any-return]


async def rag(*arguments: str, stdin: str | None = None, **options: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    pipes = {"stdin": subprocess.PIPE} if stdin is not None else {}
    process = start(*arguments, **pipes, **options)
    given = stdin.encode() if stdin is not None else None
    out, err = await asyncio.to_thread(process.communicate, given, 60)
    return process.returncode, out.decode(), err.decode()


def without_times(text: str) -> str:
    return re.sub(r"[0-9.]+ (s|ms|µs)\b", "TIME", re.sub(r"(: |\[|, )[0-9.e-]+(?=[,}\]])", r"\1N", text))


async def rendered(server: Running, *arguments: str) -> tuple[str, str]:
    """What the same pipeline's answer looks like when it is shown in this process."""
    out, err = io.StringIO(), io.StringIO()
    async with server.warm.pipeline(1) as pipeline:
        await show(pipeline, QUESTION, read_options(list(arguments), {}), Terminal(Stream(out), Stream(err)))
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("options", [[], ["--json"], ["--show-prompt"], ["--json", "--show-prompt"]])
async def test_it_is_byte_for_byte_what_this_process_would_have_shown(root: Path, options: list[str]) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        code, out, err = await rag(*ASK, *options, QUESTION)
        expected_out, expected_err = await rendered(server, *ASK, *options, QUESTION)
        assert code == 0
        assert without_times(out) == without_times(expected_out)
        told = f"server {server.state.address}\n"
        if "--json" in options:
            assert json.loads(out)["answer"] == "".join(ANSWER)
            assert json.loads(out)["startup_s"] is None
            assert err == expected_err + told
        else:
            assert without_times(err) == without_times(expected_err[:-1] + f" · {told}")


async def test_a_planted_no_op_is_said_in_one_line_and_in_json_with_its_numbers(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, NoOp(ANSWER)))) as server:
        _, err = await rendered(server, *ASK, QUESTION)
        [line] = [line for line in err.splitlines() if line.startswith("Not engaged")]
        assert line == (
            "Not engaged: prefix_caching (2 prompts share no whole block with an earlier one that is still there); "
            "speculation (nothing was drafted)"
        )
        answer = json.loads((await rendered(server, *ASK, "--json", QUESTION))[0])
    techniques, since_start = answer["engine"]["techniques"], answer["engine"]["since_start"]
    assert [one["engaged"] for one in (*techniques.values(), *since_start.values())] == [False] * 4
    assert techniques["speculation"]["numbers"] == {
        "prompts": 1,
        "decode_tokens": 2,
        "draft_tokens": 0,
        "accepted_tokens": 0,
    }
    assert since_start["prefix_caching"]["numbers"]["prompts"] == 3, "the warm-up and two questions"
    assert since_start["prefix_caching"]["numbers"]["cached_prompt_tokens"] == 0


@pytest.mark.parametrize(("kind", "bold"), [("xterm-256color", True), ("dumb", False)])
async def test_on_a_terminal_the_sources_stand_out_if_it_can_show_that(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, bold: bool
) -> None:
    monkeypatch.setenv("TERM", kind)
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))):
        main, other = pty.openpty()
        process = start(*ASK, QUESTION, stdout=other)
        assert await asyncio.to_thread(process.wait, 60) == 0
        shown = os.read(main, 65536).decode()
        os.close(main)
        os.close(other)
        assert "".join(ANSWER) in shown
        assert ("\x1b[1mSources\x1b[0m" in shown) == bold


async def test_pieces_come_as_they_are_generated(root: Path) -> None:
    generator = SlowGenerator(["one ", "two ", *ANSWER], pause=1.0)
    async with running(warm_pipeline(Engines(root, generator))):
        process = start(*ASK, QUESTION)
        assert process.stdout is not None
        assert await asyncio.to_thread(os.read, process.stdout.fileno(), 100) == b"one"
        assert generator.generating == 1
        process.kill()
        await asyncio.to_thread(process.communicate)
        await until(lambda: generator.generating == 0, 1)


async def test_the_question_may_stand_on_standard_input(root: Path) -> None:
    generator = FakeGenerator(ANSWER)
    async with running(warm_pipeline(Engines(root, generator))):
        for words in ([], ["-"]):
            code, out, _ = await rag(*ASK, *words, stdin="What cures scurvy — lemons?\n")
            assert (code, out.splitlines()[0]) == (0, "".join(ANSWER))
            assert "Question: What cures scurvy — lemons?" in generator.asked[-1][0][-1]["content"]
        code, out, err = await rag(*ASK, stdin="")
        assert (code, out) == (2, "")
        assert err.startswith("rag: The question is empty.")


async def test_exit_codes_and_errors_are_those_of_rag_ask(root: Path) -> None:
    engines = Engines(root, FakeGenerator(["The sources do not answer this question."]), FakeGenerator(ANSWER))
    async with running(warm_pipeline(engines)) as server:
        assert (await rag(*ASK, QUESTION))[0] == 3
        code, out, err = await rag(*ASK, "x" * 2001)
        assert (code, out) == (2, "")
        assert err.startswith("rag: The question has 2,001 characters")
        code, _, err = await rag(*ASK, "--where", "colour=red", QUESTION)
        assert (code, "colour" in err, err.startswith("rag: ")) == (2, True, True)
        assert server.warm.counts.refused == 1  # the question never reached the pipeline


async def test_an_engine_that_dies_is_one_clear_line(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER, dies_after=2), FakeGenerator(ANSWER)))):
        code, out, err = await rag(*ASK, QUESTION)
        assert (code, out) == (1, "Malaria is caused by Plasmodium parasites")
        assert err.splitlines()[-1].startswith("rag: The engine died after 2 tokens")
        assert (await rag(*ASK, QUESTION))[0] == 0


async def test_a_server_that_goes_away_in_the_middle_is_one_clear_line(root: Path) -> None:
    warm = warm_pipeline(Engines(root, SlowGenerator(ANSWER * 100, pause=0.05)))
    async with running(warm) as server:
        process = start(*ASK, QUESTION)
        assert process.stdout is not None
        await asyncio.to_thread(os.read, process.stdout.fileno(), 1)
        for task in asyncio.all_tasks():
            if "Hosted" in repr(task.get_coro()):
                task.cancel()
        _, err = await asyncio.to_thread(process.communicate, None, 30)
        assert process.returncode == 1
        assert err.decode().splitlines()[-1].startswith("rag: The server went away in the middle of the answer.")
        await until(lambda: server.warm.running == 0, 2)


async def test_a_server_that_goes_away_while_it_is_sent_standard_input_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def accept_ask_for_input_and_go(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            file.readline()
            connection.sendall(b"a" + bytes(4) + b"i" + (2).to_bytes(4, "big") + b"99")

    class Late(io.StringIO):
        def reconfigure(self, **_: object) -> None:
            going.join()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        going = threading.Thread(target=accept_ask_for_input_and_go, args=[server])
        going.start()
        monkeypatch.setattr("sys.stdin", Late("What causes malaria?"))
        me = replace(state.of_this_process(LOADED, "127.0.0.1", 1, tmp_path / "s"), digest="0" * 16)
        with state.announced(me):
            assert client.ask(ASK) == 1
    out, err = capfd.readouterr()
    assert (out, err.strip().splitlines()) == ("", [err.strip()])
    assert err.strip().startswith("rag: The server went away in the middle of the answer.")


async def test_ctrl_c_ends_the_generation_with_130(root: Path) -> None:
    generator = SlowGenerator(ANSWER * 100, pause=0.05)
    async with running(warm_pipeline(Engines(root, generator))):
        process = start(*ASK, QUESTION)
        assert process.stdout is not None
        await asyncio.to_thread(os.read, process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.to_thread(process.communicate, None, 30)
        assert process.returncode == 130
        assert b"Traceback" not in err
        await until(lambda: generator.generating == 0, 1)


async def test_a_reader_that_has_gone_is_no_error(root: Path) -> None:
    generator = SlowGenerator(ANSWER * 100, pause=0.05)
    async with running(warm_pipeline(Engines(root, generator))):
        process = start(*ASK, QUESTION)
        assert process.stdout is not None
        process.stdout.close()
        assert await asyncio.to_thread(process.wait, 30) == 0
        await until(lambda: generator.generating == 0, 1)


async def test_while_it_starts_the_answer_is_waited_for(root: Path) -> None:
    warm = warm_pipeline(Engines(root, FakeGenerator(ANSWER)))
    open_parts = warm._open
    held = asyncio.Event()

    def slowly(*arguments):  # type: ignore[no-untyped-def]
        return Held(held, open_parts(*arguments))

    warm._open = slowly
    async with running(warm, ready=False):
        asked = asyncio.create_task(rag(*ASK, QUESTION))
        await asyncio.sleep(1)
        assert not asked.done()
        held.set()
        code, _, err = await asked
        assert code == 0
        assert err.startswith("waiting for the server: starting ...\n")


class Held:
    def __init__(self, until: asyncio.Event, inner) -> None:  # type: ignore[no-untyped-def]
        self.until, self.inner = until, inner

    async def __aenter__(self):  # type: ignore[no-untyped-def]
        await self.until.wait()
        return await self.inner.__aenter__()

    async def __aexit__(self, *error):  # type: ignore[no-untyped-def]
        return await self.inner.__aexit__(*error)


@pytest.mark.parametrize(
    "arguments",
    [
        [*ASK, "--no-server", QUESTION],
        [*ASK, "--set=generator.max_tokens=99", QUESTION],
        [*ASK, "--index=other", QUESTION],
        [*ASK, "--profile=v3", QUESTION],
        [*ASK, "-v", QUESTION],
        ["--verbose", *ASK, QUESTION],
    ],
)
async def test_for_other_settings_this_process_answers_by_itself(root: Path, arguments: list[str]) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        code, out, err = await rag(*arguments)
        assert (code, out) == (1, "")
        assert "No index named" in err
        assert server.warm.counts.answered == 0


async def test_a_wrong_command_line_is_explained_as_ever(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))):
        code, _, err = await rag(*ASK, "--wrong", QUESTION)
        assert (code, "No such option" in err) == (2, True)
        code, _, err = await rag("ask", "--set=generator.max_token=3", QUESTION)
        assert (code, "Did you mean" in err) == (2, True)
        code, out, _ = await rag("ask", "--help")
        assert (code, "--no-server" in out) == (0, True)


def test_a_server_that_is_stuck_does_not_hold_this_process_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(tmp_path / "s"))
        stuck.listen()
        me = replace(state.of_this_process(LOADED, "127.0.0.1", 1, tmp_path / "s"), digest="0" * 16)
        with state.announced(me):
            assert client.ask([*ASK, QUESTION]) is None


async def test_where_no_server_answers_nothing_is_lost_of_standard_input(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))):
        code, _, err = await rag("ask", "--index=other", stdin=" \n")
        assert (code, err.splitlines()[-1][:27]) == (2, "rag: The question is empty.")


async def test_a_word_of_another_command_is_no_question_for_the_server(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        code, _, err = await rag("search", "ask")
        assert (code, "No index named" in err) == (1, True)
        assert server.warm.counts.answered == 0


# --- what a server takes for its own ---------------------------------------------------------------


def caller(*argv: str, **changed: object) -> Caller:
    request = client._request(list(argv))
    return Caller(**{**request, "settings": {}, **changed})  # type: ignore[arg-type]


def test_it_is_ours_where_code_places_and_settings_are_the_same(tmp_path: Path) -> None:
    digest = settings_digest(LOADED)
    asked = understand(caller(*ASK, "--json", "What", "is it?"), digest)
    assert isinstance(asked, Asked)
    assert (asked.question, asked.as_json, asked.where) == ("What is it?", True, None)
    environ = {"RAG__VERIFY__MODEL": "null", "RAG__RERANK__MODEL": "null", "RAG__ABSTAIN__WEIGH": "false"}
    assert understand(caller("ask", "x", settings=environ), digest) is not None
    assert understand(caller(*ASK, "x", folder=str(tmp_path)), digest) is not None
    assert understand(caller("ask", "x"), digest) is None
    assert understand(caller(*ASK, "x", code=["0.0.0", "/elsewhere"]), digest) is None
    assert understand(caller(*ASK, "x", places={"HOME": "/elsewhere"}), digest) is None
    assert understand(caller(*ASK, "--set=generator.quantization=fp8", "x"), digest) is None
    assert understand(caller("search", "ask"), digest) is None


def test_a_file_of_the_callers_folder_is_not_taken_for_one_of_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, callers = tmp_path / "server", tmp_path / "caller"
    for folder in (servers, callers):
        folder.mkdir()
        (folder / "mine.yaml").write_text("generator: {max_tokens: 77}\n")
    monkeypatch.chdir(servers)
    asked = [*ASK, "--profile=mine.yaml", "x"]
    digest = settings_digest(read_options(asked, {}).loaded)
    assert understand(caller(*asked, folder=str(servers)), digest) is not None
    assert understand(caller(*asked, folder=str(callers)), digest) is None


def test_reading_options_raises_what_a_wrong_line_raises() -> None:
    with pytest.raises(RagError, match="Unknown profile"):
        read_options([*ASK, "--profile=nowhere", "x"], {})


def test_the_client_imports_next_to_nothing() -> None:
    script = (
        "import sys; before = set(sys.modules); import rag.cli.client; from rag.cli import main; "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['__future__', '_socket', 'rag']\n"


async def test_what_is_not_utf8_is_said_to_be_so_and_a_defect_to_be_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))):
        process = start(*ASK, stdin=subprocess.PIPE)
        _, err = await asyncio.to_thread(process.communicate, b"caf\xe9?", 60)
        assert (process.returncode, err.decode()) == (
            2,
            "rag: The question isn't UTF-8. Set the terminal, or convert the file, to UTF-8.\n",
        )

        def fails(*_: object) -> None:
            raise ValueError("odd")

        monkeypatch.setattr("rag.cli.ask.show", fails)
        code, _, said = await rag(*ASK, QUESTION)
        assert (code, said) == (1, "rag: This is a defect of rag's: ValueError('odd')\n")
