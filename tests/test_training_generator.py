"""What the generator is fed: tokens, batches, and the loss on the answer alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rag.training.generator import BATCH, GROUP, IGNORE, PARTS, Encoded, answer_loss, batches, collate, encode
from rag.training.grounded import Example, Piece

EXAMPLE = Example("m1", "one", "Why?", (Piece("Gout", "Gout hurts."),), "Gout hurts [1].", (1,))


class Words:
    """A tokenizer of words: each has its place among those seen."""

    eos_token = " <end>"

    def __init__(self) -> None:
        self.known: list[str] = []

    def _ids(self, text: str) -> list[int]:
        self.known += [word for word in text.split() if word not in self.known]
        return [self.known.index(word) for word in text.split()]

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool, return_dict: bool) -> list[int]:
        assert add_generation_prompt
        assert not return_dict
        return self._ids(" ".join(message["content"] for message in messages) + " <answer>")

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": self._ids(text)}


def some(count: int) -> list[Encoded]:
    chance = random.Random(0)
    return [Encoded(tuple([number] * chance.randint(2, 40)), 1) for number in range(count)]


# --- tokens ----------------------------------------------------------------------------------------


def test_the_answer_follows_the_prompt_and_ends() -> None:
    words = Words()
    encoded = encode(words, EXAMPLE)
    assert encoded is not None
    said = [words.known[number] for number in encoded.ids]
    assert said[encoded.answer_from :] == ["Gout", "hurts", "[1].", "<end>"]
    assert said[encoded.answer_from - 1] == "<answer>"


def test_an_example_that_is_too_long_is_left_out() -> None:
    whole = encode(Words(), EXAMPLE)
    assert whole is not None
    assert encode(Words(), EXAMPLE, max_tokens=len(whole.ids)) == whole
    assert encode(Words(), EXAMPLE, max_tokens=len(whole.ids) - 1) is None


# --- batches ---------------------------------------------------------------------------------------


def test_the_first_batches_are_the_same_whatever_comes_after() -> None:
    long, short = (list(batches(some(count), random.Random(0))) for count in (5 * GROUP, 2 * GROUP))
    assert long[: len(short)] == short
    assert list(batches(some(2 * GROUP), random.Random(1))) != short


def test_each_example_of_a_whole_group_is_in_one_batch() -> None:
    made = list(batches(some(2 * GROUP + 5), random.Random(0)))
    assert {len(batch) for batch in made} == {BATCH // PARTS}
    assert sorted(one.ids[0] for batch in made for one in batch) == list(range(2 * GROUP))


def test_a_step_s_examples_are_of_like_length() -> None:
    """And the steps aren't sorted by it."""
    group = some(GROUP)
    made = list(batches(group, random.Random(0)))
    steps = [[len(one.ids) for batch in made[at : at + PARTS] for one in batch] for at in range(0, len(made), PARTS)]
    ordered = sorted(len(one.ids) for one in group)
    assert sorted(steps) == [ordered[at : at + BATCH] for at in range(0, GROUP, BATCH)]
    assert steps != sorted(steps)


# --- loss ------------------------------------------------------------------------------------------


def test_only_the_answer_is_a_target() -> None:
    batch = collate([[Encoded((5, 6, 7, 8), 2), Encoded((5, 9), 1)]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORE, IGNORE, 7, 8], [IGNORE, 9, IGNORE, IGNORE]]


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, max_position_embeddings=64, initializer_range=0.3, **sizes)
    ).eval()


@pytest.mark.parametrize("lengths", [[12], [12, 7, 4]])
def test_the_loss_is_the_model_s_own_on_the_answers_without_padding(lengths: Sequence[int]) -> None:
    chance = random.Random(1)
    model = llama()
    items = [Encoded(tuple(chance.randrange(1, 50) for _ in range(length)), length // 2) for length in lengths]
    total, count = 0.0, 0
    with torch.no_grad():
        for one in items:
            labels = [IGNORE] * one.answer_from + list(one.ids[one.answer_from :])
            own = model(input_ids=torch.tensor([one.ids]), labels=torch.tensor([labels])).loss
            answer = len(one.ids) - one.answer_from
            total, count = total + float(own) * answer, count + answer
        assert float(answer_loss(model, collate([items]))) == pytest.approx(total / count, rel=0.01)  # in bfloat16
