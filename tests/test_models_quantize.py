from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rag.errors import ModelError
from rag.models import ModelStore
from rag.models.quantize import LARGEST, READERS, int8, smooth

CONFIG: dict[str, Any] = {"model_type": "llama", "num_hidden_layers": 1}
PROJECTION = "model.layers.0.mlp.up_proj.weight"


def model(weight: Tensor | None = None) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        "model.embed_tokens.weight": torch.randn(8, 4, generator=random).bfloat16(),
        "model.layers.0.input_layernorm.weight": torch.ones(4).bfloat16(),
        PROJECTION: weight if weight is not None else torch.randn(6, 4, generator=random).bfloat16(),
        "lm_head.weight": torch.randn(8, 4, generator=random).bfloat16(),
    }


def test_a_linear_layers_weights_are_no_further_off_than_half_a_step() -> None:
    tensors, _ = int8(model(), CONFIG)
    weight, scale = tensors[PROJECTION], tensors[f"{PROJECTION}_scale"]
    assert (weight.dtype, scale.dtype, tuple(scale.shape)) == (torch.int8, torch.float32, (6, 1))
    off = (weight.float() * scale - model()[PROJECTION].float()).abs()
    assert bool((off <= scale / 2 * 1.0001).all())
    assert off.max() > 0
    assert weight.abs().amax(dim=1).tolist() == [LARGEST] * 6, (
        "an output channel's largest weight is the largest integer"
    )


def test_what_is_no_linear_layer_stays_as_it_is() -> None:
    tensors, config = int8(model(), CONFIG)
    assert tensors.keys() == {*model(), f"{PROJECTION}_scale"}
    assert all(tensors[name].equal(tensor) for name, tensor in model().items() if name != PROJECTION)
    [group] = config["quantization_config"]["config_groups"].values()
    assert (group["weights"]["strategy"], group["input_activations"]["strategy"]) == ("channel", "token")
    assert {name: config[name] for name in CONFIG} == CONFIG
    assert "quantization_config" not in CONFIG


def test_an_output_channel_of_zeros_stays_one() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, -0.5]]).bfloat16()
    tensors, _ = int8(model(weight), CONFIG)
    assert tensors[PROJECTION].tolist() == [[0, 0], [127, -64]]
    assert bool(torch.isfinite(tensors[f"{PROJECTION}_scale"]).all())


def test_what_is_quantised_already_or_has_no_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="It is quantised already"):
        int8(model(), {**CONFIG, "quantization_config": {}})
    with pytest.raises(ModelError, match="no linear layers by their names"):
        int8({"lm_head.weight": torch.ones(2, 2)}, CONFIG)


# --- smoothing -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    """Two heads of queries share one of keys, as in the embedded generator."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=32, num_hidden_layers=2, **shape)).eval()
    for name, weight in made.named_parameters():
        if "norm" in name:  # as a trained model's: a few channels are far larger
            weight.data[3] = 50
    return made


def exponents(model: LlamaForCausalLM) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    sizes = {"input_layernorm": 16, "post_attention_layernorm": 16, "mlp.up_proj": 24}
    assert sizes.keys() == READERS.keys()
    return {
        f"model.layers.{layer}.{name}": torch.randint(-4, 5, (size,), generator=random, dtype=torch.int8)
        for layer in range(model.config.num_hidden_layers)
        for name, size in sizes.items()
    }


@torch.inference_mode()
def test_a_smoothed_model_computes_the_same_to_the_bit(llama: LlamaForCausalLM) -> None:
    ids = torch.arange(20)[None]
    before = llama(ids).logits
    smoothed = LlamaForCausalLM(llama.config).eval()
    weights = smooth(llama.state_dict(), exponents(llama))
    smoothed.load_state_dict(weights)
    changed = [name for name, tensor in llama.state_dict().items() if not tensor.equal(weights[name])]
    assert len(changed) == 2 * (2 + 3 + 2 + 1)  # norms; queries, keys, values; gate, up; down
    assert smoothed(ids).logits.equal(before)


def test_a_smoothed_model_is_quantised_as_it_is_then(llama: LlamaForCausalLM) -> None:
    weights = llama.state_dict()
    at_once, _ = int8(weights, CONFIG, exponents(llama))
    in_two_steps, _ = int8(smooth(weights, exponents(llama)), CONFIG)
    assert at_once.keys() == in_two_steps.keys()
    assert all(tensor.equal(in_two_steps[name]) for name, tensor in at_once.items())


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"model.layers.9.input_layernorm": 16}, "names model.layers.9.input_layernorm, and there is no"),
        ({"model.layers.0.self_attn.v_proj": 8}, "there is no model.layers.0.self_attn.v_proj"),
        ({"model.norm": 16}, "there is no model.norm"),
        ({"model.layers.0.mlp.up_proj": 16}, "model.layers.0.mlp.up_proj has 24 channels, and it 16"),
    ],
)
def test_exponents_that_do_not_fit_are_refused(llama: LlamaForCausalLM, found: dict[str, int], problem: str) -> None:
    with pytest.raises(ModelError, match=f"The smoothing doesn't fit: .*{problem}"):
        smooth(llama.state_dict(), {name: torch.ones(size, dtype=torch.int8) for name, size in found.items()})


# --- a recipe of another recipe's model ----------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base in a wheel, a recipe of it, and one of that one's model in 8 bits."""
    wheel = tmp_path / "site" / "quantised_wheel"
    wheel.mkdir(parents=True)
    (wheel / "__init__.py").touch()
    (wheel / "config.json").write_text(json.dumps(CONFIG))
    save_file(model(), wheel / "model.safetensors")
    names = ("config.json", "model.safetensors")
    whole = {"base": {"wheel": "quantised-wheel", "package": "quantised_wheel", "path": "."}}
    write_recipe(tmp_path, "whole", whole | {"files": {name: sha256(wheel / name) for name in names}})
    write_recipe(tmp_path, "narrow", made_of("whole", sha256(wheel / "model.safetensors")))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def made_of(base: str, weights: str) -> dict[str, Any]:
    return {"base": {"recipe": base}, "files": {"model.safetensors": weights}, "quantize": {"to": "int8"}}


def write_recipe(root: Path, name: str, parts: Mapping[str, Any]) -> None:
    common = {"description": name, "kind": "generator", "licence": "MIT", "origin": "x/y", "format": "folder"}
    (root / "recipes" / name).mkdir(parents=True, exist_ok=True)
    (root / "recipes" / name / "recipe.yaml").write_text(yaml.safe_dump({**common, "disk_mb": 1, **parts}))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def store_of(root: Path) -> ModelStore:
    return ModelStore(root / "recipes", root / "store")


def test_the_base_is_built_first_and_what_is_beside_its_weights_taken_as_it_is(root: Path) -> None:
    store = store_of(root)
    folder = store.build("narrow")
    assert store.status("whole").built
    found = load_file(folder / "model.safetensors")
    expected, config = int8(model(), CONFIG)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())
    assert json.loads((folder / "config.json").read_text()) == config
    store.verify("narrow")
    assert str(store.status("narrow").recipe.base) == "the model whole"


def test_a_base_whose_weights_are_others_is_named_with_what_to_do(root: Path) -> None:
    write_recipe(root, "narrow", made_of("whole", "0" * 64))
    with pytest.raises(ModelError, match=r"model\.safetensors isn't the file that the recipe names: whole \(remove"):
        store_of(root).build("narrow")
    assert not (root / "store" / "narrow").exists()


def test_a_base_that_is_no_recipe_or_made_of_another_itself_is_refused(root: Path) -> None:
    write_recipe(root, "lost", made_of("nowhere", "0" * 64))
    with pytest.raises(ModelError, match="No recipe named 'nowhere'"):
        store_of(root).build("lost")
    write_recipe(root, "circle", made_of("circle", "0" * 64))
    with pytest.raises(ModelError, match="circle, is made of another recipe's itself"):
        store_of(root).build("circle")
