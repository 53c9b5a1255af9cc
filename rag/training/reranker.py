"""Lists for the reranker, and its training.

A question comes with a list of passages, one or two of them relevant; the loss is the cross-entropy between the softmax of
the scores and the relevant ones (ListNet, Cao et al. 2007), so that only the order within a list counts. Later lists are
absolute: a score of 0 stands among them for "none of these", and is the right one where no passage is relevant (Yan et al.
2022, "Scale Calibration of Deep Ranking Models"). A score above 0 then says that a passage answers, whatever stands beside
it. Begun with those, a training doesn't get off the ground: all that they teach at first is to raise or lower all scores.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rag.core import Document, Passage
from rag.ingest import chunk
from rag.settings import Chunk
from rag.text import content_words
from rag.training import crossencoder, datasets, wording
from rag.training.datasets import Abstract, ArticlePassage, Claim, Record, Trial
from rag.training.examples import draw, shuffled
from rag.training.found import Found
from rag.training.found import nearest as nearest_of

LIST = 12
"""Passages of a list."""

NONE_RELEVANT = 0.2
"""Share of MedQuAD's questions that stand beside passages of which none answers."""

LEFT_OVER = 3
"""Sentences of an abstract, at least, from which one is asked."""

ORDERED = 0.75
"""Share of the lists, the first ones, that teach the order alone."""

LORA = crossencoder.Lora(rank=144, learning_rate=5e-4)
"""The lists are many and the questions various: more is learnt than rank 48 has room for, and it stays below what may ship."""

MAX_TOKENS = 192
"""Of a pair, while training: a passage's first sentences mostly tell what it is about."""

LISTS_A_STEP, EVERY = 16, 400
"""Every so many steps the held-out loss is taken and a checkpoint written."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A question and passages: the relevant ones, of which an absolute list may have none, and others."""

    question: str
    relevant: tuple[str, ...]
    others: tuple[str, ...]
    absolute: bool = False

    @property
    def target(self) -> list[float]:
        """What the softmax of the passages' scores should be, relevant ones first; of an absolute list also what that of
        "none of these" should be, last."""
        relevant = len(self.relevant)
        shares = [1 / relevant for _ in range(relevant)] + [0.0] * len(self.others)
        return [*shares, float(not self.relevant)] if self.absolute else shares


# --- lists -------------------------------------------------------------------------------------


def from_medquad(
    records: Sequence[Record],
    pool: Mapping[str, Record],
    passages: Mapping[str, Sequence[Passage]],
    found: Found,
    chance: random.Random,
    kin_counts: Sequence[int],
) -> Iterator[Ranking]:
    """Hard negatives: the same disease and another kind of question, from anywhere in its record, so many of them as one of
    `kin_counts`, and what the real search finds nearest."""
    kin: dict[str, list[Record]] = defaultdict(list)
    for record in pool.values():
        kin[datasets.disease(record.focus)].append(record)
    for record in shuffled(records, chance):
        question = wording.ask(record.qtype, record.focus, record.question, chance, 0.5)
        own = passages.get(record.id, ())
        if question is None or not own:
            continue
        hits = [p for p in found(question) if p.doc_id in pool]
        relevant = [p for p in hits if p.doc_id == record.id] or list(own[:1])
        about = (datasets.disease(record.focus), record.qtype)
        negatives = [p for p in hits if (datasets.disease(p.title), pool[p.doc_id].qtype) != about]
        nearest, rest = negatives[:8], negatives[8:]
        chance.shuffle(nearest)
        chance.shuffle(rest)
        of_kin = [p for one in kin[about[0]] if one.qtype != record.qtype for p in passages.get(one.id, ())]
        of_kin = chance.sample(of_kin, min(len(of_kin), chance.choice(kin_counts)))
        chosen = relevant[: chance.choice((1, 1, 2))]
        if chance.random() < 0.5:  # not only the passages that the search puts first
            chosen = chance.sample(list(own), min(len(own), chance.choice((1, 2))))
        if chance.random() < NONE_RELEVANT:
            chosen = []
        others = list(dict.fromkeys([*of_kin, *nearest[:4], *rest]))
        yield Ranking(question, _titled(chosen), _titled(others)[: LIST - len(chosen)])


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
            text = {name: _beginning(*abstracts[name]) for name in [*relevant, *others]}
            yield Ranking(claim.text, (text[relevant[0]],), tuple(text[name] for name in others[: LIST - 1]))


def from_abstracts(abstracts: Sequence[Abstract], nearest: Any, chance: random.Random) -> Iterator[Ranking]:
    """Without titles: a title is the question itself."""
    by_id = {abstract.id: abstract for abstract in abstracts}
    for abstract in abstracts:
        others = [name for name in nearest(abstract.question) if name != abstract.id]
        chance.shuffle(others)
        texts = [f"\n{chance.choice(by_id[name].contexts)}" for name in others]
        yield Ranking(abstract.question, (f"\n{chance.choice(abstract.contexts)}",), tuple(texts[: LIST - 1]))


def from_sentences(
    abstracts: Mapping[str, tuple[str, Sequence[str]]], asked: Sequence[str], nearest: Any, chance: random.Random
) -> Iterator[Ranking]:
    """A sentence of an abstract, or its title, in the place of a question; relevant is what is left of it (the inverse cloze
    task, Lee et al. 2019). Claims and questions of papers are few; this is what matching them is like."""
    for name in shuffled(asked, chance):
        title, text = abstracts[name]
        if len(text) < LEFT_OVER:
            continue
        titled = chance.random() < 0.5
        # The title is too easy where it stands above the passage; the last sentence is a conclusion, which is most like a claim.
        by_title = not titled and chance.random() < 0.5
        row = None if by_title else chance.choice([*range(len(text)), len(text) - 1])
        question = (title if row is None else text[row]).strip()
        others = [other for other in nearest(question) if other != name]
        chance.shuffle(others)
        left = [sentence for number, sentence in enumerate(text) if number != row]
        passages = [(title, left), *(abstracts[name] for name in others[: LIST - 1])]
        relevant, *rest = (_beginning(title if titled else "", text) for title, text in passages)
        yield Ranking(question, (relevant,), tuple(rest))


def _beginning(title: str, text: Iterable[str]) -> str:
    """As much of an abstract as a pair has tokens for."""
    return f"{title}\n{' '.join(text)}"[:1100]


def from_trials(
    trials: Sequence[Trial], articles: Mapping[str, Sequence[ArticlePassage]], chance: random.Random
) -> Iterator[Ranking]:
    names = sorted(articles)
    for trial in trials:
        same = [p for p in articles[trial.passage.article] if p.id != trial.passage.id and len(p.text) > 100]
        chance.shuffle(same)
        foreign = [chance.choice(articles[chance.choice(names)]) for _ in range(LIST)]
        others = [p for p in [*same[:5], *foreign] if p.id != trial.passage.id]
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
    """The passage of the document that holds most of the answer's words; nearest passages of other documents. Where the
    document doesn't answer, its passages stand among the others."""
    for row in questions:
        name = chance.choice(row["doc_ids"])
        wanted = content_words(" ".join(part["text"] for part in row["answer"] if part["doc_id"] == name))
        best = [max(passages[name], key=lambda p: len(wanted & content_words(p.text)))] if wanted else []
        others = [
            chance.choice(list(passages[near])) for near in nearest(row["question"]) if near not in row["doc_ids"]
        ]
        chance.shuffle(others)
        if not best:
            others = [*passages[name], *others]
        yield Ranking(row["question"], _titled(best), _titled(others)[: LIST - len(best)])


def _titled(passages: Sequence[Passage]) -> tuple[str, ...]:
    return tuple(passage.titled for passage in passages)


# --- all of them -------------------------------------------------------------------------------

SHARES = {
    "medquad": 0.42,
    "aspects": 0.07,
    "own": 0.2,
    "trials": 0.05,
    "claims": 0.1,
    "abstracts": 0.06,
    "sentences": 0.1,
}

KIN = {"medquad": (0, 2, 4), "aspects": (2, 3, 4)}
"""How many passages on the same disease stand beside one of a record. Ours the search finds none of: without others of ours
beside it, an answer's style would give it away."""

CANDIDATES = 50
"""Passages that are found for a question: negatives come from further down than a reranker is asked to go."""


class Lists:
    """`training` and `held_out` share no source of MedQuAD and no focus; no question of theirs is measured on, and no abstract
    asks that a measured claim cites. `found` searches all of MedQuAD."""

    def __init__(self, root: Path, found: Found) -> None:
        self._found = found
        records = datasets.medquad(root)
        self._records = records
        self._training, self._validation, _ = datasets.split_medquad(records)
        self._aspects = datasets.aspects()
        self._by_record = {r.id: _split(r.id, r.focus, r.answer) for r in [*records, *self._aspects]}
        self._claims, measured, self._abstracts = datasets.scifact(root)
        told = {name for claim in measured for name in claim.cited}
        self._asked = [name for name in self._abstracts if name not in told]
        self._papers, _ = datasets.pubmedqa(root)
        self._articles = datasets.articles(root)
        self._trials, _ = datasets.trials(root, self._articles)
        self._questions, _ = datasets.own()
        documents = datasets.documents()
        self._by_document = {name: _split(name, d["title"], d["text"]) for name, d in documents.items()}
        self._near = {
            "claims": nearest_of(
                {name: f"{title} {' '.join(text)}" for name, (title, text) in self._abstracts.items()}, 20
            ),
            "abstracts": nearest_of({a.id: " ".join(a.contexts) for a in self._papers}, 20),
            "own": nearest_of({name: f"{d['title']} {d['text']}" for name, d in documents.items()}),
        }

    def training(self, count: int, seed: int) -> list[Ranking]:
        drawn = draw(SHARES, self._round, seed)
        ordered = islice((one for one in drawn if one.relevant), round(ORDERED * count))
        absolute = (replace(one, absolute=True) for one in drawn)
        return list(islice(chain(ordered, absolute), count))

    def held_out(self, count: int, seed: int) -> list[Ranking]:
        made = self._of_records("medquad", self._validation, self._records, random.Random(seed))
        return list(islice((one for one in made if one.relevant), count))

    def _of_records(
        self, name: str, records: Sequence[Record], beside: Iterable[Record], chance: random.Random
    ) -> Iterator[Ranking]:
        pool = {record.id: record for record in beside}
        return from_medquad(records, pool, self._by_record, self._found, chance, KIN[name])

    def _round(self, name: str, chance: random.Random) -> Iterator[Ranking]:
        if name == "medquad":
            return self._of_records(name, self._training, self._training, chance)
        if name == "aspects":
            return self._of_records(name, self._aspects, [*self._training, *self._aspects], chance)
        if name == "own":
            return from_own(shuffled(self._questions, chance), self._by_document, self._near["own"], chance)
        if name == "trials":
            return from_trials(shuffled(self._trials, chance), self._articles, chance)
        if name == "claims":
            return from_claims(shuffled(self._claims, chance), self._abstracts, self._near["claims"], chance)
        if name == "sentences":
            return from_sentences(self._abstracts, self._asked, self._near["claims"], chance)
        return from_abstracts(shuffled(self._papers, chance), self._near["abstracts"], chance)


def _split(name: str, title: str, text: str) -> list[Passage]:
    settings = Chunk()  # as the index that negatives are found in
    return chunk.split(Document(name, title, text), settings.max_chars, settings.overlap_sentences)


# --- training ----------------------------------------------------------------------------------


def train(
    base: Path, folder: Path, rankings: Sequence[Ranking], held_out: Sequence[Ranking], *, seed: int, steps: int | None
) -> Any:
    """As `crossencoder.train`, with `list_loss`."""

    def columns(given: Sequence[Ranking]) -> crossencoder.Columns:
        return {
            "query": [one.question for one in given],
            "docs": [[*one.relevant, *one.others] for one in given],
            "labels": [one.target for one in given],
        }

    return crossencoder.train(
        base,
        folder,
        columns(rankings),
        columns(held_out),
        labels=1,
        loss=_trainable,
        lora=LORA,
        max_tokens=MAX_TOKENS,
        batch=LISTS_A_STEP,
        every=EVERY,
        seed=seed,
        steps=steps,
    )


def _trainable(model: Any) -> Any:
    """What sentence-transformers' trainer asks for: a module that takes columns."""
    import torch
    from sentence_transformers.util import batch_to_device

    class ListLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: Any, labels: Any, prompt: Any = None, task: Any = None) -> Any:
            questions, lists = inputs
            pairs = [(question, passage) for question, some in zip(questions, lists, strict=True) for passage in some]
            tokens = batch_to_device(model.preprocess(pairs, prompt=prompt, task=task), model.device)
            scores = model(tokens)["scores"].view(-1)
            return list_loss(scores.float().split([len(some) for some in lists]), labels)

    return ListLoss()


def list_loss(scores: Sequence[Any], targets: Sequence[Any]) -> Any:
    """Mean cross-entropy of lists: tensors of passages' scores, and `Ranking.target` of each. Where that has one number more
    a score of 0 is added to the list."""
    import torch

    losses = []
    for ours, target in zip(scores, targets, strict=True):
        beside = torch.cat([ours, ours.new_zeros(len(target) - len(ours))])
        losses.append(-(target.to(ours) @ torch.nn.functional.log_softmax(beside, dim=0)))
    return torch.stack(losses).mean()
