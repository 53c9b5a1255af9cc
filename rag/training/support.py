"""Pairs for the support checker, and its training: a sentence, what it cites, and whether that supports it.

At least half of the supported sentences aren't verbatim: written afresh (our own documents, SciFact's claims,
trial results put into words), reworded or shortened. What isn't supported is a sentence with one detail made
wrong, a sentence of another passage, or a claim that its abstract doesn't decide.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rag.differences import marked
from rag.quantities import missing_numbers
from rag.settings import Verify
from rag.text import sentences
from rag.training import corruption, crossencoder, datasets, quoting, rewording
from rag.training.corruption import Part
from rag.training.datasets import Claim, Record, Trial
from rag.training.examples import draw, shuffled
from rag.verify import LABELS, premise

PREMISE_CHARS, MAX_TOKENS = Verify().premise_chars, Verify().max_length
"""What the stage reads by default is what the model is trained on."""

LORA = crossencoder.Lora(rank=144, learning_rate=5e-4, dropout=0.1)

PAIRS_A_STEP, EVERY = 64, 250

RARE = frozenset({"drug", "organism", "subgroup", "unit"})
"""Kinds of mistakes that few sentences can be given: most can be negated, few name a drug."""

Label = Literal["supported", "contradicted", "not_stated"]


@dataclass(frozen=True, slots=True)
class SupportPair:
    """`kind` says how the sentence came about, `premise` is what the model reads of the passage and its title."""

    sentence: str
    premise: str
    label: Label
    kind: str
    title: str = ""
    passage: str = ""


# --- pairs -------------------------------------------------------------------------------------


def from_medquad(records: Sequence[Record], part: Part, chance: random.Random) -> Iterator[SupportPair]:
    """For one passage of each record: supported sentences, corrupted ones, and sentences from elsewhere."""
    order = list(records)
    chance.shuffle(order)
    before: list[str] = []  # usable sentences of the records before: of other diseases, mostly
    for record in order:
        text = quoting.tidy(record.answer)
        ranges = sentences(text)
        if len(ranges) < 3 or quoting.BOILERPLATE.search(text):
            continue
        first = chance.randrange(len(ranges))
        passage = quoting.window(text, ranges, first, first, chance.choice((300, 500, 800)), chance)
        inside = [s for s in _of(passage) if quoting.usable(s)]
        outside = [s for s in _of(text) if quoting.usable(s) and s not in passage]
        if not inside:
            continue
        for sentence in chance.sample(inside, min(3, len(inside))):
            yield from _variants(sentence, record, passage, part, chance)
            if part == "training" and chance.random() < 0.5:
                yield from _negated_the_other_way_round(sentence, record, passage, part, chance)
        for sentence in chance.sample(outside, min(2, len(outside))):
            if not quoting.holds(passage, sentence):
                yield _pair(sentence, record.focus, passage, "not_stated", "elsewhere")
        if before and chance.random() < 0.5:
            yield _pair(chance.choice(before), record.focus, passage, "not_stated", "foreign")
        before.append(chance.choice(inside))


def _variants(sentence: str, record: Record, passage: str, part: Part, chance: random.Random) -> Iterator[SupportPair]:
    said = {"verbatim": sentence}
    if (short := rewording.shorten(sentence, chance)) is not None:
        said["shortened"] = short
    if (words := rewording.reword(said.get("shortened", sentence), part, chance)) is not None:
        said["reworded"] = words
    if len(said) > 1 and chance.random() < 0.9:
        del said["verbatim"]
    kind = chance.choice(list(said))
    yield _pair(said[kind], record.focus, passage, "supported", kind)
    wrong = []
    for name in corruption.KINDS:
        base = chance.choice(list(said.values()))
        changed = corruption.corrupt(base, name, part, chance, f"{record.focus} {passage}")
        if changed is not None:
            wrong.append((name, changed))
    rare = [one for one in wrong if one[0] in RARE]
    chosen = rare[:2] if rare and chance.random() < 0.8 else []
    rest = [one for one in wrong if one not in chosen]
    chosen += chance.sample(rest, min(len(rest), 2 - len(chosen))) if len(chosen) < 2 else []
    for name, changed in chosen:
        yield _pair(changed, record.focus, passage, "contradicted", name)


def _negated_the_other_way_round(
    sentence: str, record: Record, passage: str, part: Part, chance: random.Random
) -> Iterator[SupportPair]:
    """Negated in the passage: the sentence as it was is contradicted, the negated one supported.

    With `_variants` these are a two by two: without them it is enough to see that a sentence is negated; now nothing but
    comparing tells (Kaushik et al. 2020, counterfactually augmented data). For negations alone, which are a few words: where
    other words are put in, that they don't fit is worth knowing (tried: subgroups were found half as often).
    """
    negated = corruption.corrupt(sentence, "negation", part, chance, f"{record.focus} {passage}")
    if negated is None:
        return
    other = passage.replace(sentence, negated)
    label: Label
    for text, label, kind in ((negated, "supported", "said negation"), (sentence, "contradicted", "negation")):
        reworded = rewording.reword(text, part, chance) if chance.random() < 0.6 else None
        yield _pair(reworded if reworded is not None else text, record.focus, other, label, kind)


def from_own(
    rows: Sequence[Mapping[str, Any]], documents: Mapping[str, Mapping[str, Any]], part: Part, chance: random.Random
) -> Iterator[SupportPair]:
    """As they were written; for training half of the supported ones with a detail made wrong, too."""
    for row in rows:
        document = documents[row["doc_id"]]
        title, text = document["title"], " ".join(document["text"].split())
        kind = row["kind"] if row["label"] != "supported" else f"own {row['kind']}"
        yield _pair(row["sentence"], title, text, row["label"], kind)
        if part == "training" and row["label"] == "supported" and chance.random() < 0.5:
            wrong = _corrupted(row["sentence"], part, chance, f"{title} {text}")
            if wrong is not None:
                yield _pair(wrong[1], title, text, "contradicted", wrong[0])


def _corrupted(sentence: str, part: Part, chance: random.Random, about: str) -> tuple[str, str] | None:
    """(kind, the sentence with a detail of it made wrong), of a rare kind where it has one; None where it has none."""
    for kind in sorted(shuffled(corruption.KINDS, chance), key=lambda kind: kind not in RARE):
        if (changed := corruption.corrupt(sentence, kind, part, chance, about)) is not None:
            return kind, changed
    return None


def from_claims(claims: Sequence[Claim], abstracts: Mapping[str, tuple[str, Sequence[str]]]) -> Iterator[SupportPair]:
    """SciFact. A claim that its abstract doesn't decide is not stated there."""
    for claim in claims:
        for name, supports, rationale in claim.evidence:
            title, text = abstracts[name]
            passage = _around(text, rationale, claim.text, title)
            if passage is not None:
                yield _pair(claim.text, title, passage, "supported" if supports else "contradicted", "claim")
        if not claim.evidence:
            for name in claim.cited[:1]:
                title, text = abstracts[name]
                yield _pair(claim.text, title, " ".join(text), "not_stated", "claim")


def _around(text: Sequence[str], rationale: Sequence[int], claim: str, title: str) -> str | None:
    """A passage with the sentences of an abstract that decide a claim, of which the model reads them all: with their
    neighbours, else they alone; None where that is too much."""
    near = sorted({n + step for n in rationale for step in (-1, 0, 1) if 0 <= n + step < len(text)})
    for chosen in (near, sorted(rationale)):
        passage = " ".join(text[n].strip() for n in chosen)
        read = premise(title, passage, claim, PREMISE_CHARS)
        if all(text[n].strip() in read for n in rationale):
            return passage
    return None


_RESULTS = {
    "significantly increased": ("increased", "raised", "led to higher"),
    "significantly decreased": ("decreased", "lowered", "led to lower"),
    "no significant difference": ("made no difference to", "did not change", "had no effect on"),
}


def from_trials(trials: Sequence[Trial], chance: random.Random) -> Iterator[SupportPair]:
    """Evidence Inference: the result in words of ours, rightly and the wrong way round."""
    for trial in trials:
        if len(trial.question) > 220:
            continue
        label: Label
        for result in chance.sample(list(_RESULTS), 2):
            label = "supported" if result == trial.answer else "contradicted"
            said = " ".join(
                f"{trial.intervention} {chance.choice(_RESULTS[result])} {trial.outcome} compared with "
                f"{trial.comparator}.".split()
            )
            if label == "supported" and missing_numbers(said, f"{trial.passage.title}\n{trial.passage.text}"):
                continue  # of a dose, mostly, that another part of the article tells
            pair = _pair(said[0].upper() + said[1:], trial.passage.title, trial.passage.text, label, "trial")
            if quoting.holds(pair.premise, trial.evidence):
                yield pair


def _pair(sentence: str, title: str, passage: str, label: Label, kind: str) -> SupportPair:
    return SupportPair(sentence, premise(title, passage, sentence, PREMISE_CHARS), label, kind, title, passage)


def _of(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


# --- all of them -------------------------------------------------------------------------------

SHARES = {"medquad": 0.55, "own": 0.3, "trials": 0.06, "claims": 0.09}


class Pairs:
    """`training` and `held_out` share no document, no source of MedQuAD and no list of words."""

    def __init__(self, root: Path) -> None:
        training, self._validation, held_out = datasets.split_medquad(datasets.medquad(root))
        self._documents = datasets.documents()
        ours = [
            Record(name, "own", document["title"], "", "", document["text"])
            for name, document in self._documents.items()
            if not datasets.is_held_out(name)
        ]
        self._records = {"training": [*training, *datasets.aspects(), *ours], "held_out": held_out}
        *claims, self._abstracts = datasets.scifact(root)
        self._claims = dict(zip(("training", "held_out"), claims, strict=True))
        trials = datasets.trials(root, datasets.articles(root))
        self._trials = dict(zip(("training", "held_out"), trials, strict=True))
        _, rows = datasets.own()
        self._own = {
            "training": [row for row in rows if not datasets.is_held_out(row["doc_id"])],
            "held_out": [row for row in rows if datasets.is_held_out(row["doc_id"])],
        }

    def training(self, count: int, seed: int) -> list[SupportPair]:
        return list(islice(draw(SHARES, self._training_round, seed), count))

    def held_out(self, count: int, seed: int) -> list[SupportPair]:
        """Of MedQuAD, for the curve: none that is measured on."""
        return list(islice(from_medquad(self._validation, "held_out", random.Random(seed)), count))

    def measured(self, seed: int) -> dict[str, list[SupportPair]]:
        """By source one round of what is measured on."""
        return {name: list(self._round(name, "held_out", random.Random(f"{seed}-{name}"))) for name in SHARES}

    def _training_round(self, name: str, chance: random.Random) -> Iterator[SupportPair]:
        return self._round(name, "training", chance)

    def _round(self, name: str, part: Part, chance: random.Random) -> Iterator[SupportPair]:
        if name == "medquad":
            return from_medquad(self._records[part], part, chance)
        if name == "own":
            return from_own(shuffled(self._own[part], chance), self._documents, part, chance)
        if name == "trials":
            return from_trials(shuffled(self._trials[part], chance), chance)
        return from_claims(shuffled(self._claims[part], chance), self._abstracts)


# --- training ----------------------------------------------------------------------------------


def train(
    base: Path,
    folder: Path,
    pairs: Sequence[SupportPair],
    held_out: Sequence[SupportPair],
    *,
    seed: int,
    steps: int | None,
) -> Any:
    """As `crossencoder.train`, with the cross-entropy of the three labels."""
    from sentence_transformers.cross_encoder.losses import CrossEntropyLoss

    def columns(given: Sequence[SupportPair]) -> crossencoder.Columns:
        read = [marked(one.sentence, one.premise) for one in given]
        return {
            "sentence": [sentence for sentence, _ in read],
            "premise": [premise for _, premise in read],
            "label": [LABELS.index(one.label) for one in given],
        }

    return crossencoder.train(
        base,
        folder,
        columns(pairs),
        columns(held_out),
        labels=len(LABELS),
        loss=CrossEntropyLoss,
        lora=LORA,
        max_tokens=MAX_TOKENS,
        batch=PAIRS_A_STEP,
        every=EVERY,
        seed=seed,
        steps=steps,
    )
