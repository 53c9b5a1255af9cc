"""Attention by products gives a cross-encoder what torch's own gives it. For the generator: test_training_generator."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from rag.training import attention
from rag.training.attention import by_products


@pytest.mark.parametrize("padded", [False, True])
def test_a_cross_encoder_gives_the_same_logits_and_gradients(padded: bool) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=50, num_labels=3, initializer_range=0.3, **sizes)
    own = BertForSequenceClassification(config).eval()
    ours = copy.deepcopy(own)
    by_products(ours)
    ids = torch.randint(1, 50, (3, 12))
    mask = torch.ones_like(ids)
    if padded:
        mask[0, 7:] = mask[2, 4:] = 0
    logits = [model(input_ids=ids, attention_mask=mask).logits for model in (own, ours)]
    assert torch.allclose(logits[0], logits[1], atol=1e-5)
    for found in logits:
        found.square().sum().backward()
    gradients = [model.bert.encoder.layer[0].attention.self.key.weight.grad for model in (own, ours)]
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_every_layer_attends_so(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def counted(module: Any, query: Any, *arguments: Any, **named: Any) -> Any:
        shapes.append(tuple(query.shape))
        return ours(module, query, *arguments, **named)

    ours = attention.attention
    monkeypatch.setattr(attention, "attention", counted)
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    model = BertForSequenceClassification(config)
    by_products(model)
    model(input_ids=torch.ones((3, 5), dtype=torch.long))
    assert shapes == [(3, 4, 5, 8)] * 2
