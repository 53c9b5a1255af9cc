"""The generator's examples from papers, and from our own documents."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rag.prompt import NOT_IN_SOURCES
from rag.quantities import missing_numbers
from rag.text import sentences
from rag.training import datasets
from rag.training.datasets import Abstract, ArticlePassage, Trial
from rag.training.examples import shuffled
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
from rag.training.quoting import around, holds, leading, shortened, usable, window

TIMES = {"synthesis": 3}
"""How often a round asks those of our questions that aren't asked once, among other passages: they are few."""

# --- papers ------------------------------------------------------------------------------------


def from_abstracts(
    abstracts: Sequence[Abstract], chance: random.Random, nearest: Callable[[str], Sequence[Abstract]]
) -> Iterator[Example]:
    """PubMedQA: the conclusion answers the title's question; the other sections and like abstracts don't. Without titles:
    that of the passage that answers would be the question."""
    for abstract in abstracts:
        conclusion = " ".join(abstract.conclusion.split())
        ranges = sentences(conclusion)
        span = leading(conclusion, ranges)
        count = count_of_passages(chance)
        length = length_of_passages(count, chance)
        others = [
            Piece("", shortened(chance.choice(other.contexts), length, chance))
            for other in nearest(abstract.question)[: count + 2]
            if other.id != abstract.id
        ]
        chance.shuffle(others)
        if chance.random() < UNANSWERABLE:
            yield arranged(abstract.id, "none", abstract.question, (), (), others[:count], chance)
        elif span is not None:
            before = abstract.contexts[-1][-length // 2 :].partition(". ")[2] if chance.random() < 0.5 else ""
            gold = Piece("", f"{before} {conclusion}".strip() if before else conclusion)
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


# --- our own documents -------------------------------------------------------------------------


def from_own(
    questions: Sequence[Mapping[str, Any]],
    documents: Mapping[str, Mapping[str, Any]],
    chance: random.Random,
    nearest: Callable[[str], Sequence[str]],
) -> Iterator[Sheet]:
    """Our questions on shipped documents that no evaluation question is about; `nearest` gives document ids."""
    about: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in questions:
        about[row["doc_ids"][0]].append(row)
    turns = [row for row in questions for _ in range(TIMES.get(row["type"], 1))]
    for row in shuffled(turns, chance):
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
        more = [one for name in place for one in about[name] if one is not row and set(one["doc_ids"]) <= place.keys()]
        asked = (_own(one, first.passages, place) for one in _chosen(more, chance))
        yield (first, *islice((example for example in asked if example is not None), ASKED - 1))


def _chosen(rows: Sequence[Mapping[str, Any]], chance: random.Random) -> list[Mapping[str, Any]]:
    """In random order: first the few about two documents, then at most one that neither answers, then the others."""
    by_type: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in shuffled(rows, chance):
        by_type[row["type"]].append(row)
    return [*by_type["synthesis"][:2], *by_type["unanswerable"][: chance.choice((0, 1, 1))], *by_type["simple"]]


def _own(row: Mapping[str, Any], passages: tuple[Piece, ...], place: Mapping[str, int]) -> Example | None:
    """A question about documents whose passages have the markers `place`; None where they were cut before the answer."""
    parts = [(part["text"], place[part["doc_id"]]) for part in row["answer"]]
    for sentence, marker in parts:
        piece = passages[marker - 1]
        if not holds(piece.text, sentence) or missing_numbers(sentence, f"{piece.title} {piece.text}"):
            return None
    gold = tuple(sorted({marker for _, marker in parts}))
    text = marked(parts) if parts else NOT_IN_SOURCES
    return Example(_own_id(row), row["type"] if parts else "none", row["question"], passages, text, gold)


def _own_id(row: Mapping[str, Any]) -> str:
    return f"own-{datasets.normalised(row['question'])}"
