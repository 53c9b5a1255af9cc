"""What makes a cross-encoder's training fast: LoRA in one product, and batches of one length."""

from __future__ import annotations

import copy
import random
from itertools import chain
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

from rag.training import batches, crossencoder, lowrank


def adapted(**lora: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=50, num_labels=1, initializer_range=0.3, **sizes)
    model = get_peft_model(
        BertForSequenceClassification(config),
        LoraConfig(r=8, lora_alpha=16, target_modules=crossencoder.targets("bert"), init_lora_weights=False, **lora),
    )
    return model.eval()


def test_lora_in_one_product_gives_the_same_logits_and_gradients() -> None:
    peft = adapted()
    ours = copy.deepcopy(peft)
    lowrank.in_one_product(ours)
    ids = torch.randint(1, 50, (3, 12))
    logits = [model(input_ids=ids).logits for model in (peft, ours)]
    torch.testing.assert_close(logits[1], logits[0])
    for found in logits:
        found.square().sum().backward()
    names = [name for name, weight in peft.named_parameters() if weight.requires_grad]
    assert len(names) == 2 * 2 * len(crossencoder.targets("bert"))
    gradients = [dict(model.named_parameters()) for model in (peft, ours)]
    for name in names:
        assert gradients[0][name].grad.abs().max() > 0
        torch.testing.assert_close(gradients[1][name].grad, gradients[0][name].grad, rtol=1e-4, atol=1e-5)
    assert all(weight.grad is None for name, weight in ours.named_parameters() if name not in names)


def test_one_product_is_for_a_rank_that_is_large_beside_the_matrix() -> None:
    """MiniLM's matrices with rank 144, and MPNet's with 32."""
    assert lowrank.pays(384, 384, 144)
    assert lowrank.pays(384, 1536, 144)
    assert not lowrank.pays(768, 768, 32)
    assert not lowrank.pays(3072, 768, 32)


def test_lora_with_dropout_isnt_one_product() -> None:
    with pytest.raises(ValueError, match=r"query has dropout"):
        lowrank.in_one_product(adapted(lora_dropout=0.1))


def rows(count: int) -> crossencoder.Columns:
    chance = random.Random(0)
    return {
        "question": ["x" * chance.randint(1, 60) for _ in range(count)],
        "passages": [["y" * chance.randint(1, 60) for _ in range(3)] for _ in range(count)],
        "label": [float(chance.random() < 0.5) for _ in range(count)],
    }


def padded(some: list[list[int]], columns: crossencoder.Columns) -> int:
    lengths = [len(a) + max(map(len, b)) for a, b in zip(columns["question"], columns["passages"], strict=True)]
    return sum(len(batch) * max(lengths[row] for row in batch) for batch in some)


def test_batches_of_one_length_hold_every_row_once_and_little_padding() -> None:
    columns = rows(1000)
    found = batches.by_length(columns, 16, seed=1)
    assert sorted(chain(*found)) == list(range(1000))
    assert sorted(map(len, found))[1:] == [16] * 62
    assert padded(found, columns) < 0.75 * padded(
        [list(range(s, min(s + 16, 1000))) for s in range(0, 1000, 16)], columns
    )


def test_batches_are_the_same_for_a_seed_and_neither_short_nor_long_ones_come_first() -> None:
    columns = rows(4000)
    found = batches.by_length(columns, 16, seed=1)
    assert found == batches.by_length(columns, 16, seed=1) != batches.by_length(columns, 16, seed=2)
    halves = padded(found[:125], columns), padded(found[125:], columns)
    assert max(halves) < 1.15 * min(halves)
