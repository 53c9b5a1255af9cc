"""vLLM itself, in this process: streaming, what it reports, aborting, dying, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from rag import build, settings
from rag.core import GenerationParams, GenerationStats, Message, Opening, Technique
from rag.engine import processes, spec
from rag.engine.local import LocalGenerator, configure, require_memory
from rag.errors import EngineDied, EngineError, NotEnoughMemory
from rag.models import ModelStore

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: tuple[Message, ...] = (
    {"role": "user", "content": "Repeat after me, ten times over: the mosquito carries the parasite. " * 8},
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def generator(real_home: Path) -> AsyncIterator[LocalGenerator]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        async with build.open_generator(settings.load()) as started:
            assert isinstance(started, LocalGenerator)
            yield started


def shared_memory() -> set[Path]:
    return {*Path("/dev/shm").glob("psm_*"), *Path("/dev/shm").glob("sem.loky-*")}


async def collect(generator: LocalGenerator, max_tokens: int) -> tuple[str, GenerationStats]:
    items = [item async for item in generator.stream(CHAT, GenerationParams(max_tokens, ignore_eos=True))]
    assert isinstance(items[-1], GenerationStats)
    return "".join(item for item in items if isinstance(item, str)), items[-1]


async def test_deltas_then_what_the_engine_reports(generator: LocalGenerator) -> None:
    text, stats = await collect(generator, 24)
    assert text.strip()
    assert (stats.output_tokens, stats.finish_reason) == (24, "length")
    assert stats.prompt_tokens == generator.count_prompt_tokens(CHAT)
    assert stats.queue is not None
    assert stats.ttft is not None
    assert stats.decode is not None
    assert 0 <= stats.queue < stats.ttft
    assert stats.decode > 0


async def test_a_prompt_that_was_seen_before_comes_from_the_prefix_cache_and_that_is_shown(
    generator: LocalGenerator,
) -> None:
    await collect(generator, 1)
    _, stats = await collect(generator, 8)
    assert stats.cached_prompt_tokens is not None
    assert stats.cached_prompt_tokens >= spec.plan(settings.load()).args["block_size"]
    technique = generator.info(stats).techniques["prefix_caching"]
    assert (technique.engaged, technique.evidence) == (True, f"{stats.cached_prompt_tokens} cached prompt tokens")


async def test_what_it_has_forgotten_comes_from_no_cache(generator: LocalGenerator) -> None:
    await collect(generator, 1)
    assert await generator.forget()
    assert (await collect(generator, 1))[1].cached_prompt_tokens == 0


async def test_under_other_settings_the_same_engine_tells_of_their_techniques(generator: LocalGenerator) -> None:
    planned = spec.plan(settings.load())
    asked = {**planned.techniques, "quantization": Technique(asked=True, engaged=False, reason="not here")}
    other = generator.under(replace(planned, techniques=asked))
    _, stats = await collect(other, 4)
    assert other.info(stats).techniques["quantization"].reason == "not here"
    assert generator.info(stats).techniques["quantization"].reason is None


async def test_prompt_lookup_drafts_and_accepts_where_the_answer_repeats_the_prompt(generator: LocalGenerator) -> None:
    _, stats = await collect(generator, 40)
    assert stats.draft_tokens is not None
    assert stats.accepted_tokens is not None
    assert 0 < stats.accepted_tokens <= stats.draft_tokens
    assert generator.info(stats).techniques["speculation"].engaged is True


async def test_greedy_answers_are_the_same_twice(generator: LocalGenerator) -> None:
    assert (await collect(generator, 16))[0] == (await collect(generator, 16))[0]


async def test_a_watched_beginning_is_told_of_before_the_text(generator: LocalGenerator) -> None:
    params = GenerationParams(4, ignore_eos=True)
    text = (await collect(generator, 4))[0]
    items = [item async for item in generator.stream(CHAT, replace(params, watch=text))]
    taken = items[0]
    assert isinstance(taken, Opening)
    assert taken.taken
    assert 0 < taken.probability <= 1
    assert (taken.stats.output_tokens, taken.stats.prompt_tokens) == (1, generator.count_prompt_tokens(CHAT))
    assert taken.stats.ttft is not None
    assert "".join(item for item in items if isinstance(item, str)) == text

    other = await anext(generator.stream(CHAT, replace(params, watch=taken.otherwise)))
    assert isinstance(other, Opening)
    assert not other.taken
    assert text.startswith(other.otherwise)
    assert other.probability == pytest.approx(1 - taken.probability, abs=1 - taken.probability)
    assert 0 < other.probability <= taken.probability


async def test_an_unlikely_beginning_has_a_probability_near_0(generator: LocalGenerator) -> None:
    opening = await anext(generator.stream(CHAT, GenerationParams(1, watch="\u2603")))
    assert isinstance(opening, Opening)
    assert (opening.taken, opening.probability < 0.05) == (False, True)


async def test_watched_requests_beside_others_that_check_drafts_are_told_of_as_well(generator: LocalGenerator) -> None:
    async def watched() -> Opening:
        items = [item async for item in generator.stream(CHAT, GenerationParams(8, ignore_eos=True, watch="The"))]
        assert isinstance(items[0], Opening)
        return items[0]

    alone = await watched()
    beside, *_ = await asyncio.gather(watched(), collect(generator, 40), collect(generator, 40))
    assert beside.probability == pytest.approx(alone.probability, rel=0.05)


async def test_an_answer_goes_on_from_what_it_has_to_begin_with(generator: LocalGenerator) -> None:
    items = [
        item async for item in generator.stream(CHAT, GenerationParams(8, ignore_eos=True, begin_with="Ten times"))
    ]
    *deltas, stats = items
    text = "".join(item for item in deltas if isinstance(item, str))
    assert text.startswith("Ten times")
    assert len(text) > len("Ten times")
    assert isinstance(stats, GenerationStats)
    assert (stats.output_tokens, stats.prompt_tokens) == (8, generator.count_prompt_tokens(CHAT))


async def test_requests_run_beside_one_another(generator: LocalGenerator) -> None:
    results = await asyncio.gather(*(collect(generator, 8) for _ in range(4)))
    assert [stats.output_tokens for _, stats in results] == [8] * 4


async def test_closing_a_stream_early_aborts_the_request(generator: LocalGenerator) -> None:
    async with aclosing(generator.stream(CHAT, GenerationParams(4000, ignore_eos=True))) as deltas:
        async for _ in deltas:
            assert generator.generating == 1
            break
    await asyncio.sleep(0.5)
    assert generator._engine.get_num_unfinished_requests() == 0
    assert generator.generating == 0, "the scheduler holds it still"
    assert (await collect(generator, 4))[1].output_tokens == 4


async def test_an_engine_that_dies_in_the_middle_of_an_answer_is_named_and_leaves_nothing(real_home: Path) -> None:
    before = shared_memory()
    loaded = settings.load()
    plan = spec.plan(loaded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        config = configure(plan, ModelStore().resolve(plan.model).path, None, "cpu")
    dying = await LocalGenerator.start(plan, config, "cpu")
    footprint = dying._footprint
    assert len(footprint.processes) >= 2
    assert footprint.shared_memory <= shared_memory() - before

    async def be_killed() -> None:
        async for _ in dying.stream(CHAT, GenerationParams(4000, ignore_eos=True)):
            processes.kill(footprint.processes)

    with pytest.raises(EngineDied, match=r"died after [0-9]+ tokens"):
        await be_killed()
    await dying.close()
    assert not any(process.is_running() for process in footprint.processes)
    assert not footprint.folder.exists()
    assert shared_memory() == before


async def test_arguments_that_vllm_refuses_are_an_error_with_its_reason(real_home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        plan = spec.plan(settings.load(assignments=["generator.max_model_len=65536", "generator.kv_cache_mb=4096"]))
        with pytest.raises(EngineError, match=r"max_model_len \(65536\) is greater"):
            configure(plan, ModelStore().resolve(plan.model).path, None, "cpu")


async def test_a_pool_larger_than_the_memory_is_refused_before_anything_starts(tmp_path: Path) -> None:
    plan = spec.plan(settings.load(assignments=["generator.kv_cache_mb=4000000"]))
    with pytest.raises(NotEnoughMemory, match=r"4194\.3 GB of KV pool .* are free\. Lower generator\.kv_cache_mb"):
        require_memory(plan, tmp_path, None, "cpu")


async def test_the_environment_is_as_it_was_after_the_engine_has_started(generator: LocalGenerator) -> None:
    del generator
    assert "rag-engine-" not in os.environ.get("TMPDIR", "")
    assert "VLLM_RPC_BASE_PATH" not in os.environ
