"""A file of questions, and a file of their answers that an interrupted run leaves to go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rag import files, records, where
from rag.batch.answering import Outcome
from rag.errors import UsageError
from rag.prefetch import QuestionKey

PART = ".part"
"""Ends the name of the file that answers are added to as they come; the whole is written at the end, in the order of the questions."""


class Item(BaseModel):
    """A line of questions. Other keys are ignored, so that a question set (`eval/README.md`) is such a file too."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    question: Annotated[str, StringConstraints(strip_whitespace=True)]
    where: str | None = Field(None, description="a condition that the sources' documents have to meet")

    @property
    def asked(self) -> QuestionKey:
        return self.question, self.where


def read(path: Path) -> list[Item]:
    """Of JSON lines with `question`, and optionally `id` (else the line's number) and `where`; of another file each line that holds
    anything is a question. Raises `UsageError` for the first line that can't be used, and where there is none."""
    as_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    places: dict[str, int] = {}
    items = []
    for number, line in files.lines(path):
        item = _item(path, number, line) if as_json else Item(id=str(number), question=line)
        if item.id in places:
            raise UsageError(
                f"{path}:{number}: {item.id!r} is already used on line {places[item.id]}. Give it another id."
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
        problem = records.problems(error)[0]
        raise UsageError(f"{path}:{number}: {problem}, found {json.dumps(problem.found)[:60]}; {expected}.") from None
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
    kept; what failed in it is asked again. In memory are their places in the file alone."""

    def __init__(self, path: Path, items: Sequence[Item], settings: str, overwrite: bool = False) -> None:
        """Raises `UsageError` where the files hold something else, unless it may be overwritten, and `StorageError` where they can't
        be written."""
        if path.is_dir() or not path.name:
            raise UsageError(
                f"--output {path} is a folder, and has to be a file. Name one in it, e.g. {path / 'answers.jsonl'}."
            )
        self.path = path
        self._part = part_of(path)
        self._items = items
        self.settings = settings
        self._places: dict[str, tuple[int, int]] = {}
        """By id where the line lies in the file that answers are added to: its first byte, and how many."""
        self._errors: dict[str, str] = {}
        with files.explaining_storage(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not overwrite:
                self._resume()
            elif self._part.exists():
                with files.replacing_file(self._part):
                    pass

    @property
    def left(self) -> list[Item]:
        """Not answered yet."""
        return [item for item in self._items if item.id not in self._places or item.id in self._errors]

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Ids and errors, in the order of the questions."""
        return [(item.id, self._errors[item.id]) for item in self._items if item.id in self._errors]

    def add(self, item: Item, outcome: Outcome) -> None:
        """Raises `StorageError`; what was added before stays."""
        answer: Mapping[str, Any] = {"error": outcome.error}
        if outcome.answer is not None:
            answer = asdict(outcome.answer)
        record = {"id": item.id, "where": item.where, **answer, "question": item.question, "settings": self.settings}
        line = _line(record)
        self._places[item.id] = (files.append(self._part, line), len(line))
        if outcome.answer is None:
            self._errors[item.id] = str(outcome.error)

    def finish(self) -> None:
        """All that there are, in the order of the questions."""
        with files.replacing_file(self.path) as temporary:
            if self._places:
                with self._part.open("rb") as given, temporary.open("wb") as ordered:
                    for start, length in (self._places[item.id] for item in self._items if item.id in self._places):
                        given.seek(start)
                        ordered.write(given.read(length))
        self._part.unlink(missing_ok=True)

    def _resume(self) -> None:
        """What a run left under way replaces what stands in the file itself: that is what its user wanted. What a kill left of a last
        line is gone."""
        source = next((file for file in (self._part, self.path) if file.is_file()), None)
        if source is None:
            return
        asked = {item.id: item.asked for item in self._items}
        with source.open("rb") as there, files.replacing_file(self._part) as temporary, temporary.open("wb") as kept:
            for number, line in enumerate(there, start=1):
                if source == self._part and not line.endswith(b"\n"):
                    break
                record = self._own(line, asked)
                if record is None:
                    raise UsageError(
                        f"{source}:{number} holds something else than an answer to one of these questions by these settings and "
                        "this index. Name another file with --output, or give --overwrite."
                    )
                if "error" not in record:
                    whole = line.rstrip(b"\n") + b"\n"
                    self._places[record["id"]] = (kept.tell(), len(whole))
                    kept.write(whole)

    def _own(self, line: bytes, asked: Mapping[str, QuestionKey]) -> Mapping[str, Any] | None:
        try:
            record = json.loads(line)
            same = asked.get(record["id"]) == (record["question"], record["where"])
            return record if same and record["settings"] == self.settings else None
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


def part_of(path: Path) -> Path:
    """The file that answers are added to as they come."""
    return path.with_name(path.name + PART)


def _line(record: Mapping[str, Any]) -> bytes:
    """What UTF-8 can't hold, as a path in an error's message may, stays escaped."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
