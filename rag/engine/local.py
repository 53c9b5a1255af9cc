"""vLLM's AsyncLLM in this process: start it, stream from it, leave nothing behind."""

from __future__ import annotations

import asyncio
import copy
import math
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from rag.core import EngineInfo, GenerationParams, GenerationStats, Message, Opening
from rag.engine import evidence, processes
from rag.engine.spec import MIB, EngineSpec
from rag.engine.tokens import EngineTokenizer
from rag.engine.worker import Extension
from rag.errors import EngineDied, EngineError, NotEnoughMemory
from rag.settings import Device

# A spawned process imports torch and vLLM beside this one; measured 0.9 GiB.
PROCESS_OVERHEAD = 950 * MIB

PATIENCE = 5.0
"""Seconds that a start which is given up has to notice. Its thread can't be cancelled, but what it starts is killed."""

LIKELIEST = 20
"""First tokens whose probabilities are asked for where one is watched: vLLM gives no more by default."""


@dataclass(slots=True)
class Observed:
    """What the engine tells after each of its steps: how many requests its scheduler holds (it makes one step more once the
    last of them was aborted), and what it has done since it started."""

    scheduled: int = 0
    since_start: evidence.TokenCounts = field(default_factory=lambda: evidence.TokenCounts(0, 0, 0, 0, 0, 0))

    def step(self, scheduler: Any, iteration: Any) -> None:
        """vLLM's `SchedulerStats` and `IterationStats` of one step, either of which may be missing."""
        if scheduler is not None:
            self.scheduled = (
                scheduler.num_running_reqs + scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs
            )
            looked_up, drafts = scheduler.prefix_cache_stats, scheduler.spec_decoding_stats
            self.since_start += evidence.TokenCounts(
                prompt_tokens=looked_up.queries,
                cached_prompt_tokens=looked_up.hits,
                draft_tokens=drafts.num_draft_tokens if drafts is not None else None,  # in a step without a draft
                accepted_tokens=drafts.num_accepted_tokens if drafts is not None else None,
            )
        if iteration is not None:
            prompts = len(iteration.time_to_first_tokens_iter)
            self.since_start += evidence.TokenCounts(prompts, decode_tokens=iteration.num_generation_tokens - prompts)


class LocalGenerator:
    """One engine. Make it with `start`, and `close` it: its processes are ours."""

    def __init__(
        self,
        engine: Any,
        spec: EngineSpec,
        device: Device,
        footprint: processes.Footprint,
        observed: Observed,
        weights: evidence.Weights,
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._observed = observed
        self._device = device
        self._footprint = footprint
        self._weights = weights
        self._tokenizer = EngineTokenizer(engine.get_tokenizer())

    @classmethod
    async def start(cls, spec: EngineSpec, config: Any, device: Device) -> LocalGenerator:
        """Start the engine's processes and wait until they are ready; takes tens of seconds.

        `config` comes from `configure`. Raises `EngineError` with vLLM's own reason. Cancelling it kills
        what was started.
        """
        others = processes.started()
        observed = Observed()
        with processes.runtime_folder() as (folder, guard):
            # A future and no task: it isn't done before its thread is, whoever is cancelled.
            constructing = asyncio.get_running_loop().run_in_executor(None, _construct, config, observed)
            try:
                engine = await asyncio.shield(constructing)
                if device == "cpu" and "speculative_config" in spec.args:
                    await engine.collective_rpc(Extension.mend_drafts_temperature.__name__)
                [weighed] = await engine.collective_rpc(Extension.weigh.__name__)
            except BaseException as error:
                end = time.monotonic() + PATIENCE
                while not constructing.done() and time.monotonic() < end:
                    processes.kill(processes.started() - others)
                    with suppress(asyncio.CancelledError):  # once more: what was started goes first
                        await asyncio.wait({constructing}, timeout=0.1)
                constructing.add_done_callback(
                    lambda done: done.cancelled() or done.exception()
                )  # nobody asks for it any more
                processes.Footprint(processes.started() - others, folder, guard).remove()
                if not isinstance(error, Exception):
                    raise
                raise EngineError(f"vLLM couldn't start: {_reason(error)}") from error
        footprint = processes.Footprint(processes.started() - others, folder, guard)
        return cls(engine, spec, device, footprint, observed, evidence.Weights(*weighed))

    def under(self, spec: EngineSpec) -> LocalGenerator:
        """The same engine for other settings that start it alike: what it tells of techniques is about those that they ask
        for. It is closed by whoever started it."""
        other = copy.copy(self)
        other._spec = spec
        return other

    @property
    def model(self) -> str:
        return self._spec.model

    @property
    def weights(self) -> evidence.Weights:
        return self._weights

    @property
    def alive(self) -> bool:
        return not self._engine.errored

    @property
    def generating(self) -> int:
        return self._observed.scheduled

    @property
    def context_window(self) -> int:
        window: int = self._engine.model_config.max_model_len
        return window

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._tokenizer.encode_chat(messages))

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[Opening | str | GenerationStats, None]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        rendered, begun = self._tokenizer.encode_chat(messages), self._tokenizer.encode(params.begin_with)
        sampling = SamplingParams(
            max_tokens=max(1, params.max_tokens - len(begun)),
            temperature=params.temperature,
            top_p=params.top_p,
            seed=params.seed,
            ignore_eos=params.ignore_eos,
            output_kind=RequestOutputKind.DELTA,
            # Not `logprob_token_ids`: a step that checks draft tokens gives the likeliest tokens in their place.
            logprobs=LIKELIEST if params.watch is not None else None,
        )
        arrival = time.monotonic()
        outputs = self._engine.generate(
            {"prompt_token_ids": [*rendered, *begun]}, sampling, request_id=uuid.uuid4().hex
        )
        tokens = len(begun)
        try:
            if params.begin_with:
                yield params.begin_with
            async for output in outputs:
                completion = output.outputs[0]
                first = tokens == len(begun)
                tokens += len(completion.token_ids)
                stats = GenerationStats(tokens, prompt_tokens=len(rendered))
                if params.watch is not None and first and completion.token_ids:
                    opened = opening(completion, self._tokenizer.encode(params.watch)[0])
                    yield Opening(*opened, read_stats(output, stats, arrival))
                if completion.text:
                    yield completion.text
                if output.finished:
                    yield read_stats(output, stats, arrival)
        except (EngineDeadError, EngineGenerateError) as error:
            if isinstance(error, EngineGenerateError) and not self._engine.errored:  # it is this request's fault
                raise EngineError(f"The engine failed after {tokens} tokens of the answer: {_reason(error)}") from error
            raise EngineDied(
                f"The engine died after {tokens} tokens of the answer. Ask again; if it dies again, "
                "see its log, and try a smaller generator.kv_cache_mb."
            ) from error
        finally:
            await outputs.aclose()  # aborts the request where the reader went away

    def info(self, stats: GenerationStats | None) -> EngineInfo:
        import vllm

        configuration = read_configuration(self._engine.vllm_config, self._spec, self._weights)
        techniques, since_start = self._spec.techniques, self._observed.since_start
        return EngineInfo(
            "vllm",
            vllm.__version__,
            self._device,
            evidence.of_answer(techniques, configuration, stats, since_start),
            evidence.of_engine(techniques, configuration, since_start),
        )

    async def reset_prefix_cache(self) -> bool:
        emptied: bool = await self._engine.reset_prefix_cache()
        return emptied

    async def close(self) -> None:
        self._footprint.remove()
        with suppress(Exception):  # it complains that its processes are gone
            self._engine.shutdown(timeout=0)


def opening(completion: Any, watched: int) -> tuple[float, bool, str]:
    """Of a request's first output: the watched token's probability, whether it was taken, and the likeliest other token's
    text. A token that isn't among the `LIKELIEST` gets the probability of the last of them, which it can't exceed."""
    likeliest = completion.logprobs[0]
    seen = likeliest.get(watched, min(likeliest.values(), key=lambda one: one.logprob))
    others = [
        one
        for token, one in likeliest.items()
        if token != watched and "\ufffd" not in one.decoded_token  # half a letter
    ]
    otherwise = max(others, key=lambda one: one.logprob).decoded_token if others else ""
    return math.exp(seen.logprob), completion.token_ids[0] == watched, otherwise


def read_stats(output: Any, stats: GenerationStats, arrival: float) -> GenerationStats:
    """What vLLM's last output of a request says of it.

    `arrival` is the monotonic time at which the request was handed over. The engine's `*_ts` are of the
    same clock, which its processes share; its `arrival_time` is wall clock, and isn't used.
    """
    completion, times = output.outputs[0], output.metrics
    speculation = completion.spec_decode_metrics
    return replace(
        stats,
        finish_reason=completion.finish_reason,
        cached_prompt_tokens=output.num_cached_tokens,
        draft_tokens=speculation.num_draft_tokens if speculation else None,
        accepted_tokens=sum(j * n for j, n in enumerate(speculation.histogram)) if speculation else None,
        queue=times.scheduled_ts - times.queued_ts if times else None,
        ttft=times.first_token_ts - arrival if times else None,
        decode=times.last_token_ts - times.first_token_ts if times else None,
    )


def read_configuration(
    config: Any, spec: EngineSpec, weights: evidence.Weights | None = None
) -> evidence.Configuration:
    """What vLLM's configuration, as the running engine has resolved it, and its weights say of techniques."""
    backend = config.attention_config.backend
    return evidence.Configuration(
        reported={
            "quantization": config.model_config.quantization,
            "kv_cache_dtype": config.cache_config.cache_dtype,
            "attention_backend": backend.name if backend is not None else None,
        },
        asked={name: spec.args[name] for name in ("kv_cache_dtype", "attention_backend") if name in spec.args},
        pool=_read_pool(config) if spec.draft_model is None else None,  # a draft model's layers have their part of it
        weights=weights,
    )


def _read_pool(config: Any) -> evidence.Pool | None:
    """None where the engine doesn't tell the pool's bytes, as on a GPU, or where not all layers keep the same of each token."""
    cache, model, parallel = config.cache_config, config.model_config, config.parallel_config
    alike = not (model.use_mla or model.is_hybrid or model.get_sliding_window())
    if not cache.kv_cache_memory_bytes or not cache.num_gpu_blocks or not alike:
        return None
    heads = model.get_num_layers(parallel) * model.get_num_kv_heads(parallel)
    return evidence.Pool(
        bytes=cache.kv_cache_memory_bytes,
        tokens=cache.num_gpu_blocks * cache.block_size,
        values=2 * heads * model.get_head_size(),
    )


def require_memory(spec: EngineSpec, model: Path, draft: Path | None, device: Device) -> None:
    """Raises `NotEnoughMemory` where weights, KV pool and processes don't fit what is free now."""
    if device != "cpu":
        return
    weights = sum(file.stat().st_size for folder in (model, draft) if folder for file in folder.glob("*.safetensors"))
    pool = int(spec.args["kv_cache_memory_bytes"])
    free = psutil.virtual_memory().available
    if weights + pool + PROCESS_OVERHEAD > free:
        raise NotEnoughMemory(
            f"Not enough memory: {weights / 1e9:.1f} GB of weights, {pool / 1e9:.1f} GB of KV pool and "
            f"{PROCESS_OVERHEAD / 1e9:.1f} GB for the engine's processes are needed, {free / 1e9:.1f} GB are free. "
            "Lower generator.kv_cache_mb, choose a smaller model, or close something."
        )


def configure(spec: EngineSpec, model: Path, draft: Path | None, device: Device) -> Any:
    """vLLM's full configuration of an engine. Imports vLLM, which takes seconds, and starts nothing.

    Raises `NotEnoughMemory` where it wouldn't fit, `EngineError` where vLLM refuses the arguments.
    """
    require_memory(spec, model, draft, device)
    processes.set_environment(spec.environment)
    from vllm.engine.arg_utils import AsyncEngineArgs

    try:
        return AsyncEngineArgs(**engine_arguments(spec, model, draft)).create_engine_config()
    except Exception as error:
        raise EngineError(f"vLLM refuses this configuration: {_reason(error)}") from error


def engine_arguments(spec: EngineSpec, model: Path, draft: Path | None = None) -> dict[str, Any]:
    """The spec's arguments with the paths filled in."""
    arguments = {**spec.args, "model": str(model)}
    if draft is not None:
        arguments["speculative_config"] = {**arguments["speculative_config"], "model": str(draft)}
    return arguments


def _construct(config: Any, observed: Observed) -> Any:
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Observing(StatLoggerBase):  # type: ignore[misc]  # vLLM is untyped here
        """Switches per-request metrics on without vLLM's own loggers, of which a process can have one set."""

        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
            observed.step(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    with processes.without_interrupts():
        return AsyncLLM.from_vllm_config(
            config, stat_loggers=[Observing], disable_log_stats=True, enable_log_requests=False
        )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
