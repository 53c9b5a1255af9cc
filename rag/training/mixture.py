"""What the generator is trained and held out on: examples of every dataset in fixed shares, in a fixed order."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from rag import paths
from rag.core import Passage, Query, Searcher, Trace
from rag.files import replacing_file
from rag.training import datasets, grounded
from rag.training.grounded import Example, Found, Piece

SHARES = {"medquad": 0.66, "own": 0.18, "trials": 0.09, "abstracts": 0.07}


class Mixture:
    def __init__(self, root: Path, found: Found) -> None:
        self._found = found
        self._records = datasets.medquad(root)
        self._training, self._held_out = datasets.split_medquad(self._records)
        self._abstracts, _ = datasets.pubmedqa(root)
        self._articles = datasets.articles(root)
        self._trials, _ = datasets.trials(root, self._articles)
        self._questions, _ = datasets.own()
        self._documents = documents()

    def training(self, count: int, seed: int) -> list[Example]:
        """The first examples are the same whatever `count` is."""
        chance = random.Random(f"{seed}-shares")
        sources = {name: self._endless(name, seed) for name in SHARES}
        names, weights = list(SHARES), list(SHARES.values())
        return [next(sources[name]) for name in chance.choices(names, weights, k=count)]

    def held_out(self, count: int, seed: int) -> list[Example]:
        """Of the held-out sources of MedQuAD, worded as there, over 3 to 5 passages."""
        pool = {record.id: record for record in self._records}
        made = grounded.MedQuAD(self._held_out, pool, self._found).examples(random.Random(seed), plain=True)
        return list(islice((e for e in made if 3 <= len(e.passages) <= 5), count))

    def _endless(self, name: str, seed: int) -> Iterator[Example]:
        """Each round asks in other words, among other passages."""
        turn = 0
        while True:
            yield from self._round(name, random.Random(f"{seed}-{name}-{turn}"))
            turn += 1

    def _round(self, name: str, chance: random.Random) -> Iterator[Example]:
        if name == "medquad":
            pool = {record.id: record for record in self._training}
            yield from grounded.MedQuAD(self._training, pool, self._found).examples(chance)
        elif name == "own":
            rows = list(self._questions)
            chance.shuffle(rows)
            near = nearest({name: f"{d['title']} {d['text']}" for name, d in self._documents.items()})
            yield from grounded.from_own(rows, self._documents, chance, near)
        elif name == "trials":
            trials = list(self._trials)
            chance.shuffle(trials)
            yield from grounded.from_trials(trials, self._articles, chance)
        else:
            abstracts = list(self._abstracts)
            chance.shuffle(abstracts)
            by_id = {a.id: a for a in abstracts}
            near = nearest({a.id: " ".join(a.contexts) for a in abstracts})
            yield from grounded.from_abstracts(abstracts, chance, lambda text: [by_id[name] for name in near(text)])


def documents() -> dict[str, Mapping[str, Any]]:
    """The shipped documents that no evaluation question is about, by id."""
    gold: set[str] = set()
    for name in ("qa_120", "dev_60"):
        path = paths.shipped("eval", f"{name}.jsonl")
        gold.update(*(json.loads(line)["gold_doc_ids"] for line in path.read_text(encoding="utf-8").splitlines()))
    found = {}
    for path in sorted(paths.shipped("data", "corpus").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            if document["id"] not in gold:
                found[document["id"]] = document
    return found


def write(path: Path, examples: Sequence[Example]) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text("".join(json.dumps(asdict(e)) + "\n" for e in examples), encoding="utf-8")


def read(path: Path) -> list[Example]:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [
        Example(**{**row, "passages": tuple(Piece(**p) for p in row["passages"]), "gold": tuple(row["gold"])})
        for row in rows
    ]


def nearest(texts: Mapping[str, str], count: int = 12) -> Callable[[str], list[str]]:
    """BM25 over a few texts: the names of the nearest ones, best first."""
    import bm25s

    names = list(texts)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts.values()), show_progress=False), show_progress=False)

    def search(text: str) -> list[str]:
        rows, _ = index.retrieve(
            bm25s.tokenize([text], show_progress=False), k=min(count, len(names)), show_progress=False
        )
        return [names[int(row)] for row in rows[0]]

    return search


def searching(encode: Callable[[Sequence[str]], Any], searcher: Searcher) -> Found:
    """The real search as what finds the passages beside the gold one. Answers are kept: each is asked for often."""
    known: dict[str, Sequence[Passage]] = {}

    def found(question: str) -> Sequence[Passage]:
        if question not in known:
            hits = searcher.search([Query(question, encode([question])[0])], Trace())[0]
            known[question] = [hit.passage for hit in hits]
        return known[question]

    return found
