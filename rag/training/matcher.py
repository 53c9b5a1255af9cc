"""Pairs of questions for the matcher, and its training: do they ask the same?

Most are of clusters written for it (`data/training/same_questions.jsonl`): a question, what asks the same in a doctor's, a
patient's and other words, and what looks like it and asks something else. Every two of a cluster make a pair, so that neither
style nor shared words tell anything. Others are put together of a lexicon (`rag.training.lexicon`), for the model knows too few
expressions that mean the same. Beside them stand questions of MedQuAD about one disease or of one kind, and of our documents.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, islice
from pathlib import Path
from typing import Any

from rag import calibrate, paths
from rag.cache import normalised
from rag.matching import comparable, compared
from rag.training import crossencoder, datasets, lexicon
from rag.training.examples import draw, shuffled


@dataclass(frozen=True, slots=True)
class Size:
    """What a matcher is made of, and how it is trained. It begins with the adapter of another model of ours, where there is one of
    that base: the support checker knows already what marked words that mean the same look like."""

    base: str
    lora: crossencoder.Lora
    pairs_a_step: int
    begins_with: str | None = None


SMALL = Size("all-minilm-l6-v2", crossencoder.Lora(rank=144, learning_rate=5e-4), 64, "minilm-support")
LARGE = Size("all-mpnet-base-v2", crossencoder.Lora(rank=32, learning_rate=2.5e-4), 32)
"""Knows more expressions that mean the same, for eight times the arithmetic."""

SIZES = {size.base: size for size in (SMALL, LARGE)}

EVERY = 250

MAX_TOKENS = 160

SHARES = {"clusters": 0.75, "lexicon": 0.15, "medquad": 0.05, "documents": 0.05}

MEDQUAD_PAIRS = 800
"""Near misses that the threshold is found on, at most: those of the diseases for it are fewer."""

CLUSTERS_HELD_OUT = 20
"""One in so many, by its topic, is for the curve."""


@dataclass(frozen=True, slots=True)
class QuestionPair:
    """`kind` says how it came about."""

    a: str
    b: str
    same: bool
    kind: str


def of_cluster(cluster: Mapping[str, Any], chance: random.Random) -> Iterator[QuestionPair]:
    """All pairs of what asks the same, and as many of what doesn't, those that are hardest to tell always among them."""
    said = [cluster["question"], *cluster["same"], *cluster["tiny_same"]]
    same = [QuestionPair(a, b, True, "paraphrase") for a, b in combinations(said, 2)]
    hard = [QuestionPair(cluster["question"], other, False, "tiny") for other in cluster["tiny_near"]]
    near = [QuestionPair(one, other, False, "near miss") for one in said for other in cluster["near"]]
    near += [QuestionPair(one, other, False, "near miss") for one in said[1:] for other in cluster["tiny_near"]]
    near += [QuestionPair(a, b, False, "near miss") for a, b in combinations(cluster["near"], 2)]
    yield from (_either_way(pair, chance) for pair in [*same, *hard, *chance.sample(near, len(same))])


def of_topic(clusters: Sequence[Mapping[str, Any]], chance: random.Random) -> Iterator[QuestionPair]:
    """Different questions about one topic."""
    for one, other in combinations(clusters, 2):
        a, b = (chance.choice([c["question"], *c["same"]]) for c in (one, other))
        yield QuestionPair(a, b, False, "same topic")


def of_medquad(records: Sequence[datasets.Record], chance: random.Random) -> Iterator[QuestionPair]:
    """Two kinds of questions about one disease, and one kind of two diseases. They have no paraphrases."""
    by_focus = [list(some) for _, some in groupby(sorted(records, key=_focus), key=_focus)]
    for some in shuffled(by_focus, chance):
        kinds = {record.qtype: record for record in some}
        if len(kinds) > 1:
            a, b = chance.sample(list(kinds.values()), 2)
            yield QuestionPair(a.question, b.question, False, "other kind")
    by_kind = [list(some) for _, some in groupby(sorted(records, key=_kind), key=_kind)]
    for some in by_kind:
        for a, b in zip(shuffled(some, chance), shuffled(some, chance), strict=True):
            if _focus(a) != _focus(b):
                yield QuestionPair(a.question, b.question, False, "other disease")


def of_documents(rows: Sequence[Mapping[str, Any]], chance: random.Random) -> Iterator[QuestionPair]:
    """Two questions about one of our documents."""
    ordered = sorted(rows, key=lambda row: str(row["doc_ids"]))
    for _, some in groupby(ordered, key=lambda row: str(row["doc_ids"])):
        asked = list(dict.fromkeys(row["question"] for row in some))
        for _ in range(min(3, len(asked) // 2)):
            a, b = chance.sample(asked, 2)
            yield QuestionPair(a, b, False, "same document")


def _focus(record: datasets.Record) -> str:
    return datasets.disease(record.focus)


def _kind(record: datasets.Record) -> str:
    return record.qtype


def _either_way(pair: QuestionPair, chance: random.Random) -> QuestionPair:
    return pair if chance.random() < 0.5 else QuestionPair(pair.b, pair.a, pair.same, pair.kind)


def _comparable(pairs: Iterator[QuestionPair]) -> Iterator[QuestionPair]:
    """What is told apart by rule isn't learnt."""
    return (pair for pair in pairs if comparable(pair.a, pair.b))


class Pairs:
    """No cluster is of a topic of `eval/paraphrases.jsonl` or near one of its questions, and no document of a topic of its held-out
    half. None that is put together of the lexicon is a question of that file. MedQuAD's held-out sources and their diseases stay out,
    as in the other trainings."""

    def __init__(self, root: Path) -> None:
        self._records, _, _ = datasets.split_medquad(datasets.medquad(root))
        clusters = datasets.same_questions()
        self._clusters = [c for c in clusters if not datasets.is_held_out(c["topic"], CLUSTERS_HELD_OUT)]
        self._seen = [c for c in clusters if datasets.is_held_out(c["topic"], CLUSTERS_HELD_OUT)]
        questions, _ = datasets.own()
        ours = paths.shipped("eval", "paraphrases.jsonl")
        measured = {split: calibrate.read_pairs(ours, split) for split in ("calibration", "heldout")}
        topics = {pair.topic for pair in measured["heldout"]}
        self._questions = [row for row in questions if not topics.intersection(row["doc_ids"])]
        self._asked = {normalised(text) for some in measured.values() for pair in some for text in (pair.a, pair.b)}
        self._terms, self._frames = datasets.lexicon()

    def training(self, count: int, seed: int) -> list[QuestionPair]:
        return list(islice(draw(SHARES, self._round, seed), count))

    def held_out(self, count: int, seed: int) -> list[QuestionPair]:
        """For the curve: of topics that none is trained on."""
        return list(islice(_comparable(self._of_clusters(self._seen, random.Random(seed))), count))

    def _round(self, name: str, chance: random.Random) -> Iterator[QuestionPair]:
        if name == "clusters":
            pairs = self._of_clusters(self._clusters, chance)
        elif name == "lexicon":
            made = (QuestionPair(*said) for said in lexicon.pairs(self._terms, self._frames, chance))
            unasked = (pair for pair in made if not {normalised(pair.a), normalised(pair.b)} & self._asked)
            pairs = (_either_way(pair, chance) for pair in unasked)
        elif name == "medquad":
            pairs = of_medquad(self._records, chance)
        else:
            pairs = of_documents(self._questions, chance)
        return _comparable(pairs)

    @staticmethod
    def _of_clusters(clusters: Sequence[Mapping[str, Any]], chance: random.Random) -> Iterator[QuestionPair]:
        made = [pair for cluster in clusters for pair in of_cluster(cluster, chance)]
        ordered = sorted(clusters, key=lambda cluster: str(cluster["topic"]))
        for _, some in groupby(ordered, key=lambda cluster: str(cluster["topic"])):
            made += of_topic(list(some), chance)
        yield from shuffled(made, chance)


def train(
    base: Path,
    folder: Path,
    pairs: Sequence[QuestionPair],
    held_out: Sequence[QuestionPair],
    begin: Path | None,
    *,
    size: Size,
    seed: int,
    steps: int | None,
) -> Any:
    """As `crossencoder.train`, with the cross-entropy of one label. `begin` is the adapter to begin with."""
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    def columns(given: Sequence[QuestionPair]) -> crossencoder.Columns:
        read = [compared(one.a, one.b) for one in given]
        return {
            "question": [a for a, _ in read],
            "earlier": [b for _, b in read],
            "label": [float(one.same) for one in given],
        }

    return crossencoder.train(
        base,
        folder,
        columns(pairs),
        columns(held_out),
        labels=1,
        loss=BinaryCrossEntropyLoss,
        lora=size.lora,
        max_tokens=MAX_TOKENS,
        batch=size.pairs_a_step,
        every=EVERY,
        seed=seed,
        steps=steps,
        begin=begin,
    )


# --- calibration -------------------------------------------------------------------------------


def near_misses(records: Sequence[datasets.Record], count: int, seed: int) -> list[calibrate.Pair]:
    """At most so many of MedQuAD's, half of another kind of question about one disease, half of the same kind about another."""
    made = list(of_medquad(records, random.Random(seed)))
    chosen = []
    for kind in ("other kind", "other disease"):
        of_kind = list(dict.fromkeys((pair.a, pair.b) for pair in made if pair.kind == kind))
        some = random.Random(f"{seed}-{kind}").sample(of_kind, min(count // 2, len(of_kind)))
        chosen += [calibrate.Pair(a=a, b=b, same=False, kind=kind) for a, b in some]
    return chosen


def calibration_pairs(root: Path) -> list[calibrate.Pair]:
    """What the model wasn't trained on, and figures aren't taken on: that half of `eval/paraphrases.jsonl` and, of the diseases of
    MedQuAD that are kept for choosing, near misses: figures are taken on a mixture of both too."""
    ours = calibrate.read_pairs(paths.shipped("eval", "paraphrases.jsonl"))
    _, records, _ = datasets.split_medquad(datasets.medquad(root))
    return ours + near_misses(records, MEDQUAD_PAIRS, seed=0)
