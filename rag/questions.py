"""Question sets: files in our schema, and folders as BEIR has them.

Ours is a JSON object a line: `id, question, type, answer, gold_doc_ids, key_facts` (eval/README.md). Of BEIR's folders
`queries.jsonl` and `qrels/*.tsv` are read; they have neither reference answers nor questions without an answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rag import files, records
from rag.errors import UsageError

Type: TypeAlias = Literal["simple", "synthesis", "unanswerable", "retrieval"]
"""`retrieval`: known are the documents that answer, and no reference answer (BEIR)."""

TYPES: tuple[Type, ...] = get_args(Type)

QUERIES, QRELS = "queries.jsonl", "qrels"
SPLIT = "test"


@dataclass(frozen=True, slots=True)
class Question:
    """`gold` are the documents that hold the answer, with their grades of relevance (1 and up), none where nothing answers;
    `key_facts` the accepted variants of each fact that a right answer states; `answer` the reference, None where there is none."""

    id: str
    question: str
    type: Type
    answer: str | None
    gold: Mapping[str, int]
    key_facts: tuple[tuple[str, ...], ...]

    @property
    def answerable(self) -> bool:
        return len(self.gold) > 0


@dataclass(frozen=True, slots=True)
class QuestionSet:
    name: str
    questions: tuple[Question, ...]

    @property
    def sha256(self) -> str:
        """Of what is asked and expected, not of the file."""
        return sha256(json.dumps([asdict(question) for question in self.questions]).encode()).hexdigest()

    @property
    def head(self) -> dict[str, object]:
        """What the header of samples says of the set."""
        return {"name": self.name, "count": len(self.questions), "sha256": self.sha256}

    def first(self, count: int | None) -> list[Question]:
        """So many of them, all for None. Each type is spread evenly over the order that they are taken in: any number of them
        has about the whole set's mixture, and holds those of a smaller one."""
        of_type = Counter(question.type for question in self.questions)
        seen: Counter[str] = Counter()
        placed = []
        for question in self.questions:
            placed.append(((seen[question.type] + 0.5) / of_type[question.type], question))
            seen[question.type] += 1
        return [question for _, question in sorted(placed, key=lambda one: one[0])][:count]


def read(path: Path) -> QuestionSet:
    """Raises `UsageError` for what is neither a file nor a folder of questions, for the first record that can't be used, and
    where there is none."""
    if path.is_dir():
        questions = _of_beir(path)
    elif path.is_file():
        questions = _of_file(path)
    else:
        raise UsageError(f"{path}: no such file or folder. Name a question set (JSONL), or a folder as BEIR has them.")
    if not questions:
        raise UsageError(f"{path} holds no question.")
    return QuestionSet(path.resolve().stem, tuple(questions))


def require_gold(questions: Sequence[Question], index: str, documents: Collection[str]) -> None:
    """Raises `UsageError` where gold documents aren't among those of the index: it would be another corpus' questions."""
    missing = [(question.id, name) for question in questions for name in question.gold if name not in documents]
    if missing:
        identity, name = missing[0]
        count = len({identity for identity, _ in missing})
        raise UsageError(
            f"Question {identity!r} is answered by document {name!r}, which index {index!r} lacks: {count} of "
            f"{len(questions)} questions name such. Choose the index of their corpus: --index NAME, or --sample."
        )


# --- our schema --------------------------------------------------------------------------------------

_Text: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)

    id: _Text
    question: _Text
    type: Literal["simple", "synthesis", "unanswerable"]
    answer: _Text
    gold_doc_ids: tuple[_Text, ...]
    key_facts: tuple[Annotated[tuple[_Text, ...], Field(min_length=1)], ...]

    @model_validator(mode="after")
    def _gold_where_answerable(self) -> Self:
        if (self.type == "unanswerable") != (len(self.gold_doc_ids) == 0):
            raise ValueError(f"its type is {self.type}, and it names {len(self.gold_doc_ids)} gold_doc_ids")
        if len(set(self.gold_doc_ids)) < len(self.gold_doc_ids):
            raise ValueError("gold_doc_ids names a document twice")
        if self.type == "unanswerable" and self.key_facts:
            raise ValueError(f"its type is unanswerable, and it has {len(self.key_facts)} key_facts")
        return self


def _of_file(path: Path) -> list[Question]:
    places: dict[str, str] = {}
    questions = []
    for where, record in records.read(path, _Record, lambda problem: f"{problem}. See eval/README.md."):
        _once(places, record.id, where)
        gold = dict.fromkeys(record.gold_doc_ids, 1)
        questions.append(Question(record.id, record.question, record.type, record.answer, gold, record.key_facts))
    return questions


# --- BEIR --------------------------------------------------------------------------------------------


class _Query(BaseModel):
    id: _Text = Field(alias="_id")
    text: _Text


def _of_beir(folder: Path) -> list[Question]:
    """The queries that the judged split has a relevant document for."""
    grades = _judgements(_split(folder))
    places: dict[str, str] = {}
    questions = []
    queries = records.read(
        folder / QUERIES, _Query, lambda problem: f"no query of BEIR's, which has `_id` and `text` ({problem.what})."
    )
    for where, query in queries:
        _once(places, query.id, where)
        gold = grades.pop(query.id, {})
        if gold:
            questions.append(Question(query.id, query.text, "retrieval", None, gold, ()))
    if grades:
        raise UsageError(f"{folder / QUERIES} lacks query {next(iter(grades))!r}, which {folder / QRELS} judges.")
    return questions


def _split(folder: Path) -> Path:
    splits = sorted((folder / QRELS).glob("*.tsv"))
    named = [path for path in splits if path.stem == SPLIT]
    if not (folder / QUERIES).is_file() or not splits:
        raise UsageError(f"{folder} is no folder of BEIR's: it needs {QUERIES} and {QRELS}/{SPLIT}.tsv.")
    if not named and len(splits) > 1:
        names = ", ".join(path.name for path in splits)
        raise UsageError(f"{folder / QRELS} has {names}, and no {SPLIT}.tsv. Leave one of them there.")
    return (named or splits)[0]


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    """By query the relevant documents with their grades; 0 is "looked at, and not relevant"."""
    places: dict[str, str] = {}
    grades: dict[str, dict[str, int]] = {}
    for row, (number, line) in enumerate(files.lines(path)):
        where = f"{path}:{number}"
        fields = line.rstrip("\r\n").split("\t")
        if row == 0 and fields[-1] == "score":
            continue
        query, document, grade = fields if len(fields) == 3 else ("", "", "")
        try:
            score = int(grade)
        except ValueError:
            raise UsageError(f"{where}: expected query-id, corpus-id and a whole score between tabs.") from None
        _once(places, f"{query} with {document}", where)
        grades.setdefault(query, {})
        if score > 0:
            grades[query][document] = score
    return grades


def _once(places: dict[str, str], identity: str, where: str) -> None:
    if identity in places:
        raise UsageError(
            f"{where}: {identity!r} is already used in {places[identity]}. Each is asked once: remove one."
        )
    places[identity] = where
