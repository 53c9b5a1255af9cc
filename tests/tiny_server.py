"""A real HTTP server that plays an OpenAI-compatible one, well or badly, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Script = Callable[[], Response]
"""What one request is answered with."""

MODELS = {
    "object": "list",
    "data": [{"id": "served", "object": "model", "owned_by": "vllm", "max_model_len": 512}, {"id": "other"}],
}
USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 3,
    "total_tokens": 43,
    "prompt_tokens_details": {"cached_tokens": 32},
}


def event(text: str | None = None, finish: str | None = None, **delta: Any) -> str:
    choice = {"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}
    return json.dumps({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def usage(**changed: Any) -> str:
    return json.dumps({"choices": [], "usage": {**USAGE, **changed}})


ANSWER = (event("", role="assistant"), event("Malaria "), event("is a disease."), event("", finish="stop"), usage())


class Play:
    """`scripts` answer one request each, the last of them all that follow. `asked` keeps the bodies and headers."""

    def __init__(self) -> None:
        self.scripts: list[Script] = [self.says(*ANSWER)]
        self.models: Script = lambda: JSONResponse(MODELS)
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.listed = 0
        self.left = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def says(self, *events: str | float, then: str = "data: [DONE]\n\n", breaks: bool = False) -> Script:
        """Streams events; a number is a pause in seconds. `breaks` closes the connection in place of an end."""

        async def stream() -> AsyncIterator[str]:
            try:
                for one in events:
                    if isinstance(one, float):
                        await asyncio.sleep(one)
                    else:
                        yield f"data: {one}\n\n"
                if breaks:
                    raise ConnectionAbortedError
                yield then
            except asyncio.CancelledError:
                self.left.set()
                raise

        return lambda: StreamingResponse(stream(), media_type="text/event-stream")

    async def _chat(self, request: Request) -> Response:
        self.asked.append((await request.json(), dict(request.headers)))
        return (self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0])()

    async def _list(self, request: Request) -> Response:
        del request
        self.listed += 1
        return self.models()

    async def _version(self, request: Request) -> Response:
        del request
        return JSONResponse({"version": "0.32.0"})

    @contextmanager
    def running(self, port: int = 0) -> Iterator[Play]:
        """Listens as long as the block lasts."""
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._list),
            Route("/version", self._version),
        ]
        listening = socket.create_server(("127.0.0.1", port))
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.should_exit = server.force_exit = True
            thread.join(timeout=10)
            listening.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def write_tokenizer(folder: Path, template: str | None, config: Mapping[str, Any] | None = None) -> Path:
    """A tokenizer whose tokens are words and marks. Its file asks for what a prompt's count must not have: it cuts and
    pads."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(8)
    words.enable_padding(length=8)
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config if config is not None else {}), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
