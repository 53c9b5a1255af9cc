"""A file of questions, and a file of their answers that an interrupted run leaves to go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rag import files, where
from rag.batch.answering import Outcome
from rag.errors import UsageError
from rag.prefetch import Asked

PART = ".part"
"""Ends the name of the file that answers are added to as they come; the whole is written at the end, in the order of the questions."""


class Item(BaseModel):
    """A line of questions. Other keys are ignored, so that a question set (`eval/README.md`) is such a file too."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    question: Annotated[str, StringConstraints(strip_whitespace=True)]
    where: str | None = Field(None, description="a condition that the sources' documents have to meet")

    @property
    def asked(self) -> Asked:
        return self.question, self.where


def read(path: Path) -> list[Item]:
    """Of JSON lines with `question`, and optionally `id` (else the line's number) and `where`; of another file each line that holds
    anything is a question. Raises `UsageError` for the first line that can't be used, and where there is none."""
    as_json = path.suffix in (".jsonl", ".ndjson", ".json")
    places: dict[str, int] = {}
    items = []
    for number, line in files.lines(path):
        item = _item(path, number, line) if as_json else Item(id=str(number), question=line)
        if item.id in places:
            raise UsageError(
                f"{path}:{number}: {item.id!r} stands in line {places[item.id]} already. Give it another id."
            )
        places[item.id] = number
        items.append(item)
    if not items:
        raise UsageError(f"{path} holds no question.")
    return items


def _item(path: Path, number: int, line: str) -> Item:
    expected = 'expected like {"id": "q1", "question": "What causes malaria?"}'
    try:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise UsageError(f"{path}:{number}: no JSON object, found {line.strip()[:60]!r}; {expected}.")
        item = Item.model_validate({"id": str(number), **record})
    except ValidationError as error:
        problem = error.errors()[0]
        found = json.dumps(problem["input"])[:60]
        raise UsageError(
            f"{path}:{number}: {problem['loc'][0]}: {problem['msg']}, found {found}; {expected}."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}:{number}: no JSON ({error}), found {line.strip()[:60]!r}; {expected}.") from None
    if item.where is not None:
        try:
            where.parse(item.where)
        except UsageError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
    return item


class AnswerFile:
    """Answers by their question's id. What an earlier run has answered, of the same question and by the same `settings`, a digest, is
    kept; what failed in it is asked again."""

    def __init__(self, path: Path, items: Sequence[Item], settings: str, overwrite: bool = False) -> None:
        """Raises `UsageError` where the files hold something else, unless it may be overwritten, and `StorageError` where they can't
        be written."""
        if path.is_dir() or not path.name:
            raise UsageError(
                f"--output {path} is a folder, and has to be a file. Name one in it, e.g. {path / 'answers.jsonl'}."
            )
        self.path = path
        self._part = path.with_name(path.name + PART)
        self._items = items
        self.settings = settings
        self._records: dict[str, Mapping[str, Any]] = {}
        with files.explaining_storage(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not overwrite:
                self._resume()
            if self._records or self._part.exists():
                self._write(self._part)  # what a kill left of a last line is gone

    @property
    def left(self) -> list[Item]:
        """Not answered yet."""
        return [item for item in self._items if "error" in self._records.get(item.id, {"error": None})]

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Ids and errors."""
        return [(name, record["error"]) for name, record in self._records.items() if "error" in record]

    def add(self, item: Item, outcome: Outcome) -> None:
        """Raises `StorageError`; what was added before stays."""
        answer: Mapping[str, Any] = {"question": item.question, "error": outcome.error}
        if outcome.answer is not None:
            answer = asdict(outcome.answer)
        record = {"id": item.id, "where": item.where, **answer, "settings": self.settings}
        with files.explaining_storage(self._part), self._part.open("a", encoding="utf-8") as file:
            file.write(_line(record))
        self._records[item.id] = record

    def finish(self) -> None:
        """All that there are, in the order of the questions."""
        self._write(self.path)
        self._part.unlink(missing_ok=True)

    def _resume(self) -> None:
        """What a run left under way replaces what stands in the file itself: that is what its user wanted."""
        if self._part.is_file():
            self._take(self._part, self._part.read_bytes().rpartition(b"\n")[0])
        elif self.path.is_file():
            self._take(self.path, self.path.read_bytes())

    def _take(self, file: Path, content: bytes) -> None:
        asked = {item.id: item.asked for item in self._items}
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                record = json.loads(line)
                same = asked.get(record["id"]) == (record["question"], record["where"])
                ours = same and record["settings"] == self.settings
            except (ValueError, TypeError, KeyError, RecursionError):
                ours = False
            if not ours:
                raise UsageError(
                    f"{file}:{number} holds something else than an answer to one of these questions by these settings and this "
                    "index. Name another file with --output, or give --overwrite."
                )
            if "error" not in record:
                self._records[record["id"]] = record

    def _write(self, target: Path) -> None:
        there = [self._records[item.id] for item in self._items if item.id in self._records]
        with files.replacing_file(target) as temporary:
            temporary.write_text("".join(map(_line, there)), encoding="utf-8")


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
