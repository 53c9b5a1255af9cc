"""What pydantic finds wrong, in our words, and a user's JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rag.errors import UsageError
from rag.records import problems, read


class Range(BaseModel):
    model_config = ConfigDict(strict=True)

    bounds: tuple[int, int]
    name: str = "range"

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.bounds[0] > self.bounds[1]:
            raise ValueError("its bounds are exchanged")
        return self


@pytest.mark.parametrize(
    ("record", "said", "found"),
    [
        ({"bounds": [1, "2"]}, ["bounds.1: Input should be a valid integer"], "2"),
        ({"bounds": [2, 1]}, ["its bounds are exchanged"], {"bounds": [2, 1]}),
        ({"name": 7}, ["bounds: Field required", "name: Input should be a valid string"], {"name": 7}),
    ],
)
def test_problems_have_a_place_unless_the_whole_is_meant(record: dict[str, Any], said: list[str], found: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Range.model_validate_json(json.dumps(record))
    first, *_ = every = problems(caught.value)
    assert [str(one) for one in every] == said
    assert first.found == found


def test_records_are_read_with_their_places_until_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ranges.jsonl"
    path.write_text('{"bounds": [1, 2]}\n\n{"bounds": [3, 4]}\n{"bounds": [4, 3]}\n', encoding="utf-8")
    records = read(path, Range, lambda problem: f"{problem}. Exchange them.")
    assert next(records) == (f"{path}:1", Range(bounds=(1, 2)))
    assert next(records) == (f"{path}:3", Range(bounds=(3, 4)))
    with pytest.raises(UsageError) as caught:
        next(records)
    assert str(caught.value) == f"{path}:4: its bounds are exchanged. Exchange them."


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Can't read"):
        list(read(tmp_path / "ranges.jsonl", Range, str))
