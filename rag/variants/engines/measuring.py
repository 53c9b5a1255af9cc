"""Takes samples: the engines are asked in turn for each length, in an order that is drawn and then reversed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rag import build
from rag.bench import SEED, results
from rag.engine import spec as engine_spec
from rag.errors import EngineDied, EngineError, UsageError
from rag.evaluate.samples import Head
from rag.progress import Progress, quiet
from rag.settings import Loaded
from rag.variants.breakdown.lengths import SHAPES, RequestShape, fixed
from rag.variants.breakdown.source import MEAN_ANSWER
from rag.variants.engines import samples, shapes
from rag.variants.engines.prompts import Prompts
from rag.variants.engines.samples import ALIKE, BENCH, Engaged, Key, Start, Taken
from rag.variants.engines.worker import Adapt, Engine, Load, Plan, Requests
from rag.variants.turns import order

WARM_UP = RequestShape(3000, 16)


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    loaded: Loaded

    @property
    def model(self) -> str:
        """As the hub has it."""
        return engine_spec.plan(self.loaded).model

    @property
    def head(self) -> dict[str, Any]:
        """What its samples depend on: what is left out on this platform isn't in it."""
        spec = engine_spec.plan(self.loaded)
        generator = self.loaded.settings.generator
        return {
            "model": spec.model,
            "arguments": dict(spec.args),
            "quantization": spec.quantization,
            "temperature": generator.temperature,
            "top_p": generator.top_p,
        }


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured how. `tokenizer` is the folder whose tokenizer models without weights get, `requests` how many are made
    at once, `adapt` changes an engine's arguments in its process."""

    variants: Sequence[Variant]
    weights: Load
    tokenizer: Path
    repeats: int
    requests: int
    adapt: Adapt

    def head(self, command: str) -> Head:
        settings = {"requests": self.requests, "variants": {one.name: one.head for one in self.variants}}
        return results.header(BENCH, command, self.weights, settings)


def measure(measurement: Measurement, folder: Path, command: str, progress: Progress) -> None:
    """Take what samples there aren't yet of an earlier run with the same settings. A variant whose engine can't be started, or is
    lost, is left out from there on, and why is kept.

    Raises `UsageError` where a model's shape isn't known, `EngineError` where no engine starts.
    """
    if measurement.weights == "dummy":
        for variant in measurement.variants:
            _shape(variant)
    store = results.Samples(folder)
    known = samples.parse(folder, store.resume(measurement.head(command))).taken
    keys = turns([one.name for one in measurement.variants], measurement.repeats)
    left = [key for key in keys if key not in known]
    if not left:
        return
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        plans = {one.name: _plan(one, measurement, Path(scratch)) for one in measurement.variants}
        progress("starting the engines")
        engines = {name: stack.enter_context(closing(Engine(plan))) for name, plan in plans.items()}
        prompts = Prompts(next(iter(plans.values())).tokenizer)
        asked = {key: _requests(key, plans[key[1]].loaded, prompts, measurement.requests) for key in left}
        running = _Running(engines, store, progress)
        for name, plan in plans.items():
            running.keep(name, partial(_started, name, _requests(("alone", name, WARM_UP, 0), plan.loaded, prompts, 1)))
        for number, key in enumerate(left):
            running.require_any()
            progress("requests", number, len(left))
            running.keep(key[1], partial(_taken, key, asked[key]))
        for name in plans:
            running.keep(name, partial(_engaged, name))
        progress("requests", len(left), len(left))


class _Running:
    """The engines that are there; one that fails is left out, and why is kept."""

    def __init__(self, engines: dict[str, Engine], store: results.Samples, progress: Progress) -> None:
        self._engines = engines
        self._store = store
        self._progress = progress

    def keep(self, name: str, act: Callable[[Engine], Start | Engaged | Taken]) -> None:
        """What comes of it, where the engine is there."""
        if name not in self._engines:
            return
        try:
            came = act(self._engines[name])
        except (EngineError, EngineDied) as error:
            self._progress(f"{name} is left out: {error}")
            came = Start(name, error=str(error))
            del self._engines[name]
        self._store.add(samples.row(came))

    def require_any(self) -> None:
        """Raises `EngineError`."""
        if not self._engines:
            raise EngineError("No engine is left. The samples say why each is lacking.")


def turns(names: Sequence[str], repeats: int) -> Iterator[Key]:
    """Engines beside one another for each shape; in each repeat those made together come last."""
    for repeat in range(repeats):
        drawn = random.Random(f"{SEED}/{repeat}").sample(SHAPES, len(SHAPES))
        for number, shape in enumerate(drawn):
            for name in order(names, repeat + number):
                yield "alone", name, shape, repeat
                if shape.answer == MEAN_ANSWER:
                    yield "again", name, shape, repeat
        for name in order(names, repeat):
            yield "together", name, ALIKE, repeat


def _plan(variant: Variant, measurement: Measurement, scratch: Path) -> Plan:
    if measurement.weights == "real":
        folder = build.resolve(variant.model, quiet).path
        return Plan(variant.loaded, folder, folder, "real", measurement.adapt)
    shape = shapes.write(scratch / variant.name, _shape(variant), measurement.tokenizer)
    return Plan(variant.loaded, shape.model, shape.tokenizer, "dummy", measurement.adapt)


def _shape(variant: Variant) -> Mapping[str, Any]:
    if variant.model not in shapes.SHAPES:
        raise UsageError(
            f"The shape of {variant.model} isn't known; it is of {', '.join(shapes.SHAPES)}. Name another models file, or "
            "use --weights real."
        )
    return shapes.SHAPES[variant.model]


def _requests(key: Key, loaded: Loaded, prompts: Prompts, together: int) -> Requests:
    kind, _, shape, repeat = key
    params = fixed(shape, loaded)
    if kind == "again":
        return Requests(prompts.get(shape.prompt, repeat, 1), replace(params, max_tokens=1), fresh=False)
    return Requests(prompts.get(shape.prompt, repeat, together if kind == "together" else 1), params)


def _started(name: str, first: Requests, engine: Engine) -> Start:
    """After a first request, which sets libraries up and isn't measured."""
    started = engine.ready()
    engine.ask(first)
    return Start(name, started.seconds, started.weights)


def _engaged(name: str, engine: Engine) -> Engaged:
    return Engaged(name, engine.engaged())


def _taken(key: Key, requests: Requests, engine: Engine) -> Taken:
    came = engine.ask(requests)
    tokens = sum(stats.output_tokens or 0 for _, stats in came.each)
    return Taken(*key, len(came.each), came.seconds, tokens, came.each[0][1])
