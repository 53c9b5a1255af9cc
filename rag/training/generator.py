"""LoRA training of the grounded generator, with Hugging Face's Trainer and PEFT.

The learning rate is constant after a warm-up and falls to zero over the last part ("warm-up, stable, decay",
Hu et al. 2024, MiniCPM), so that a training can be lengthened later: it goes on from the last checkpoint before the fall.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

from rag.errors import UsageError
from rag.training import attention, loop
from rag.training.grounded import Example

BATCH, GROUP = 4, 64
"""Sheets a step; sheets of a group are sorted by length into batches, so that little is padding."""
PARTS = 2
"""A step's sheets are taken in so many parts: half the memory, which goes with the longest."""

RANK, ALPHA = 24, 48
LEARNING_RATE, WARM_UP, DECAY = 4e-4, 0.02, 0.25

DECISIVE, DECISIVE_FROM = 8.0, 1000
"""What an answer's first token counts, of those after it each counts 1, from that step on. It alone decides whether to
answer, and is one of some 45; a model that can't write a sentence yet has nothing to decide."""

MAX_TOKENS = 1280
IGNORE = -100


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sheet's tokens: what its prompts begin with, once, then for each the rest of it and its answer: its branch.

    A token sees what comes before it in what all share and in its own branch, and has the position that it has in its
    own prompt: a branch's logits are those of its prompt alone. The loss is taken on the answers.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    branches: tuple[int, ...]
    """0 for what all share, then 1, 2, ..."""
    answers: tuple[bool, ...]


def encode(tokenizer: Any, sheet: Sequence[Example], max_tokens: int = MAX_TOKENS) -> Encoded | None:
    """As many of its examples as `max_tokens` holds, None where that is none: the memory of a step goes with its
    longest sheet."""
    prompts = [
        tokenizer.apply_chat_template(example.messages, add_generation_prompt=True, return_dict=False)
        for example in sheet
    ]
    answers = [
        tokenizer(example.answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"] for example in sheet
    ]
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    shared = len(list(alike)) if len(sheet) > 1 else 0
    ids, positions = list(prompts[0][:shared]), list(range(shared))
    branches, wanted = [0] * shared, [False] * shared
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True), start=1):
        rest = [*prompt[shared:], *answer]
        if len(ids) + len(rest) > max_tokens:
            break
        ids += rest
        positions += range(shared, shared + len(rest))
        branches += [number] * len(rest)
        wanted += [False] * (len(prompt) - shared) + [True] * len(answer)
    return Encoded(tuple(ids), tuple(positions), tuple(branches), tuple(wanted)) if len(ids) > shared else None


def batches(encoded: Sequence[Encoded], chance: random.Random) -> Iterator[list[Encoded]]:
    """The first batches are the same whatever comes after: a longer training begins as a shorter one did."""
    for start in range(0, len(encoded) - GROUP + 1, GROUP):
        group = sorted(encoded[start : start + GROUP], key=lambda one: len(one.ids))
        parts = [group[at : at + BATCH] for at in range(0, GROUP, BATCH)]
        chance.shuffle(parts)
        for part in parts:
            yield from (part[at : at + BATCH // PARTS] for at in range(0, BATCH, BATCH // PARTS))


def collate(batch: Sequence[Sequence[Encoded]]) -> dict[str, Any]:
    """Padded on the right, the padding in a branch of its own; `attention_mask` is what is added to the scores."""
    import torch

    (items,) = batch
    longest = max(len(one.ids) for one in items)
    shape = (len(items), longest)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    branches, labels = torch.full(shape, -1), torch.full(shape, IGNORE)
    for row, one in enumerate(items):
        length = len(one.ids)
        ids[row, :length] = torch.tensor(one.ids)
        positions[row, :length] = torch.tensor(one.positions)
        branches[row, :length] = torch.tensor(one.branches)
        labels[row, :length] = torch.where(torch.tensor(one.answers), ids[row, :length], IGNORE)
    seen = (branches[:, None, :] == branches[:, :, None]) | (branches == 0)[:, None, :]
    seen &= torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill(~seen, torch.finfo(torch.bfloat16).min)
    return {"input_ids": ids, "position_ids": positions, "attention_mask": mask[:, None], "labels": labels}


def rate(step: int, total: int) -> float:
    """The share of the learning rate in a step of `total`."""
    return min(1.0, (step + 1) / max(1, WARM_UP * total), (total - step) / max(1, int(DECAY * total)))


def answer_loss(model: Any, inputs: dict[str, Any], decisive: float = 1.0) -> Any:
    """Mean cross-entropy of the answers' tokens, of which each first one counts `decisive` times. The head sees their
    positions alone: most of a prompt isn't one."""
    import torch

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    targets = inputs["labels"][:, 1:]
    wanted = targets != IGNORE
    # Explicitly: the trainer's own autocast is around `model.forward`, which isn't called here.
    with torch.autocast(targets.device.type, dtype=torch.bfloat16):
        given = {name: inputs[name] for name in ("input_ids", "position_ids", "attention_mask")}
        hidden = base.model(**given, use_cache=False).last_hidden_state
        logits = base.lm_head(hidden[:, :-1][wanted])
    losses = torch.nn.functional.cross_entropy(logits.float(), targets[wanted], reduction="none")
    first = wanted & (inputs["labels"][:, :-1] == IGNORE)  # a branch's prompt is before it, whatever stands before that
    weights = torch.where(first, decisive, 1.0)[wanted]
    return (weights * losses).sum() / weights.sum()


def _encoded(tokenizer: Any, examples: Sequence[Example]) -> list[Encoded]:
    sheets = (list(sheet) for _, sheet in groupby(examples, key=lambda example: example.passages))
    return [one for one in (encode(tokenizer, sheet) for sheet in sheets) if one is not None]


def _batched(
    tokenizer: Any, examples: Sequence[Example], held_out: Sequence[Example], seed: int, steps: int | None
) -> tuple[list[list[Encoded]], list[list[Encoded]]]:
    """Parts of steps to train on, and batches of held-out examples."""
    encoded, seen = _encoded(tokenizer, examples), _encoded(tokenizer, held_out)
    training = list(batches(encoded, random.Random(seed)))[: None if steps is None else steps * PARTS]
    if not (training and seen):
        raise UsageError(
            f"Too few sheets of at most {MAX_TOKENS} tokens: {len(encoded)} to train on, {len(seen)} held out. "
            f"At least {GROUP} and 1 are needed."
        )
    seen.sort(key=lambda one: len(one.ids))
    return training, [seen[at : at + BATCH] for at in range(0, len(seen), BATCH)]


def _adapted(base: Path, initial: Path | None) -> Any:
    """The model with LoRA on every matrix: `initial`'s, or a new one."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    if not torch.cuda.is_available():
        attention.by_products(model)
    if initial is not None:
        return PeftModel.from_pretrained(model, str(initial), is_trainable=True)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def train(
    base: Path,
    folder: Path,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    seed: int,
    steps: int | None = None,
    eval_every: int = 100,
    initial: Path | None = None,
) -> list[dict[str, float]]:
    """Train in `folder`, going on from its last checkpoint; the curve of losses. `folder/adapter` is the result, PEFT's.

    `initial` is a PEFT adapter to begin with, where the optimiser's state of an earlier training is gone. Raises
    `UsageError` where no batch can be made of the examples.
    """
    import torch
    from peft.helpers import disable_input_dtype_casting
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = _adapted(base, initial)
    training, evaluation = _batched(tokenizer, examples, held_out, seed, steps)
    total = len(training) // PARTS

    class GeneratorTrainer(Trainer):  # type: ignore[misc]
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
            loss = answer_loss(model, inputs, DECISIVE if self.state.global_step >= DECISIVE_FROM else 1.0)
            return (loss, {"loss": loss.detach()}) if return_outputs else loss

        def create_scheduler(self, num_training_steps, optimizer=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
            if getattr(self, "lr_scheduler", None) is None:
                self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: rate(step, total))
            return self.lr_scheduler

        def _get_train_sampler(self, *_):  # type: ignore[no-untyped-def]
            return torch.utils.data.SequentialSampler(training)

        def prediction_step(self, model, inputs, *_, **__):  # type: ignore[no-untyped-def]
            with torch.no_grad(), self.compute_loss_context_manager():
                return answer_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    last = loop.last_checkpoint(folder, lambda step, of: of == total or max(step / of, step / total) <= 1 - DECAY)
    common = loop.arguments(folder, batch=1, every=eval_every, first=last is None, seed=seed)
    arguments = TrainingArguments(
        **common
        | {
            "gradient_accumulation_steps": PARTS,
            "learning_rate": LEARNING_RATE,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "max_steps": total,
            "logging_steps": 10,
            "save_total_limit": None,  # the one before the fall is gone on from
            "remove_unused_columns": False,
            "label_names": ["labels"],
        }
    )
    trainer = GeneratorTrainer(
        model=model, args=arguments, train_dataset=training, eval_dataset=evaluation, data_collator=collate
    )
    # PEFT would turn each layer's input into float32, only for autocast to turn it back: time and much memory.
    with disable_input_dtype_casting(model):
        examples_a_step = sum(max(one.branches) for part in training for one in part) / total
        curve = loop.run(trainer, folder, examples_a_step, PARTS, last)
    model.save_pretrained(folder / "adapter")
    return curve
