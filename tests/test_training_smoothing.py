from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rag.models import ModelStore
from rag.training import datasets, smoothing


def test_prompts_are_of_our_own_documents_and_drawn_the_same_way_each_time() -> None:
    made = list(smoothing.prompts(8))
    assert made == list(smoothing.prompts(8))
    assert made != list(smoothing.prompts(8, seed=1))
    titles = {document["title"] for document in datasets.documents().values()}
    for example in made:
        assert len(example.passages) == smoothing.PASSAGES
        assert {piece.title for piece in example.passages} <= titles
        assert example.gold
        assert all(f"[{marker}]" in example.answer for marker in example.gold)


def test_an_exponent_is_that_of_the_power_of_two_nearest_to_what_makes_both_as_large() -> None:
    activations = torch.tensor([1.0, 1.0, 1.0, 64.0, 1e9, 0.0])
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    found = smoothing.exponents(activations, weights)
    assert found.dtype == torch.int8
    assert found.tolist() == [0, 0, 0, 3, smoothing.SHIFT, -smoothing.SHIFT]
    assert smoothing.exponents(activations, 16 * weights).equal(found), (
        "what all channels have in common counts nothing"
    )


@pytest.mark.usefixtures("in_real_home")
def test_the_largest_values_are_those_that_a_model_computes_with(tmp_path: Path) -> None:
    """Of a model whose first layer's norm writes one channel a hundred times as large as the others."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=49152, num_hidden_layers=2, max_position_embeddings=4096, **shape))
    model.model.layers[0].input_layernorm.weight.data[5] = 100
    model.save_pretrained(tmp_path)
    base = ModelStore().resolve("smollm2-grounded").path
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(base / name, tmp_path / name)
    activations, weights = smoothing.largest(tmp_path, list(smoothing.prompts(1)))
    assert {name: len(found) for name, found in activations.items()} == {
        f"model.layers.{layer}.{name}": size
        for layer in (0, 1)
        for name, size in (("input_layernorm", 8), ("post_attention_layernorm", 8), ("mlp.up_proj", 12))
    }
    first = activations["model.layers.0.input_layernorm"]
    assert int(first.argmax()) == 5
    assert first[5] > 20 * first[torch.arange(8) != 5].max()
    attention = model.model.layers[0].self_attn
    read = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]).abs().amax(0)
    assert weights["model.layers.0.input_layernorm"].allclose(read)
    found = smoothing.exponents(first, weights["model.layers.0.input_layernorm"])
    assert int(found.argmax()) == 5
