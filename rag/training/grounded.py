"""Examples for the generator: a question, numbered passages, and an answer that stands in them.

The answer is taken from the passages word for word, one to three sentences, each with its marker; or it is
the sentence that declines. Passages beside the one that answers are about the same disease, or come from the
real search; about one prompt in five has none that answers, with near misses in its place.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.core import Hit, Message, Passage, Source
from rag.prompt import NOT_IN_SOURCES, build
from rag.text import Range, sentences
from rag.training import datasets, wording
from rag.training.datasets import Abstract, ArticlePassage, Record, Trial
from rag.training.found import Found
from rag.training.quoting import around, holds, leading, pick, shortened, tidy, usable, window

UNANSWERABLE = 0.2


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
        records = list(self._records)
        chance.shuffle(records)
        for record in records:
            example = self._example(record, chance, plain)
            if example is not None:
                yield example

    def _example(self, record: Record, chance: random.Random, plain: bool) -> Example | None:
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
        golds, answer = [], []
        for position, gold in enumerate([record] if partner is None else [record, partner]):
            text, ranges = self._texts[gold.id], self._sentences(gold)
            span = pick(gold, text, ranges)
            assert span is not None
            last = span[1] if partner is None else span[0]
            golds.append(Piece(gold.focus, window(text, ranges, span[0], last, length, chance)))
            answer += [(text[slice(*ranges[number])], position) for number in range(span[0], last + 1)]
        wanted = " ".join(sentence for sentence, _ in answer)
        avoid = {record.id, *([partner.id] if partner else [])}
        others = self._others(record, question, count - len(golds), length, chance, avoid, wanted)
        return arranged(record.id, "both" if partner else "one", question, answer, golds, others, chance)

    def _unanswerable(
        self, record: Record, count: int, length: int, chance: random.Random, plain: bool
    ) -> Example | None:
        question = wording.ask(record.qtype, record.focus, record.question, chance, 1.0 if plain else 0.4)
        if question is None:
            return None
        others = self._others(record, question, count, length, chance, {record.id}, None)
        return arranged(record.id, "none", question, (), (), others, chance)

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
        avoid: set[str],
        answer: str | None,
    ) -> list[Piece]:
        """Passages that don't answer: of the same disease, of the real search, of the same kind of question.

        With `answer` None nothing that is about the disease may have the words that answer this kind of question.
        """
        focus = datasets.normalised(record.focus)
        cue = wording.CUES.get(record.qtype)
        siblings = [r for r in self._by_focus[focus] if r.qtype != record.qtype and r.id not in avoid]
        nearest = [self._pool[p.doc_id] for p in self._found(question) if p.doc_id in self._pool]
        nearest = [r for r in dict.fromkeys(nearest) if r.id not in avoid]
        alike = chance.sample(self._by_kind[record.qtype], min(4, len(self._by_kind[record.qtype])))
        chance.shuffle(siblings)
        near = nearest[:12]
        chance.shuffle(near)
        share = chance.random()
        candidates = [*siblings[: round(count * share)], *near, *alike, *siblings]
        chosen: list[Piece] = []
        taken = set(avoid)
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
            chosen.append(piece)
        return chosen

    def _sentences(self, record: Record) -> list[Range]:
        if record.id not in self._ranges:
            self._ranges[record.id] = sentences(self._texts[record.id])
        return self._ranges[record.id]


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
) -> Iterator[Example]:
    """Our questions on shipped documents that no evaluation question is about; `nearest` gives document ids."""
    for row in questions:
        count = max(count_of_passages(chance), len(row["doc_ids"]) + 1)
        length = max(450, length_of_passages(count, chance))
        golds = []
        for name in row["doc_ids"]:
            wanted = " ".join(part["text"] for part in row["answer"] if part["doc_id"] == name)
            golds.append(Piece(documents[name]["title"], around(documents[name]["text"], wanted, length, chance)))
        near = [name for name in nearest(row["question"]) if name not in row["doc_ids"]][: count + 1]
        chance.shuffle(near)
        others = [
            Piece(documents[name]["title"], shortened(" ".join(documents[name]["text"].split()), length, chance))
            for name in near
        ]
        answer = [(part["text"], row["doc_ids"].index(part["doc_id"])) for part in row["answer"]]
        missing = row["type"] != "synthesis" and answer and chance.random() < UNANSWERABLE / 2
        identity = f"own-{datasets.normalised(row['question'])}"
        if missing:
            yield arranged(identity, "none", row["question"], (), (), others[:count], chance)
        elif answer:
            yield arranged(identity, row["type"], row["question"], answer, golds, others[: count - len(golds)], chance)
        else:
            yield arranged(identity, "none", row["question"], (), (), [*golds, *others[: count - 1]], chance)
