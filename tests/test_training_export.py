"""An adapter as a training leaves it, and as a recipe wants it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rag.errors import UsageError
from rag.training.export import ADAPTER, average, convert

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


def trained(folder: Path, rank: int, layer: str = LAYER) -> dict[str, torch.Tensor]:
    folder.mkdir()
    tensors = {
        f"{layer}.lora_A": torch.randn(rank, 6).bfloat16(),
        f"{layer}.lora_B": torch.randn(6, rank).bfloat16(),
        "classifier.weight": torch.randn(3, 6),
    }
    save_file(tensors, folder / ADAPTER)
    return tensors


def change(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of the matrix, at an alpha of twice the rank."""
    return 2 * tensors[f"{LAYER}.lora_B"].float() @ tensors[f"{LAYER}.lora_A"].float()


def test_a_mean_changes_a_matrix_by_the_mean_of_both_changes(tmp_path: Path) -> None:
    one, other = trained(tmp_path / "one", 4), trained(tmp_path / "other", 2)
    average(tmp_path / "one" / ADAPTER, tmp_path / "other", 0.25, 6)
    found = load_file(tmp_path / "one" / ADAPTER)
    assert found[f"{LAYER}.lora_A"].shape == (6, 6)
    torch.testing.assert_close(change(found), 0.75 * change(one) + 0.25 * change(other), atol=0.1, rtol=0.02)
    torch.testing.assert_close(
        found["classifier.weight"], 0.75 * one["classifier.weight"] + 0.25 * other["classifier.weight"]
    )


def test_a_mean_is_cut_to_its_rank_where_least_is_lost(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", 4)
    trained(tmp_path / "other", 4)
    average(tmp_path / "one" / ADAPTER, tmp_path / "other", 0.0, 2)
    found = load_file(tmp_path / "one" / ADAPTER)
    assert found[f"{LAYER}.lora_A"].shape == (2, 6)
    sizes = torch.linalg.svdvals(change(one))
    assert torch.linalg.norm(change(found) - change(one)) == pytest.approx(float(sizes[2:].norm()), rel=0.05)


def test_a_mean_of_what_does_not_fit_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    trained(tmp_path / "one", 4)
    before = (tmp_path / "one" / ADAPTER).read_bytes()
    with pytest.raises(UsageError, match=r"No adapter\.safetensors in .*nowhere"):
        average(tmp_path / "one" / ADAPTER, tmp_path / "nowhere", 0.5, 4)
    trained(tmp_path / "other", 4, layer="model.layers.1.mlp")
    with pytest.raises(UsageError, match="changes other matrices"):
        average(tmp_path / "one" / ADAPTER, tmp_path / "other", 0.5, 4)
    assert (tmp_path / "one" / ADAPTER).read_bytes() == before
