"""What the generator is fed: tokens, batches, and the loss on the answer alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rag.training.attention import PRODUCTS, by_products
from rag.training.generator import (
    BATCH,
    GROUP,
    IGNORE,
    PARTS,
    Encoded,
    answer_loss,
    batches,
    collate,
    encode,
)
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


def plain(ids: Sequence[int], answer_from: int) -> Encoded:
    """One example."""
    size = len(ids)
    return Encoded(tuple(ids), tuple(range(size)), (1,) * size, tuple(at >= answer_from for at in range(size)))


def some(count: int) -> list[Encoded]:
    chance = random.Random(0)
    return [plain([number] * chance.randint(2, 40), 1) for number in range(count)]


# --- tokens ----------------------------------------------------------------------------------------


def said(words: Words, encoded: Encoded | None, branch: int) -> list[str]:
    assert encoded is not None
    seen = [(words.known[token], of) for token, of in zip(encoded.ids, encoded.branches, strict=True)]
    return [word for word, of in seen if of in (0, branch)]


def test_the_answer_follows_the_prompt_and_ends() -> None:
    words = Words()
    encoded = encode(words, [EXAMPLE])
    assert encoded is not None
    wanted = [words.known[token] for token, answer in zip(encoded.ids, encoded.answers, strict=True) if answer]
    assert wanted == ["Gout", "hurts", "[1].", "<end>"]
    assert said(words, encoded, 1)[-5:] == ["<answer>", *wanted]
    assert encoded.positions == tuple(range(len(encoded.ids)))


def test_what_prompts_begin_with_is_there_once_and_each_goes_on_from_it() -> None:
    words = Words()
    sheet = [EXAMPLE, replace(EXAMPLE, question="Where then?"), replace(EXAMPLE, question="When?")]
    encoded = encode(words, sheet)
    assert encoded is not None
    for number, example in enumerate(sheet, start=1):
        assert said(words, encoded, number) == said(words, encode(words, [example]), 1)
        positions = [p for p, of in zip(encoded.positions, encoded.branches, strict=True) if of in (0, number)]
        assert positions == list(range(len(positions)))
    shared = encoded.branches.count(0)
    assert words.known[encoded.ids[shared - 1]] == "Question:"
    assert not any(encoded.answers[:shared])


def test_examples_that_no_longer_fit_are_left_out() -> None:
    one, two = (encode(Words(), [EXAMPLE] * count) for count in (1, 2))
    assert one is not None
    assert two is not None
    assert encode(Words(), [EXAMPLE], max_tokens=len(one.ids)) == one
    assert encode(Words(), [EXAMPLE], max_tokens=len(one.ids) - 1) is None
    shorter = encode(Words(), [EXAMPLE] * 2, max_tokens=len(two.ids) - 1)
    assert shorter is not None
    assert shorter.ids == one.ids


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
    batch = collate([[plain((5, 6, 7, 8), 2), plain((5, 9), 1)]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORE, IGNORE, 7, 8], [IGNORE, 9, IGNORE, IGNORE]]


def test_a_token_sees_what_all_share_and_its_own_branch() -> None:
    answers = (False, False, False, True, True)
    sheet = Encoded((5, 6, 7, 8, 9), (0, 1, 2, 3, 2), (0, 0, 1, 1, 2), answers)
    mask = collate([[sheet, plain((5, 9), 1)]])["attention_mask"] == 0
    assert mask.shape == (2, 1, 5, 5)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert mask.any(dim=-1).all()  # padding too: a row without anything is a division by zero


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=400, max_position_embeddings=512, initializer_range=0.3, **sizes)
    ).eval()


def attending(model: Any, implementation: str) -> Any:
    if implementation == PRODUCTS:
        by_products(model)
    else:
        model.set_attn_implementation(implementation)
    return model


def own_loss(model: Any, items: Sequence[Encoded]) -> float:
    """The model's own, of each alone, over all answers' tokens."""
    total, count = 0.0, 0
    for one in items:
        ids = torch.tensor([one.ids])
        labels = torch.where(torch.tensor([one.answers]), ids, IGNORE)
        answer = sum(one.answers)
        total, count = total + float(model(input_ids=ids, labels=labels).loss) * answer, count + answer
    return total / count


@pytest.mark.parametrize("implementation", ["sdpa", PRODUCTS])
@pytest.mark.parametrize("lengths", [[12], [12, 7, 4]])
def test_the_loss_is_the_model_s_own_on_the_answers_without_padding(
    lengths: Sequence[int], implementation: str
) -> None:
    chance = random.Random(1)
    model = llama()
    items = [plain([chance.randrange(1, 50) for _ in range(length)], length // 2) for length in lengths]
    with torch.no_grad():
        wanted = own_loss(model, items)
        found = answer_loss(attending(model, implementation), collate([items]))
    assert float(found) == pytest.approx(wanted, rel=0.01)  # in bfloat16


SHEET = [
    EXAMPLE,
    replace(EXAMPLE, question="Where then?", answer="It swells [1]."),
    replace(EXAMPLE, question="When?"),
]


@pytest.mark.parametrize("implementation", ["sdpa", PRODUCTS])
def test_a_sheet_s_loss_is_that_of_its_examples_alone(implementation: str) -> None:
    model, words = llama(), Words()
    alone = [one for one in (encode(words, [example]) for example in SHEET) if one is not None]
    together = encode(words, SHEET)
    assert together is not None
    batch = collate([[together, plain(range(1, 80), 79)]])
    batch["labels"][1] = IGNORE
    with torch.no_grad():
        wanted = own_loss(model, alone)
        assert float(answer_loss(attending(model, implementation), batch)) == pytest.approx(wanted, rel=0.01)


def test_each_answer_s_first_token_counts_more() -> None:
    model, words = attending(llama(), "sdpa"), Words()
    alone = [one for one in (encode(words, [example]) for example in SHEET) if one is not None]
    together = encode(words, SHEET)
    assert together is not None

    def decision(one: Encoded) -> Encoded:
        begins = one.answers.index(True)
        return replace(one, answers=tuple(place == begins for place in range(len(one.answers))))

    with torch.no_grad():
        tokens = sum(sum(one.answers) for one in alone)
        plainly = own_loss(model, alone) * tokens
        decisions = own_loss(model, [decision(one) for one in alone]) * len(SHEET)
        wanted = (plainly + 9 * decisions) / (tokens + 9 * len(SHEET))
        assert float(answer_loss(model, collate([[together]]), decisive=10.0)) == pytest.approx(wanted, rel=0.01)


def test_attention_by_products_has_the_gradients_of_torch_s_own() -> None:
    together = encode(Words(), SHEET)
    assert together is not None
    gradients = []
    for implementation in ("sdpa", PRODUCTS):
        model = attending(llama(), implementation)
        answer_loss(model, collate([[together]])).backward()
        gradients.append(model.model.layers[0].self_attn.k_proj.weight.grad)
    difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    assert difference < 0.1  # both in bfloat16; a wrong one is off by its whole length
