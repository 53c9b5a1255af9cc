"""An adapter as a training leaves it, and as a recipe wants it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rag.errors import UsageError
from rag.training.export import ADAPTER, convert

LAYER = "model.layers.0.self_attn.q_proj"


def peft(folder: Path, rank: int = 4, alpha: int = 8) -> dict[str, torch.Tensor]:
    """As PEFT saves the adapter of a causal model, in FP32."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"lora_A": torch.randn(rank, 6), "lora_B": torch.randn(6, rank)}
    save_file(
        {f"base_model.model.{LAYER}.{name}.weight": tensor for name, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": alpha}))
    return tensors


@pytest.mark.parametrize("place", ["adapter", "."])
def test_peft_s_names_become_the_finished_model_s_in_bfloat16(tmp_path: Path, place: str) -> None:
    """Of a finished training, and of a checkpoint."""
    tensors = peft(tmp_path / "training" / place)
    convert(tmp_path / "training", tmp_path / "out.safetensors", 4, 8.0)
    found = load_file(tmp_path / "out.safetensors")
    assert set(found) == {f"{LAYER}.lora_A", f"{LAYER}.lora_B"}
    for name, tensor in tensors.items():
        assert torch.equal(found[f"{LAYER}.{name}"], tensor.bfloat16())


@pytest.mark.parametrize(("rank", "alpha"), [(8, 8.0), (4, 16.0)])
def test_another_rank_or_alpha_than_the_recipe_s_is_refused(tmp_path: Path, rank: int, alpha: float) -> None:
    peft(tmp_path / "adapter")
    with pytest.raises(UsageError, match=rf"rank 4 and alpha 8, the model's are {rank} and {alpha:g}"):
        convert(tmp_path, tmp_path / "out.safetensors", rank, alpha)
    assert not (tmp_path / "out.safetensors").exists()


def test_our_own_file_is_taken_as_it_is(tmp_path: Path) -> None:
    """A calibrated head among it, in the precision that it has."""
    tensors = {"classifier.weight": torch.randn(1, 6), f"{LAYER}.lora_A": torch.randn(4, 6).bfloat16()}
    save_file(tensors, tmp_path / ADAPTER)
    peft(tmp_path / "adapter")
    convert(tmp_path, tmp_path / "out.safetensors", 4, 8.0)
    found = load_file(tmp_path / "out.safetensors")
    assert set(found) == set(tensors)
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"No adapter in {tmp_path}"):
        convert(tmp_path, tmp_path / "out.safetensors", 4, 8.0)
