"""A trained adapter as the recipe ships it: `MODULE.lora_A`, `MODULE.lora_B`, and the tensors trained whole."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from rag.errors import UsageError
from rag.files import replacing_file

ADAPTER = "adapter.safetensors"
_PEFT, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"

_LORA = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.(?P<part>lora_[AB])(?:\.\w+)?\.weight$")


def write_adapter(model: Any, path: Path) -> None:
    """Everything that was trained, in BF16 but for what is trained whole: a head is small, and calibrated."""
    _write({name: weight for name, weight in model.named_parameters() if weight.requires_grad}, path)


def convert(folder: Path, path: Path, rank: int, alpha: float) -> None:
    """Write the adapter that a training left in `folder` to `path`: our own file, or PEFT's of the folder itself (a
    checkpoint) or of `adapter` in it.

    Raises `UsageError` where there is none, or it is of another rank or alpha than named.
    """
    from safetensors.torch import load_file

    if (folder / ADAPTER).is_file():
        _write_as_is(load_file(folder / ADAPTER), path)
        return
    peft = next((place for place in (folder / "adapter", folder) if (place / _PEFT).is_file()), None)
    if peft is None:
        raise UsageError(
            f"No adapter in {folder}: neither {ADAPTER} nor adapter/{_PEFT}. Name a finished training's folder."
        )
    config = json.loads((peft / _PEFT_CONFIG).read_text(encoding="utf-8"))
    if (config["r"], config["lora_alpha"]) != (rank, alpha):
        raise UsageError(
            f"The adapter in {peft} has rank {config['r']} and alpha {config['lora_alpha']}, the model's are {rank} and "
            f"{alpha:g}. Train it again, or change both where they are set (rag/training)."
        )
    _write(load_file(peft / _PEFT), path)


def discard(folder: Path) -> None:
    """What a training in `folder` has come to: it is being lengthened, and checkpoints alone are gone on from."""
    (folder / ADAPTER).unlink(missing_ok=True)
    shutil.rmtree(folder / "adapter", ignore_errors=True)


def average(path: Path, other: Path, share: float, rank: int) -> None:
    """Make of the adapter in `path` the mean with another training's, which counts `share`: of trainings from one base, whose
    mistakes differ, a mean is often better than each ("model soups", Wortsman et al. 2022), and as fast. The changes of a
    matrix are averaged, not their factors, and cut to `rank`; both have an alpha of twice their rank, as all of ours.

    Raises `UsageError` where `other` holds no adapter or one of other matrices.
    """
    import torch
    from safetensors.torch import load_file

    if not (other / ADAPTER).is_file():
        raise UsageError(f"No {ADAPTER} in {other}. Name a finished training's folder.")
    ours, theirs = load_file(path), load_file(other / ADAPTER)
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise UsageError(f"{other / ADAPTER} changes other matrices: {', '.join(odd[:3])} ...")
    mean = {}
    for name in sorted(ours):
        module, _, part = name.rpartition(".")
        if part == "lora_A":
            one, two = (w[f"{module}.lora_B"].float() @ w[name].float() for w in (ours, theirs))
            left, sizes, right = torch.linalg.svd(torch.lerp(one, two, share), full_matrices=False)
            root = sizes[:rank].sqrt()
            mean[f"{module}.lora_B"] = (left[:, :rank] * root).to(torch.bfloat16).contiguous()
            mean[name] = (root[:, None] * right[:rank]).to(torch.bfloat16).contiguous()
        elif part != "lora_B":
            mean[name] = torch.lerp(ours[name], theirs[name], share)
    _write_as_is(mean, path)


def _write(weights: dict[str, Any], path: Path) -> None:
    import torch

    tensors = {}
    for name, weight in weights.items():
        match = _LORA.match(name)
        if match:
            tensors[f"{match['module']}.{match['part']}"] = weight.detach().to(torch.bfloat16).contiguous()
        else:
            whole = re.sub(r"^base_model\.model\.|\.base_layer", "", name)
            tensors[whole] = weight.detach().float().contiguous()
    _write_as_is(tensors, path)


def _write_as_is(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    with replacing_file(path) as temporary:
        save_file(tensors, temporary)
