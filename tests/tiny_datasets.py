"""Datasets of the real ones' form, a few rows each, written for the tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rag.core import Document, Passage
from rag.ingest import chunk
from rag.training import datasets

FOCI = {
    "GARD": ["Amber fever", "Brass lung", "Cobalt rash", "Drift palsy", "Ember gout", "Flint cough"],
    # The first and the last are for validation; Ember's gout is in training's source as well, spelt otherwise.
    "NINDS": ["Gravel ataxia", "Hollow tremor", "Ember's Gout Disease", "Opal tremor"],
    "NHLBI": ["Iron pulse"],
}
TEMPLATES = {
    "information": "What is (are) {} ?",
    "causes": "What causes {} ?",
    "treatment": "What are the treatments for {} ?",
    "symptoms": "What are the symptoms of {} ?",
}


def _answer(focus: str, kind: str) -> str:
    word = focus.split()[0].lower()
    more = f" Records of {focus} and its {kind} are kept in the {word} library by three nurses of the {word} clinic."
    return {
        "information": f"{focus} is a disorder of the {word} gland that was first described by a doctor of the {word} valley. "
        f"It affects about {len(focus)} people in 10,000 of those who live near {word} mines, and most of them are adults.",
        "causes": f"{focus} is caused by a {word} microbe which lives in wells and is swallowed with unboiled {word} water. "
        f"The microbe dies when it dries, so that {word} dust is harmless to people who only breathe it.",
        "treatment": f"Doctors treat {focus} with {word} salts, which are taken twice a day for 14 days with much water. "
        f"Surgery on the {word} gland is reserved for those in whom the salts have failed after a year.",
        "symptoms": f"The signs of {focus} are a {word} taste, pain behind the eyes and a rash on both forearms. "
        f"Some people have a mild fever in the evening, and a few lose weight over several {word} weeks.",
    }[kind] + more


def _medquad() -> Iterable[Mapping[str, Any]]:
    for source, foci in FOCI.items():
        for focus in foci:
            for kind, template in TEMPLATES.items():
                row = {"source": source, "focus": focus, "qtype": kind, "question": template.format(focus)}
                yield row | {"qid": f"{focus}-{kind}", "url": "", "answer": _answer(focus, kind)}


def _pubmedqa() -> Iterable[Mapping[str, Any]]:
    for number in range(24):
        contexts = [
            f"Trial {number} of walking {part} enrolled {number + 40} patients in two clinics." for part in "abc"
        ]
        yield {
            "pmid": str(9000 + number),
            "question": f"Does walking {number} miles help patients of clinic {number}?",
            "contexts": contexts,
            "labels": ["X"] * 3,
            "long_answer": f"Walking {number} miles each day shortened the stay of patients in clinic {number} by two days.",
        }


def _scifact() -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    abstracts = [
        {
            "doc_id": number,
            "title": f"Zinc {number} and the cell",
            "abstract": [
                f"Zinc {number} raises the rate of the cell.",
                f"Cells of line {number} grow in zinc {number}.",
                f"Dish {number} held the cells for a week.",
            ],
        }
        for number in range(16)
    ]
    claims: list[Mapping[str, Any]] = []
    for number in range(48):
        name = number % 16
        label = ["SUPPORT", "CONTRADICT", None][number % 3]
        evidence = [{"doc_id": name, "label": label, "sentences": [0]}] if label is not None else []
        claims.append(
            {
                "id": number,
                "claim": f"Zinc {name} speeds up cell {number}.",
                "cited_doc_ids": [name, (name + 1) % 3] if number in (18, 33) else [name],
                "evidence": evidence,
            }
        )
    return claims, abstracts


def _articles() -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    passages, trials = [], []
    for number in range(8):
        article = f"PMC{number}"
        texts = [
            f"The trial of lotion {number} ran for {number + 10} weeks in a clinic by the sea, with many patients in it.",
            f"Lotion {number} lowered the itch score by {number + 2} points against the plain cream (p = 0.01). "
            f"Patients of site {number} kept their sleep diaries, which showed no change over the whole time of the trial.",
        ]
        for part, text in enumerate(texts):
            row = {"id": f"{article}_{part}", "doc": article, "title": f"Lotion {number}", "text": text}
            passages.append(row | {"license": "CC-BY-4.0" if number < 7 else "CC-BY-SA-4.0"})
        evidence = texts[1].partition(". ")[0] + "."
        trials.append(
            {
                "id": f"t{number}",
                "split": "train" if number < 5 else "test",
                "pmcid": article,
                "outcome": "itch",
                "intervention": f"lotion {number}",
                "comparator": "plain cream",
                "answer": "significantly decreased",
                "evidence": [{"text": evidence, "passage_ids": [f"{article}_1"]}],
            }
        )
    return passages, trials


def write(root: Path) -> Path:
    claims, abstracts = _scifact()
    passages, trials = _articles()
    contents: Mapping[str, Iterable[Mapping[str, Any]]] = {
        "medquad/train": _medquad(),
        "pubmedqa/train": _pubmedqa(),
        "scifact/claims_train": claims,
        "scifact/corpus": abstracts,
        "jats_open/passages": passages,
        "evidence_inference/train": trials,
    }
    for name, rows in contents.items():
        path = root / f"{name}.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return root


def search(root: Path) -> Callable[[str], Sequence[Passage]]:
    """Over all of MedQuAD, by words in common."""
    from rag.text import content_words

    passages = [chunk.split(Document(r.id, r.focus, r.answer), 1000, 1)[0] for r in datasets.medquad(root)]

    def found(question: str) -> list[Passage]:
        words = content_words(question)
        return sorted(passages, key=lambda p: -len(words & content_words(p.titled)))[:30]

    return found


@contextmanager
def few_aspects() -> Iterator[None]:
    """With six of our own records: all would drown the few of the tiny MedQuAD."""
    few = datasets.aspects()[:6]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets, "aspects", lambda: few)
        yield
