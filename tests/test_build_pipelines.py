"""rag/build/pipelines.py: what pipelines beside one another share, on engines that play."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import serving

from rag import build, settings
from rag.build import pipelines as building
from rag.build.pipelines import alike, engines_of, open_pipelines
from rag.core import Technique
from rag.engine.evidence import UNTOLD, TokenCounts, of_answer
from rag.engine.local import LocalGenerator
from rag.engine.spec import plan
from rag.errors import NotEnoughMemory, SettingsError
from rag.progress import Report
from rag.settings import Device, Loaded
from rag.testing import FakeGenerator

SEARCHES = ["verify.model=null", "rerank.model=null", "abstain.weigh=false"]


def load(profile: str, *assignments: str, device: Device = "cpu") -> Loaded:
    models = "embedded" if device == "cpu" else "qwen3-8b"
    return settings.load(profile, models, [*SEARCHES, *assignments], device=device, environ={})


class Engine(LocalGenerator):
    """Started by nobody, and asked nothing but what it is."""

    def __init__(self, loaded: Loaded) -> None:
        self._spec = plan(loaded)
        self.loaded = loaded
        self.warmed = 0

    async def stream(self, messages: Any, params: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        assert params.max_tokens == 1
        self.warmed += 1
        async for item in FakeGenerator().stream(messages, params):
            yield item

    def info(self, stats: Any) -> Any:
        return of_answer(self._spec.techniques, UNTOLD, stats, TokenCounts())


class Machine:
    """Starts engines, and opens searches over one small index."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.engines: list[Engine] = []
        self.closed = self.searches = 0
        self.said: list[str] = []
        self.full_after: int | None = None

    @asynccontextmanager
    async def open_generator(
        self, loaded: Loaded, report: Report, meanwhile: Callable[[], Any]
    ) -> AsyncIterator[Engine]:
        report("starting the engine")
        if len(self.engines) == self.full_after:
            raise NotEnoughMemory("Not enough memory")
        engine = Engine(loaded)
        self.engines.append(engine)
        await meanwhile()
        try:
            yield engine
        finally:
            self.closed += 1

    def open_checked(self, *_: object) -> build.Search:
        self.searches += 1
        return serving.search(self.root)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    serving.write(tmp_path)
    machine = Machine(tmp_path)
    monkeypatch.setattr(building, "open_generator", machine.open_generator)
    monkeypatch.setattr(building, "open_checked", machine.open_checked)
    monkeypatch.setattr(building, "check_index", lambda *_: None)
    monkeypatch.setattr(building, "fetch", lambda *_: None)
    return machine


def test_names_of_equal_values_stand_together_in_order() -> None:
    assert alike({"a": 1, "b": 2, "c": 1, "d": {}, "e": {}}) == [["a", "c"], ["b"], ["d", "e"]]


@pytest.mark.usefixtures("cpu_with_avx2_alone")
def test_on_a_cpu_without_bf16_v3_and_v3_1_run_on_one_engine_since_it_has_no_weights_of_8_bits() -> None:
    profiles = ("v3", "v3_1", "v3_2", "auto")
    assert engines_of({name: load(name) for name in profiles}) == [["v3", "v3_1"], ["v3_2"], ["auto"]]


@pytest.mark.usefixtures("cpu_with_bf16")
def test_profiles_of_other_weights_run_on_engines_of_their_own() -> None:
    profiles = ("v3", "v3_1", "v3_2", "auto")
    assert engines_of({name: load(name) for name in profiles}) == [["v3"], ["v3_1"], ["v3_2"], ["auto"]]
    on_gpu = engines_of({name: load(name, device="cuda") for name in profiles})
    assert on_gpu == [["v3"], ["v3_1"], ["v3_2", "auto"]]


async def test_what_is_alike_is_there_once_and_closed_once(machine: Machine) -> None:
    loads = {
        "v3": load("v3"),
        "again": load("v3"),
        "more": load("v3", "context.passages=3"),
        "other search": load("v3", "retrieve.lexical_n=5"),
        "other engine": load("v3", "generator.max_num_seqs=2"),
    }
    async with open_pipelines(loads, machine.said.append) as pipelines:
        assert list(pipelines) == list(loads)
        assert (len(machine.engines), machine.searches) == (2, 2)
        assert {name: pipeline.settings for name, pipeline in pipelines.items()} == {
            name: loaded.settings for name, loaded in loads.items()
        }
        searchers = {name: pipeline.searcher for name, pipeline in pipelines.items()}
        assert searchers["v3"] is searchers["more"] is searchers["other engine"]
        assert searchers["v3"] is not searchers["other search"]
        assert [engine.warmed > 0 for engine in machine.engines] == [True, True]
    assert machine.closed == 2
    assert machine.said == ["starting the engine (1 of 2)", "starting the engine (2 of 2)"]


@pytest.mark.usefixtures("cpu_with_avx2_alone")
async def test_an_engine_that_is_shared_tells_each_of_its_own_techniques(machine: Machine) -> None:
    """V3.1's weights of 8 bits can't be had there."""
    async with open_pipelines({"v3": load("v3"), "v3_1": load("v3_1")}) as pipelines:
        assert len(machine.engines) == 1
        told: dict[str, Technique] = {name: one.engine["quantization"] for name, one in pipelines.items()}  # type: ignore[index]
    assert not told["v3"].asked
    assert (told["v3_1"].asked, told["v3_1"].engaged) == (True, False)


async def test_the_first_engine_ends_where_there_is_no_memory_for_the_second(machine: Machine) -> None:
    machine.full_after = 1
    loads = {"v3": load("v3"), "v3_2": load("v3_2")}
    with pytest.raises(NotEnoughMemory):
        async with open_pipelines(loads):
            raise AssertionError("it opened")
    assert (len(machine.engines), machine.closed) == (1, 1)


async def test_nothing_starts_where_one_of_them_cannot(machine: Machine) -> None:
    served = load("v3", "generator.base_url=http://127.0.0.1:1/v1")
    with pytest.raises(SettingsError, match="starts an engine of its own"):
        async with open_pipelines({"v3": load("v3"), "served": served}):
            raise AssertionError("it opened")
    assert (machine.engines, machine.searches) == ([], 0)


async def test_on_a_gpu_each_engine_gets_an_equal_part_of_the_memory_unless_it_was_set(machine: Machine) -> None:
    loads = {name: load(name, device="cuda") for name in ("v3", "v3_1")}
    async with open_pipelines(loads) as pipelines:
        parts = [engine.loaded.settings.generator.gpu_memory_utilization for engine in machine.engines]
        assert parts == [0.4, 0.4]
        assert pipelines["v3"].settings.generator.gpu_memory_utilization == 0.8
    by_hand = {**loads, "v3": load("v3", "generator.gpu_memory_utilization=0.6", device="cuda")}
    machine.engines.clear()
    async with open_pipelines(by_hand):
        parts = [engine.loaded.settings.generator.gpu_memory_utilization for engine in machine.engines]
        assert parts == [0.6, 0.4]
    machine.engines.clear()
    async with open_pipelines({"v3": loads["v3"]}):
        assert machine.engines[0].loaded.settings.generator.gpu_memory_utilization == 0.8
