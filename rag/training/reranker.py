"""LoRA training of the cross-encoder that reranks, with sentence-transformers' trainer and PEFT.

A question comes with a list of passages, one or two of them relevant; the loss is the cross-entropy between the
softmax of the scores and the relevant ones (ListNet, Cao et al. 2007), so that only the order within a list counts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.core import Passage
from rag.training import datasets, wording
from rag.training.datasets import Abstract, ArticlePassage, Claim, Record, Trial
from rag.training.grounded import Found

LIST = 6
"""Passages of a list."""

RELEVANT = 10.0
"""Label of a relevant passage: its softmax against zeros is all but one."""

RANK, ALPHA = 48, 96
LEARNING_RATE, WARM_UP = 5e-4, 0.05
LISTS_A_STEP = 4
MAX_TOKENS = 192
"""While training: a passage's first sentences mostly tell what it is about."""


WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""Half the time of a step on a CPU; nothing is seen often enough to be learnt by heart."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A question and passages, the relevant ones first."""

    question: str
    relevant: tuple[str, ...]
    others: tuple[str, ...]


# --- lists -------------------------------------------------------------------------------------


def from_medquad(
    records: Sequence[Record],
    pool: Mapping[str, Record],
    passages: Mapping[str, Sequence[Passage]],
    found: Found,
    chance: random.Random,
) -> Iterator[Ranking]:
    """Hard negatives: the same disease and another kind of question, and what the real search finds nearest."""
    order = list(records)
    chance.shuffle(order)
    for record in order:
        question = wording.ask(record.qtype, record.focus, record.question, chance, 0.5)
        own = passages.get(record.id, ())
        if question is None or not own:
            continue
        hits = [p for p in found(question) if p.doc_id in pool]
        relevant = [p for p in hits if p.doc_id == record.id] or list(own[:1])
        about = (datasets.normalised(record.focus), record.qtype)
        negatives = [p for p in hits if (datasets.normalised(p.title), pool[p.doc_id].qtype) != about]
        nearest, rest = negatives[:8], negatives[8:]
        chance.shuffle(nearest)
        chance.shuffle(rest)
        chosen = relevant[: chance.choice((1, 1, 2))]
        if not chance.randrange(3):  # not only the passage that the search puts first
            chosen = [chance.choice(list(own))]
        yield Ranking(question, _titled(chosen), _titled([*nearest[:4], *rest])[: LIST - len(chosen)])


def from_claims(
    claims: Sequence[Claim],
    abstracts: Mapping[str, tuple[str, Sequence[str]]],
    nearest: Any,
    chance: random.Random,
) -> Iterator[Ranking]:
    for claim in claims:
        relevant = [name for name in claim.cited if name in abstracts]
        others = [name for name in nearest(claim.text) if name not in claim.cited]
        chance.shuffle(others)
        if relevant and others:
            text = {
                name: f"{abstracts[name][0]}\n{' '.join(abstracts[name][1])}"[:1100] for name in [*relevant, *others]
            }
            yield Ranking(claim.text, (text[relevant[0]],), tuple(text[name] for name in others[: LIST - 1]))


def from_abstracts(abstracts: Sequence[Abstract], nearest: Any, chance: random.Random) -> Iterator[Ranking]:
    """Without titles: a title is the question itself."""
    by_id = {abstract.id: abstract for abstract in abstracts}
    for abstract in abstracts:
        others = [name for name in nearest(abstract.question) if name != abstract.id]
        chance.shuffle(others)
        texts = [f"\n{chance.choice(by_id[name].contexts)}" for name in others]
        yield Ranking(abstract.question, (f"\n{chance.choice(abstract.contexts)}",), tuple(texts[: LIST - 1]))


def from_trials(
    trials: Sequence[Trial], articles: Mapping[str, Sequence[ArticlePassage]], chance: random.Random
) -> Iterator[Ranking]:
    names = sorted(articles)
    for trial in trials:
        same = [p for p in articles[trial.passage.article] if p.id != trial.passage.id and len(p.text) > 100]
        chance.shuffle(same)
        foreign = [chance.choice(articles[chance.choice(names)]) for _ in range(LIST)]
        others = [*same[:5], *foreign]
        yield Ranking(
            trial.question,
            (f"{trial.passage.title}\n{trial.passage.text}",),
            tuple(f"{p.title}\n{p.text}" for p in others[: LIST - 1]),
        )


def from_own(
    questions: Sequence[Mapping[str, Any]],
    passages: Mapping[str, Sequence[Passage]],
    nearest: Any,
    chance: random.Random,
) -> Iterator[Ranking]:
    """The passage of the document that holds most of the answer's words; nearest passages of other documents."""
    from rag.text import content_words

    for row in questions:
        if row["type"] == "unanswerable":
            continue
        name = chance.choice(row["doc_ids"])
        wanted = content_words(" ".join(part["text"] for part in row["answer"] if part["doc_id"] == name))
        best = max(passages[name], key=lambda p: len(wanted & content_words(p.text)))
        others = [
            chance.choice(list(passages[near])) for near in nearest(row["question"]) if near not in row["doc_ids"]
        ]
        chance.shuffle(others)
        yield Ranking(row["question"], _titled([best]), _titled(others[: LIST - 1]))


def _titled(passages: Sequence[Passage]) -> tuple[str, ...]:
    return tuple(passage.titled for passage in passages)


# --- training ----------------------------------------------------------------------------------


def train(
    base: Path, folder: Path, rankings: Sequence[Ranking], held_out: Sequence[Ranking], *, seed: int, steps: int | None
) -> Any:
    """Train in `folder`, going on from its last checkpoint. Returns the trained `CrossEncoder`."""
    import torch
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import ListNetLoss
    from transformers import set_seed
    from transformers.trainer_utils import get_last_checkpoint

    set_seed(seed)
    model = CrossEncoder(
        str(base), num_labels=1, max_length=MAX_TOKENS, local_files_only=True, config_kwargs=WITHOUT_DROPOUT
    )
    adapt(model, RANK, ALPHA)

    def rows(given: Sequence[Ranking]) -> Any:
        return Dataset.from_dict(
            {
                "query": [one.question for one in given],
                "docs": [[*one.relevant, *one.others] for one in given],
                "labels": [[RELEVANT] * len(one.relevant) + [0.0] * len(one.others) for one in given],
            }
        )

    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=LISTS_A_STEP,
        per_device_eval_batch_size=LISTS_A_STEP,
        num_train_epochs=1,
        max_steps=steps or -1,
        learning_rate=LEARNING_RATE,
        warmup_steps=WARM_UP,
        lr_scheduler_type="cosine",
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=20,
        eval_strategy="steps",
        eval_steps=250,
        save_steps=250,
        save_total_limit=2,
        report_to=[],
        seed=seed,
        dataloader_pin_memory=False,
    )
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=rows(rankings),
        eval_dataset=rows(held_out),
        loss=ListNetLoss(model, mini_batch_size=-1),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    return model, trainer.state.log_history


TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
"""Every matrix of a BERT layer."""


def adapt(model: Any, rank: int, alpha: int) -> None:
    """LoRA on every matrix of the layers; pooler and classifier, which the base hasn't learnt, are trained whole."""
    from peft import LoraConfig

    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS))
    for name, weight in model.transformers_model.named_parameters():
        weight.requires_grad = "lora_" in name or name.startswith(("bert.pooler.", "classifier."))
