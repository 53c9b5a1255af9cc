"""The HTTP side of a server: questions in, answers out, and whether it is well.

    POST /v1/ask      {"question", "where"?, "stream"?, "prompt"?}; server-sent events, or with "stream": false one JSON body
    GET  /v1/status   who it is, what it holds, what it has done
    GET  /healthz     the process lives
    GET  /readyz      200 where a question would be answered now (a remote generator isn't asked), else 503 and what it is doing

A server on loopback answers to loopback's names alone: a page whose own name leads here would read the answers otherwise.

Events: `searched` (the sources that the model reads, and the prompt if asked for), `delta` (a piece of the answer's text),
`answer` (what `rag ask --json` prints), or in its place `error`. A client that goes away aborts its generation.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rag import where, workers
from rag.core import Answer, Prompt
from rag.errors import EngineError, RagError
from rag.pipeline import Delta, Event, Searched, answer_json, check_question
from rag.records import problems
from rag.server.warm import WarmPipeline, clients

WAIT = 5.0
"""Seconds that a request waits for a pipeline that isn't ready, before it is told to come back."""

MAX_BODY = 64 * 1024
"""Bytes. The longest question with the longest condition is a tenth of it."""

Watch: TypeAlias = Callable[[Event], Awaitable[None]]


class AskBody(BaseModel):
    """A question. `where` is a condition on documents, `prompt` asks for what the model reads, too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    where: str | None = None
    stream: bool = Field(default=True)
    prompt: bool = Field(default=False)


def make_app(warm: WarmPipeline, about: Mapping[str, object], listens_at: str = "127.0.0.1") -> Starlette:
    """`about` is what `/v1/status` says beyond what changes."""

    async def ask(request: Request) -> ASGIApp:
        try:
            body = await read_body(request)
        except ClientDisconnect:
            return Response()  # nobody reads it
        try:
            question = check_question(body.question)
            if body.where is not None:
                where.parse(body.where)
        except RagError as error:
            return JSONResponse(described(error), status_of(error))
        return (Streamed if body.stream else Whole)(warm, body, question)

    async def status(request: Request) -> Response:
        del request
        return JSONResponse({**about, **current(warm)})

    async def readyz(request: Request) -> Response:
        del request
        return JSONResponse({"ready": warm.ready, "doing": warm.doing}, 200 if warm.ready else 503)

    async def healthz(request: Request) -> Response:
        del request
        return JSONResponse({"alive": True})

    return Starlette(
        routes=[
            Route("/v1/ask", ask, methods=["POST"]),
            Route("/v1/status", status),
            Route("/readyz", readyz),
            Route("/healthz", healthz),
        ],
        middleware=[Middleware(LoopbackNames)] if on_loopback(listens_at) else [],
        exception_handlers={HTTPException: refuse},
    )


class LoopbackNames:
    """Refuses requests by another name than loopback's. Not Starlette's `TrustedHostMiddleware`: that takes no `[::1]`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else "localhost"
        if on_loopback(_hostname(host) or ""):
            await self._app(scope, receive, send)
            return
        why = f"This server listens on this machine alone, and answers to the host localhost, not to {host!r}."
        await refused(why, 421)(scope, receive, send)


def on_loopback(host: str) -> bool:
    """All of 127.0.0.0/8 is."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def refuse(request: Request, error: Exception) -> Response:
    """A request that is none of ours, in the words that ours are refused in."""
    del request
    assert isinstance(error, HTTPException)
    return refused(error.detail, error.status_code)


def refused(why: str, status: int) -> Response:
    return JSONResponse({"error": why, "kind": "BadRequest", "exit_code": 2}, status)


def current(warm: WarmPipeline) -> dict[str, object]:
    """What changes in a server's status."""
    engine = warm.engine
    return {
        "ready": warm.ready,
        "doing": warm.doing,
        "index_version": warm.index_version,
        "engine": asdict(engine) if engine is not None else None,
        "counts": {**asdict(warm.counts), "running": warm.running, "generating": warm.generating},
        "cache": {name: asdict(counts) for name, counts in warm.cached.items()},
    }


async def read_body(request: Request) -> AskBody:
    """Raises `HTTPException`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page of another site can send any other kind without asking
        raise HTTPException(415, f"The body's content type is {kind or 'not given'}, and must be application/json.")
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > MAX_BODY:
            raise HTTPException(413, f"The body has more than {MAX_BODY:,} bytes. Shorten the question.")
    try:
        return AskBody.model_validate_json(bytes(read), strict=True)
    except ValidationError as error:
        problem = problems(error)[0]
        raise HTTPException(422, f"{problem.place or 'The body'}: {problem.what}. Expected {EXPECTED}.") from None


EXPECTED = '{"question": TEXT, "where": CONDITION or null, "stream": true or false, "prompt": true or false}'


class Whole:
    """One JSON body: the answer, with the prompt if asked for."""

    def __init__(self, warm: WarmPipeline, body: AskBody, question: str) -> None:
        self._warm, self._body, self._question = warm, body, question

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_gone(receive, self._respond(scope, receive, send))

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        prompt: Prompt | None = None

        async def watch(event: Event) -> None:
            nonlocal prompt
            if isinstance(event, Searched):
                prompt = event.prompt

        try:
            answer = await answered(self._warm, self._question, self._body.where, watch)
        except Exception as error:
            response = JSONResponse(described(error), status_of(error))
        else:
            response = JSONResponse(answer_json(answer, prompt, self._body.prompt))
        await response(scope, receive, send)


class Streamed(Whole):
    """Server-sent events. An error before the first of them is a plain JSON body with its status.

    Not sse-starlette's: that ends its streams when uvicorn is told to stop, and ours have 30 s to end.
    """

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        prompt: Prompt | None = None
        started = False

        async def push(name: str, data: object) -> None:
            nonlocal started
            if not started:
                started = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            text = f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        async def watch(event: Event) -> None:
            nonlocal prompt
            if isinstance(event, Searched):
                prompt = event.prompt
                await push("searched", searched_json(event, self._body.prompt))
            elif isinstance(event, Delta):
                await push("delta", {"text": event.text})
            else:
                await push("answer", answer_json(event, prompt, self._body.prompt))

        try:
            await answered(self._warm, self._question, self._body.where, watch)
        except Exception as error:
            if not started:
                await JSONResponse(described(error), status_of(error))(scope, receive, send)
                return
            await push("error", described(error))
        await send({"type": "http.response.body", "body": b""})


async def answered(warm: WarmPipeline, question: str, condition: str | None, watch: Watch) -> Answer:
    """One question's way through the warm pipeline, each event shown to `watch`.

    Raises what `WarmPipeline.pipeline` and `Pipeline.stream` raise.
    """
    async with warm.pipeline(WAIT) as pipeline, aclosing(pipeline.stream(question, condition)) as events:
        async for event in events:
            await watch(event)
            if isinstance(event, Answer):
                return event
    raise AssertionError("a stream ends with its answer")


async def until_gone(receive: Receive, response: Coroutine[Any, Any, None]) -> None:
    """Cancels the response when its client goes away."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    await workers.unless(gone(), response)


def searched_json(event: Searched, wanted: bool) -> dict[str, object]:
    prompt = event.prompt
    passages = [(source.marker, source.hit.passage) for source in prompt.sources] if prompt is not None else []
    sources = [
        {"marker": marker, "doc_id": passage.doc_id, "passage_id": passage.id, "title": passage.title}
        for marker, passage in passages
    ]
    return {"sources": sources, **({"prompt": prompt.messages if prompt is not None else ()} if wanted else {})}


def described(error: Exception) -> dict[str, object]:
    if isinstance(error, RagError):
        return {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
    return {"error": f"This is a defect of rag's: {error!r}", "kind": "Defect", "exit_code": 1}


def status_of(error: Exception) -> int:
    """400 for what the client should mend, 503 for what goes by itself, 500 for the rest."""
    return 400 if clients(error) else 503 if isinstance(error, EngineError) else 500
