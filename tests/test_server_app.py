"""HTTP, over a real socket, to a pipeline on fakes."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from serving import ANSWER, QUESTION, Engines, SlowGenerator, events, running, until, warm_pipeline, write
from starlette.testclient import TestClient

from rag.errors import EngineError, UsageError
from rag.server import app, serving
from rag.server import warm as warm_module
from rag.testing import FakeGenerator

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


async def test_a_stream_is_the_sources_the_pieces_and_what_rag_ask_prints_as_json(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        status, text = await server.http("POST", "/v1/ask", {"question": QUESTION})
        assert status == 200
        (first, searched), *pieces, (last, answer) = events(text)
        assert (first, last) == ("searched", "answer")
        assert list(searched) == ["sources"]
        assert searched["sources"][0] == {
            "marker": 1,
            "doc_id": "malaria",
            "passage_id": "malaria#0",
            "title": "Malaria",
        }
        assert "".join(piece["text"] for name, piece in pieces if name == "delta") == "".join(ANSWER)
        assert answer["answer"] == "".join(ANSWER)
        assert answer["citations"][0]["doc_id"] == "malaria"
        assert answer["startup_s"] is None
        assert 0 < answer["timings"]["total"] < 5
        assert "prompt" not in answer


async def test_without_a_stream_it_is_one_body_and_the_prompt_is_in_it_if_asked_for(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        status, answer = await server.json(
            "POST", "/v1/ask", {"question": QUESTION, "stream": False, "prompt": True, "where": None}
        )
        assert status == 200
        assert answer["answer"] == "".join(ANSWER)
        assert QUESTION in answer["prompt"][-1]["content"]
        _, text = await server.http("POST", "/v1/ask", {"question": QUESTION, "prompt": True})
        streamed = events(text)
        assert streamed[0][1]["prompt"] == streamed[-1][1]["prompt"] == answer["prompt"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 422, "The body: Invalid JSON"),
        ({}, 422, "question: Field required. Expected {"),
        ({"question": 1}, 422, "question: Input should be a valid string"),
        ({"question": QUESTION, "stream": "no"}, 422, "stream: Input should be a valid boolean"),
        ({"question": QUESTION, "temperature": 1}, 422, "temperature: Extra inputs are not permitted"),
        ({"question": "x" * 70_000}, 413, "more than 65,536 bytes"),
        ({"question": "x" * 3000}, 400, "The question has 3,000 characters"),
        ({"question": "  "}, 400, "The question is empty"),
        ({"question": QUESTION, "where": "year>="}, 400, "year>="),
        ({"question": QUESTION, "where": "colour=red"}, 400, "colour"),
    ],
)
async def test_a_wrong_request_is_refused_with_one_sentence(root: Path, body: Any, status: int, says: str) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        found, said = await server.json("POST", "/v1/ask", body)
        assert found == status
        assert says in said["error"]
        assert said["exit_code"] == 2
        assert "\n" not in said["error"]


async def test_what_is_not_there_is_refused_in_the_same_words(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        assert (await server.json("GET", "/v1/ask"))[0] == 405
        assert await server.json("GET", "/") == (404, {"error": "Not Found", "kind": "BadRequest", "exit_code": 2})


async def test_a_body_of_another_kind_is_refused_as_a_page_of_another_site_would_send_it(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        status, text = await server.http("POST", "/v1/ask", {"question": QUESTION}, **{"content-type": "text/plain"})
        assert (status, "must be application/json" in text) == (415, True)


@pytest.mark.parametrize("stream", [True, False])
async def test_while_it_starts_it_lives_and_is_not_ready(
    root: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(app, "WAIT", 0.01)
    starting = SlowGenerator(ANSWER)
    held = asyncio.Event()
    engines = Engines(root, starting)
    stream_ = starting.stream

    async def slow(*arguments):  # type: ignore[no-untyped-def]
        await held.wait()
        async for item in stream_(*arguments):
            yield item

    monkeypatch.setattr(starting, "stream", slow)
    async with running(warm_pipeline(engines), ready=False) as server:
        await until(lambda: server.warm.doing == "warming up")
        assert await server.json("GET", "/healthz") == (200, {"alive": True})
        assert await server.json("GET", "/readyz") == (503, {"ready": False, "doing": "warming up"})
        status, said = await server.json("POST", "/v1/ask", {"question": QUESTION, "stream": stream})
        assert (status, said["kind"]) == (503, "NotReady")
        assert "warming up" in said["error"]
        held.set()
        await until(lambda: server.warm.ready)
        assert await server.json("GET", "/readyz") == (200, {"ready": True, "doing": None})


async def test_an_engine_that_dies_in_a_stream_is_an_error_event_and_before_it_a_503(root: Path) -> None:
    dying = [FakeGenerator(ANSWER, dies_after=2), FakeGenerator(ANSWER, dies_after=2)]
    engines = Engines(root, dying[0], dying[1], FakeGenerator(ANSWER))
    async with running(warm_pipeline(engines)) as server:
        _, text = await server.http("POST", "/v1/ask", {"question": QUESTION})
        name, said = events(text)[-1]
        assert (name, said["kind"], said["exit_code"]) == ("error", "EngineDied", 1)
        status, said = await server.json("POST", "/v1/ask", {"question": QUESTION, "stream": False})
        assert (status, said["kind"]) == (503, "EngineDied")
        status, said = await server.json("POST", "/v1/ask", {"question": QUESTION, "stream": False})
        assert (status, said["answer"]) == (200, "".join(ANSWER))
        counts = (await server.json("GET", "/v1/status"))[1]["counts"]
        assert counts == {
            **{"answered": 1, "refused": 0, "failed": 2, "left": 0, "rebuilt": 2},
            **{"running": 0, "generating": 0},
        }


async def test_settings_are_not_for_the_client_to_mend(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER, context_window=100)))) as server:
        status, said = await server.json("POST", "/v1/ask", {"question": QUESTION, "stream": False})
        assert (status, said["kind"]) == (500, "SettingsError")
        assert "generator.max_model_len" in said["error"]
        assert (server.warm.counts.refused, server.warm.counts.failed) == (0, 1)


async def test_a_defect_is_said_to_be_one(root: Path) -> None:
    generator = FakeGenerator(ANSWER)
    async with running(warm_pipeline(Engines(root, generator))) as server:
        generator.count_tokens = None  # type: ignore[assignment]
        status, said = await server.json("POST", "/v1/ask", {"question": QUESTION})
        assert (status, said["kind"]) == (500, "Defect")
        assert "TypeError" in said["error"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8642", 200),
        ("127.0.0.1", 200),
        ("127.0.0.2:8642", 200),
        ("[::1]:8642", 200),
        ("192.0.2.1", 421),
        ("attacker.example:8642", 421),
        ("127.0.0.1.attacker.example", 421),
        ("", 421),
        ("[", 421),
    ],
)
async def test_a_server_on_loopback_answers_to_its_names_alone(root: Path, host: str, status: int) -> None:
    """A page whose name was made to lead to 127.0.0.1 could read a private corpus otherwise."""
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        found, text = await server.http("POST", "/v1/ask", {"question": QUESTION, "stream": False}, host=host)
        assert found == status
        assert ("answers to the host localhost" in json.loads(text).get("error", "")) == (status == 421)


async def test_a_server_that_others_reach_answers_to_any_name(root: Path) -> None:
    warm = warm_pipeline(Engines(root, FakeGenerator(ANSWER)))
    for listens_at, status in (
        ("0.0.0.0", 200),
        ("127.0.0.1", 421),
        ("127.0.0.2", 421),
        ("::1", 421),
        ("localhost", 421),
    ):
        with TestClient(app.make_app(warm, {}, listens_at), base_url="http://papers.example") as client:
            assert client.get("/healthz").status_code == status


async def test_a_client_that_leaves_while_it_sends_its_question_is_no_defect(root: Path) -> None:
    warm = warm_pipeline(Engines(root, FakeGenerator(ANSWER)))
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/ask", "headers": headers, "query_string": b""}
    await app.make_app(warm, {})(scope, receive, send)  # type: ignore[arg-type]
    assert sent


@pytest.mark.parametrize("stream", [True, False])
async def test_200_clients_that_go_away_leave_no_generation_behind(root: Path, stream: bool) -> None:
    generator = SlowGenerator(ANSWER * 2000, pause=0.01)
    async with running(warm_pipeline(Engines(root, generator))) as server:
        body = json.dumps({"question": QUESTION, "stream": stream}).encode()
        head = f"POST /v1/ask HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        clients = [socket.create_connection(("127.0.0.1", server.state.port)) for _ in range(200)]
        for client in clients:
            client.sendall(head.encode() + body)
        await until(lambda: generator.generating == 200, 60)
        for client in clients:
            client.close()
        await until(lambda: generator.generating == 0, 5)
        await until(lambda: server.warm.running == 0, 1)
        assert server.warm.counts.left == 200
        assert generator.aborted == 200


async def test_told_to_stop_it_ends_what_runs_and_refuses_the_rest_with_503(root: Path) -> None:
    generator = SlowGenerator(ANSWER, pause=0.2)
    engines = Engines(root, generator)
    said_of_it: list[str] = []
    async with running(warm_pipeline(engines), drain=None, report=said_of_it.append) as server:
        asked = asyncio.create_task(server.http("POST", "/v1/ask", {"question": QUESTION}))
        await until(lambda: generator.generating == 1)
        server.stop.set()
        await until(lambda: not server.warm.ready)
        status, said = await server.json("POST", "/v1/ask", {"question": QUESTION})
        assert (status, said["kind"]) == (503, "NotReady")
        assert engines.closed == 0
        _, text = await asked
        assert events(text)[-1][0] == "answer"
        await server.task
        assert engines.closed == 1
    assert said_of_it == ["stopping: 1 running answers have 30 s to end"]


async def test_an_engine_that_never_starts_ends_the_server_with_its_error(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, EngineError("no vLLM here")))) as server:
        with pytest.raises(EngineError, match="no vLLM here"):
            await server.task


async def test_the_status_says_who_it_is_and_what_it_holds(root: Path) -> None:
    async with running(warm_pipeline(Engines(root, FakeGenerator(ANSWER)))) as server:
        status, said = await server.json("GET", "/v1/status")
        assert status == 200
        assert (said["pid"], said["digest"]) == (server.state.pid, server.state.digest)
        assert (said["ready"], said["doing"], said["index_version"]) == (True, None, "test/000001")
        assert said["engine"] == {
            "backend": "fake",
            "version": "1",
            "device": "cpu",
            "techniques": {},
            "since_start": {},
        }


def test_an_address_that_is_taken_is_named_with_the_way_out() -> None:
    with serving.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1 port {port}: Address already in use. Choose another --port"):
            serving.listen("127.0.0.1", port)


def test_the_pauses_of_a_server_fit_what_it_promises() -> None:
    assert warm_module.LOOK + warm_module.GRACE < 5  # seconds until requests in flight have an error
