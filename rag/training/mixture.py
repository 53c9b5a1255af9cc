"""What the generator is trained and held out on: examples of every dataset in fixed shares, in a fixed order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from rag.training import datasets, diseases, papers
from rag.training.examples import draw
from rag.training.found import Found, nearest
from rag.training.grounded import Example, Sheet

SHARES = {"medquad": 0.56, "own": 0.3, "trials": 0.07, "abstracts": 0.07}
"""Of the sheets; those of the last two ask one question each. Beside MedQuAD's are our own records like it."""

CANDIDATES = 20
"""Passages that are found for a question: as many as answer a user's."""


class Mixture:
    """`training`, `held_out` and `measured` share no focus of MedQuAD, nor do the latter any source with the first.
    `found` searches all of it, 20 deep."""

    def __init__(self, root: Path, found: Found) -> None:
        self._found = found
        self._records = datasets.medquad(root)
        self._training, self._validation, self._held_out = datasets.split_medquad(self._records)
        self._aspects = datasets.aspects()
        self._abstracts, _ = datasets.pubmedqa(root)
        self._articles = datasets.articles(root)
        self._trials, _ = datasets.trials(root, self._articles)
        self._questions, _ = datasets.own()
        self._documents = datasets.documents()

    def training(self, count: int, seed: int) -> list[Example]:
        """Each round asks in other words, among other passages. Examples of a sheet stand together."""
        return list(islice(chain.from_iterable(draw(SHARES, self._round, seed)), count))

    def held_out(self, count: int, seed: int) -> list[Example]:
        """For the curve: none that is measured on."""
        return self._plain(self._validation, count, seed)

    def measured(self, count: int, seed: int) -> list[Example]:
        """Of the held-out sources of MedQuAD, worded as there, over 3 to 5 passages."""
        return self._plain(self._held_out, count, seed)

    def _plain(self, records: Sequence[datasets.Record], count: int, seed: int) -> list[Example]:
        pool = {record.id: record for record in self._records}
        made = diseases.MedQuAD(records, pool, self._found).examples(random.Random(seed), plain=True)
        return list(islice((e for e in made if 3 <= len(e.passages) <= 5), count))

    def _round(self, name: str, chance: random.Random) -> Iterator[Sheet]:
        if name == "medquad":
            records = [*self._training, *self._aspects]
            pool = {record.id: record for record in records}
            yield from diseases.MedQuAD(records, pool, self._found).sheets(chance)
        elif name == "own":
            near = nearest({name: f"{d['title']} {d['text']}" for name, d in self._documents.items()})
            yield from papers.from_own(self._questions, self._documents, chance, near)
        elif name == "trials":
            trials = list(self._trials)
            chance.shuffle(trials)
            yield from ((one,) for one in papers.from_trials(trials, self._articles, chance))
        else:
            abstracts = list(self._abstracts)
            chance.shuffle(abstracts)
            by_id = {a.id: a for a in abstracts}
            near = nearest({a.id: " ".join(a.contexts) for a in abstracts})
            made = papers.from_abstracts(abstracts, chance, lambda text: [by_id[name] for name in near(text)])
            yield from ((one,) for one in made)
