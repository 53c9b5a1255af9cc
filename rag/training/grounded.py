"""Examples for the generator: a question, numbered passages, and an answer that stands in them.

The answer is taken from the passages word for word, one to three sentences, each with its marker; or it is
the sentence that declines. Passages beside the one that answers are about the same disease, or come from the
real search; about one prompt in five has none that answers, with near misses in its place.

A `Sheet` asks several questions about the same passages: what tells its prompts apart is the question alone, so that
nothing but reading it leads to the answer. It also takes a third of the time, since the passages are read once.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

from rag.core import Hit, Message, Passage, Source
from rag.prompt import NOT_IN_SOURCES, build
from rag.text import Range, sentences
from rag.training import datasets, wording
from rag.training.datasets import Abstract, ArticlePassage, Record, Trial
from rag.training.examples import shuffled
from rag.training.found import Found
from rag.training.quoting import BOILERPLATE, MIN_ANSWER, around, holds, leading, pick, shortened, tidy, usable, window
from rag.verify import missing_numbers

UNANSWERABLE = 0.2
DECLINED = 0.4
"""Of the sheets: those that get one question more that their passages don't answer."""

ASKED = 6
"""Questions of a sheet, at most."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a text's sentences with a title, as a passage of the prompt."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """`gold` are the markers that the answer carries, () where it declines; `kind` says how it was made."""

    id: str
    kind: str
    question: str
    passages: tuple[Piece, ...]
    answer: str
    gold: tuple[int, ...]

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(
            Source(n, Hit(Passage(f"{n}", f"{n}", piece.title, piece.text, 0, len(piece.text)), 0.0), piece.text)
            for n, piece in enumerate(self.passages, start=1)
        )

    @property
    def messages(self) -> tuple[Message, ...]:
        """The product's own prompt."""
        return build(self.question, self.sources).messages

    @property
    def answerable(self) -> bool:
        return bool(self.gold)


Sheet: TypeAlias = tuple[Example, ...]
"""Examples with the same passages."""


def marked(answer: Sequence[tuple[str, int]]) -> str:
    """Sentences with their markers, which stand before the full stop."""
    return " ".join(re.sub(r"[.\s]*(\.[\"')]*)$", rf" [{marker}]\1", sentence) for sentence, marker in answer)


def count_of_passages(chance: random.Random) -> int:
    return chance.choice((2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 8)) if chance.random() < 0.97 else chance.randint(9, 15)


def length_of_passages(count: int, chance: random.Random) -> int:
    """Characters; fewer where there are many passages."""
    longest = 1000 if count <= 4 else 700 if count <= 6 else 350 if count <= 9 else 220
    return min(longest, int(chance.triangular(150, 850, 280)))


def arranged(
    identity: str,
    kind: str,
    question: str,
    answer: Sequence[tuple[str, int]],
    golds: Sequence[Piece],
    others: Sequence[Piece],
    chance: random.Random,
) -> Example:
    """The passages shuffled, and the answer's markers put to where they went. `answer` has positions in `golds`."""
    pieces = [*golds, *others]
    order = list(range(len(pieces)))
    chance.shuffle(order)
    place = {piece: marker for marker, piece in enumerate(order, start=1)}
    text = marked([(sentence, place[gold]) for sentence, gold in answer]) if answer else NOT_IN_SOURCES
    gold = tuple(sorted({place[position] for _, position in answer}))
    return Example(identity, kind, question, tuple(pieces[number] for number in order), text, gold)


# --- MedQuAD -----------------------------------------------------------------------------------


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
        self._by_focus: dict[str, list[Record]] = defaultdict(list)
        self._by_kind: dict[str, list[Record]] = defaultdict(list)
        for record in pool.values():
            self._by_focus[datasets.normalised(record.focus)].append(record)
            self._by_kind[record.qtype].append(record)

    def examples(self, chance: random.Random, plain: bool = False) -> Iterator[Example]:
        """One for each record whose answer has a usable sentence, in random order. `plain`: one kind of question
        about one disease, worded as in the dataset, over 3 to 5 passages: what is measured on."""
        return (first for first, _ in self._first(chance, plain))

    def sheets(self, chance: random.Random) -> Iterator[Sheet]:
        """As `examples`, each with what else can be asked about its passages."""
        return ((first, *self._more(first, told, chance)) for first, told in self._first(chance, plain=False))

    def _first(self, chance: random.Random, plain: bool) -> Iterator[tuple[Example, Told]]:
        for record in shuffled(self._records, chance):
            made = self._example(record, chance, plain)
            if made is not None:
                yield made

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
        wanted = " ".join(sentence for sentence, _ in answer)
        others = self._others(record, question, count - len(golds), length, chance, list(golds.values()), wanted)
        kind = "both" if partner else "one"
        return arranged(record.id, kind, question, answer, list(golds), list(others), chance), golds | others

    def _unanswerable(
        self, record: Record, count: int, length: int, chance: random.Random, plain: bool
    ) -> tuple[Example, Told] | None:
        question = wording.ask(record.qtype, record.focus, record.question, chance, 1.0 if plain else 0.4)
        if question is None:
            return None
        others = self._others(record, question, count, length, chance, [record], None)
        return arranged(record.id, "none", question, (), (), list(others), chance), others

    def _more(self, first: Example, told: Told, chance: random.Random) -> list[Example]:
        """Of the passages that don't answer the first question those that answer one of their own; and, for some, a
        question that none answers."""
        found = []
        for marker, piece in enumerate(first.passages, start=1):
            record = told[piece]
            answer = self._said(record, piece)
            question = wording.ask(record.qtype, record.focus, record.question, chance)
            if marker in first.gold or not answer or question is None:
                continue
            others = [one for number, one in enumerate(first.passages, start=1) if number != marker]
            if not any(_answers_too(record, " ".join(answer), one, told[one]) for one in others):
                text = marked([(sentence, marker) for sentence in answer])
                found.append(Example(record.id, "one", question, first.passages, text, (marker,)))
        chance.shuffle(found)
        if chance.random() < DECLINED:
            declined = (
                self._another_kind(told, chance)
                if chance.random() < 0.6
                else self._another_disease(first, told, chance)
            )
            if declined is not None:
                found.insert(0, Example(f"{first.id}-none", "none", declined, first.passages, NOT_IN_SOURCES, ()))
        return found[: ASKED - 1]

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
        """A kind of question about one of the diseases that no passage about it has the words for."""
        disease = chance.choice(list(told.values())).focus
        focus = datasets.normalised(disease)
        about = [
            (piece, one) for piece, one in told.items() if focus in datasets.normalised(f"{one.focus} {piece.text}")
        ]
        for kind in shuffled(sorted(wording.WORDINGS.keys() & wording.CUES.keys()), chance):
            cue = wording.CUES[kind]
            if not any(one.qtype == kind or cue.search(piece.text) for piece, one in about):
                return wording.ask(kind, disease, "", chance, as_given=0.0)
        return None

    def _another_disease(self, first: Example, told: Told, chance: random.Random) -> str | None:
        """The question of a record that the search finds as well, about a disease that no passage names."""
        texts = [datasets.normalised(f"{piece.title} {piece.text}") for piece in told]
        for passage in self._found(first.question):
            record = self._pool.get(passage.doc_id)
            if (
                record is None
                or record.id == first.id
                or any(datasets.normalised(record.focus) in text for text in texts)
            ):
                continue
            if not any(datasets.normalised(one.focus) in datasets.normalised(record.focus) for one in told.values()):
                return wording.ask(record.qtype, record.focus, record.question, chance)
        return None

    def _partner(self, record: Record, chance: random.Random) -> Record | None:
        """Another kind of question about the same disease, or the same about another one; seldom."""
        roll = chance.random()
        if roll < 0.12:
            same = [
                r for r in self._by_focus[datasets.normalised(record.focus)] if (record.qtype, r.qtype) in wording.BOTH
            ]
            options = [r for r in same if pick(r, self._texts[r.id], self._sentences(r))]
        elif roll < 0.20 and record.qtype in wording.TWO:
            options = [r for r in chance.sample(self._by_kind[record.qtype], 3) if r.focus != record.focus]
            options = [r for r in options if pick(r, self._texts[r.id], self._sentences(r))]
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
        avoid: Sequence[Record],
        answer: str | None,
    ) -> Told:
        """Passages that don't answer: of the same disease, of the real search, of the same kind of question.

        With `answer` None nothing that is about the disease may have the words that answer this kind of question.
        """
        focus = datasets.normalised(record.focus)
        cue = wording.CUES.get(record.qtype)
        taken = {one.id for one in avoid}
        siblings = [r for r in self._by_focus[focus] if r.qtype != record.qtype and r.id not in taken]
        nearest = [self._pool[p.doc_id] for p in self._found(question) if p.doc_id in self._pool]
        nearest = [r for r in dict.fromkeys(nearest) if r.id not in taken]
        alike = chance.sample(self._by_kind[record.qtype], min(4, len(self._by_kind[record.qtype])))
        chance.shuffle(siblings)
        near = nearest[:12]
        chance.shuffle(near)
        share = chance.random()
        candidates = [*siblings[: round(count * share)], *near, *alike, *siblings]
        chosen: Told = {}
        for other in candidates:
            if len(chosen) == count:
                break
            same = datasets.normalised(other.focus) == focus
            if other.id in taken or (same and other.qtype == record.qtype) or not self._texts[other.id]:
                continue
            piece = Piece(other.focus, shortened(self._texts[other.id], length, chance))
            about = same or focus in datasets.normalised(piece.text)
            if answer is not None and holds(piece.text, answer):
                continue
            if about and answer is None and (cue is None or record.qtype == "information" or cue.search(piece.text)):
                continue
            if (
                about
                and answer is not None
                and record.qtype == "information"
                and not same
                and other.qtype == "information"
            ):
                continue
            taken.add(other.id)
            chosen[piece] = other
        return chosen

    def _sentences(self, record: Record) -> list[Range]:
        if record.id not in self._ranges:
            self._ranges[record.id] = sentences(self._texts[record.id])
        return self._ranges[record.id]


def _answers_too(record: Record, answer: str, piece: Piece, other: Record) -> bool:
    """May another passage, of the record `other`, be as good an answer to the question of `record`?"""
    focus = datasets.normalised(record.focus)
    if datasets.normalised(other.focus) == focus:
        return other.qtype == record.qtype or holds(piece.text, answer)
    both = record.qtype == other.qtype == "information"
    return (both and focus in datasets.normalised(piece.text)) or holds(piece.text, answer)


# --- papers ------------------------------------------------------------------------------------


def from_abstracts(
    abstracts: Sequence[Abstract], chance: random.Random, nearest: Callable[[str], Sequence[Abstract]]
) -> Iterator[Example]:
    """PubMedQA: the conclusion answers the title's question; the other sections and like abstracts don't."""
    for abstract in abstracts:
        conclusion = " ".join(abstract.conclusion.split())
        ranges = sentences(conclusion)
        span = leading(conclusion, ranges)
        count = count_of_passages(chance)
        length = length_of_passages(count, chance)
        title = _title(abstract.question)
        others = [
            Piece(_title(other.question), shortened(chance.choice(other.contexts), length, chance))
            for other in nearest(abstract.question)[: count + 2]
            if other.id != abstract.id
        ]
        chance.shuffle(others)
        if chance.random() < UNANSWERABLE:
            yield arranged(abstract.id, "none", abstract.question, (), (), others[:count], chance)
        elif span is not None:
            before = abstract.contexts[-1][-length // 2 :].partition(". ")[2] if chance.random() < 0.5 else ""
            gold = Piece(title, f"{before} {conclusion}".strip() if before else conclusion)
            answer = [(conclusion[slice(*ranges[number])], 0) for number in range(span[0], span[1] + 1)]
            yield arranged(abstract.id, "one", abstract.question, answer, [gold], others[: count - 1], chance)


def from_trials(
    trials: Sequence[Trial], articles: Mapping[str, Sequence[ArticlePassage]], chance: random.Random
) -> Iterator[Example]:
    """Evidence Inference: one sentence of the article says what the intervention did."""
    names = sorted(articles)
    for trial in trials:
        text = trial.passage.text
        ranges = sentences(text)
        at = text.find(trial.evidence[1:-1].strip())
        hit = [n for n, (start, end) in enumerate(ranges) if start <= at + 5 < end]
        if at < 0 or not hit or not usable(text[slice(*ranges[hit[0]])]):
            continue
        count = count_of_passages(chance)
        length = length_of_passages(count, chance)
        same = [p for p in articles[trial.passage.article] if p.id != trial.passage.id and len(p.text) > 150]
        chance.shuffle(same)
        foreign = [chance.choice(articles[chance.choice(names)]) for _ in range(count)]
        evidence = text[slice(*ranges[hit[0]])]
        pool = [p for p in [*same[: max(1, count - 2)], *foreign] if not holds(p.text, evidence)]
        others = [Piece(p.title, shortened(p.text, length, chance)) for p in pool]
        if chance.random() < UNANSWERABLE:
            # The article's own passages may tell the outcome in other words: only foreign ones are sure not to.
            strange = [
                Piece(p.title, shortened(p.text, length, chance)) for p in foreign if p.article != trial.passage.article
            ]
            yield arranged(trial.id, "none", trial.question, (), (), strange[:count], chance)
        else:
            gold = Piece(trial.passage.title, window(text, ranges, hit[0], hit[0], length, chance))
            yield arranged(trial.id, "one", trial.question, [(evidence, 0)], [gold], others[: count - 1], chance)


def _title(question: str) -> str:
    return question.strip().rstrip("?").strip()


# --- our own documents -------------------------------------------------------------------------


def from_own(
    questions: Sequence[Mapping[str, Any]],
    documents: Mapping[str, Mapping[str, Any]],
    chance: random.Random,
    nearest: Callable[[str], Sequence[str]],
) -> Iterator[Sheet]:
    """Our questions on shipped documents that no evaluation question is about; `nearest` gives document ids."""
    for row in questions:
        count = max(count_of_passages(chance), len(row["doc_ids"]) + 1)
        length = max(450, length_of_passages(count, chance))
        golds: dict[str, Piece] = {}
        for name in row["doc_ids"]:
            wanted = " ".join(part["text"] for part in row["answer"] if part["doc_id"] == name)
            golds[name] = Piece(documents[name]["title"], around(documents[name]["text"], wanted, length, chance))
        near = [name for name in nearest(row["question"]) if name not in row["doc_ids"]][: count + 1]
        chance.shuffle(near)
        others = {
            name: Piece(documents[name]["title"], shortened(" ".join(documents[name]["text"].split()), length, chance))
            for name in near
        }
        answer = [(part["text"], row["doc_ids"].index(part["doc_id"])) for part in row["answer"]]
        missing = row["type"] != "synthesis" and answer and chance.random() < UNANSWERABLE / 2
        if missing:
            first = arranged(_own_id(row), "none", row["question"], (), (), [*others.values()][:count], chance)
        elif answer:
            beside = [*others.values()][: count - len(golds)]
            first = arranged(_own_id(row), row["type"], row["question"], answer, [*golds.values()], beside, chance)
        else:
            beside = [*golds.values(), *others.values()][:count]
            first = arranged(_own_id(row), "none", row["question"], (), (), beside, chance)
        pieces = golds | others
        place = {name: first.passages.index(piece) + 1 for name, piece in pieces.items() if piece in first.passages}
        more = [one for one in questions if one is not row and set(one["doc_ids"]) <= place.keys()]
        asked = (_own(one, first.passages, place) for one in shuffled(more, chance))
        yield (first, *islice((example for example in asked if example is not None), ASKED - 1))


def _own(row: Mapping[str, Any], passages: tuple[Piece, ...], place: Mapping[str, int]) -> Example | None:
    """A question about documents whose passages have the markers `place`; None where they were cut before the answer."""
    parts = [(part["text"], place[part["doc_id"]]) for part in row["answer"]]
    for sentence, marker in parts:
        piece = passages[marker - 1]
        if missing_numbers(sentence, f"{piece.title} {piece.text}") or not holds(piece.text, sentence):
            return None
    gold = tuple(sorted({marker for _, marker in parts}))
    text = marked(parts) if parts else NOT_IN_SOURCES
    return Example(_own_id(row), row["type"] if parts else "none", row["question"], passages, text, gold)


def _own_id(row: Mapping[str, Any]) -> str:
    return f"own-{datasets.normalised(row['question'])}"
