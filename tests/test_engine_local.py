"""vLLM itself, in this process: streaming, what it reports, aborting, dying, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from rag import build, settings
from rag.core import GenerationParams, GenerationStats, Message, Opening, Technique
from rag.engine import evidence, processes, spec
from rag.engine.local import LocalGenerator, Observed, configure, read_configuration, require_memory
from rag.errors import EngineDied, EngineError, NotEnoughMemory
from rag.models import ModelStore

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: tuple[Message, ...] = (
    {"role": "user", "content": "Repeat after me, ten times over: the mosquito carries the parasite. " * 8},
)

DRAFTED_UP_TO = 2
"""Requests at once."""


@pytest.fixture(scope="module")
def before() -> set[Path]:
    """The shared memory that was there before the engine."""
    return shared_memory()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def generator(real_home: Path, before: set[Path]) -> AsyncIterator[LocalGenerator]:
    """One for all tests; the last of them kills it."""
    del before
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        most = f"generator.speculation.max_batch_size={DRAFTED_UP_TO}"
        async with build.open_generator(settings.load(assignments=[most])) as started:
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
    assert (technique.engaged, technique.evidence) == (
        True,
        f"{stats.cached_prompt_tokens} of {stats.prompt_tokens} prompt tokens came from the cache",
    )


async def test_what_it_has_forgotten_comes_from_no_cache(generator: LocalGenerator) -> None:
    await collect(generator, 1)
    assert await generator.reset_prefix_cache()
    assert (await collect(generator, 1))[1].cached_prompt_tokens == 0


async def test_under_other_settings_the_same_engine_tells_of_their_techniques(generator: LocalGenerator) -> None:
    planned = spec.plan(settings.load())
    asked = {**planned.techniques, "quantization": Technique(asked=True, engaged=False, reason="not here")}
    other = generator.under(replace(planned, techniques=asked))
    _, stats = await collect(other, 4)
    assert other.info(stats).techniques["quantization"].reason == "not here"
    assert generator.info(stats).techniques["quantization"].reason != "not here"


async def test_prompt_lookup_drafts_and_accepts_where_the_answer_repeats_the_prompt(generator: LocalGenerator) -> None:
    _, stats = await collect(generator, 40)
    assert stats.draft_tokens is not None
    assert stats.accepted_tokens is not None
    assert 0 < stats.accepted_tokens <= stats.draft_tokens
    assert generator.info(stats).techniques["speculation"].engaged is True


async def test_many_requests_at_once_are_written_without_drafts_and_the_reason_is_told(
    generator: LocalGenerator,
) -> None:
    most = DRAFTED_UP_TO
    _, alone = await collect(generator, 40)
    together = await asyncio.gather(*(collect(generator, 40) for _ in range(most + 6)))
    drafted = [stats.draft_tokens for _, stats in together]
    assert alone.draft_tokens is not None
    assert max(one for one in drafted if one is not None) < alone.draft_tokens / 2
    quiet = next(stats for _, stats in together if stats.draft_tokens == 0)
    found = generator.info(quiet).techniques["speculation"]
    assert (found.engaged, found.reason) == (
        False,
        f"nothing was drafted: where more than {most} requests run at once nothing is drafted",
    )
    assert (await collect(generator, 40))[1].draft_tokens == alone.draft_tokens


async def test_drafts_are_accepted_at_a_temperature_too(generator: LocalGenerator) -> None:
    """Which a worker that isn't mended refuses (rag.engine.worker)."""
    params = GenerationParams(60, temperature=0.1, seed=0, ignore_eos=True)
    *_, stats = [item async for item in generator.stream(CHAT, params)]
    assert isinstance(stats, GenerationStats)
    assert stats.draft_tokens is not None
    assert stats.accepted_tokens is not None
    assert stats.draft_tokens > 20
    assert stats.accepted_tokens / stats.draft_tokens > 0.3


async def test_what_it_has_done_since_it_started_is_the_sum_of_its_answers(generator: LocalGenerator) -> None:
    before = generator._observed.since_start
    _, first = await collect(generator, 8)
    _, second = await collect(generator, 24)
    info = generator.info(second)
    expected = before + evidence.counts(first) + evidence.counts(second)
    assert generator._observed.since_start == expected
    assert info.since_start["prefix_caching"].numbers["cached_prompt_tokens"] == expected.cached_prompt_tokens
    assert [info.since_start[name].engaged for name in ("prefix_caching", "speculation")] == [True, True]
    assert generator.info(None).techniques["speculation"].engaged is None


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
    assert 0 < other.probability <= taken.probability
    assert other.probability <= 1 - taken.probability + 1e-3


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
    async with AsyncExitStack() as open_streams:
        for _ in range(4):
            deltas = generator.stream(CHAT, GenerationParams(3000, ignore_eos=True))
            await anext(await open_streams.enter_async_context(aclosing(deltas)))
        assert generator.generating == 4, "each has begun, and none has ended"


async def test_closing_a_stream_early_aborts_the_request(generator: LocalGenerator) -> None:
    async with aclosing(generator.stream(CHAT, GenerationParams(4000, ignore_eos=True))) as deltas:
        async for _ in deltas:
            assert generator.generating == 1
            break
    await asyncio.sleep(0.5)
    assert generator._engine.get_num_unfinished_requests() == 0
    assert generator.generating == 0, "the scheduler holds it still"
    assert (await collect(generator, 4))[1].output_tokens == 4


# --- what an engine tells of techniques -----------------------------------------------------------

IDLE = ("generator.kv_cache_dtype=fp8", "generator.block_size=128", "generator.speculation.lookup_min=4")
"""A KV cache of FP8, and two techniques that are switched on and can do nothing for short answers to prompts that are unlike:
blocks are longer than the chat template's beginning, and four tokens that were there before come in no answer of two."""


@pytest.mark.skipif(not settings.has_avx512(), reason="vLLM's FP8 KV cache on a CPU needs AVX-512")
async def test_no_ops_on_the_engine_itself_are_found_and_its_cache_is_of_eight_bits(real_home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        async with build.open_generator(settings.load(assignments=IDLE)) as idle:
            assert isinstance(idle, LocalGenerator)
            engaged = []
            for number in range(3):
                content = " ".join(f"{number}{word}{number}" for word in ("alpha", "beta", "gamma", "delta") * 12)
                told = idle.stream(({"role": "user", "content": content},), GenerationParams(2, ignore_eos=True))
                stats = [item async for item in told][-1]
                assert isinstance(stats, GenerationStats)
                assert stats.cached_prompt_tokens == 0
                engaged.append(idle.info(stats).techniques["prefix_caching"].engaged)
            found = idle.info(None).since_start
    assert engaged == [None, False, False]
    assert (found["prefix_caching"].engaged, found["prefix_caching"].numbers["prompts"]) == (False, 3)
    assert (found["speculation"].engaged, found["speculation"].numbers["decode_tokens"]) == (False, 3)
    assert found["speculation"].reason is not None
    assert found["speculation"].reason.startswith("nothing was drafted")
    cache = found["kv_cache_dtype"]
    assert (cache.engaged, cache.numbers["bits_per_value"]) == (True, pytest.approx(8, rel=0.02))
    assert cache.evidence is not None
    assert cache.evidence.startswith("the engine runs with kv_cache_dtype fp8")


def step(lookups: tuple[int, int], drafts: tuple[int, int] | None, generated: int, first: int) -> tuple[Any, Any]:
    """What vLLM says after a step: tokens looked up and found, drafted and accepted, and generated, some by prompts."""
    scheduler = SimpleNamespace(
        num_running_reqs=2,
        num_waiting_reqs=1,
        num_skipped_waiting_reqs=0,
        prefix_cache_stats=SimpleNamespace(queries=lookups[0], hits=lookups[1]),
        spec_decoding_stats=SimpleNamespace(num_draft_tokens=drafts[0], num_accepted_tokens=drafts[1])
        if drafts is not None
        else None,
    )
    return scheduler, SimpleNamespace(num_generation_tokens=generated, time_to_first_tokens_iter=[0.1] * first)


async def test_steps_of_the_engine_add_up_and_one_that_drafts_nothing_counts_as_well() -> None:
    observed = Observed()
    observed.step(*step((600, 64), None, 2, 2))
    observed.step(*step((0, 0), (8, 5), 7, 0))
    observed.step(None, None)
    assert observed.scheduled == 3
    assert observed.since_start == evidence.TokenCounts(2, 600, 64, 7, 8, 5)


async def test_an_engine_whose_switches_are_on_and_whose_counters_stay_0_is_caught() -> None:
    observed = Observed()
    for _ in range(3):
        observed.step(*step((0, 0), None, 1, 1))
        observed.step(*step((0, 0), None, 1, 0))
    asked = dict.fromkeys(("prefix_caching", "speculation"), Technique(asked=True))
    found = evidence.of_engine(asked, evidence.UNTOLD, observed.since_start)
    assert {name: (one.engaged, one.reason) for name, one in found.items()} == {
        "prefix_caching": (False, "no prompt token was looked up in the cache"),
        "speculation": (False, "nothing was drafted"),
    }


class Model(SimpleNamespace):
    quantization = None
    use_mla = is_hybrid = False

    def get_sliding_window(self) -> int | None:
        return None

    def get_num_layers(self, parallel: object) -> int:
        del parallel
        return 30

    def get_num_kv_heads(self, parallel: object) -> int:
        del parallel
        return 3

    def get_head_size(self) -> int:
        return 64


def configured(cache_dtype: str, blocks: int, kv_bytes: int | None = 512 * spec.MIB, **model: object) -> Any:
    """vLLM's configuration of a running engine, of a model like SmolLM2."""
    cache = SimpleNamespace(
        cache_dtype=cache_dtype, kv_cache_memory_bytes=kv_bytes, num_gpu_blocks=blocks, block_size=32
    )
    attention = SimpleNamespace(backend=SimpleNamespace(name="CPU_ATTN"))
    return SimpleNamespace(
        cache_config=cache, attention_config=attention, model_config=Model(**model), parallel_config=None
    )


async def test_the_pool_tells_how_many_bits_a_value_has_whatever_the_dtype_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rag.settings.cpu.flags", frozenset)  # of a CPU that may have such a cache
    plan = spec.plan(settings.load(assignments=["generator.kv_cache_dtype=fp8"], environ={}, device="cpu"))
    for blocks, engaged, bits in ((1456, True, 8.0), (728, False, 16.0)):
        configuration = read_configuration(configured("fp8", blocks), plan)
        found = evidence.of_engine(plan.techniques, configuration, evidence.TokenCounts())["kv_cache_dtype"]
        assert (found.engaged, found.numbers["bits_per_value"]) == (engaged, pytest.approx(bits, rel=0.01))


@pytest.mark.parametrize("untold", [{"kv_bytes": None}, {"use_mla": True}, {"get_sliding_window": lambda: 4096}])
async def test_where_the_pool_can_not_be_reckoned_the_dtype_alone_is_evidence(
    untold: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.settings.cpu.flags", frozenset)
    plan = spec.plan(settings.load(assignments=["generator.kv_cache_dtype=fp8"], environ={}, device="cpu"))
    assert read_configuration(configured("fp8", 728), plan).pool is not None
    assert read_configuration(configured("fp8", 728, **untold), plan).pool is None
    shared = replace(plan, draft_model="a-draft")
    assert read_configuration(configured("fp8", 728), shared).pool is None


# --- endings --------------------------------------------------------------------------------------


async def test_arguments_that_vllm_refuses_are_an_error_with_its_reason(real_home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        plan = spec.plan(settings.load(assignments=["generator.max_model_len=65536", "generator.kv_cache_mb=4096"]))
        with pytest.raises(EngineError, match=r"max_model_len \(65536\) is greater"):
            configure(plan, ModelStore().resolve(plan.model).path, None, "cpu")


async def test_a_pool_larger_than_the_memory_is_refused_before_anything_starts(tmp_path: Path) -> None:
    plan = spec.plan(settings.load(assignments=["generator.kv_cache_mb=4000000", "generator.dtype=bfloat16"]))
    with pytest.raises(NotEnoughMemory, match=r"4194\.3 GB of KV pool .* are free\. Lower generator\.kv_cache_mb"):
        require_memory(plan, tmp_path, None, "cpu")


async def test_the_environment_is_as_it_was_after_the_engine_has_started(generator: LocalGenerator) -> None:
    del generator
    assert "rag-engine-" not in os.environ.get("TMPDIR", "")
    assert "VLLM_RPC_BASE_PATH" not in os.environ


async def test_an_engine_that_dies_in_the_middle_of_an_answer_is_named_and_leaves_nothing(
    generator: LocalGenerator, before: set[Path]
) -> None:
    """The last test: it kills the engine of all others."""
    footprint = generator._footprint
    assert len(footprint.processes) == 1, "the model runs in the engine's own process"

    async def be_killed() -> None:
        async for _ in generator.stream(CHAT, GenerationParams(3000, ignore_eos=True)):
            processes.kill(footprint.processes)

    with pytest.raises(EngineDied, match=r"died after [0-9]+ tokens"):
        await be_killed()
    assert not generator.alive
    await generator.close()
    assert not any(process.is_running() for process in footprint.processes)
    assert not footprint.folder.exists()
    assert shared_memory() <= before
