"""Our settings to vLLM's engine arguments, per platform. Builds nothing and imports no vLLM.

vLLM accepts, at configuration, things that its CPU worker then ignores or fails on late. So what a
platform can't do is decided here: left out with a reason where a profile asked for it, or had in another way that is told,
refused where somebody asked for it by hand. Never a substitute in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.core import Technique
from rag.engine.worker import EXTENSION
from rag.errors import SettingsError
from rag.settings import WITHOUT_BF16, Generator, Loaded, Quantization, has_avx512

MIB = 1 << 20
CPU_KV_CACHE_MB = 512

EXECUTOR = "rag.engine.executor.InProcess"
"""Of an engine on a CPU. By its path: imported, it would bring vLLM along."""

# Seen in vLLM 0.32 on a CPU: online `fp8` crashes at load, and `fp8_per_channel` runs at half the speed
# of BF16. Checkpoints of the other methods have CPU kernels.
_NO_CPU_WEIGHTS = {"fp8": "vLLM has no FP8 weight kernels for a CPU (for INT8 it has)"}

# What stands in where a profile, which is for any machine, asks for the former: both have 8 bits a weight.
_CPU_WEIGHTS_INSTEAD: Mapping[Quantization, Quantization] = {"fp8": "int8"}

_AVX512_WEIGHTS = {"awq", "gptq"}  # vLLM's library for AVX2 has no 4-bit product: the first token fails there

# What a server was started with, and a request can't change.
_OF_THE_SERVER = (
    "dtype",
    "kv_cache_mb",
    "gpu_memory_utilization",
    "block_size",
    "enforce_eager",
    "cores",
    "quantization",
    "quantized",
    "kv_cache_dtype",
    "prefix_caching",
    "attention_backend",
    "speculation",
)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """`args` are AsyncEngineArgs' keywords without the model's path, which `model` (and `draft_model`)
    name as the settings do; `quantization` is how the model's weights are; `environment` must be set (or, where None, unset)
    before vLLM is imported."""

    model: str
    draft_model: str | None
    quantization: Quantization | None
    args: Mapping[str, Any]
    environment: Mapping[str, str | None]
    techniques: Mapping[str, Technique]


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """A model behind a server that somebody else has started. `model` is what the server calls it, `tokenizer` a
    recipe, folder or hub id."""

    base_url: str
    model: str
    tokenizer: str
    techniques: Mapping[str, Technique]


def check(loaded: Loaded) -> None:
    """Raises what the plan of these settings raises."""
    if loaded.settings.generator.base_url is None:
        plan(loaded)
    else:
        plan_remote(loaded)


def plan(loaded: Loaded) -> EngineSpec:
    """Raises `SettingsError` where a technique asked for by hand can't be had on this platform, and where the settings
    name a server: then there is no engine to plan."""
    settings = loaded.settings.generator
    if settings.base_url is not None:
        raise SettingsError(
            f"generator.base_url={settings.base_url} (from {loaded.origin('generator.base_url').name}): this command "
            "starts an engine of its own. Set generator.base_url to null for it."
        )
    model = _model(loaded)
    asked = _asked(settings)
    techniques: dict[str, Technique] = {}

    quantization, other = _quantization(loaded)
    _technique(loaded, techniques, "quantization", asked["quantization"], other if quantization is None else None)
    if quantization is not None and other is not None:
        techniques["quantization"] = replace(techniques["quantization"], reason=other)
    backend = _technique(
        loaded,
        techniques,
        "attention_backend",
        asked["attention_backend"],
        "vLLM has a single attention backend on a CPU" if loaded.device == "cpu" else None,
    )
    kv_cache_dtype = _technique(
        loaded, techniques, "kv_cache_dtype", asked["kv_cache_dtype"], _why_no_kv_cache_dtype(loaded)
    )
    _technique(loaded, techniques, "prefix_caching", asked["prefix_caching"], None)
    method = asked["speculation"]
    draft = settings.speculation.draft_model
    no_draft = f"models file {loaded.models} names no draft model (generator.speculation.draft_model)"
    impossible = no_draft if method == "draft_model" and draft is None else None
    method = _technique(loaded, techniques, "speculation", method, impossible, key="generator.speculation.method")
    most = _drafting_up_to(settings)
    if method is not None and most is not None:
        techniques["speculation"] = replace(
            techniques["speculation"], reason=f"where more than {most} requests run at once nothing is drafted"
        )

    checkpoint = settings.quantized.get(quantization) if quantization is not None else None
    args: dict[str, Any] = {
        "dtype": dtype(loaded),
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager,
        "block_size": settings.block_size,
        "enable_prefix_caching": settings.prefix_caching,
        "kv_cache_dtype": kv_cache_dtype or "auto",
        "trust_remote_code": False,
        "load_format": "safetensors",
        "enable_log_requests": False,
        "worker_extension_cls": EXTENSION,
    }
    if loaded.device == "cpu":
        args["distributed_executor_backend"] = EXECUTOR
    if loaded.device == "cpu" and settings.temperature > 0 and settings.seed is not None:
        # Where a prompt is read in parts vLLM winds its request's random generator back, which PyTorch's for CPUs can't:
        # the engine dies (0.32). So prompts are read whole.
        args |= {"enable_chunked_prefill": False, "max_num_batched_tokens": settings.max_model_len}
    if quantization is not None and checkpoint is None:
        args["quantization"] = quantization
    if backend is not None:
        args["attention_backend"] = backend
    if method is not None:
        args["speculative_config"] = _speculation(settings)
        args["per_request_spec_decode_metrics"] = "summary"
    kv_cache_mb = kv_cache_mib(loaded)
    if kv_cache_mb is not None:
        args["kv_cache_memory_bytes"] = kv_cache_mb * MIB
    if loaded.device == "cuda":  # that share has to be free as it starts, also where the pool's size is set
        args["gpu_memory_utilization"] = settings.gpu_memory_utilization
    return EngineSpec(
        model=checkpoint if checkpoint is not None else model,
        draft_model=draft if method == "draft_model" else None,
        quantization=quantization,
        args=args,
        environment=_environment(loaded),
        techniques=techniques,
    )


def plan_remote(loaded: Loaded) -> RemoteSpec:
    """What a profile asks of the engine is left out: a server runs as it was started.

    Raises `SettingsError` where the same is asked for by hand.
    """
    settings = loaded.settings.generator
    assert settings.base_url is not None
    model = _model(loaded)
    as_started = f"the server at {settings.base_url} runs as it was started"
    for key, value in loaded.leaves():
        section, _, name = key.partition(".")
        if section == "generator" and name.split(".")[0] in _OF_THE_SERVER and loaded.explicit(key):
            raise SettingsError(
                f"{key}={value} (from {loaded.origin(key).name}) can't be had: {as_started}. Set it there."
            )
    left_out = Technique(asked=True, engaged=False, reason=as_started)
    techniques = {
        name: left_out if value is not None else Technique(asked=False) for name, value in _asked(settings).items()
    }
    # These show from outside: a server that has them switched on may tell of cached and of drafted tokens.
    for name, what in (("prefix_caching", "prompts are cached"), ("speculation", "it speculates")):
        if techniques[name].asked:
            techniques[name] = Technique(asked=True, reason=f"{as_started}, and doesn't tell whether {what}")
    tokenizer = settings.tokenizer if settings.tokenizer is not None else model
    return RemoteSpec(settings.base_url, model, tokenizer, techniques)


def require_same_vocabulary(model: Path, draft: Path) -> None:
    """Raises `SettingsError` for a draft model that vLLM would refuse, after tens of seconds, for its vocabulary."""
    sizes = [
        json.loads((folder / "config.json").read_text(encoding="utf-8")).get("vocab_size") for folder in (model, draft)
    ]
    if None not in sizes and sizes[0] != sizes[1]:
        raise SettingsError(
            f"vLLM refuses a draft model with another vocabulary: {model.name} has {sizes[0]} tokens, {draft.name} "
            f"{sizes[1]}; use generator.speculation.method=ngram or a draft of the same vocabulary."
        )


def dtype(loaded: Loaded) -> str:
    """What the engine computes in. vLLM computes with quantised weights in 16 bits, on a CPU without BF16 too.

    Raises `SettingsError` where 32 are asked for with them.
    """
    settings = loaded.settings.generator
    if settings.dtype != "float32" or _quantization(loaded)[0] is None:
        return settings.dtype
    origin = loaded.origin("generator.dtype")
    if origin == WITHOUT_BF16:
        return "bfloat16"
    raise SettingsError(
        f"generator.dtype=float32 (from {origin.name}): weights quantised by {settings.quantization} are computed with "
        "in 16 bits. Use bfloat16 or float16, or set generator.quantization to null."
    )


def kv_cache_mib(loaded: Loaded) -> int | None:
    """Size of the KV pool, which holds as many tokens in 32 bits as in 16; None where it is a share of GPU memory."""
    settings = loaded.settings.generator
    size = CPU_KV_CACHE_MB if settings.kv_cache_mb is None and loaded.device == "cpu" else settings.kv_cache_mb
    narrow = settings.kv_cache_dtype != "auto" and _why_no_kv_cache_dtype(loaded) is None
    wide = dtype(loaded) == "float32" and not narrow
    return 2 * size if wide and size is not None else size


def _model(loaded: Loaded) -> str:
    model = loaded.settings.generator.model
    if model is None:
        raise SettingsError(
            f"generator.model is null (models file {loaded.models}): name a model, or use --models embedded."
        )
    return model


def _asked(settings: Generator) -> dict[str, Any]:
    """Each technique with the value that is asked for, None where it isn't."""
    return {
        "quantization": settings.quantization,
        "attention_backend": settings.attention_backend,
        "kv_cache_dtype": settings.kv_cache_dtype if settings.kv_cache_dtype != "auto" else None,
        "prefix_caching": settings.prefix_caching or None,
        "speculation": settings.speculation.method if settings.speculation.method != "none" else None,
    }


def _technique(
    loaded: Loaded,
    techniques: dict[str, Technique],
    name: str,
    value: Any,
    impossible: str | None,
    key: str | None = None,
) -> Any:
    """The value where it is asked for and can be had, else None; and the technique's entry."""
    if value is None:
        techniques[name] = Technique(asked=False)
        return None
    key = key if key is not None else f"generator.{name}"
    if impossible is None:
        techniques[name] = Technique(asked=True)
        return value
    if loaded.explicit(key):
        raise SettingsError(f"{key}={value} (from {loaded.origin(key).name}) can't be had: {impossible}.")
    techniques[name] = Technique(asked=True, engaged=False, reason=impossible)
    return None


def _quantization(loaded: Loaded) -> tuple[Quantization | None, str | None]:
    """How the engine's weights are quantised, None for not at all; and why that isn't what is asked for, where it isn't."""
    settings = loaded.settings.generator
    method = settings.quantization
    if method is None:
        return None, None
    why = _why_not_quantized(method, loaded)
    if loaded.device != "cpu" or loaded.explicit("generator.quantization"):
        return (method, None) if why is None else (None, why)
    other = _CPU_WEIGHTS_INSTEAD.get(method) if why is not None else method
    if other is None or _why_not_quantized(other, loaded) is not None:
        return None, why
    if other == "int8" and settings.dtype == "float32":
        in_16 = f"INT8 is computed with in 16 bits, and not in 32 ({loaded.origin('generator.dtype').name})"
        return None, f"{why}; {in_16}" if why is not None else in_16
    return other, f"{other.upper()} stands in for {method.upper()}: {why}" if other != method else None


def _why_not_quantized(method: Quantization, loaded: Loaded) -> str | None:
    if loaded.device == "cpu" and method in _NO_CPU_WEIGHTS:
        return _NO_CPU_WEIGHTS[method]
    if loaded.device == "cpu" and method in _AVX512_WEIGHTS and not has_avx512():
        return f"vLLM's {method.upper()} kernels for a CPU need AVX-512, which this one hasn't"
    checkpoint = loaded.settings.generator.quantized.get(method)
    # By its name: what it holds is known once it has been fetched, and vLLM fails once it has read that.
    if loaded.device == "cpu" and method == "int8" and checkpoint is not None and "gptq" in checkpoint.lower():
        return f"vLLM's GPTQ kernels for a CPU are of 4 bits, and {checkpoint} has 8"
    if checkpoint is None and not (method == "fp8" and loaded.device == "cuda"):
        return f"models file {loaded.models} names no {method} checkpoint (generator.quantized.{method})"
    return None


def _why_no_kv_cache_dtype(loaded: Loaded) -> str | None:
    if loaded.device == "cpu" and not has_avx512():
        return "vLLM's KV cache of 8 bits on a CPU needs AVX-512, which this one hasn't"
    return None


def _speculation(settings: Generator) -> dict[str, Any]:
    spec = settings.speculation
    config: dict[str, Any] = {"method": spec.method, "num_speculative_tokens": spec.tokens}
    if spec.method == "ngram":
        config |= {"prompt_lookup_min": spec.lookup_min, "prompt_lookup_max": spec.lookup_max}
    most = _drafting_up_to(settings)
    if most is not None:
        config["num_speculative_tokens_per_batch_size"] = [(1, most, spec.tokens), (most + 1, settings.max_num_seqs, 0)]
    return config


def _drafting_up_to(settings: Generator) -> int | None:
    """Requests; None where it makes no difference how many there are."""
    most = settings.speculation.max_batch_size
    return most if most is not None and most < settings.max_num_seqs else None


def _environment(loaded: Loaded) -> dict[str, str | None]:
    environment: dict[str, str | None] = {"VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if loaded.device == "cpu":
        environment["VLLM_CPU_KVCACHE_SPACE"] = None  # it would override kv_cache_memory_bytes
        environment["VLLM_CPU_OMP_THREADS_BIND"] = loaded.settings.generator.cores
        # vLLM compiles a function of three lines even without compilation, for log-probabilities: 7 s of the first answer.
        # An engine beside that one may well compile, and has its environment.
        environment["TORCHDYNAMO_DISABLE"] = "1" if loaded.settings.generator.enforce_eager else None
    return environment
