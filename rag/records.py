"""Records that pydantic reads: what is wrong with one, and those of a user's JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rag import files
from rag.errors import UsageError

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """`place` is dotted, and empty where the whole record is meant; `found` is what stands there."""

    place: str
    what: str
    found: Any

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" if self.place else self.what


def problems(error: ValidationError) -> list[Problem]:
    """At least one."""
    return [
        Problem(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "), one["input"])
        for one in error.errors()
    ]


def read(path: Path, kind: type[Record], refusal: Callable[[Problem], str]) -> Iterator[tuple[str, Record]]:
    """The records of a user's JSON lines, each with its place, FILE:LINE. Raises `UsageError` for a file that can't be read, and, as
    `refusal` says it, for the first line that is no `kind`."""
    for number, line in files.lines(path):
        place = f"{path}:{number}"
        try:
            record = kind.model_validate_json(line)
        except ValidationError as error:
            raise UsageError(f"{place}: {refusal(problems(error)[0])}") from None
        yield place, record
