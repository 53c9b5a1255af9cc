"""What becomes of a base's tensors: layers kept, a head, an adapter merged, the result quantised.

Pure: tensors and a `config.json` in, the same out. An adapter's tensors are named as in the *finished* model,
with its layers' new numbers and a classifier's `bert.` or `mpnet.` before the encoder's names:

    MODULE.lora_A  (rank, in)     MODULE.lora_B  (out, rank)     for an adapted MODULE.weight (out, in)
    any other name                                               a tensor that is set as it is

The result has to be the same to the bit wherever it is built, since its SHA-256 is in the recipe. So the
product is summed in float64 in one order, element by element, and rounded once: a BLAS has an order of its
own on every machine, and where two values of float64 lie on either side of a tie they round apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import ModelError
from rag.models import quantize
from rag.models.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, dtype

Tensors = Mapping[str, "Tensor"]
Config = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

ROWS = 64
"""Of a weight that are merged together: their float64 stay in a core's cache."""


@dataclass(frozen=True, slots=True)
class _Classifier:
    """transformers' class, and the modules of its head. Does it take the encoder's own pooler for one of them?"""

    name: str
    dense: str
    out: str
    pools: bool


HEADS: Mapping[str, _Classifier] = {
    "bert": _Classifier("BertForSequenceClassification", "bert.pooler.dense", "classifier", pools=True),
    "mpnet": _Classifier("MPNetForSequenceClassification", "classifier.dense", "classifier.out_proj", pools=False),
}
"""By `model_type` of config.json."""

_LAYER = re.compile(r"^((?:.+\.)?layers?\.)(\d+)(\..+)$")


def assemble(
    recipe: Recipe, tensors: Tensors, config: Config, adapter: Tensors, smoothing: Tensors
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Raises `ModelError` where the recipe's parts don't fit its base, or one another."""
    tensors, config, head = dict(tensors), dict(config), dict[str, tuple[int, ...]]()
    if recipe.layers is not None:
        tensors, config = keep_layers(tensors, config, recipe.layers)
    if recipe.head is not None:
        tensors, config, head = add_head(tensors, config, recipe.head.labels)
    if recipe.adapter is not None:
        tensors = apply_adapter(tensors, adapter, recipe.adapter.rank, recipe.adapter.alpha, head)
    require_head(tensors, head)
    if recipe.quantize is not None:
        tensors, config = quantize.int8(tensors, config, smoothing)
    return tensors, config


def keep_layers(tensors: Tensors, config: Config, layers: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The base with the transformer layers `layers` alone, numbered anew from 0.

    Raises `ModelError` where there is no such layer.
    """
    split = {name: match for name in tensors if (match := _LAYER.match(name))}
    found = sorted({int(match[2]) for match in split.values()})
    count = config.get("num_hidden_layers")
    if not found or count != len(found):
        raise ModelError(f"Can't choose layers: the base has {len(found)} by their names, {count} by its config.json.")
    if outside := [layer for layer in layers if layer not in found]:
        raise ModelError(f"The recipe keeps layer {outside[0]}, and the base's are {found[0]} to {found[-1]}.")
    number = {str(old): new for new, old in enumerate(layers)}
    kept = {name: tensor for name, tensor in tensors.items() if name not in split}
    kept |= {f"{m[1]}{number[m[2]]}{m[3]}": tensors[name] for name, m in split.items() if m[2] in number}
    changed = {**config, "num_hidden_layers": len(layers)}
    if "layer_types" in config:  # one entry a layer
        changed["layer_types"] = [config["layer_types"][layer] for layer in layers]
    return kept, changed


def add_head(
    tensors: Tensors, config: Config, labels: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, tuple[int, ...]]]:
    """An encoder as transformers' sequence classifier of its type for `labels`, and the shapes of the tensors that its head
    consists of, which base and adapter have to bring between them.

    Raises `ModelError` for another type than those of `HEADS`.
    """
    kind = str(config.get("model_type"))
    if kind not in HEADS:
        raise ModelError(f"A head needs a base of the type {' or '.join(HEADS)}, and this is {kind!r}.")
    classifier = HEADS[kind]
    encoder = f"{kind}."
    prefix = "" if any(name.startswith(encoder) for name in tensors) else encoder
    named = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    # Other heads go, and a buffer of older files that the model computes by itself.
    kept = {
        name: tensor
        for name, tensor in named.items()
        if name.startswith((encoder, "classifier."))
        and not name.endswith(".position_ids")
        and (classifier.pools or not name.startswith(f"{encoder}pooler."))
    }
    changed = {
        **config,
        "architectures": [classifier.name],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "num_labels": len(labels),
    }
    hidden = config["hidden_size"]
    shapes = {
        f"{classifier.dense}.weight": (hidden, hidden),
        f"{classifier.dense}.bias": (hidden,),
        f"{classifier.out}.weight": (len(labels), hidden),
        f"{classifier.out}.bias": (len(labels),),
    }
    return kept, changed, shapes


def require_head(tensors: Tensors, shapes: Shapes) -> None:
    """Raises `ModelError` naming the tensor of the head that is missing or of another shape."""
    for name, shape in shapes.items():
        found = f"of shape {tuple(tensors[name].shape)}" if name in tensors else "missing"
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise ModelError(f"The head needs {name} of shape {shape}, and it is {found}: the adapter has to bring it.")


def apply_adapter(tensors: Tensors, adapter: Tensors, rank: int, alpha: float, head: Shapes) -> dict[str, Tensor]:
    """`tensors` with the adapter merged in, each in the type it had; a tensor new to a head in the embeddings' type.

    Raises `ModelError` for an adapter that doesn't fit.
    """
    shapes: dict[str, tuple[int, ...]] = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    shapes |= head
    modules = sorted({name.rpartition(".")[0] for name in adapter if name.endswith((".lora_A", ".lora_B"))})
    merged = dict(tensors)
    for module in modules:
        weight = f"{module}.weight"
        a, b = _pair(adapter, module, rank)
        if weight not in tensors:
            raise _misfit(f"it adapts {weight}, which the base hasn't")
        if weight in adapter:
            raise _misfit(f"it both adapts and sets {weight}")
        if shapes[weight] != (b.shape[0], a.shape[1]):
            raise _misfit(f"{module}.lora_B @ lora_A is {(b.shape[0], a.shape[1])}, {weight} {shapes[weight]}")
        merged[weight] = _finite(weight, _adapted(weight, tensors[weight], a, b, alpha / rank))
    for name, tensor in adapter.items():
        if name.endswith((".lora_A", ".lora_B")):
            continue
        if name not in shapes:
            raise _misfit(f"it sets {name}, which the model hasn't")
        if shapes[name] != tuple(tensor.shape):
            raise _misfit(f"it sets {name} of shape {tuple(tensor.shape)}, and the model's is {shapes[name]}")
        like = tensors[name] if name in tensors else _embeddings(tensors)
        merged[name] = _finite(name, _rounded(name, _float64(tensor), like.dtype))
    return merged


def _embeddings(tensors: Tensors) -> Tensor:
    return next(tensor for name, tensor in tensors.items() if name.endswith(".embeddings.word_embeddings.weight"))


def _misfit(what: str) -> ModelError:
    return ModelError(f"The adapter doesn't fit: {what}. Recipe, base and adapter must be of one training.")


def _pair(adapter: Tensors, module: str, rank: int) -> tuple[Tensor, Tensor]:
    for present, absent in (("lora_A", "lora_B"), ("lora_B", "lora_A")):
        if f"{module}.{absent}" not in adapter:
            raise _misfit(f"{module} has a {present} and no {absent}")
    a, b = adapter[f"{module}.lora_A"], adapter[f"{module}.lora_B"]
    if a.ndim != 2 or b.ndim != 2 or (a.shape[0], b.shape[1]) != (rank, rank):
        raise _misfit(f"{module} has lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}, and its recipe rank {rank}")
    return a, b


def _adapted(name: str, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + scale * B A, shape (out, in)."""
    import torch

    down, up = _float64(a), _float64(b)
    merged = torch.empty_like(weight)
    for start in range(0, len(weight), ROWS):
        rows = slice(start, start + ROWS)
        delta = np.zeros((len(up[rows]), down.shape[1]))
        for i in range(len(down)):
            delta += up[rows, i, None] * down[i]
        merged[rows] = _rounded(name, _float64(weight[rows]) + scale * delta, weight.dtype)
    return merged


def _float64(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.double().numpy()
    return array


def _rounded(name: str, values: NDArray[np.float64], to: dtype) -> Tensor:
    """To the nearest of the type `to`, ties to even."""
    import torch

    if to == torch.float32:
        return torch.from_numpy(values.astype(np.float32))
    if to == torch.float16:
        return torch.from_numpy(values.astype(np.float16))
    if to == torch.bfloat16:
        return torch.from_numpy(_bfloat16_bits(values).view(np.int16)).view(torch.bfloat16)
    raise ModelError(f"{name} of the base is {to}: an adapter can be merged into float32, float16 and bfloat16.")


def _bfloat16_bits(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """The upper half of float32, rounded once.

    NumPy has no bfloat16, and by way of the nearest float32, as torch goes, a value is rounded twice. So the
    float32 is taken towards zero, with its last bit set where anything was cut off ("round to odd": Boldo and
    Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    single = values.astype(np.float32)
    bits = single.view(np.uint32)
    bits = bits - (np.abs(single) > np.abs(values)).astype(np.uint32)
    bits = bits | (single != values).astype(np.uint32)
    rounded: NDArray[np.uint32] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16)


def _finite(name: str, tensor: Tensor) -> Tensor:
    import torch

    if not torch.isfinite(tensor).all():
        raise _misfit(f"{name} gets values that aren't finite")
    return tensor
