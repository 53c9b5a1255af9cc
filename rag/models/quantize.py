"""A model's linear layers in 8 bits, as a checkpoint that vLLM reads (compressed-tensors, W8A8).

Pure, like `merge`, and the same to the bit wherever it is done: every weight by itself, in float32.

What costs quality is the activations, of which a few channels are far larger than the others. So these are made smaller, and
the weights that they are multiplied with larger (SmoothQuant: Xiao et al. 2023), by powers of two: that loses nothing, and what
the model computes stays the same until it is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rag.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 127
"""Of the integers; symmetric, so that -128 isn't used."""

SCALE = "_scale"
"""After a weight's name: what its integers are multiplied by, one an output channel, float32 of shape (out, 1)."""

READERS: Mapping[str, tuple[str, ...]] = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.up_proj": ("mlp.down_proj",),
}
"""In a layer of a model that is built like Llama: what writes a channel alone, and the linear layers that read it. What attention
writes, several heads of queries share, and rounding it costs next to nothing."""


def int8(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], smoothing: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Each matrix (out, in) of the transformer's layers rounded to the nearest of 255 integers, those of an output channel
    over its largest weight; activations are quantised as the model runs, by token. Embeddings, norms and the output layer
    stay as they are. `smoothing`: see `smooth`.

    Raises `ModelError` for a model that is quantised already, and for one without such layers.
    """
    import torch

    if "quantization_config" in config:
        raise ModelError("It is quantised already.")
    made = smooth(tensors, smoothing) if smoothing is not None else dict(tensors)
    linear = [name for name, tensor in made.items() if ".layers." in name and tensor.ndim == 2]
    if not linear:
        raise ModelError("It has no linear layers by their names (….layers.N.….weight), which could be quantised.")
    for name in linear:
        weight = made[name].float()
        scale = (weight.abs().amax(dim=1, keepdim=True) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        made[name] = (weight / scale).round().to(torch.int8)
        made[name + SCALE] = scale
    return made, {**config, "quantization_config": _W8A8}


def smooth(tensors: Mapping[str, Tensor], exponents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same model with every channel of an activation divided by 2 to the power of its exponent. `exponents` are integers,
    named by what writes the channels ("model.layers.0.mlp.up_proj", shape (channels,)).

    Raises `ModelError` where they don't fit the model.
    """
    made = dict(tensors)
    for writer, powers in exponents.items():
        layer, name = next(
            ((writer.removesuffix(name), name) for name in READERS if writer.endswith(f".{name}")), ("", "")
        )
        readers = [f"{layer}{reader}.weight" for reader in READERS.get(name, ())]
        missing = [one for one in (f"{writer}.weight", *readers) if one not in made]
        if missing or not readers:
            raise ModelError(
                f"The smoothing doesn't fit: it names {writer}, and there is no {(missing or [writer])[0]}."
            )
        factor = powers.float().exp2()
        channels = len(made[f"{writer}.weight"])
        if factor.shape != (channels,) or any(made[reader].shape[1] != channels for reader in readers):
            raise ModelError(f"The smoothing doesn't fit: {writer} has {channels} channels, and it {factor.numel()}.")
        written = made[f"{writer}.weight"]
        made[f"{writer}.weight"] = written / factor.to(written.dtype).reshape(-1, *[1] * (written.ndim - 1))
        for reader in readers:
            made[reader] = made[reader] * factor.to(made[reader].dtype)
    return made


_OF_8_BITS = {"num_bits": 8, "type": "int", "symmetric": True}
_W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**_OF_8_BITS, "strategy": "channel", "dynamic": False},
            "input_activations": {**_OF_8_BITS, "strategy": "token", "dynamic": True},
        }
    },
    "ignore": ["lm_head"],
}
