"""A pipeline: a search, an engine or the server in its place, and a support checker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rag.build.parts import fetch, open_checker, resolve, resolve_tokenizer, stay_offline, weighing
from rag.build.search import Search, check_index, log, open_checked
from rag.core import Generator, SupportChecker
from rag.engine import spec as engine_spec
from rag.pipeline import Pipeline
from rag.progress import Report, quiet
from rag.settings import Loaded


@dataclass(slots=True)
class Stages:
    """All of a pipeline but its generator. A new version of the index takes the old one's place in it, which so is let go of."""

    search: Search
    checker: SupportChecker | None


@asynccontextmanager
async def open_pipeline(loaded: Loaded, report: Report = quiet) -> AsyncIterator[Pipeline]:
    """A warm pipeline; its engine's processes end with the block."""
    began = time.monotonic()
    async with open_parts(loaded, report) as (stages, generator):
        pipeline = assemble(loaded, stages, generator)
        try:
            await pipeline.warm_up()
            pipeline.startup_s = time.monotonic() - began
            yield pipeline
        finally:
            pipeline.close()


@asynccontextmanager
async def open_parts(loaded: Loaded, report: Report = quiet) -> AsyncIterator[tuple[Stages, Generator]]:
    """What `assemble` makes a pipeline of; the engine's processes end with the block.

    Everything that can fail quickly is looked at first. Then the encoder, the index and the cross-encoders load
    while the engine's processes start, which spend their time in imports on another core.
    """
    engine_spec.check(loaded)
    checked = await asyncio.to_thread(check_index, loaded, report)  # in a thread: a server answers meanwhile
    await asyncio.to_thread(fetch, auxiliary_models(loaded), report)
    opened: list[Stages] = []

    def open_stages() -> Stages:
        return Stages(open_checked(loaded, checked, quiet, log), open_checker(loaded, quiet))

    async def meanwhile() -> None:
        opened.append(await asyncio.to_thread(open_stages))

    async with open_generator(loaded, report, meanwhile) as generator:
        [stages] = opened
        try:
            yield stages, generator
        finally:
            stages.search.close()


def assemble(loaded: Loaded, stages: Stages, generator: Generator) -> Pipeline:
    """Not warm yet, and the caller's to close."""
    search = stages.search
    return Pipeline(
        loaded.settings,
        loaded.profile,
        search.encoder,
        search.searcher,
        generator,
        stages.checker,
        weighing(loaded.settings),
        search.reranker,
        search.new_caches(),
    )


def auxiliary_models(loaded: Loaded) -> list[str | None]:
    """All but the encoder's, which the check of the index has, and the generator's."""
    settings = loaded.settings
    return [settings.rerank.model, settings.verify.model, settings.cache.model if settings.cache.enabled else None]


@asynccontextmanager
async def open_generator(
    loaded: Loaded, report: Report = quiet, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[Generator]:
    """The engine alone, or the server in its place. `meanwhile` runs before it is ready to generate."""
    opened = _open_local if loaded.settings.generator.base_url is None else _open_remote
    async with opened(loaded, report, meanwhile if meanwhile is not None else _nothing) as generator:
        yield generator


@asynccontextmanager
async def _open_remote(
    loaded: Loaded, report: Report, meanwhile: Callable[[], Awaitable[None]]
) -> AsyncIterator[Generator]:
    """The server is asked first: that takes milliseconds, and is what may fail."""
    from rag.engine.remote import RemoteGenerator

    spec = engine_spec.plan_remote(loaded)
    tokenizer = await asyncio.to_thread(resolve_tokenizer, spec.tokenizer, loaded, report)
    report(f"asking {spec.base_url}")
    generator = await RemoteGenerator.connect(spec, loaded, tokenizer)
    try:
        await meanwhile()
        yield generator
    finally:
        await generator.close()


@asynccontextmanager
async def _open_local(
    loaded: Loaded, report: Report, meanwhile: Callable[[], Awaitable[None]]
) -> AsyncIterator[Generator]:
    """`meanwhile` runs once the engine's processes are starting, and not before: until then this process imports
    vLLM, and two imports in one process only take turns."""
    from rag.engine.local import LocalGenerator, configure

    spec = engine_spec.plan(loaded)
    model = await asyncio.to_thread(resolve, spec.model, report, loaded.settings.generator.revision)
    draft = await asyncio.to_thread(resolve, spec.draft_model, report) if spec.draft_model is not None else None
    if draft is not None:
        engine_spec.require_same_vocabulary(model.path, draft.path)
    stay_offline()
    report("starting the engine")
    config = await asyncio.to_thread(configure, spec, model.path, draft.path if draft else None, loaded.device)
    starting = asyncio.create_task(LocalGenerator.start(spec, config, loaded.device))
    try:
        await meanwhile()
        generator = await starting
    except BaseException:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        raise
    try:
        yield generator
    finally:
        await generator.close()


async def _nothing() -> None:
    pass
