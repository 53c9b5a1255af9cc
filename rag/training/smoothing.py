"""By how much which channels of a generator's activations are to be made smaller before they are rounded to 8 bits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.models.quantize import READERS
from rag.training import datasets
from rag.training.generator import encode
from rag.training.grounded import Example, Piece, arranged

if TYPE_CHECKING:
    from torch import Tensor

PASSAGES = 4
SHIFT = 8
"""Exponents are this at most, either way."""


def prompts(count: int, seed: int = 0) -> Iterator[Example]:
    """Questions of our own with their documents among others', none of which is measured on."""
    chance = random.Random(seed)
    documents = datasets.documents()
    known = [row for row in datasets.own()[0] if row["answer"] and set(row["doc_ids"]) <= documents.keys()]
    for number, row in enumerate(chance.sample(known, count)):
        golds = list(dict.fromkeys(part["doc_id"] for part in row["answer"]))
        others = chance.sample([name for name in documents if name not in row["doc_ids"]], PASSAGES - len(golds))
        answer = [(part["text"], golds.index(part["doc_id"])) for part in row["answer"]]
        right, wrong = (
            [Piece(documents[name]["title"], documents[name]["text"][:1000]) for name in names]
            for names in (golds, others)
        )
        yield arranged(f"own-{number}", "own", row["question"], answer, right, wrong, chance)


def largest(folder: Path, examples: Sequence[Example]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of the model in `folder`, by what writes it, each channel's largest activation over the examples' tokens, and the largest
    weight that it is multiplied with."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    modules = dict(model.named_modules())
    layers = [name for name in modules if name.rpartition(".")[0].endswith(".layers")]
    activations: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}

    def watch(writer: str) -> Any:
        def seen(_: Any, given: tuple[Tensor, ...]) -> None:
            found = given[0].abs().flatten(0, -2).amax(0)
            activations[writer] = torch.maximum(activations.get(writer, found), found)

        return seen

    for layer in layers:
        for name, readers in READERS.items():
            reading = [modules[f"{layer}.{reader}"] for reader in readers]
            reading[0].register_forward_pre_hook(watch(f"{layer}.{name}"))
            weights[f"{layer}.{name}"] = torch.stack([one.weight.detach().abs().amax(0) for one in reading]).amax(0)
    with torch.inference_mode():
        for example in examples:
            encoded = encode(tokenizer, [example])
            if encoded is not None:
                # Without the output layer, which isn't quantised.
                model.base_model(input_ids=torch.tensor([encoded.ids]), use_cache=False)
    return activations, weights


def exponents(activations: Tensor, weights: Tensor) -> Tensor:
    """Of powers of two nearest to the square root of activation over weight, which makes both as large (SmoothQuant's migration
    strength of 1/2), in relation to the median channel's: what all have in common, their scales take out again."""
    import torch

    floor = torch.finfo(torch.float32).tiny
    wanted = (activations.clamp(min=floor).log2() - weights.clamp(min=floor).log2()) / 2
    return (wanted - wanted.median()).round().clamp(-SHIFT, SHIFT).to(torch.int8)
