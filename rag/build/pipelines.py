"""Several pipelines in one process; equal engines, models and indexes are shared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from rag.build.parts import fetch, open_checker
from rag.build.pipeline import Stages, assemble, auxiliary_models, open_generator
from rag.build.search import Search, check_index, log, open_checked
from rag.core import Generator
from rag.engine import spec as engine_spec
from rag.pipeline import Pipeline
from rag.progress import Report, quiet
from rag.settings import Loaded

OF_STAGES = ("embed", "index", "retrieve", "rerank", "cache", "verify")
"""Sections of the settings that models and index are opened by."""


@asynccontextmanager
async def open_pipelines(loads: Mapping[str, Loaded], report: Report = quiet) -> AsyncIterator[dict[str, Pipeline]]:
    """Warm pipelines, by the names of their settings; the engines' processes end with the block.

    Those whose engines would be started alike share one, and those that search and check alike share models and index. An
    engine that isn't asked stands idle. On a GPU each gets an equal part of the memory that one alone would get
    (`generator.gpu_memory_utilization`), unless that was set by hand.

    Raises what `open_pipeline` raises, and `SettingsError` where the settings name a server.
    """
    plans = {name: engine_spec.plan(loaded) for name, loaded in loads.items()}
    checked = {name: await asyncio.to_thread(check_index, loaded, report) for name, loaded in loads.items()}
    models = dict.fromkeys(model for one in loads.values() for model in auxiliary_models(one))
    await asyncio.to_thread(fetch, list(models), report)
    stages: dict[str, Stages] = {}
    searches: list[Search] = []

    def open_stages() -> None:
        for names in alike({name: _of_stages(loaded) for name, loaded in loads.items()}):
            first = loads[names[0]]
            opened = Stages(open_checked(first, checked[names[0]], quiet, log), open_checker(first, quiet))
            stages.update(dict.fromkeys(names, opened))
            searches.append(opened.search)

    async def meanwhile() -> None:
        if not stages:
            await asyncio.to_thread(open_stages)

    pipelines: dict[str, Pipeline] = {}
    engines = engines_of(loads)
    async with AsyncExitStack() as stack:
        for number, names in enumerate(engines, start=1):
            generator = await stack.enter_async_context(
                open_generator(_with_part(loads[names[0]], len(engines)), _counting(report, number, engines), meanwhile)
            )
            for name in names:
                own = generator if name == names[0] else _under(generator, plans[name])
                pipelines[name] = assemble(loads[name], stages[name], own)
                stack.callback(pipelines[name].close)
        stack.callback(_close, searches)
        for pipeline in pipelines.values():
            await pipeline.warm_up()
        yield pipelines


def _close(searches: Sequence[Search]) -> None:
    for search in searches:
        search.close()


def engines_of(loads: Mapping[str, Loaded]) -> list[list[str]]:
    """The names of the settings that share an engine, for each engine. Raises what the plans of these settings raise."""
    plans = {name: engine_spec.plan(loaded) for name, loaded in loads.items()}
    return alike({name: replace(plan, techniques={}) for name, plan in plans.items()})


def alike(values: Mapping[str, object]) -> list[list[str]]:
    """The names whose values are equal, in order."""
    groups: list[list[str]] = []
    for name, value in values.items():
        group = next((names for names in groups if values[names[0]] == value), None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return groups


def _of_stages(loaded: Loaded) -> dict[str, Any]:
    return {"device": loaded.device, **{name: getattr(loaded.settings, name) for name in OF_STAGES}}


def _with_part(loaded: Loaded, parts: int) -> Loaded:
    if loaded.device == "cpu" or parts == 1 or loaded.explicit("generator.gpu_memory_utilization"):
        return loaded
    share = loaded.settings.generator.gpu_memory_utilization / parts
    return loaded.having("generator", gpu_memory_utilization=share)


def _under(generator: Generator, plan: engine_spec.EngineSpec) -> Generator:
    from rag.engine.local import LocalGenerator

    assert isinstance(generator, LocalGenerator)  # the plan of a server's settings is refused
    return generator.under(plan)


def _counting(report: Report, number: int, engines: list[list[str]]) -> Report:
    return report if len(engines) == 1 else lambda what: report(f"{what} ({number} of {len(engines)})")
