"""An engine in a process of its own: several start at once, and one that can't start, or dies, takes no other with it."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from rag.core import GenerationParams, GenerationStats, Message, Technique
from rag.engine import processes
from rag.engine import spec as engine_spec
from rag.engine.evidence import Weights
from rag.engine.spec import EngineSpec
from rag.errors import EngineDied, EngineError, RagError
from rag.settings import Loaded
from rag.variants.asking import empty
from rag.variants.breakdown.lengths import request

if TYPE_CHECKING:
    from rag.engine.local import LocalGenerator

Load = Literal["dummy", "real"]

Adapt = Callable[[EngineSpec], EngineSpec]
"""Called in the engine's process before vLLM is imported there; a function of a module, which can be sent to it."""

START_LIMIT = 600
"""Seconds."""

_SPAWN = multiprocessing.get_context("spawn")  # a forked process can't use CUDA where this one has


@dataclass(frozen=True, slots=True)
class Plan:
    """What an engine is started with: with dummy weights the model's folder needs none."""

    loaded: Loaded
    model: Path
    tokenizer: Path
    weights: Load
    adapt: Adapt


@dataclass(frozen=True, slots=True)
class Started:
    """Seconds until it was ready."""

    seconds: float
    weights: Weights


@dataclass(frozen=True, slots=True)
class Requests:
    """Prompts that are asked at once. `fresh`: with nothing in the engine's prefix cache."""

    prompts: Sequence[Sequence[Message]]
    params: GenerationParams
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Came:
    """Seconds of all of them together; of each its own, and what the engine reports."""

    seconds: float
    each: Sequence[tuple[float, GenerationStats]]


class Engine:
    """One that starts; `ready` waits for it. Close it: its processes end then, as they do when this process does."""

    def __init__(self, plan: Plan) -> None:
        self._ours, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_run, args=(theirs, plan))
        with processes.without_interrupts():
            self._process.start()
        theirs.close()

    def ready(self) -> Started:
        """Raises `EngineError` where it can't start, or takes longer than `START_LIMIT`."""
        if not self._ours.poll(START_LIMIT):
            raise EngineError(f"The engine didn't start within {START_LIMIT} s.")
        started: Started = self._received()
        return started

    def ask(self, requests: Requests) -> Came:
        """Raises `EngineDied` where it is lost."""
        came: Came = self._asked(requests)
        return came

    def engaged(self) -> Mapping[str, Technique]:
        """What the engine tells of its techniques, of all that it was asked. Raises `EngineDied` where it is lost."""
        found: Mapping[str, Technique] = self._asked(None)
        return found

    def close(self) -> None:
        self._ours.close()
        self._process.join(timeout=20)
        if self._process.is_alive():
            itself = psutil.Process(self._process.pid)
            processes.kill([*processes.started(itself), itself])

    def _asked(self, requests: Requests | None) -> Any:
        try:
            self._ours.send(requests)
        except OSError:
            raise _lost() from None
        return self._received()

    def _received(self) -> Any:
        try:
            found = self._ours.recv()
        except (EOFError, OSError):
            raise _lost() from None
        if isinstance(found, RagError):
            raise found
        return found


def _lost() -> EngineDied:
    return EngineDied("The engine's process ended. See the log for what vLLM said.")


def _run(connection: Connection, plan: Plan) -> None:
    with connection:
        try:
            asyncio.run(_serve(connection, plan))
        except (EOFError, OSError):
            return  # whoever asked is gone
        except RagError as error:
            connection.send(error)


async def _serve(connection: Connection, plan: Plan) -> None:
    """Answers until the other end is closed."""
    from rag.engine.local import LocalGenerator, configure

    began = time.monotonic()
    spec = _spec(plan)
    config = configure(spec, plan.model, None, plan.loaded.device)
    generator = await LocalGenerator.start(spec, config, plan.loaded.device)
    try:
        connection.send(Started(time.monotonic() - began, generator.weights))
        while True:
            requests = await asyncio.to_thread(connection.recv)
            told = generator.info(None).since_start
            connection.send(await _answer(generator, requests) if requests is not None else told)
    finally:
        await generator.close()


def _spec(plan: Plan) -> EngineSpec:
    spec = engine_spec.plan(plan.loaded)
    processes.set_environment(spec.environment)
    args = {**spec.args, "tokenizer": str(plan.tokenizer)}
    if plan.weights == "dummy":
        args["load_format"] = "dummy"
    return plan.adapt(replace(spec, args=args))


async def _answer(generator: LocalGenerator, requests: Requests) -> Came:
    if requests.fresh:
        await empty(generator)
    began = time.monotonic()
    each = await asyncio.gather(
        *(request(generator, prompt, requests.params, time.monotonic) for prompt in requests.prompts)
    )
    return Came(time.monotonic() - began, each)
