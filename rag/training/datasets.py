"""The datasets that the embedded models learn from, and what of them is held out.

None of their text ships with `rag`. Where they lie is `--datasets`, else `RAG_DATASETS`. Share-alike rows are left out of
what is learnt from.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rag import paths, questions
from rag.errors import UsageError

HELD_OUT_SOURCES = frozenset({"NINDS", "NHLBI"})
"""Of MedQuAD. Their foci are dropped from training too: other sources write about the same diseases."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset as a model card names it."""

    name: str
    licence: str
    address: str


MEDQUAD = Dataset("MedQuAD", "CC BY 4.0", "https://github.com/abachaa/MedQuAD")
PUBMEDQA = Dataset("PubMedQA", "MIT", "https://pubmedqa.github.io")
EVIDENCE_INFERENCE = Dataset(
    "Evidence Inference", "MIT; its articles CC BY or CC0", "https://evidence-inference.ebm-nlp.com"
)
SCIFACT = Dataset("SciFact", "claims CC BY 4.0, abstracts ODC-By 1.0", "https://github.com/allenai/scifact")
OWN = Dataset("documents, questions and sentences of this project", "Apache-2.0", "data/")


@dataclass(frozen=True, slots=True)
class Record:
    """A question about one `focus` (a disease, mostly) and aspect of it (`qtype`), with its answer."""

    id: str
    source: str
    focus: str
    qtype: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Abstract:
    """A paper whose title is a question, its abstract's sections, and its conclusion, which isn't among them."""

    id: str
    question: str
    contexts: tuple[str, ...]
    conclusion: str


@dataclass(frozen=True, slots=True)
class ArticlePassage:
    id: str
    article: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What an intervention did to an outcome, with the sentence of the article that says so."""

    id: str
    intervention: str
    outcome: str
    comparator: str
    answer: str
    evidence: str
    passage: ArticlePassage

    @property
    def question(self) -> str:
        return f"What is the effect of {self.intervention} on {self.outcome} compared with {self.comparator}?"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, and for each abstract that decides it the label and the sentences that do (by position)."""

    id: str
    text: str
    cited: tuple[str, ...]
    evidence: tuple[tuple[str, bool, tuple[int, ...]], ...]
    """(abstract, whether it supports the claim, sentences)."""


def folder(option: Path | None = None) -> Path:
    """Raises `UsageError` where the datasets aren't there."""
    named = option if option is not None else Path(os.environ.get("RAG_DATASETS", "datasets"))
    if not (named / "medquad").is_dir():
        raise UsageError(f"No datasets in {named}. Say where they are: --datasets FOLDER, or RAG_DATASETS=FOLDER.")
    return named


def medquad(root: Path) -> list[Record]:
    """All records, with the ids that `passages` of them are indexed under."""
    return [
        Record(f"m{number:05d}", row["source"], row["focus"], row["qtype"], row["question"], row["answer"])
        for number, row in enumerate(_rows(root / "medquad" / "train.jsonl.gz"))
    ]


def aspects() -> list[Record]:
    """Records of our own, of the kinds of questions that MedQuAD's training sources hardly answer."""
    rows = enumerate(_rows(paths.shipped("data", "training", "aspects.jsonl")))
    return [Record(f"a{number:05d}", "own", row["focus"], row["kind"], "", row["text"]) for number, row in rows]


def split_medquad(records: list[Record]) -> tuple[list[Record], list[Record], list[Record]]:
    """(training, validation, held out): by source, and no focus of the held-out sources is left in training. A quarter of
    their foci is for validation, the curve of a training; figures are taken on the others."""
    held_out = [record for record in records if record.source in HELD_OUT_SOURCES]
    foci = {disease(record.focus) for record in held_out}
    training = [r for r in records if r.source not in HELD_OUT_SOURCES and disease(r.focus) not in foci]
    parts: tuple[list[Record], list[Record]] = ([], [])
    for record in held_out:
        parts[not is_held_out(disease(record.focus))].append(record)
    return training, *parts


def pubmedqa(root: Path) -> tuple[list[Abstract], list[Abstract]]:
    """(training, held out)."""
    return _split(
        Abstract(str(row["pmid"]), row["question"], tuple(row["contexts"]), row["long_answer"])
        for row in _rows(root / "pubmedqa" / "train.jsonl.gz")
    )


def scifact(root: Path) -> tuple[list[Claim], list[Claim], dict[str, tuple[str, list[str]]]]:
    """(training claims, held out claims, abstracts as title and sentences)."""
    claims = (
        Claim(
            str(row["id"]),
            row["claim"],
            tuple(str(doc) for doc in row["cited_doc_ids"]),
            tuple((str(e["doc_id"]), e["label"] == "SUPPORT", tuple(e["sentences"])) for e in row["evidence"]),
        )
        for row in _rows(root / "scifact" / "claims_train.jsonl.gz")
    )
    abstracts = {
        str(row["doc_id"]): (row["title"], row["abstract"]) for row in _rows(root / "scifact" / "corpus.jsonl.gz")
    }
    return *_split_claims(list(claims)), abstracts


def articles(root: Path) -> dict[str, list[ArticlePassage]]:
    """Passages of the open articles by article, without those under a share-alike licence."""
    found: dict[str, list[ArticlePassage]] = {}
    for licence, passage in _article_passages(root):
        if "SA" not in licence:
            found.setdefault(passage.article, []).append(passage)
    return found


def searched_passages(root: Path) -> Iterator[ArticlePassage]:
    """Every passage of the open articles, in their order: to search among, not to learn from."""
    return (passage for _, passage in _article_passages(root))


def _article_passages(root: Path) -> Iterator[tuple[str, ArticlePassage]]:
    """With the licence of each."""
    for row in _rows(root / "jats_open" / "passages.jsonl.gz"):
        yield row["license"], ArticlePassage(row["id"], row["doc"], row["title"], row["text"])


def trials(root: Path, of: dict[str, list[ArticlePassage]]) -> tuple[list[Trial], list[Trial]]:
    """(training, held out): those whose evidence lies in one passage of `of`."""
    training: list[Trial] = []
    held_out: list[Trial] = []
    for row in _rows(root / "evidence_inference" / "train.jsonl.gz"):
        evidence = next((e for e in row["evidence"] if len(e["passage_ids"]) == 1), None)
        if evidence is None:
            continue
        passage = next((p for p in of.get(row["pmcid"], ()) if p.id == evidence["passage_ids"][0]), None)
        if passage is not None:
            said = (row["intervention"], row["outcome"], row["comparator"], row["answer"])
            trial = Trial(row["id"], *said, evidence["text"], passage)
            (training if row["split"] == "train" else held_out).append(trial)
    return training, held_out


def own() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Questions and sentences about `documents`."""
    root = paths.shipped("data", "training")
    return list(_rows(root / "questions.jsonl")), list(_rows(root / "sentences.jsonl"))


def same_questions() -> list[dict[str, Any]]:
    """Clusters of questions that ask the same, or nearly."""
    return list(_rows(paths.shipped("data", "training", "same_questions.jsonl")))


def lexicon() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Expressions with what means the same and nearly, and frames of questions for them."""
    terms = paths.shipped("data", "lexicon", "terms.jsonl")
    return list(_rows(terms)), list(_rows(paths.shipped("data", "training", "frames.jsonl")))


def documents() -> dict[str, Mapping[str, Any]]:
    """By id the documents of the corpus that no evaluation question is about, and those written for training alone."""
    gold: set[str] = set()
    for name in ("qa_120", "dev_60"):
        gold.update(*(one.gold for one in questions.read(paths.shipped("eval", f"{name}.jsonl")).questions))
    found = {}
    for path in sorted(paths.shipped("data", "corpus").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            if document["id"] not in gold:
                found[document["id"]] = document
    return found | {row["id"]: row for row in _rows(paths.shipped("data", "training", "documents.jsonl"))}


def normalised(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))


_GENERIC = {"disease", "disorder", "syndrome"}

_WITHOUT_ACCENTS = {
    "barr": "barre",
    "bjrnstad": "bjornstad",
    "calv": "calve",
    "grsbeck": "grasbeck",
    "klver": "kluver",
    "lken": "loken",
    "mnire": "meniere",
    "sjgren": "sjogren",
    "stve": "stuve",
    "szary": "sezary",
    "zweymller": "zweymuller",
}
"""MedQuAD lost the accented letters of some names, and has others of the same disease in full."""


@cache
def disease(focus: str) -> str:
    """The same for all spellings of a disease's name: "Leigh's Disease (SNE)" and "Leigh syndrome" are "leigh". Names
    that share no word ("heart attack") stay apart."""
    return _key(re.sub(r"\([^)]*\)", " ", focus)) or normalised(focus)


def mentions(text: str, name: str) -> bool:
    """Does a text name a disease, given as `disease` gives it?"""
    return f" {name} " in f" {_key(text)} "


def _key(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'")).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", re.sub(r"'s\b", "", plain))
    singular = (word[:-1] if re.search(r"..[^sui]s$", word) else word for word in words)
    whole = (_WITHOUT_ACCENTS.get(word, word) for word in singular)
    return " ".join(word for word in whole if word not in _GENERIC)


def is_held_out(identity: str, one_in: int = 4) -> bool:
    """By the identity alone, so that every script and session holds out the same."""
    return int(hashlib.sha256(identity.encode()).hexdigest(), 16) % one_in == 0


def _split(rows: Iterator[Any]) -> tuple[list[Any], list[Any]]:
    parts: tuple[list[Any], list[Any]] = ([], [])
    for row in rows:
        parts[is_held_out(row.id)].append(row)
    return parts


def _split_claims(claims: list[Claim]) -> tuple[list[Claim], list[Claim]]:
    """Claims that an abstract links, also over others, fall on the same side."""
    links: dict[str, str] = {}

    def first(name: str) -> str:
        while name in links:
            name = links[name]
        return name

    for claim in claims:
        names = sorted({first(name) for name in claim.cited})
        links |= dict.fromkeys(names[1:], names[0])
    parts: tuple[list[Claim], list[Claim]] = ([], [])
    for claim in claims:
        parts[is_held_out(first(claim.cited[0] if claim.cited else claim.id))].append(claim)
    return parts


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Raises `UsageError` where the file isn't there."""
    if not path.is_file():
        raise UsageError(f"{path} is missing. The datasets' folder isn't complete: see its README.")
    lines = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")  # noqa: SIM115
    with lines as file:
        for line in file:
            yield json.loads(line)
