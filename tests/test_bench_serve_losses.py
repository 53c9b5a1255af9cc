"""Clients in the middle of answers, and what the benchmark sees when their engine is killed or they leave: on servers of fakes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import parse_headers
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from serving import ANSWER, QUESTION, Engines, Running, SlowGenerator, running, until, warm_pipeline, write

from rag.bench.serve import clients, losses
from rag.bench.serve import server as servers
from rag.bench.serve.clients import Client, Events, under_way
from rag.bench.serve.server import Server
from rag.errors import EngineError, RagError
from rag.server import app, launching
from rag.server import warm as warm_module
from rag.testing import FakeGenerator

pytestmark = pytest.mark.usefixtures("home")

LONG = ANSWER * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_module, "LOOK", 0.01)
    monkeypatch.setattr(warm_module, "GRACE", 0.2)
    monkeypatch.setattr(launching, "LOOK", 0.01)
    monkeypatch.setattr(losses, "AFTER", 0.3)


def asked() -> Iterator[str]:
    return cycle([QUESTION])


def seen(server: Running) -> Server:
    return Server("127.0.0.1", server.state.port, server.state.pid)


@dataclass(frozen=True, slots=True)
class Killed:
    generator: SlowGenerator

    def kill(self) -> None:
        self.generator.kill()


@dataclass(frozen=True, slots=True)
class Mortal(Server):
    """A server whose engine is a generator."""

    generator: SlowGenerator

    def engine(self) -> Killed:  # type: ignore[override]
        return Killed(self.generator)


def mortal(server: Running, generator: SlowGenerator) -> Mortal:
    return Mortal("127.0.0.1", server.state.port, server.state.pid, generator)


# --- clients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_come_out_of_pieces_of_any_size(size: int) -> None:
    stream = 'event: delta\ndata: {"text": "a\\n: é"}\n\nevent: answer\ndata: {"answer": "a"}\n\nevent: de'.encode()
    events = Events()
    found = [event for at in range(0, len(stream), size) for event in events.feed(stream[at : at + size])]
    assert found == [("delta", {"text": "a\n: é"}), ("answer", {"answer": "a"})]


@pytest.mark.parametrize(
    ("generator", "question", "how", "said"),
    [
        (FakeGenerator(ANSWER), QUESTION, "answer", None),
        (FakeGenerator(ANSWER, dies_after=2), QUESTION, "error", "The engine died after 2 tokens of the answer."),
        (FakeGenerator(ANSWER), "  ", "refused", "The question is empty"),
    ],
)
async def test_a_client_tells_how_its_stream_ended(
    root: Path, generator: FakeGenerator, question: str, how: str, said: str | None
) -> None:
    async with running(warm_pipeline(Engines(root, generator, FakeGenerator(ANSWER)))) as server:
        began = time.monotonic()
        client = Client(seen(server), question)
        end = await asyncio.to_thread(client.wait, began + 20)
        assert (end.how, client.begun.is_set(), client.in_the_middle) == (how, how != "refused", False)
        assert (end.said or "").startswith(said or "")
        assert began < end.at < time.monotonic()
        assert not client.leave()


REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = b'event: delta\ndata: {"text": "a"}\n\n'


@contextmanager
def replying(*pieces: bytes, then: Callable[[], object] = lambda: None) -> Iterator[Server]:
    """A server that says this to one client, waits for `then`, and closes the connection without another word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as request:
                request.readline()
                # closed with a part of it unread, a connection is reset, and what was said is lost
                request.read(int(parse_headers(request)["content-length"]))
                for piece in pieces:
                    connection.sendall(piece)
                then()

        thread = threading.Thread(target=reply)
        thread.start()
        yield Server("127.0.0.1", listener.getsockname()[1], 0)
        thread.join()


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (REPLY,),
        (REPLY, b"%x\r\n" % len(PIECE), PIECE, b"\r\n"),
        (REPLY, b"%x\r\n" % len(PIECE), PIECE, b"\r\n", b"0\r\n\r\n"),  # in good order, and still without an end
    ],
)
def test_a_connection_that_closes_without_a_word_is_cut(pieces: tuple[bytes, ...]) -> None:
    with replying(*pieces) as server:
        client = Client(server, QUESTION)
        assert client.wait(time.monotonic() + 20).how == "cut"
        assert client.begun.is_set() == (len(pieces) > 1)


def test_a_client_that_nobody_answers_hangs_and_can_leave() -> None:
    release = threading.Event()
    with replying(REPLY, b"%x\r\n" % len(PIECE), PIECE, b"\r\n", then=release.wait) as server:
        client = Client(server, QUESTION)
        assert client.begun.wait(20)
        until = time.monotonic() + 0.05
        end = client.wait(until)
        assert (end.how, end.at, client.in_the_middle) == ("hung", until, True)
        assert client.leave()
        assert not client.leave()
        release.set()


async def test_clients_are_had_in_the_middle_of_their_answers_and_are_gone_with_the_block(root: Path) -> None:
    generator = SlowGenerator(LONG, pause=0.01)
    async with running(warm_pipeline(Engines(root, generator))) as server:

        def use() -> list[str]:
            with under_way(seen(server), asked(), 5) as those:
                assert [one.in_the_middle for one in those] == [True] * 5
                assert seen(server).status()["counts"]["generating"] == 5
                raise KeyError("whatever happens in it")

        with pytest.raises(KeyError):
            await asyncio.to_thread(use)
        await until(lambda: generator.generating == 0, 2)
        assert generator.aborted == 5


async def test_a_client_whose_answer_ends_too_soon_is_replaced(root: Path) -> None:
    generator = SlowGenerator(LONG, pause=0.01)

    def question() -> Iterator[str]:
        yield "What is unheard of xyzzy?"  # for which nothing is found
        yield from asked()

    async with running(warm_pipeline(Engines(root, generator))) as server:

        def use() -> None:
            with under_way(seen(server), question(), 2) as those:
                assert [one.in_the_middle for one in those] == [True] * 2

        await asyncio.to_thread(use)
        assert len(generator.asked) == 1 + 2, "the warm-up and two answers"


async def test_without_long_answers_it_gives_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "BEGIN", 0.5)
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:

        def use() -> None:
            with under_way(seen(server), asked(), 20):
                pass

        with pytest.raises(RagError, match=r"20 answers weren't under way at once in 0\.5 s"):
            await asyncio.to_thread(use)


async def test_a_client_that_gets_no_answer_is_no_client_in_the_middle_of_one(root: Path) -> None:
    async with running(
        warm_pipeline(Engines(root, FakeGenerator(ANSWER, dies_after=2), FakeGenerator(ANSWER)))
    ) as server:

        def use() -> None:
            with under_way(seen(server), asked(), 1):
                pass

        with pytest.raises(RagError, match="in the middle of an answer was error: The engine died after 2 tokens"):
            await asyncio.to_thread(use)


# --- kills ---------------------------------------------------------------------------------------


async def test_a_kill_tells_every_client_and_the_next_question_is_answered(root: Path) -> None:
    generator = SlowGenerator(LONG, pause=0.01)
    async with running(warm_pipeline(Engines(root, generator, FakeGenerator(ANSWER)))) as server:
        sample = await asyncio.to_thread(losses.kill, mortal(server, generator), asked())
    assert [client["end"] for client in sample["clients"]] == ["error"] * losses.STREAMS
    assert {client["said"] for client in sample["clients"]} == {
        "The engine died. It is being started again: ask again in a minute."
    }
    assert all(0.2 <= client["seconds"] < 2 for client in sample["clients"])
    assert (sample["answered"], sample["problem"]) == (True, None)
    assert 0 < sample["ready"] < 5


async def test_clients_that_a_server_forgets_hang(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_module, "GRACE", 60.0)
    monkeypatch.setattr(losses, "HUNG", 0.3)
    generator = SlowGenerator(LONG, pause=0.01)
    async with running(warm_pipeline(Engines(root, generator, FakeGenerator(ANSWER)))) as server:
        sample = await asyncio.to_thread(losses.kill, mortal(server, generator), asked())
    assert sample["clients"] == [
        {"end": "hung", "seconds": pytest.approx(0.3), "said": None} for _ in range(losses.STREAMS)
    ]
    assert sample["answered"]


async def test_a_server_that_does_not_come_back_has_not_recovered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_module, "ATTEMPTS", 1)
    generator = SlowGenerator(LONG, pause=0.01)
    async with running(warm_pipeline(Engines(root, generator, EngineError("no vLLM here")))) as server:
        sample = await asyncio.to_thread(losses.kill, mortal(server, generator), asked())
    assert (sample["ready"], sample["answered"]) == (None, False)
    assert "doesn't answer GET /v1/status" in sample["problem"]


async def test_a_server_that_takes_too_long_has_not_recovered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "START", 0.3)
    generator = SlowGenerator(LONG, pause=0.01)
    async with running(warm_pipeline(Engines(root, generator, EngineError("no vLLM here")))) as server:
        sample = await asyncio.to_thread(losses.kill, mortal(server, generator), asked())
    assert (sample["ready"], sample["answered"]) == (None, False)
    assert "isn't ready 0.3 s after its engine was killed: rebuilding: " in sample["problem"]


async def test_a_server_that_is_ready_and_does_not_answer_has_not_recovered(root: Path) -> None:
    generator = SlowGenerator(LONG, pause=0.01)
    dying = FakeGenerator(ANSWER, dies_after=2)
    async with running(warm_pipeline(Engines(root, generator, dying, FakeGenerator(ANSWER)))) as server:
        sample = await asyncio.to_thread(losses.kill, mortal(server, generator), asked())
    assert sample["ready"] is not None
    assert (sample["answered"], sample["problem"]) == (
        False,
        "The server answered 503: The engine died after 2 tokens of the answer.",
    )


# --- clients that leave --------------------------------------------------------------------------


async def test_nothing_runs_once_the_clients_have_left(root: Path) -> None:
    generator = SlowGenerator(LONG, pause=0.01)
    async with running(warm_pipeline(Engines(root, generator))) as server:
        sample = await asyncio.to_thread(losses.leave, seen(server), asked(), 10)
        assert server.warm.counts.left == 10
    assert sample == {
        "clients": 10,
        "before": {"running": 10, "generating": 10},
        "after": {"running": 0, "generating": 0},
    }


async def test_a_server_that_goes_on_without_its_clients_is_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def to_its_end(receive: object, response: Any) -> None:
        del receive
        with suppress(OSError):
            await response

    monkeypatch.setattr(app, "until_gone", to_its_end)
    async with running(warm_pipeline(Engines(root, SlowGenerator(LONG, pause=0.01)))) as server:
        sample = await asyncio.to_thread(losses.leave, seen(server), asked(), 3)
    assert sample["after"] == {"running": 3, "generating": 3}
