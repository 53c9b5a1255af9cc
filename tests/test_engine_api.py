"""rag/engine/api.py against a real HTTP server that misbehaves in every way that it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response
from tiny_server import ANSWER, MODELS, Play, event, free_port, usage

from rag.core import Tokens
from rag.engine.api import RETRY_PAUSES, Piece, ServedModel, Server, read_models, read_piece
from rag.errors import EngineDied, EngineError, SettingsError
from rag.settings import Generator

REQUEST = {"model": "served", "messages": [{"role": "user", "content": "What causes malaria?"}], "max_tokens": 9}
KEY = "sk-very-secret"


@pytest.fixture
def play() -> Iterator[Play]:
    with Play().running() as running:
        yield running


@asynccontextmanager
async def connected(url: str, **settings: Any) -> AsyncIterator[Server]:
    server = Server(Generator(base_url=url, **{"read_timeout_s": 5, **settings}))
    try:
        yield server
    finally:
        await server.close()


async def answer(play: Play, extra: dict[str, Any] | None = None, **settings: Any) -> list[Piece]:
    async with connected(play.url, **settings) as server:
        return [piece async for piece in server.pieces(REQUEST, extra if extra is not None else {})]


async def refusal(play: Play, extra: dict[str, Any] | None = None, **settings: Any) -> str:
    """The message of an error before any text, in one line that names the server."""
    with pytest.raises(EngineError) as caught:
        await answer(play, extra, **settings)
    assert not isinstance(caught.value, EngineDied)
    assert f"The server at {play.url} " in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def breaking(play: Play, **settings: Any) -> str:
    """The message of an error after some text has come."""
    seen = []

    async def read() -> None:
        async with connected(play.url, **settings) as server:
            async for piece in server.pieces(REQUEST, {}):
                seen.append(piece.text)

    with pytest.raises(EngineError) as caught:
        await read()
    assert not isinstance(caught.value, EngineDied), "whoever asks many things needn't end for it"
    assert "".join(seen) == "Malaria "
    assert f"The server at {play.url} broke off after 8 characters of the answer: " in str(caught.value)
    return str(caught.value)


def status(code: int, body: Any) -> Response:
    return JSONResponse(body, code) if not isinstance(body, str) else HTMLResponse(body, code)


# --- an answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (["a \ud83d", "\ude00 b"], ["a ", "\U0001f600 b"]),
        (["a \ud83d", " b"], ["a ", "\ufffd b"]),
        (["\ude00 a", " \ud83d"], ["\ufffd a", " ", "\ufffd"]),
    ],
)
async def test_half_a_character_is_joined_with_its_other_half_or_replaced(
    play: Play, sent: list[str], read: list[str]
) -> None:
    """JSON can escape what UTF-8 can't hold, and whoever prints an answer, or writes it, would fail."""
    play.scripts = [play.says(*map(event, sent), event("", finish="stop"))]
    assert [piece.text for piece in await answer(play) if piece.text] == read


async def test_an_answer_comes_in_pieces_without_the_empty_ones(play: Play) -> None:
    assert await answer(play) == [
        Piece("Malaria "),
        Piece("is a disease."),
        Piece(finish_reason="stop"),
        Piece(usage=Tokens(40, 32, 3)),
    ]
    [(body, headers)] = play.asked
    assert body == {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}
    assert headers["authorization"] == "Bearer none"


async def test_fields_beyond_the_api_are_sent_as_they_are(play: Play) -> None:
    await answer(play, {"ignore_eos": True, "chat_template_kwargs": {"enable_thinking": False}})
    assert play.asked[0][0]["ignore_eos"] is True
    assert play.asked[0][0]["chat_template_kwargs"] == {"enable_thinking": False}


async def test_pieces_are_handed_on_as_they_come(play: Play) -> None:
    play.scripts = [play.says(event("Malaria "), 0.5, event("is.", finish="stop"))]
    async with connected(play.url) as server:
        arrived = [(piece.text, time.monotonic()) async for piece in server.pieces(REQUEST, {})]
    assert [text for text, _ in arrived] == ["Malaria ", "is."]
    assert arrived[1][1] - arrived[0][1] > 0.2


async def test_a_reader_that_goes_away_closes_the_connection(play: Play) -> None:
    play.scripts = [play.says(*(event(f"{number} ") if number % 2 else 0.05 for number in range(2000)))]
    async with connected(play.url) as server:
        async with aclosing(server.pieces(REQUEST, {})) as pieces:
            assert (await anext(pieces)).text == "1 "
        assert await asyncio.to_thread(play.left.wait, 5), "the server still streams"


async def test_a_cancelled_reader_closes_the_connection_also_before_the_first_piece(play: Play) -> None:
    play.scripts = [play.says(30.0, *ANSWER)]
    async with connected(play.url, read_timeout_s=60) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(server.pieces(REQUEST, {}))
        assert await asyncio.to_thread(play.left.wait, 5), "the server still waits"


async def test_servers_that_tell_no_usage_or_only_a_part_of_it(play: Play) -> None:
    play.scripts = [
        play.says(event("Malaria.", finish="stop")),
        play.says(event("Malaria.", finish="stop"), usage(prompt_tokens_details=None)),
        play.says(event("Malaria.", finish="stop"), '{"choices": [], "usage": {"completion_tokens": 3}}'),
        play.says(
            event("Malaria."), '{"choices": [{"delta": null, "finish_reason": "stop"}]}', usage().replace("[]", "null")
        ),
    ]
    assert [(await answer(play))[-1].usage for _ in range(4)] == [
        None,
        Tokens(40, None, 3),
        Tokens(output=3),
        Tokens(40, 32, 3),
    ]


@pytest.mark.parametrize(
    ("metrics", "drafts"),
    [
        ({"speculative_decoding": {"num_draft_tokens": 12, "num_accepted_draft_tokens": 9}}, (12, 9)),
        ({"speculative_decoding": {"num_draft_tokens": 0, "num_accepted_draft_tokens": 0}}, (0, 0)),
        ({"speculative_decoding": None, "queue_time_ms": 1.0}, (None, None)),
        ({"speculative_decoding": {"num_draft_tokens": "many"}}, (None, None)),
        (["another server's"], (None, None)),
    ],
)
async def test_a_server_may_tell_of_draft_tokens_beside_its_usage(
    play: Play, metrics: object, drafts: tuple[int | None, int | None]
) -> None:
    last = json.dumps({**json.loads(usage()), "metrics": metrics})
    play.scripts = [play.says(event("Malaria.", finish="stop"), last)]
    assert (await answer(play))[-1].usage == Tokens(40, 32, 3, *drafts)


async def test_an_answer_that_ends_without_its_last_mark_is_whole_once_it_has_a_finish_reason(play: Play) -> None:
    play.scripts = [play.says(event("Malaria.", finish="length"), then="")]
    assert await answer(play) == [Piece("Malaria.", finish_reason="length")]


# --- time-outs, retries, lost connections ------------------------------------------------------


async def test_a_slow_first_piece_is_waited_for(play: Play) -> None:
    play.scripts = [play.says(0.4, *ANSWER)]
    assert (await answer(play, read_timeout_s=5))[0] == Piece("Malaria ")


async def test_a_first_piece_that_never_comes_is_a_time_out_and_no_second_request(play: Play) -> None:
    play.scripts = [play.says(30.0, *ANSWER)]
    message = await refusal(play, read_timeout_s=0.8)
    assert "sent nothing for 0.8 s" in message
    assert "generator.read_timeout_s" in message
    assert len(play.asked) == 1


async def test_silence_in_the_middle_is_a_time_out(play: Play) -> None:
    play.scripts = [play.says(event("Malaria "), 30.0, *ANSWER)]
    assert "nothing more came for 0.8 s" in await breaking(play, read_timeout_s=0.8)


async def test_a_connection_that_is_lost_in_the_middle_is_not_tried_again(play: Play) -> None:
    play.scripts = [play.says(event("Malaria "), breaks=True), play.says(*ANSWER)]
    assert "peer closed connection" in await breaking(play)
    assert len(play.asked) == 1


async def test_a_connection_that_is_lost_before_the_first_piece_is_tried_again(play: Play) -> None:
    play.scripts = [play.says(event(""), breaks=True), play.says(breaks=True), play.says(*ANSWER)]
    assert (await answer(play))[0] == Piece("Malaria ")
    assert len(play.asked) == 3


async def test_after_a_few_tries_the_server_counts_as_not_reachable(play: Play) -> None:
    play.scripts = [play.says(breaks=True)]
    message = await refusal(play)
    assert "broke the connection off before it answered (peer closed connection" in message
    assert len(play.asked) == 4


async def test_a_refused_connection_is_tried_again_until_the_server_is_there() -> None:
    play = Play()
    port = play.port = free_port()
    opened, done = threading.Event(), threading.Event()

    def open_late() -> None:
        time.sleep(0.3)
        with play.running(port):
            opened.set()
            done.wait(20)

    thread = threading.Thread(target=open_late)
    thread.start()
    try:
        assert not opened.is_set()
        assert (await answer(play))[0] == Piece("Malaria ")
    finally:
        done.set()
        thread.join()


async def test_a_server_that_is_not_there_is_named_within_the_time_out() -> None:
    play = Play()
    play.port = free_port()
    began = time.monotonic()
    message = await refusal(play, connect_timeout_s=0.3)
    assert time.monotonic() - began < sum(RETRY_PAUSES)
    assert "can't be reached (All connection attempts failed)" in message
    assert "generator.base_url" in message
    async with connected(play.url, connect_timeout_s=0.1) as server:
        with pytest.raises(EngineError, match="can't be reached"):
            await server.models()


async def test_a_connection_that_nobody_takes_is_a_time_out_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as waiting:
        for _ in range(3):  # what is beyond the backlog isn't taken
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        async with connected(url, connect_timeout_s=0.2) as server:
            with pytest.raises(EngineError, match=r"can't be reached \(no connection within 0\.2 s\)"):
                await server.models()


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (500, "<html>\n<h1>Oops</h1></html>", "can't answer (500): <html> <h1>Oops</h1></html>."),
        (503, {"detail": "the queue is full"}, "can't answer (503): the queue is full."),
        (429, {"error": {"message": "Too many requests.\nWait."}}, "can't answer (429): Too many requests. Wait."),
        (400, {"error": {"message": "max_tokens is too large"}}, "refuses the request (400): max_tokens is too large."),
        (422, {"detail": [{"loc": ["body", "seed"]}]}, "refuses the request (422): [{'loc': ['body', 'seed']}]."),
        (400, "", "refuses the request (400): Bad Request."),
        (403, {"error": {"message": "Not from here"}}, "refuses to answer without a key (403): Not from here."),
        (401, {"error": "Unauthorized"}, "wants a key (401). Name the variable that holds it: generator.api_key_env."),
    ],
)
async def test_a_refusal_is_one_line_with_the_servers_reason_and_never_asked_again(
    play: Play, code: int, body: Any, said: str
) -> None:
    play.scripts = [lambda: status(code, body), play.says(*ANSWER)]
    assert (await refusal(play)).endswith(said)
    assert len(play.asked) == 1


async def test_an_unknown_model_is_told_with_those_that_are_served(play: Play) -> None:
    play.scripts = [lambda: status(404, {"error": {"message": "The model `served` does not exist."}})]
    play.models = lambda: JSONResponse({"data": [{"id": "a"}, {"id": "b"}]})
    assert (await refusal(play)).endswith("serves no 'served'. It serves a, b: set generator.model.")
    play.models = lambda: JSONResponse(MODELS)
    assert (await refusal(play)).endswith("(404): The model `served` does not exist.")


async def test_a_field_beyond_the_api_is_named_where_the_request_is_refused(play: Play) -> None:
    play.scripts = [lambda: status(400, {"error": {"message": "Unrecognized request argument supplied: ignore_eos"}})]
    assert (await refusal(play, {"ignore_eos": True})).endswith(
        "supplied: ignore_eos. Beyond the API the request held ignore_eos, which not every server knows."
    )


async def test_a_reason_is_cut(play: Play) -> None:
    play.scripts = [lambda: status(500, "x" * 10_000)]
    assert len(await refusal(play)) < 600


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (("not json",), "what it sends isn't this API's"),
        (('{"foo": 1}',), "an event without choices"),
        (('{"choices": [{"delta": {"content": 5}}]}',), "an event without choices"),
        (("[1, 2]",), "what it sends isn't this API's"),
        (('{"error": {"message": "CUDA\\nout of memory"}}',), "gave no answer: CUDA out of memory"),
        ((), "the stream ended without a finish_reason"),
    ],
)
async def test_what_is_not_this_api_is_told(play: Play, script: tuple[str, ...], said: str) -> None:
    play.scripts = [play.says(*script)]
    assert said in await refusal(play)
    play.scripts = [play.says(event("Malaria "), *script)]
    assert said.removeprefix("gave no answer: ") in await breaking(play)


async def test_a_web_page_in_place_of_the_api_points_to_the_address(play: Play) -> None:
    play.scripts = [lambda: HTMLResponse("<h1>Welcome</h1>")]
    assert "generator.base_url, which mostly ends in /v1" in await refusal(play)
    play.models = lambda: HTMLResponse("<h1>Welcome</h1>")
    async with connected(play.url) as server:
        with pytest.raises(EngineError, match=r"/models lists none.* mostly ends in /v1"):
            await server.models()
    async with connected(play.url.removesuffix("/v1")) as server:
        with pytest.raises(EngineError, match=r"has no /models \(404\).* mostly ends in /v1"):
            await server.models()


# --- the key -----------------------------------------------------------------------------------


async def test_the_key_is_sent_and_never_shown(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    await answer(play, api_key_env="MY_KEY")
    assert play.asked[0][1]["authorization"] == f"Bearer {KEY}"
    for code in (401, 403, 500):
        play.scripts = [lambda code=code: status(code, {"error": {"message": f"Incorrect key {KEY}"}})]
        message = await refusal(play, api_key_env="MY_KEY")
        assert message.endswith(f"({code}): Incorrect key ...")
        assert (code in (401, 403)) == ("refuses the key in MY_KEY" in message)


def test_a_variable_that_is_not_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (None, " \n"):
        if text is not None:
            monkeypatch.setenv("MY_KEY", text)
        with pytest.raises(SettingsError, match=r"generator\.api_key_env=MY_KEY, and the environment has no MY_KEY"):
            Server(Generator(base_url="http://localhost/v1", api_key_env="MY_KEY"))


async def test_what_the_environment_holds_for_openai_is_not_sent_elsewhere(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    await answer(play)
    assert KEY not in str(play.asked)


# --- what it serves ----------------------------------------------------------------------------


async def test_what_is_served_and_by_what(play: Play) -> None:
    async with connected(play.url) as server:
        assert await server.models() == [ServedModel("served", 512, "vllm"), ServedModel("other", None, None)]
        assert await server.version() == "0.32.0"
    async with connected(f"{play.url}/") as server:
        assert len(await server.models()) == 2


@pytest.mark.parametrize("body", [None, "x", [], {}, {"data": 5}, {"data": [5]}, {"data": [{"id": 5}]}])
def test_a_list_of_models_that_is_none_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match="/models lists none"):
        read_models(body)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_a_thought_is_told_from_text(name: str) -> None:
    assert read_piece({"choices": [{"delta": {name: "Hm."}}]}) == Piece(thought="Hm.")
