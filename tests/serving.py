"""A server's parts on fakes: a real index of three documents, a generator that says what it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from indexes import write_index

from rag import build, settings
from rag.cli.hosted import Hosted
from rag.core import Document, EngineInfo, GenerationStats, Generator, Technique
from rag.engine import evidence
from rag.index import Versions, check_current, open_index
from rag.ingest import chunk
from rag.progress import Report, quiet
from rag.search import HybridSearcher
from rag.server import serving, state
from rag.server.app import make_app
from rag.server.warm import WarmPipeline
from rag.testing import FakeEncoder, FakeGenerator

DOCUMENTS = [
    Document("malaria", "Malaria", "Malaria is caused by Plasmodium parasites. A mosquito carries them."),
    Document("scurvy", "Scurvy", "Scurvy is caused by a lack of vitamin C. Lemons cure it."),
    Document("gout", "Gout", "Gout is caused by crystals of urate. Joints swell."),
]
QUESTION = "What is malaria caused by?"
ANSWER = ("Malaria is caused ", "by Plasmodium parasites [1", "].")
LOADED = settings.load(environ={}, assignments=["verify.model=null", "rerank.model=null", "abstain.weigh=false"])


def write(root: Path, documents: Sequence[Document] = DOCUMENTS) -> None:
    encoder = FakeEncoder()
    passages = [passage for document in documents for passage in chunk.split(document, 1000)]
    vectors = encoder.encode_passages([passage.titled for passage in passages])
    batch = (documents, passages, vectors)
    settings_ = LOADED.settings.index
    write_index(Versions(root, "test"), [batch], model=encoder.model, settings=settings_, chunking={"max_chars": 1000})


def search(root: Path) -> build.Search:
    reader = open_index(check_current(Versions(root, "test")), LOADED.settings.index, LOADED.settings.retrieve, "cpu")
    return build.Search(FakeEncoder(), HybridSearcher(reader, LOADED.settings.retrieve), reader)


class SlowGenerator(FakeGenerator):
    """Waits before each delta; when it is `killed`, its requests hang, as those of a process that was killed may."""

    def __init__(self, deltas: Sequence[str] = (), pause: float = 0.0) -> None:
        super().__init__(deltas)
        self.pause = pause

    async def stream(self, messages, params):  # type: ignore[no-untyped-def]
        async with aclosing(super().stream(messages, params)) as items:
            async for item in items:
                if not self.alive:
                    await asyncio.Event().wait()
                if params.max_tokens > 1:  # not the warm-up
                    await asyncio.sleep(self.pause)
                yield item

    def kill(self) -> None:
        self.alive = False


class NoOp(FakeGenerator):
    """Its engine has prefix caching and speculation switched on, and its own numbers stay 0: planted no-ops."""

    def __init__(self, deltas: Sequence[str] = ()) -> None:
        super().__init__(deltas)
        self.techniques = dict.fromkeys(("prefix_caching", "speculation"), Technique(asked=True))
        self.since_start = evidence.TokenCounts()

    async def stream(self, messages, params):  # type: ignore[no-untyped-def]
        async with aclosing(super().stream(messages, params)) as items:
            async for item in items:
                if isinstance(item, GenerationStats):
                    item = replace(item, cached_prompt_tokens=0, draft_tokens=0, accepted_tokens=0)
                    self.since_start += evidence.counts(item)
                yield item

    def info(self, stats: GenerationStats | None) -> EngineInfo:
        known = (self.techniques, evidence.UNTOLD)
        answer = evidence.of_answer(*known, stats, self.since_start)
        return EngineInfo("fake", "1", "cpu", answer, evidence.of_engine(*known, self.since_start))


class Engines:
    """Opens a pipeline's parts: each time with the next generator, or the error in its place. `closed` counts."""

    def __init__(self, root: Path, *generators: FakeGenerator | Exception) -> None:
        self.root = root
        self.generators = list(generators)
        self.opened = self.closed = 0

    @asynccontextmanager
    async def __call__(self, loaded: settings.Loaded, report: Report) -> AsyncIterator[tuple[build.Stages, Generator]]:
        del loaded
        report("starting the engine")
        generator = self.generators[min(self.opened, len(self.generators) - 1)]
        self.opened += 1
        if isinstance(generator, Exception):
            raise generator
        try:
            yield build.Stages(search(self.root), None), generator
        finally:
            self.closed += 1

    def newer(self, loaded: settings.Loaded, current: build.Search) -> build.Search | None:
        del loaded
        found = search(self.root)
        return found if found.index.version != current.index.version else None


def warm_pipeline(engines: Engines, lines: list[str] | None = None) -> WarmPipeline:
    log = lines.append if lines is not None else quiet
    return WarmPipeline(LOADED, log, log, engines, engines.newer)


@asynccontextmanager
async def living(warm: WarmPipeline) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(warm.run())
    try:
        await until(lambda: warm.ready or task.done())
        yield task
    finally:
        await warm.drain(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Running:
    """A server in this process, which other processes find under `RAG_HOME`."""

    warm: WarmPipeline
    state: state.ServerState
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def http(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
        """Status and text."""
        return await asyncio.to_thread(self._http, method, path, body, headers)

    def _http(self, method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.state.port, timeout=20)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    async def json(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        status, text = await self.http(method, path, body)
        return status, json.loads(text)


@asynccontextmanager
async def running(
    warm: WarmPipeline, drain: float | None = 0.0, ready: bool = True, report: Report = quiet
) -> AsyncIterator[Running]:
    """With the server's own seconds to end where `drain` is None."""
    stop = asyncio.Event()
    with serving.listen("127.0.0.1", 0) as listener, state.socket_path() as path:
        me = state.of_this_process(LOADED, "127.0.0.1", listener.getsockname()[1], path)
        entrance = (path, Hosted(warm, LOADED, me.address))
        with state.announced(me):
            seconds = () if drain is None else (drain,)
            serve = serving.serve(warm, make_app(warm, asdict(me)), listener, entrance, stop, report, *seconds)
            task = asyncio.create_task(serve)
            try:
                await until(lambda: task.done() or not ready or warm.ready)
                yield Running(warm, me, stop, task)
            finally:
                stop.set()
                await asyncio.gather(task, return_exceptions=True)


def events(text: str) -> list[tuple[str, Any]]:
    """Of a stream of server-sent events: their names and data."""
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found
