"""LoRA training of a cross-encoder from the sentence encoder, with sentence-transformers' trainer and PEFT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import UsageError
from rag.training import attention, batches, export, loop, lowrank

WARM_UP = 0.05
"""Of the steps."""

_ATTENTION = {
    "bert": ["query", "key", "value", "attention.output.dense"],
    "mpnet": ["attn.q", "attn.k", "attn.v", "attn.o"],
}
"""By `model_type`."""

_WIDE = ["intermediate.dense", "output.dense"]

WHOLE = ("bert.pooler.", "classifier.")
"""Trained whole: the base hasn't learnt them."""

TRAINED = "trained.safetensors"

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Lora:
    """How a model is adapted. The low-rank products count `alpha / rank` times. `dropout` is the model's own while it is trained:
    it doubles the time of a step on a CPU, and is worth it where the same texts are seen again and again."""

    rank: int
    learning_rate: float
    dropout: float = 0.0

    @property
    def alpha(self) -> int:
        return 2 * self.rank


def train(
    base: Path,
    folder: Path,
    training: Columns,
    held_out: Columns,
    *,
    labels: int,
    loss: Callable[[Any], Any],
    lora: Lora,
    max_tokens: int,
    batch: int,
    every: int,
    seed: int,
    steps: int | None,
    begin: Path | None = None,
) -> Any:
    """Train in `folder`, going on from its last checkpoint; `folder/adapter.safetensors` and the `CrossEncoder` result.

    A pair is cut at `max_tokens`. `every` so many steps the held-out loss is taken and a checkpoint written. `begin` is a shipped
    adapter of the same rank to begin with; its head is another one's where it has other labels.
    """
    import torch
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from transformers import set_seed

    set_seed(seed)
    dropout = {"hidden_dropout_prob": lora.dropout, "attention_probs_dropout_prob": lora.dropout}
    model = CrossEncoder(
        str(base), num_labels=labels, max_length=max_tokens, local_files_only=True, config_kwargs=dropout
    )
    if not torch.cuda.is_available() and not lora.dropout and model.transformers_model.config.model_type == "bert":
        attention.by_products(model.transformers_model)  # which knows no dropout, and no bias as MPNet has one
    adapt(model, lora)
    if not torch.cuda.is_available():
        lowrank.in_one_product(model.transformers_model)
    if begin is not None:
        read_adapter(model, begin, lora)

    class Trainer(CrossEncoderTrainer):  # type: ignore[misc]
        """With all that is trained in its checkpoints. What sentence-transformers saves and loads is PEFT's: the LoRA
        matrices alone, on a model of one label."""

        def _save(self, output_dir=None, state_dict=None):  # type: ignore[no-untyped-def]
            super()._save(output_dir, state_dict)
            write_trained(model, Path(output_dir if output_dir is not None else self.args.output_dir))

        def _load_from_checkpoint(self, checkpoint_path):  # type: ignore[no-untyped-def]
            read_trained(model, Path(checkpoint_path))

    last = loop.last_checkpoint(folder)
    common = loop.arguments(folder, batch=batch, every=every, first=last is None, seed=seed)
    arguments = CrossEncoderTrainingArguments(
        **common,
        num_train_epochs=1,
        max_steps=steps if steps is not None else -1,
        learning_rate=lora.learning_rate,
        warmup_steps=WARM_UP,
        lr_scheduler_type="cosine",
        batch_sampler=batches.sampler,
        logging_steps=20,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(training)),
        eval_dataset=Dataset.from_dict(dict(held_out)),
        loss=loss(model),
    )
    loop.run(trainer, folder, batch, last=last)
    export.write_adapter(model.transformers_model, folder / export.ADAPTER)
    return model


def targets(model_type: str) -> list[str]:
    """Every matrix of a layer."""
    return [*_ATTENTION[model_type], *_WIDE]


def adapt(model: Any, lora: Lora) -> None:
    """LoRA on every matrix of the layers; pooler and classifier are trained whole."""
    from peft import LoraConfig

    modules = targets(model.transformers_model.config.model_type)
    model.add_adapter(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=modules))
    for name, weight in model.transformers_model.named_parameters():
        weight.requires_grad = "lora_" in name or name.startswith(WHOLE)


def write_trained(model: Any, checkpoint: Path) -> None:
    from safetensors.torch import save_file

    weights = model.transformers_model.named_parameters()
    save_file({name: w.detach().contiguous() for name, w in weights if w.requires_grad}, checkpoint / TRAINED)


def read_trained(model: Any, checkpoint: Path) -> None:
    """Raises `UsageError` where the checkpoint has none: going on from it would begin with an untrained head."""
    import torch
    from safetensors.torch import load_file

    path = checkpoint / TRAINED
    if not path.is_file():
        raise UsageError(
            f"{path} is missing: nothing can go on from this checkpoint. Remove it, or train in another folder."
        )
    weights = dict(model.transformers_model.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(path).items():
            weights[name].copy_(tensor)


def read_adapter(model: Any, adapter: Path, lora: Lora) -> None:
    """Into the LoRA matrices, the pooler and, where it has as many labels, the head. Raises `UsageError` where there is none, or one
    of another model or rank."""
    import torch
    from safetensors.torch import load_file

    if not adapter.is_file():
        raise UsageError(
            f"{adapter} isn't there: name an adapter of ours, e.g. data/models/minilm-support/adapter.safetensors."
        )
    tensors = load_file(adapter)
    used = 0
    with torch.no_grad():
        for name, weight in model.transformers_model.named_parameters():
            known = tensors.get(name.removesuffix(".default.weight"))
            if known is None or (name.startswith("classifier.") and known.shape != weight.shape):
                continue
            if known.shape != weight.shape:
                raise UsageError(
                    f"{adapter} can't be begun with: {name} has shape {tuple(known.shape)}, not rank {lora.rank}."
                )
            weight.copy_(known)
            used += 1
    if not used:
        raise UsageError(f"{adapter} can't be begun with: none of its {len(tensors)} tensors is of this model.")
