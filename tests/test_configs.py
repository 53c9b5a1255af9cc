from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag import paths, settings
from rag.engine.local import configure, engine_arguments
from rag.engine.spec import plan, plan_remote
from rag.models import ModelStore
from rag.settings import Device, Loaded

pytestmark = pytest.mark.usefixtures("cpu_with_bf16")

PROFILES = settings.shipped_names("profiles")
MODELS = settings.shipped_names("models")
SERVED = ["remote"]
OURS = [name for name in MODELS if name not in SERVED]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")
MIB = 1024 * 1024

# What a profile may not say, since a models file does, and the other way round: else one hides the other.
OF_MODELS_FILES = {"model", "revision", "vocab_size", "max_model_len", "quantized", "enforce_eager", "kv_cache_mb"} | {
    "base_url",
    "tokenizer",
    "api_key_env",
    "extra_body",
}
OF_PROFILES = {"quantization", "kv_cache_dtype", "prefix_caching", "attention_backend", "max_tokens", "temperature"}


def read(kind: str, name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(paths.shipped("configs", kind, f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def load(profile: str, models: str, device: Device) -> Loaded:
    return settings.load(profile, models, device=device, environ={})


def asked_by(profile: str) -> set[str]:
    """Techniques that a profile's file switches on, and prefix caching, which is on by default."""
    generator = read("profiles", profile)["generator"]
    asked = {name for name in ("quantization", "attention_backend") if generator.get(name) is not None}
    if generator.get("kv_cache_dtype", "auto") != "auto":
        asked.add("kv_cache_dtype")
    if generator.get("prefix_caching", True):
        asked.add("prefix_caching")
    if generator.get("speculation", {}).get("method", "none") != "none":
        asked.add("speculation")
    return asked


@pytest.fixture
def own_environment() -> Iterator[None]:
    """vLLM and `configure` set variables of this process: they end with the test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_shipped_files_are_the_ones_that_the_design_names() -> None:
    assert {"auto-cpu", "auto-gpu", "v3", "v3_1", "v3_2"} <= set(PROFILES)
    assert {"embedded", "qwen2.5-7b", "qwen3-8b", "remote"} <= set(MODELS)


@pytest.mark.parametrize(
    ("device", "profile", "models"), [("cpu", "auto-cpu", "embedded"), ("cuda", "auto-gpu", "qwen3-8b")]
)
def test_auto_is_a_shipped_profile_and_models_file_on_each_device(device: Device, profile: str, models: str) -> None:
    loaded = load("auto", "auto", device)
    assert (loaded.profile, loaded.models) == (profile, models)


@pytest.mark.parametrize(
    "kind_and_name", [("profiles", n) for n in PROFILES] + [("models", n) for n in MODELS], ids=str
)
def test_every_file_says_what_it_is_for(kind_and_name: tuple[str, str]) -> None:
    description = read(*kind_and_name)["description"]
    assert isinstance(description, str)
    assert description.endswith(".")


def test_profiles_name_no_weights_and_models_files_no_techniques() -> None:
    for name in PROFILES:
        values = read("profiles", name)
        assert set(values) <= {
            "description",
            "retrieve",
            "filter",
            "context",
            "generator",
            "cite",
            "rerank",
            "verify",
            "batch",
        }, name
        assert set(values["generator"]) & OF_MODELS_FILES == set(), name
    for name in MODELS:
        values = read("models", name)
        assert set(values) <= {"description", "embed", "rerank", "generator", "verify"}, name
        assert set(values["generator"]) & OF_PROFILES == set(), name
        assert "method" not in values["generator"].get("speculation", {}), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_loads_with_every_models_file_and_keeps_what_both_say(
    profile: str, models: str, device: Device
) -> None:
    loaded = load(profile, models, device)
    effective = dict(loaded.leaves())
    for values in (read("profiles", profile), read("models", models)):
        for section in set(values) - {"description"}:
            for key, value in values[section].items():
                for leaf, expected in value.items() if key == "speculation" else [("", value)]:
                    name = f"{section}.{key}.{leaf}".rstrip(".")
                    assert effective[name] == expected, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("models", OURS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_plan_names_the_techniques_that_its_profile_asks_for(profile: str, models: str, device: Device) -> None:
    techniques = plan(load(profile, models, device)).techniques
    assert {name for name, technique in techniques.items() if technique.asked} == asked_by(profile)
    left_out = {name for name, technique in techniques.items() if technique.engaged is False}
    method = read("profiles", profile)["generator"].get("quantization")
    had = {"fp8": device == "cuda", "int8": models == "qwen2.5-7b" and device == "cuda"}  # its checkpoint is of GPTQ
    assert left_out == (set() if method is None or had[method] or models == "embedded" else {"quantization"})
    for name in left_out:
        assert techniques[name].reason


@pytest.mark.parametrize("models", SERVED)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_server_decides_on_every_technique_of_a_profile_and_that_is_said(profile: str, models: str) -> None:
    loaded = load(profile, models, "cpu")
    plan = plan_remote(loaded)
    assert {name for name, technique in plan.techniques.items() if technique.asked} == asked_by(profile)
    assert all(technique.reason for technique in plan.techniques.values() if technique.asked)
    assert (plan.base_url, plan.tokenizer) == ("http://127.0.0.1:8000/v1", loaded.settings.generator.tokenizer)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("models", OURS)
@pytest.mark.parametrize("profile", PROFILES)
def test_vllm_takes_the_arguments_of_every_plan(profile: str, models: str, device: Device) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    arguments = engine_arguments(plan(load(profile, models, device)), Path("/models/large"))
    AsyncEngineArgs(**arguments)  # it refuses a name that it doesn't know
    assert arguments.get("quantization") in (None, *QUANTIZATION_METHODS)


def test_vllm_takes_the_arguments_of_the_draft_pair_that_a_models_file_names() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    loaded = settings.load(
        "auto-gpu", "qwen3-8b", ["generator.speculation.method=draft_model"], device="cuda", environ={}
    )
    arguments = engine_arguments(plan(loaded), Path("/models/large"), Path("/models/draft"))
    assert AsyncEngineArgs(**arguments).speculative_config == {
        "method": "draft_model",
        "num_speculative_tokens": 4,
        "model": "/models/draft",
    }


def test_vllm_refuses_an_argument_that_it_does_not_know() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    arguments = engine_arguments(plan(load("v3", "embedded", "cpu")), Path("/models/large"))
    with pytest.raises(TypeError, match="no_such_argument"):
        AsyncEngineArgs(**arguments, no_such_argument=1)


@pytest.mark.usefixtures("in_real_home", "own_environment")
@pytest.mark.parametrize("profile", PROFILES)
def test_vllm_configures_the_built_model_with_every_profile(profile: str) -> None:
    loaded = load(profile, "embedded", "cpu")
    model = ModelStore().resolve("smollm2-135m-instruct").path
    config = configure(plan(loaded), model, None, "cpu")
    asked = loaded.settings.generator
    assert config.model_config.model == str(model)
    assert str(config.model_config.dtype) == "torch.bfloat16"
    assert config.model_config.max_model_len == 8192
    assert config.model_config.enforce_eager
    assert config.model_config.quantization is None
    assert not config.model_config.trust_remote_code
    assert config.load_config.load_format == "safetensors"
    assert config.scheduler_config.max_num_seqs == asked.max_num_seqs
    assert config.cache_config.block_size == 32
    assert config.cache_config.cache_dtype == "auto"
    assert config.cache_config.enable_prefix_caching is asked.prefix_caching is True
    assert config.cache_config.kv_cache_memory_bytes == 256 * MIB
    if asked.speculation.method == "none":
        assert config.speculative_config is None
        return
    assert config.speculative_config.method == "ngram"
    assert config.speculative_config.num_speculative_tokens == 4
    assert config.speculative_config.prompt_lookup_min == 2
    assert config.speculative_config.prompt_lookup_max == 4


@pytest.mark.usefixtures("in_real_home")
def test_the_embedded_models_file_states_its_generators_vocabulary_and_fits_its_context() -> None:
    generator = load("auto-cpu", "embedded", "cpu").settings.generator
    assert generator.model is not None
    config = json.loads((ModelStore().resolve(generator.model).path / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == generator.vocab_size
    assert config["max_position_embeddings"] >= generator.max_model_len


@pytest.mark.parametrize("models", MODELS)
def test_the_source_s_profiles_filter_nothing_so_that_as_many_passages_reach_the_prompt(models: str) -> None:
    for profile, passages in (("v3", 15), ("v3_1", 10), ("v3_2", 10)):
        chosen = load(profile, models, "cpu").settings
        assert (chosen.filter.min_cosine, chosen.filter.min_rerank) == (-1, 0)
        assert chosen.context.passages == passages <= chosen.retrieve.candidates


@pytest.mark.parametrize("models", MODELS)
def test_v3_2_is_v3_1_with_prompt_lookup(models: str) -> None:
    before, after = (dict(load(profile, models, "cpu").leaves()) for profile in ("v3_1", "v3_2"))
    assert {key: value for key, value in after.items() if before[key] != value} == {
        "generator.speculation.method": "ngram"
    }
