"""The warm pipeline on fakes: it is lent, rebuilt, drained, and moved to a new index; the real engine: test_serve_real."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import ANSWER, DOCUMENTS, QUESTION, Engines, SlowGenerator, living, until, warm_pipeline, write

from rag.core import Answer, Document
from rag.errors import EngineDied, EngineError, NotReady, QuestionError, SearchIndexError
from rag.pipeline import Searched
from rag.server import warm as module
from rag.server.warm import WarmPipeline
from rag.testing import FakeGenerator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)
    monkeypatch.setattr(module, "LOOK_AT_INDEX", 0.02)
    monkeypatch.setattr(module, "LONGEST_LOOK_AT_INDEX", 0.16)
    monkeypatch.setattr(module, "GRACE", 0.2)


async def ask(warm: WarmPipeline, wait: float = 5, question: str = QUESTION) -> Answer:
    async with warm.pipeline(wait) as pipeline:
        return await pipeline.answer(question)


async def test_many_requests_at_once_are_answered_and_counted(root: Path) -> None:
    lines: list[str] = []
    generator = SlowGenerator(ANSWER, pause=0.05)
    warm = warm_pipeline(Engines(root, generator), lines)
    async with living(warm):
        answers = [asyncio.create_task(ask(warm)) for _ in range(8)]
        await until(lambda: generator.generating == 8)
        assert warm.running == 8
        assert {answer.answer for answer in await asyncio.gather(*answers)} == {"".join(ANSWER)}
        assert {answer.result().startup_s for answer in answers} == {None}
    assert (warm.counts.answered, warm.running) == (8, 0)
    assert lines[:3] == ["starting the engine", "warming up", "ready, index test/000001"]
    assert len([line for line in lines if line.endswith(" s  answered")]) == 8


async def test_before_it_is_ready_a_request_waits_and_then_is_told_what_it_waited_for(root: Path) -> None:
    warm = warm_pipeline(Engines(root, FakeGenerator(ANSWER)))
    with pytest.raises(NotReady, match="isn't ready: starting"):
        await ask(warm, wait=0.02)
    waiting = asyncio.create_task(ask(warm))
    await asyncio.sleep(0.01)
    async with living(warm):
        assert (await waiting).answer == "".join(ANSWER)


async def test_an_engine_that_dies_in_an_answer_is_an_error_of_that_answer_and_is_built_again(root: Path) -> None:
    dying = FakeGenerator(ANSWER, dies_after=2)
    dying.deltas = list(ANSWER)
    engines = Engines(root, dying, FakeGenerator(ANSWER))
    warm = warm_pipeline(engines)
    async with living(warm):
        with pytest.raises(EngineDied, match="died after 2 tokens"):
            await ask(warm)
        assert (await ask(warm)).answer == "".join(ANSWER)
        assert (engines.opened, engines.closed) == (2, 1)
    assert (warm.counts.answered, warm.counts.failed, warm.counts.rebuilt) == (1, 1, 1)


async def test_requests_that_hang_when_the_engine_is_lost_get_an_error_in_time(root: Path) -> None:
    killed = SlowGenerator(ANSWER * 100, pause=0.01)
    warm = warm_pipeline(Engines(root, killed, FakeGenerator(ANSWER)))
    async with living(warm):
        asked = [asyncio.create_task(ask(warm)) for _ in range(5)]
        await until(lambda: killed.generating == 5)
        killed.kill()
        began = time.monotonic()
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(error) for error in errors] == [
            "The engine died. It is being started again: ask again in a minute."
        ] * 5
        assert {type(error) for error in errors} == {EngineDied}
        assert time.monotonic() - began < 2
        assert killed.generating == 0
        assert (await ask(warm)).answer == "".join(ANSWER)


async def test_an_engine_that_is_lost_while_nobody_asks_is_built_again(root: Path) -> None:
    killed = SlowGenerator(ANSWER)
    warm = warm_pipeline(Engines(root, killed, SlowGenerator(ANSWER)))
    async with living(warm):
        killed.kill()
        await until(lambda: warm.counts.rebuilt == 1)
        assert (await ask(warm)).answer == "".join(ANSWER)


async def test_a_start_that_fails_at_first_is_the_servers_error(root: Path) -> None:
    warm = warm_pipeline(Engines(root, EngineError("no vLLM here")))
    async with living(warm) as life:
        with pytest.raises(EngineError, match="no vLLM here"):
            await life


@pytest.mark.parametrize("error", [EngineError, RuntimeError, MemoryError])
async def test_later_it_is_tried_again_some_times_and_a_request_is_told_why(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Whatever it is that fails: FAISS raises a RuntimeError."""
    pauses: list[float] = []
    asked = asyncio.Event()
    sleep = asyncio.sleep

    async def quick(seconds: float) -> None:
        if seconds >= 1:
            pauses.append(seconds)
        if seconds == 2:
            await asked.wait()
        await sleep(min(seconds, 0.02))

    monkeypatch.setattr(asyncio, "sleep", quick)
    killed = SlowGenerator(ANSWER)
    warm = warm_pipeline(Engines(root, killed, error("no memory")))
    async with living(warm) as life:
        killed.kill()
        await until(lambda: len(pauses) >= 2)
        with pytest.raises(NotReady, match="it doesn't start: no memory"):
            await ask(warm, wait=0)
        asked.set()
        with pytest.raises(error, match="no memory"):
            await life
    assert pauses == [1, 2, 4, 8]


async def test_one_who_goes_away_ends_its_generation(root: Path) -> None:
    generator = SlowGenerator(ANSWER * 100, pause=0.01)
    warm = warm_pipeline(Engines(root, generator))
    async with living(warm):
        asked = asyncio.create_task(ask(warm))
        await until(lambda: generator.generating == 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: generator.generating == 0, 1)
        assert (warm.counts.left, warm.running) == (1, 0)


async def test_the_users_own_mistakes_are_no_failures(root: Path) -> None:
    warm = warm_pipeline(Engines(root, FakeGenerator(ANSWER)))
    async with living(warm):
        with pytest.raises(QuestionError):
            await ask(warm, question=" ")
    assert (warm.counts.refused, warm.counts.failed) == (1, 0)


async def test_told_to_stop_it_lets_running_answers_end_and_takes_no_others(root: Path) -> None:
    generator = SlowGenerator(ANSWER, pause=0.05)
    warm = warm_pipeline(Engines(root, generator))
    async with living(warm):
        asked = asyncio.create_task(ask(warm))
        await until(lambda: generator.generating == 1)
        stopping = asyncio.create_task(warm.drain(10))
        await asyncio.sleep(0.01)
        with pytest.raises(NotReady, match="is stopping"):
            await ask(warm)
        assert (warm.ready, warm.doing) == (False, "stopping")
        assert await stopping == 0
        assert asked.done()
        assert asked.result().answer == "".join(ANSWER)


@pytest.mark.parametrize("hurried", [False, True])
async def test_answers_that_take_longer_are_ended_with_a_reason(root: Path, hurried: bool) -> None:
    generator = SlowGenerator(ANSWER * 100, pause=0.05)
    warm = warm_pipeline(Engines(root, generator))
    async with living(warm):
        asked = asyncio.create_task(ask(warm))
        await until(lambda: generator.generating == 1)
        stopping = asyncio.create_task(warm.drain(60 if hurried else 0.05))
        await asyncio.sleep(0.1)
        if hurried:
            assert not stopping.done()
            warm.end_now()
        assert await stopping == 1
        with pytest.raises(NotReady, match="The server stopped"):
            await asked
        assert generator.generating == 0


async def test_a_new_version_of_the_index_is_taken_while_running_answers_keep_theirs(root: Path) -> None:
    generator = SlowGenerator(ANSWER, pause=0.02)
    lines: list[str] = []
    engines = Engines(root, generator)
    warm = warm_pipeline(engines, lines)
    async with living(warm), warm.pipeline(5) as pipeline:
        events = pipeline.stream(QUESTION)
        assert isinstance(await anext(events), Searched)
        write(root, [*DOCUMENTS, Document("rickets", "Rickets", "Rickets is caused by a lack of vitamin D.")])
        await until(lambda: warm.index_version == "test/000002")
        rest = [event async for event in events]
        assert isinstance(rest[-1], Answer)
        assert rest[-1].cache.index_version == "test/000001"
        answer = await ask(warm, question="What is rickets caused by?")
        assert answer.cache.index_version == "test/000002"
        assert "rickets" in [citation.doc_id for citation in answer.citations]
    assert engines.opened == 1
    assert "index test/000002" in lines


async def test_of_a_version_that_is_followed_by_another_nothing_is_held_on_to(root: Path) -> None:
    """Its files and what is in memory of it would stay as long as the engine lives."""
    warm = warm_pipeline(Engines(root, FakeGenerator(ANSWER)))
    async with living(warm):
        assert warm._pipeline is not None
        first = weakref.ref(warm._pipeline.searcher)
        write(root, [*DOCUMENTS, Document("rickets", "Rickets", "Rickets is caused by a lack of vitamin D.")])
        await until(lambda: warm.index_version == "test/000002")
        await until(lambda: gc.collect() >= 0 and first() is None)
        assert (await ask(warm)).cache.index_version == "test/000002"


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize("asked", [0, 2])
async def test_what_a_lost_engine_had_beside_it_is_let_go_of_before_another_is_started(
    root: Path, monkeypatch: pytest.MonkeyPatch, starts: bool, asked: int
) -> None:
    """There is room for one of each alone."""
    monkeypatch.setattr(module, "LOOK_AT_INDEX", 60)  # a thread that looks has a search of its own in hand
    killed = SlowGenerator(ANSWER * 100, pause=0.01)
    held: list[bool] = []

    async def hanging(warm: WarmPipeline) -> None:
        with suppress(EngineDied):
            await ask(warm)

    class Watched(Engines):
        def __call__(self, loaded: Any, report: Any) -> Any:
            if self.opened == (1 if starts else 2):
                gc.collect()
                held.append(first() is not None)
            return super().__call__(loaded, report)

    engines = Watched(root, killed, *([] if starts else [EngineError("not yet")]), FakeGenerator(ANSWER))
    warm = warm_pipeline(engines)
    async with living(warm):
        assert warm._pipeline is not None
        first = weakref.ref(warm._pipeline.searcher)
        asking = [asyncio.create_task(hanging(warm)) for _ in range(asked)]
        await until(lambda: killed.generating == asked)
        killed.kill()
        await until(lambda: warm.counts.rebuilt == 1)
        await asyncio.gather(*asking)
    assert held == [False]


@pytest.mark.parametrize("error", [SearchIndexError, RuntimeError, MemoryError])
async def test_a_version_that_cannot_be_used_is_told_of_once_and_the_one_at_hand_stays(
    root: Path, error: type[Exception]
) -> None:
    """And looked at less and less often, as all of it is read each time."""
    lines: list[str] = []
    engines = Engines(root, FakeGenerator(ANSWER))
    looks: list[float] = []

    def damaged(*_: object) -> None:
        looks.append(time.monotonic())
        raise error("it is damaged")

    warm = WarmPipeline(warm_pipeline(engines)._loaded, lines.append, open_parts=engines, newer=damaged)
    async with living(warm):
        await until(lambda: len(looks) >= 8)
        assert (await ask(warm)).cache.index_version == "test/000001"
    assert lines.count("index test/000001 stays in use: it is damaged") == 1
    gaps = np.diff(looks)
    assert np.all(gaps[:3] >= (0.04, 0.08, 0.16))
    assert np.min(gaps[3:]) < 0.3, "the longest pause is kept to"
