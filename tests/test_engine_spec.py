from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag import settings
from rag.core import Technique
from rag.engine.local import engine_arguments
from rag.engine.spec import EngineSpec, RemoteSpec, check, kv_cache_mib, plan, plan_remote, require_same_vocabulary
from rag.errors import SettingsError
from rag.settings import Device, Loaded

pytestmark = pytest.mark.usefixtures("cpu_with_bf16")

NO_FP8 = "vLLM has no FP8 weight kernels for a CPU (for INT8 it has)"
MIB = 1024 * 1024
TECHNIQUES = {"quantization", "attention_backend", "kv_cache_dtype", "prefix_caching", "speculation"}


def load(
    profile: str = "v3",
    models: str = "embedded",
    sets: Sequence[str] = (),
    device: Device = "cpu",
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    return settings.load(profile, models, sets, device=device, environ=environ if environ is not None else {})


def planned(*sets: str, profile: str = "v3", models: str = "embedded", device: Device = "cpu") -> EngineSpec:
    return plan(load(profile, models, sets, device))


def write_yaml(path: Path, **sections: Any) -> str:
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return str(path)


# --- the whole ------------------------------------------------------------------------------------


def test_the_plan_of_the_recommended_profile_on_a_cpu_is_exactly_this() -> None:
    spec = planned(profile="auto-cpu")
    assert spec == EngineSpec(
        model="smollm2-grounded-int8",
        draft_model=None,
        quantization="int8",
        args={
            "dtype": "bfloat16",
            "max_model_len": 8192,
            "max_num_seqs": 16,
            "enforce_eager": True,
            "block_size": 32,
            "enable_prefix_caching": True,
            "kv_cache_dtype": "auto",
            "trust_remote_code": False,
            "load_format": "safetensors",
            "enable_log_requests": False,
            "worker_extension_cls": "rag.engine.worker.Extension",
            "distributed_executor_backend": "rag.engine.executor.InProcess",
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 4,
                "prompt_lookup_min": 2,
                "prompt_lookup_max": 4,
            },
            "per_request_spec_decode_metrics": "summary",
            "kv_cache_memory_bytes": 256 * MIB,
        },
        environment={
            "VLLM_NO_USAGE_STATS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "VLLM_CPU_KVCACHE_SPACE": None,
            "VLLM_CPU_OMP_THREADS_BIND": "auto",
            "TORCHDYNAMO_DISABLE": "1",
        },
        techniques={
            "quantization": Technique(asked=True),
            "attention_backend": Technique(asked=False),
            "kv_cache_dtype": Technique(asked=False),
            "prefix_caching": Technique(asked=True),
            "speculation": Technique(asked=True),
        },
    )


def test_no_model_is_refused_with_the_models_file_and_a_way_out(tmp_path: Path) -> None:
    models = write_yaml(tmp_path / "none.yaml", generator={"max_tokens": 64})
    with pytest.raises(SettingsError) as caught:
        plan(load(models=models))
    assert str(caught.value).startswith(f"generator.model is null (models file {models})")
    assert "--models embedded" in str(caught.value)


def test_settings_reach_the_engines_arguments() -> None:
    args = planned(
        "generator.dtype=float32",
        "generator.max_model_len=1024",
        "generator.max_num_seqs=3",
        "generator.enforce_eager=false",
        "generator.block_size=64",
        "generator.max_tokens=16",
    ).args
    assert (args["dtype"], args["max_model_len"], args["max_num_seqs"]) == ("float32", 1024, 3)
    assert (args["enforce_eager"], args["block_size"]) == (False, 64)


@pytest.mark.parametrize(
    ("sets", "device", "whole"),
    [
        (("generator.temperature=0.1", "generator.seed=7"), "cpu", True),
        (("generator.temperature=0.1", "generator.seed=null"), "cpu", False),
        (("generator.temperature=0", "generator.seed=7"), "cpu", False),
        (("generator.temperature=0.1", "generator.seed=7"), "cuda", False),
    ],
)
def test_on_a_cpu_prompts_are_read_whole_where_a_seed_makes_a_difference(
    sets: tuple[str, ...], device: Device, whole: bool
) -> None:
    args = planned(*sets, "generator.max_model_len=4096", device=device).args
    expected = (False, 4096) if whole else (None, None)
    assert (args.get("enable_chunked_prefill"), args.get("max_num_batched_tokens")) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_remote_code_and_no_pickles_whatever_is_set(device: Device) -> None:
    args = planned(device=device).args
    assert args["trust_remote_code"] is False
    assert args["load_format"] == "safetensors"


# --- quantization ---------------------------------------------------------------------------------


def test_on_a_cpu_int8_stands_in_for_a_profiles_fp8_where_there_is_a_checkpoint_of_it_and_says_so() -> None:
    spec = planned(profile="v3_1")
    assert spec.model == "smollm2-grounded-int8"
    assert spec.techniques["quantization"] == Technique(asked=True, reason=f"INT8 stands in for FP8: {NO_FP8}")
    assert ("quantization" in spec.args, spec.args["dtype"], spec.quantization) == (False, "bfloat16", "int8")
    assert planned("generator.model=smollm2-135m-instruct", profile="v3_1").model == "smollm2-135m-instruct"
    assert planned(profile="v3_1", device="cuda").model == "smollm2-grounded"


@pytest.mark.parametrize("asked", ["generator.dtype=float32", "generator.dtype=float16"])
def test_int8_stands_in_where_16_bits_are_computed_in(asked: str) -> None:
    """In 32 nobody asked for fewer."""
    spec = planned(asked, profile="v3_1")
    in_16 = asked.endswith("16")
    assert spec.model == ("smollm2-grounded-int8" if in_16 else "smollm2-grounded")
    assert spec.techniques["quantization"].engaged is (None if in_16 else False)
    assert spec.args["dtype"] == asked.partition("=")[2]


@pytest.mark.parametrize("models", ["qwen3-8b", "qwen2.5-7b"])
def test_fp8_from_a_profile_is_left_out_on_a_cpu_with_its_reason(models: str) -> None:
    spec = planned(profile="v3_1", models=models)
    assert spec.techniques["quantization"] == Technique(asked=True, engaged=False, reason=NO_FP8)
    assert "quantization" not in spec.args
    assert spec.model == load(models=models).settings.generator.model


@pytest.mark.parametrize("models", ["embedded", "qwen3-8b"])
def test_fp8_by_set_is_refused_on_a_cpu(models: str) -> None:
    with pytest.raises(SettingsError) as caught:
        planned("generator.quantization=fp8", models=models)
    assert str(caught.value) == f"generator.quantization=fp8 (from --set) can't be had: {NO_FP8}."


def test_fp8_by_set_is_refused_also_where_the_profile_asks_for_it_too() -> None:
    with pytest.raises(SettingsError, match=r"generator\.quantization=fp8 \(from --set\)"):
        planned("generator.quantization=fp8", profile="v3_1")


def test_fp8_by_the_environment_is_refused_on_a_cpu() -> None:
    with pytest.raises(SettingsError, match=r"generator\.quantization=fp8 \(from environment\).*FP8 weight kernels"):
        plan(load(environ={"RAG__GENERATOR__QUANTIZATION": "fp8"}))


def test_fp8_from_a_models_file_is_left_out_on_a_cpu(tmp_path: Path) -> None:
    models = write_yaml(tmp_path / "m.yaml", generator={"model": "org/model", "quantization": "fp8"})
    assert plan(load(models=models)).techniques["quantization"] == Technique(True, False, reason=NO_FP8)


def test_a_profiles_fp8_that_is_set_to_null_by_hand_is_not_asked_for() -> None:
    spec = planned("generator.quantization=null", profile="v3_1")
    assert spec.techniques["quantization"] == Technique(asked=False)
    assert "quantization" not in spec.args


@pytest.mark.parametrize("models", ["embedded", "qwen2.5-7b"])
def test_fp8_on_cuda_is_passed_on_to_the_engine_where_there_is_no_fp8_checkpoint(models: str) -> None:
    for spec in (
        planned(profile="v3_1", models=models, device="cuda"),
        planned("generator.quantization=fp8", models=models, device="cuda"),
    ):
        assert spec.args["quantization"] == "fp8"
        assert spec.techniques["quantization"] == Technique(asked=True)
        assert spec.model == load(models=models).settings.generator.model


def test_fp8_on_cuda_takes_the_models_files_checkpoint_where_there_is_one() -> None:
    spec = planned(profile="v3_1", models="qwen3-8b", device="cuda")
    assert spec.model == "Qwen/Qwen3-8B-FP8"
    assert "quantization" not in spec.args
    assert spec.techniques["quantization"] == Technique(asked=True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_a_method_without_a_checkpoint_is_refused_by_hand_on_every_device(method: str, device: Device) -> None:
    with pytest.raises(SettingsError) as caught:
        planned(f"generator.quantization={method}", device=device)
    assert str(caught.value) == (
        f"generator.quantization={method} (from --set) can't be had: "
        f"models file embedded names no {method} checkpoint (generator.quantized.{method})."
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_awq_without_a_checkpoint_is_left_out_where_a_profile_asks(tmp_path: Path, device: Device) -> None:
    spec = plan(load(write_yaml(tmp_path / "p.yaml", generator={"quantization": "awq"}), device=device))
    assert spec.techniques["quantization"] == Technique(
        asked=True,
        engaged=False,
        reason="models file embedded names no awq checkpoint (generator.quantized.awq)",
    )
    assert (spec.model, "quantization" in spec.args) == ("smollm2-grounded", False)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("method", "checkpoint"),
    [
        ("awq", "Qwen/Qwen2.5-7B-Instruct-AWQ"),
        ("gptq", "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4"),
        ("int8", "some/w8a8"),
    ],
)
def test_a_checkpoint_takes_the_models_place(method: str, checkpoint: str, device: Device) -> None:
    named = f"generator.quantized.{method}={checkpoint}"
    spec = planned(f"generator.quantization={method}", named, models="qwen2.5-7b", device=device)
    assert spec.model == checkpoint
    assert "quantization" not in spec.args
    assert spec.techniques["quantization"] == Technique(asked=True)


def test_a_gptq_checkpoint_of_8_bits_is_for_a_gpu() -> None:
    """vLLM's kernels for a CPU refuse it once its weights are read."""
    asked = ("generator.quantization=int8",)
    assert planned(*asked, models="qwen2.5-7b", device="cuda").model == "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8"
    with pytest.raises(SettingsError, match=r"GPTQ kernels for a CPU are of 4 bits, and Qwen/.*-GPTQ-Int8 has 8"):
        planned(*asked, models="qwen2.5-7b")


def test_an_unquantised_plan_ignores_the_checkpoints() -> None:
    assert planned(models="qwen2.5-7b", device="cuda").model == "Qwen/Qwen2.5-7B-Instruct"


# --- other techniques -----------------------------------------------------------------------------


def test_an_attention_backend_by_set_is_refused_on_a_cpu() -> None:
    with pytest.raises(SettingsError) as caught:
        planned("generator.attention_backend=FLASHINFER")
    assert str(caught.value) == (
        "generator.attention_backend=FLASHINFER (from --set) can't be had: "
        "vLLM has a single attention backend on a CPU."
    )


def test_an_attention_backend_from_a_profile_is_left_out_on_a_cpu(tmp_path: Path) -> None:
    spec = plan(load(write_yaml(tmp_path / "p.yaml", generator={"attention_backend": "FLASHINFER"})))
    assert "attention_backend" not in spec.args
    assert spec.techniques["attention_backend"] == Technique(
        asked=True, engaged=False, reason="vLLM has a single attention backend on a CPU"
    )


def test_an_attention_backend_on_cuda_is_passed_on() -> None:
    spec = planned("generator.attention_backend=FLASHINFER", device="cuda")
    assert spec.args["attention_backend"] == "FLASHINFER"
    assert spec.techniques["attention_backend"] == Technique(asked=True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_fp8_kv_cache_is_passed_on_on_every_device(device: Device) -> None:
    spec = planned("generator.kv_cache_dtype=fp8", device=device)
    assert spec.args["kv_cache_dtype"] == "fp8"
    assert spec.techniques["kv_cache_dtype"] == Technique(asked=True)


def test_prefix_caching_that_is_off_is_not_asked_for_and_off_in_the_engine() -> None:
    spec = planned("generator.prefix_caching=false")
    assert spec.args["enable_prefix_caching"] is False
    assert spec.techniques["prefix_caching"] == Technique(asked=False)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_plan_accounts_for_every_technique(device: Device) -> None:
    assert set(planned(device=device).techniques) == TECHNIQUES


# --- speculation ----------------------------------------------------------------------------------


def test_prompt_lookup_has_its_settings_and_no_draft() -> None:
    spec = planned(
        "generator.speculation.method=ngram",
        "generator.speculation.tokens=5",
        "generator.speculation.lookup_min=3",
        "generator.speculation.lookup_max=6",
    )
    assert spec.args["speculative_config"] == {
        "method": "ngram",
        "num_speculative_tokens": 5,
        "prompt_lookup_min": 3,
        "prompt_lookup_max": 6,
    }
    assert spec.draft_model is None
    assert spec.techniques["speculation"] == Technique(asked=True)


def test_above_a_number_of_requests_nothing_is_drafted() -> None:
    lookup = ("generator.speculation.method=ngram", "generator.max_num_seqs=16")
    spec = planned(*lookup, "generator.speculation.max_batch_size=3")
    assert spec.args["speculative_config"]["num_speculative_tokens_per_batch_size"] == [(1, 3, 4), (4, 16, 0)]
    assert spec.techniques["speculation"].asked
    assert spec.techniques["speculation"].reason == "where more than 3 requests run at once nothing is drafted"
    for most in ("16", "20", "null"):
        spec = planned(*lookup, f"generator.speculation.max_batch_size={most}")
        assert "num_speculative_tokens_per_batch_size" not in spec.args["speculative_config"]
        assert spec.techniques["speculation"] == Technique(asked=True)


def test_no_speculation_leaves_no_trace_of_it_although_the_models_file_names_a_draft() -> None:
    spec = planned(models="qwen3-8b", device="cuda")
    assert spec.draft_model is None
    assert {"speculative_config", "per_request_spec_decode_metrics"} & set(spec.args) == set()
    assert spec.techniques["speculation"] == Technique(asked=False)


def test_prompt_lookup_takes_no_draft_although_the_models_file_names_one() -> None:
    spec = planned(profile="auto-gpu", models="qwen3-8b", device="cuda")
    assert spec.args["speculative_config"]["method"] == "ngram"
    assert spec.draft_model is None


def test_a_draft_model_is_named_and_its_path_joins_the_engines_arguments() -> None:
    spec = planned("generator.speculation.method=draft_model", models="qwen3-8b", device="cuda")
    assert spec.draft_model == "Qwen/Qwen3-0.6B"
    assert spec.args["speculative_config"] == {"method": "draft_model", "num_speculative_tokens": 4}
    assert spec.args["per_request_spec_decode_metrics"] == "summary"
    arguments = engine_arguments(spec, Path("/models/large"), Path("/models/draft"))
    assert arguments["model"] == "/models/large"
    assert arguments["speculative_config"] == {
        "method": "draft_model",
        "num_speculative_tokens": 4,
        "model": "/models/draft",
    }
    assert "model" not in spec.args["speculative_config"]


def test_a_draft_model_by_set_that_nobody_names_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"names no draft model"):
        planned("generator.speculation.method=draft_model")


def test_a_draft_model_that_the_models_file_does_not_name_is_left_out_where_a_profile_asks(tmp_path: Path) -> None:
    profile = write_yaml(tmp_path / "p.yaml", generator={"speculation": {"method": "draft_model"}})
    spec = plan(load(profile))
    assert "speculative_config" not in spec.args
    assert spec.draft_model is None
    speculation = spec.techniques["speculation"]
    assert (speculation.asked, speculation.engaged) == (True, False)
    assert speculation.reason is not None
    assert "generator.speculation.draft_model" in speculation.reason


def test_a_draft_of_another_vocabulary_is_refused_with_both_sizes() -> None:
    with pytest.raises(SettingsError) as caught:
        planned(
            "generator.speculation.method=draft_model",
            "generator.speculation.draft_model=Qwen/Qwen2.5-1.5B-Instruct",
            "generator.speculation.draft_vocab_size=151936",
            models="qwen2.5-7b",
            device="cuda",
        )
    message = str(caught.value)
    assert "Qwen/Qwen2.5-7B-Instruct has 152064 tokens" in message
    assert "Qwen/Qwen2.5-1.5B-Instruct 151936" in message
    assert "speculation.method=ngram" in message


# --- KV pool --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "sets", "mib"),
    [
        ("embedded", [], 256),
        ("embedded", ["generator.kv_cache_mb=64"], 64),
        ("embedded", ["generator.kv_cache_mb=null"], 512),
        ("qwen3-8b", [], 512),
    ],
)
def test_the_kv_pool_on_a_cpu_is_always_a_size(models: str, sets: list[str], mib: int) -> None:
    args = planned(*sets, models=models).args
    assert args["kv_cache_memory_bytes"] == mib * MIB
    assert "gpu_memory_utilization" not in args
    assert kv_cache_mib(load(models=models, sets=sets)) == mib


def test_the_kv_pool_holds_as_many_tokens_in_32_bits_as_in_16() -> None:
    wide = ("generator.dtype=float32", "generator.kv_cache_mb=64")
    assert planned(*wide).args["kv_cache_memory_bytes"] == 128 * MIB
    assert planned(*wide, "generator.kv_cache_dtype=fp8").args["kv_cache_memory_bytes"] == 64 * MIB


@pytest.mark.usefixtures("cpu_with_avx2_alone")
def test_on_a_cpu_without_bf16_quantised_weights_are_still_computed_with_in_16_bits() -> None:
    assert planned().args["dtype"] == "float32"
    quantised = ("generator.quantized.int8=some/int8", "generator.quantization=int8", "generator.kv_cache_mb=64")
    args = planned(*quantised).args
    assert (args["dtype"], args["kv_cache_memory_bytes"]) == ("bfloat16", 64 * MIB)
    assert planned(*quantised, "generator.dtype=float16").args["dtype"] == "float16"
    in_32 = planned(profile="v3_1")  # where nothing was asked for by hand, weights stay as wide as the arithmetic
    assert (in_32.args["dtype"], in_32.techniques["quantization"].engaged) == ("float32", False)
    assert in_32.techniques["quantization"].reason == (
        f"{NO_FP8}; INT8 is computed with in 16 bits, and not in 32 (this CPU, which has no BF16)"
    )


@pytest.mark.usefixtures("cpu_with_avx2_alone")
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_weights_of_4_bits_on_a_cpu_need_avx512(method: str, tmp_path: Path) -> None:
    named = f"generator.quantized.{method}=some/checkpoint"
    asked = {"quantization": method}
    spec = planned(named, profile=write_yaml(tmp_path / "mine.yaml", generator=asked))
    assert spec.techniques["quantization"].engaged is False
    assert spec.model == "smollm2-grounded"
    with pytest.raises(SettingsError, match=rf"{method.upper()} kernels for a CPU need AVX-512"):
        planned(named, f"generator.quantization={method}")


@pytest.mark.usefixtures("cpu_with_avx2_alone")
def test_a_kv_cache_of_8_bits_on_a_cpu_needs_avx512(tmp_path: Path) -> None:
    wide = {"kv_cache_dtype": "fp8", "dtype": "float32"}
    spec = planned("generator.kv_cache_mb=64", profile=write_yaml(tmp_path / "mine.yaml", generator=wide))
    assert spec.techniques["kv_cache_dtype"].engaged is False
    assert (spec.args["kv_cache_dtype"], spec.args["kv_cache_memory_bytes"]) == ("auto", 128 * MIB)
    with pytest.raises(SettingsError, match=r"kv_cache_dtype=fp8 \(from --set\) can't be had: .* needs AVX-512"):
        planned("generator.kv_cache_dtype=fp8")
    assert planned("generator.kv_cache_dtype=fp8", models="qwen3-8b", device="cuda").args["kv_cache_dtype"] == "fp8"


def test_32_bits_by_hand_with_quantised_weights_are_refused() -> None:
    sets = ("generator.quantized.awq=some/awq", "generator.quantization=awq", "generator.dtype=float32")
    with pytest.raises(SettingsError, match=r"dtype=float32 \(from --set\): weights quantised by awq .* Use bfloat16"):
        planned(*sets)


def test_the_kv_pool_on_cuda_is_a_share_of_its_memory() -> None:
    args = planned("generator.gpu_memory_utilization=0.55", models="qwen3-8b", device="cuda").args
    assert args["gpu_memory_utilization"] == 0.55
    assert "kv_cache_memory_bytes" not in args
    assert kv_cache_mib(load(models="qwen3-8b", device="cuda")) is None


def test_a_kv_pool_of_a_given_size_on_cuda_still_wants_the_share_free_at_the_start() -> None:
    """vLLM 0.24 on an H200 refuses to start else, beside other engines, for its own default of the share."""
    sets = ("generator.kv_cache_mb=4096", "generator.gpu_memory_utilization=0.05")
    args = planned(*sets, models="qwen3-8b", device="cuda").args
    assert args["kv_cache_memory_bytes"] == 4096 * MIB
    assert args["gpu_memory_utilization"] == 0.05


# --- environment ----------------------------------------------------------------------------------


def test_the_environment_on_a_cpu_binds_cores_and_unsets_what_would_override_the_pool() -> None:
    assert planned("generator.cores=0-1").environment == {
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_CPU_KVCACHE_SPACE": None,
        "VLLM_CPU_OMP_THREADS_BIND": "0-1",
        "TORCHDYNAMO_DISABLE": "1",
    }


def test_an_engine_that_compiles_isnt_kept_from_it_by_one_before_it_that_doesnt() -> None:
    environment = planned("generator.enforce_eager=false").environment
    assert environment["TORCHDYNAMO_DISABLE"] is None


def test_the_environment_on_cuda_says_nothing_of_cpu_cores() -> None:
    assert planned(device="cuda").environment == {"VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}


# --- a server in the engine's place ---------------------------------------------------------------

SERVER = "generator.base_url=http://127.0.0.1:8000/v1"
AS_STARTED = "the server at http://127.0.0.1:8000/v1 runs as it was started"


def test_the_plan_for_a_server_leaves_out_what_a_profile_asks_of_an_engine() -> None:
    left_out = Technique(True, False, reason=AS_STARTED)
    assert plan_remote(load("v3_1", "qwen3-8b", [SERVER])) == RemoteSpec(
        base_url="http://127.0.0.1:8000/v1",
        model="Qwen/Qwen3-8B",
        tokenizer="Qwen/Qwen3-8B",
        techniques={
            "quantization": left_out,
            "attention_backend": Technique(False),
            "kv_cache_dtype": Technique(False),
            "prefix_caching": Technique(True, reason=f"{AS_STARTED}, and doesn't tell whether prompts are cached"),
            "speculation": Technique(False),
        },
    )
    untold = Technique(True, reason=f"{AS_STARTED}, and doesn't tell whether it speculates")
    assert plan_remote(load("auto-cpu", sets=[SERVER])).techniques["speculation"] == untold


def test_a_served_models_tokenizer_can_be_named() -> None:
    spec = plan_remote(load(sets=[SERVER, "generator.model=gpt", "generator.tokenizer=org/gpt"]))
    assert (spec.model, spec.tokenizer) == ("gpt", "org/gpt")


@pytest.mark.parametrize(
    "assignment",
    [
        "quantization=fp8",
        "kv_cache_dtype=fp8",
        "prefix_caching=True",
        "prefix_caching=False",
        "attention_backend=FLASHINFER",
        "speculation.method=ngram",
        "speculation.tokens=3",
        "dtype=float16",
        "kv_cache_mb=64",
        "gpu_memory_utilization=0.5",
        "block_size=64",
        "enforce_eager=True",
        "cores=0-1",
    ],
)
def test_what_a_server_decides_is_refused_by_hand(assignment: str) -> None:
    message = f"generator.{assignment} (from {{}}) can't be had: {AS_STARTED}. Set it there."
    name, _, value = assignment.partition("=")
    variable = f"RAG__GENERATOR__{name.replace('.', '__').upper()}"
    for loaded, layer in (
        (load(sets=[SERVER, f"generator.{assignment}"]), "--set"),
        (load(sets=[SERVER], environ={variable: value}), "environment"),
    ):
        with pytest.raises(SettingsError) as caught:
            check(loaded)
        assert str(caught.value) == message.format(layer)


def test_what_is_decided_here_goes_with_a_server() -> None:
    own = (
        "max_tokens=9",
        "temperature=1",
        "top_p=0.5",
        "seed=3",
        "max_model_len=512",
        "max_num_seqs=2",
        "revision=main",
    )
    check(load(sets=[SERVER, *(f"generator.{one}" for one in own)]))


def test_an_engine_of_our_own_is_not_planned_where_a_server_is_named() -> None:
    with pytest.raises(
        SettingsError, match=r"base_url=http://127\.0\.0\.1:8000/v1 \(from --set\): this command starts"
    ):
        planned(SERVER)


def test_a_server_needs_a_models_name_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"generator\.model is null"):
        check(load(models=write_yaml(tmp_path / "none.yaml", generator={}), sets=[SERVER]))


# --- a draft model ---------------------------------------------------------------------------------


def of_vocabulary(folder: Path, size: int | None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": size} if size is not None else {}), encoding="utf-8")
    return folder


def test_folders_of_two_vocabularies_are_refused_with_both_sizes(tmp_path: Path) -> None:
    model, draft = of_vocabulary(tmp_path / "large", 152_064), of_vocabulary(tmp_path / "small", 151_936)
    with pytest.raises(
        SettingsError, match=r"large has 152064 tokens, small 151936; use generator\.speculation\.method="
    ):
        require_same_vocabulary(model, draft)


@pytest.mark.parametrize("size", [152_064, None])
def test_folders_of_one_vocabulary_or_of_one_that_is_not_told_are_taken(tmp_path: Path, size: int | None) -> None:
    require_same_vocabulary(of_vocabulary(tmp_path / "large", 152_064), of_vocabulary(tmp_path / "small", size))
