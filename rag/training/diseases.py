"""The generator's examples from MedQuAD: one kind of question about one disease, among what else is known of it.

Passages beside the one that answers are about the same disease, or come from the real search; about one prompt in
five has none that answers, with near misses in its place.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from rag.prompt import NOT_IN_SOURCES
from rag.text import Range, sentences
from rag.training import datasets, wording
from rag.training.datasets import Record
from rag.training.examples import shuffled
from rag.training.found import Found
from rag.training.grounded import (
    ASKED,
    UNANSWERABLE,
    Example,
    Piece,
    Sheet,
    arranged,
    count_of_passages,
    length_of_passages,
    marked,
)
from rag.training.quoting import BOILERPLATE, MIN_ANSWER, holds, pick, shortened, tidy, window

DECLINED = (0, 0, 1, 1, 1, 2, 2)
"""Questions that a sheet gets beside those that its passages answer, which they don't; one of these numbers."""

COMMON = 0.9
"""How much less often than its share of the records a common kind of question is asked: 0 for not at all, 1 for all kinds
equally often. MedQuAD's sources differ in what they write about, and so does what users ask."""

Told: TypeAlias = dict[Piece, Record]
"""Passages, and the records that they are of."""


class MedQuAD:
    """Examples from records; `found` is the real search over all of them, whose documents are the records' ids."""

    def __init__(self, records: Sequence[Record], pool: Mapping[str, Record], found: Found) -> None:
        """`records` may be asked about; `pool`, by id, may stand in prompts."""
        self._records = records
        self._pool = pool
        self._found = found
        self._texts = {record.id: tidy(record.answer) for record in pool.values()}
        self._ranges: dict[str, list[Range]] = {}
        self._asked: Counter[tuple[str, bool]] = Counter()
        self._by_focus: dict[str, list[Record]] = defaultdict(list)
        self._by_kind: dict[str, list[Record]] = defaultdict(list)
        for record in pool.values():
            self._by_focus[datasets.disease(record.focus)].append(record)
            self._by_kind[record.qtype].append(record)

    def examples(self, chance: random.Random, plain: bool = False) -> Iterator[Example]:
        """One for each record whose answer has a usable sentence, in random order. `plain`: one kind of question
        about one disease, worded as in the dataset, over 3 to 5 passages: what is measured on."""
        return (first for first, _ in self._first(chance, plain))

    def sheets(self, chance: random.Random) -> Iterator[Sheet]:
        """As `examples`, each with what else can be asked about its passages."""
        return ((first, *self._more(first, told, chance)) for first, told in self._first(chance, plain=False))

    def _first(self, chance: random.Random, plain: bool) -> Iterator[tuple[Example, Told]]:
        for record in shuffled(self._records, chance) if plain else self._evenly(chance):
            made = self._example(record, chance, plain)
            if made is not None:
                yield made

    def _evenly(self, chance: random.Random) -> list[Record]:
        """The records in a random order in which common kinds of questions come later (Efraimidis and Spirakis 2006)."""
        counts = Counter(record.qtype for record in self._records)
        return sorted(self._records, key=lambda one: chance.expovariate(counts[one.qtype] ** -COMMON))

    def _example(self, record: Record, chance: random.Random, plain: bool) -> tuple[Example, Told] | None:
        picked = pick(record, self._texts[record.id], self._sentences(record))
        if picked is None:
            return None
        count = chance.choice((3, 4, 5)) if plain else count_of_passages(chance)
        length = length_of_passages(count, chance)
        if chance.random() < UNANSWERABLE:
            return self._unanswerable(record, count, length, chance, plain)
        partner = None if plain or count < 3 else self._partner(record, chance)
        if partner is None:
            question = wording.ask(record.qtype, record.focus, record.question, chance, 1.0 if plain else 0.4)
        elif partner.qtype == record.qtype:
            question = wording.ask_two(record.qtype, record.focus, partner.focus, chance)
        else:
            question = wording.ask_both((record.qtype, partner.qtype), record.focus, chance)
        if question is None:
            return None
        golds: Told = {}
        answer = []
        for position, gold in enumerate([record] if partner is None else [record, partner]):
            text, ranges = self._texts[gold.id], self._sentences(gold)
            span = pick(gold, text, ranges)
            assert span is not None
            last = span[1] if partner is None else span[0]
            golds[Piece(gold.focus, window(text, ranges, span[0], last, length, chance))] = gold
            answer += [(text[slice(*ranges[number])], position) for number in range(span[0], last + 1)]
        said = [
            (gold, " ".join(sentence for sentence, at in answer if at == position))
            for position, gold in enumerate(golds.values())
        ]
        others = self._others(record, question, count - len(golds), length, chance, said)
        kind = "both" if partner else "one"
        self._asked.update((gold.qtype, True) for gold in golds.values())
        return arranged(record.id, kind, question, answer, list(golds), list(others), chance), golds | others

    def _unanswerable(
        self, record: Record, count: int, length: int, chance: random.Random, plain: bool
    ) -> tuple[Example, Told] | None:
        question = wording.ask(record.qtype, record.focus, record.question, chance, 1.0 if plain else 0.4)
        if question is None:
            return None
        others = self._others(record, question, count, length, chance, [])
        self._asked[record.qtype, False] += 1
        return arranged(record.id, "none", question, (), (), list(others), chance), others

    def _more(self, first: Example, told: Told, chance: random.Random) -> list[Example]:
        """Of the passages that don't answer the first question those that answer one of their own; and, for some, a
        question that none answers."""
        found: list[tuple[str, Example]] = []
        for marker, piece in enumerate(first.passages, start=1):
            record = told[piece]
            answer = self._said(record, piece)
            question = wording.ask(record.qtype, record.focus, record.question, chance)
            if marker in first.gold or not answer or question is None:
                continue
            others = [one for number, one in enumerate(first.passages, start=1) if number != marker]
            if not any(_answers_too(record, " ".join(answer), one, told[one]) for one in others):
                text = marked([(sentence, marker) for sentence in answer])
                found.append((record.qtype, Example(record.id, "one", question, first.passages, text, (marker,))))
        chance.shuffle(found)
        declined = [
            self._another_kind(told, chance) if chance.random() < 0.6 else self._another_disease(first, told, chance)
            for _ in range(chance.choice(DECLINED))
        ]
        none = [
            Example(f"{first.id}-none", "none", question, first.passages, NOT_IN_SOURCES, ())
            for question in dict.fromkeys(declined)
            if question is not None and question != first.question
        ]
        answered = found[: ASKED - 1 - len(none)]
        self._asked.update((kind, True) for kind, _ in answered)
        return [*none, *(example for _, example in answered)]

    def _said(self, record: Record, piece: Piece) -> list[str]:
        """The sentences of a passage that answer its record's question; none where it begins further down and they
        don't have the words of this kind of question."""
        ranges = sentences(piece.text)
        span = pick(record, piece.text, ranges)
        if span is None or BOILERPLATE.search(self._texts[record.id]):
            return []
        answer = [piece.text[slice(*ranges[number])] for number in range(span[0], span[1] + 1)]
        cue = wording.CUES.get(record.qtype)
        whole = self._texts[record.id].startswith(piece.text[:MIN_ANSWER])
        return answer if whole or (cue is not None and cue.search(answer[0])) else []

    def _another_kind(self, told: Told, chance: random.Random) -> str | None:
        """A kind of question about one of the diseases that no passage about it has the words for; of those the one that
        was declined least for how often it was answered: a kind mustn't give the refusal away."""
        disease = chance.choice(list(told.values())).focus
        focus = datasets.disease(disease)
        about = [(piece, one) for piece, one in told.items() if datasets.mentions(f"{one.focus} {piece.text}", focus)]
        fitting = [
            kind
            for kind in shuffled(sorted(wording.WORDINGS.keys() & wording.CUES.keys()), chance)
            if not any(one.qtype == kind or wording.CUES[kind].search(piece.text) for piece, one in about)
        ]
        if not fitting:
            return None
        kind = min(fitting, key=lambda one: (1 + self._asked[one, False]) / (1 + self._asked[one, True]))
        self._asked[kind, False] += 1
        return wording.ask(kind, disease, "", chance, as_given=0.0)

    def _another_disease(self, first: Example, told: Told, chance: random.Random) -> str | None:
        """The question of a record that the search finds as well, about a disease that no passage names."""
        texts = [f"{piece.title} {piece.text}" for piece in told]
        for passage in shuffled(self._found(first.question), chance):
            record = self._pool.get(passage.doc_id)
            if (
                record is None
                or record.id == first.id
                or any(datasets.mentions(text, datasets.disease(record.focus)) for text in texts)
            ):
                continue
            if not any(datasets.mentions(record.focus, datasets.disease(one.focus)) for one in told.values()):
                return wording.ask(record.qtype, record.focus, record.question, chance)
        return None

    def _partner(self, record: Record, chance: random.Random) -> Record | None:
        """Another kind of question about the same disease, or the same about another one; seldom."""
        roll = chance.random()
        if roll < 0.12:
            same = [
                r for r in self._by_focus[datasets.disease(record.focus)] if (record.qtype, r.qtype) in wording.BOTH
            ]
            options = [r for r in same if pick(r, self._texts[r.id], self._sentences(r))]
        elif roll < 0.20 and record.qtype in wording.TWO:
            focus = datasets.disease(record.focus)
            alike = [r for r in self._alike(record, 3, chance) if datasets.disease(r.focus) != focus]
            options = [r for r in alike if pick(r, self._texts[r.id], self._sentences(r))]
        else:
            return None
        return chance.choice(options) if options else None

    def _others(
        self,
        record: Record,
        question: str,
        count: int,
        length: int,
        chance: random.Random,
        said: Sequence[tuple[Record, str]],
    ) -> Told:
        """Passages that don't answer: of the same disease, of the real search, of the same kind of question.

        `said` are the records that the answer is taken from, each with its part. Without any, nothing that is about the
        disease may have the words that answer this kind of question.
        """
        focus = datasets.disease(record.focus)
        cue = wording.CUES.get(record.qtype)
        taken = {record.id, *(gold.id for gold, _ in said)}
        siblings = [r for r in self._by_focus[focus] if r.qtype != record.qtype and r.id not in taken]
        nearest = [self._pool[p.doc_id] for p in self._found(question) if p.doc_id in self._pool]
        nearest = [r for r in dict.fromkeys(nearest) if r.id not in taken]
        alike = self._alike(record, 4, chance)
        chance.shuffle(siblings)
        near = nearest[:12]
        chance.shuffle(near)
        share = chance.random()
        candidates = [*siblings[: round(count * share)], *near, *alike, *siblings]
        chosen: Told = {}
        for other in candidates:
            if len(chosen) == count:
                break
            same = datasets.disease(other.focus) == focus
            if other.id in taken or (same and other.qtype == record.qtype) or not self._texts[other.id]:
                continue
            piece = Piece(other.focus, shortened(self._texts[other.id], length, chance))
            if said:
                unfit = any(_answers_too(gold, part, piece, other) for gold, part in said)
            else:
                about = same or datasets.mentions(piece.text, focus)
                unfit = about and (cue is None or record.qtype == "information" or cue.search(piece.text) is not None)
            if unfit:
                continue
            taken.add(other.id)
            chosen[piece] = other
        return chosen

    def _alike(self, record: Record, count: int, chance: random.Random) -> list[Record]:
        """Records of the same kind of question."""
        alike = self._by_kind[record.qtype]
        return chance.sample(alike, min(count, len(alike)))

    def _sentences(self, record: Record) -> list[Range]:
        if record.id not in self._ranges:
            self._ranges[record.id] = sentences(self._texts[record.id])
        return self._ranges[record.id]


def _answers_too(record: Record, answer: str, piece: Piece, other: Record) -> bool:
    """May another passage, of the record `other`, be as good an answer to the question of `record`?"""
    focus = datasets.disease(record.focus)
    if datasets.disease(other.focus) == focus:
        return other.qtype == record.qtype or holds(piece.text, answer)
    both = record.qtype == other.qtype == "information"
    return (both and datasets.mentions(piece.text, focus)) or holds(piece.text, answer)
