"""A training goes on as it began."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.errors import UsageError
from rag.training.record import Run, check, read, write

RUN = Run("reranker", 8000, 0)


def test_the_record_tells_the_command_and_what_was_asked_for() -> None:
    assert RUN.told == {
        "command": 'make train-reranker ARGS="--examples 8000 --seed 0"',
        "examples": 8000,
        "seed": 0,
    }
    more = replace(RUN, steps=5, initial="adapter").told
    assert more["command"].endswith('--examples 8000 --seed 0 --steps 5 --initial adapter"')
    assert (more["steps"], more["initial"]) == (5, "adapter")


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    check(tmp_path, RUN)
    write(tmp_path, RUN)
    check(tmp_path, RUN)
    assert read(tmp_path) == RUN.told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "begun with seed 0, and can't go on with 1"),
        ({"examples": 4000}, "begun with examples 8000, and can't go on with 4000"),
        ({"steps": 3}, "begun with steps None, and can't go on with 3"),
        ({"initial": "a"}, "begun with initial None, and can't go on with a"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write(tmp_path, RUN)
    with pytest.raises(UsageError, match=said):
        check(tmp_path, replace(RUN, **change))


def test_a_training_that_lengthens_takes_more_examples_and_no_other_seed(tmp_path: Path) -> None:
    write(tmp_path, RUN)
    check(tmp_path, replace(RUN, examples=9000), lengthens=True)
    with pytest.raises(UsageError, match="begun with seed 0"):
        check(tmp_path, replace(RUN, examples=9000, seed=2), lengthens=True)


def test_an_adapter_is_no_longer_there_once_its_training_is_being_lengthened(tmp_path: Path) -> None:
    write(tmp_path, RUN)
    for made in (tmp_path / "adapter.safetensors", tmp_path / "adapter" / "adapter_model.safetensors"):
        made.parent.mkdir(exist_ok=True)
        made.touch()
    write(tmp_path, RUN)
    assert (tmp_path / "adapter.safetensors").is_file()
    write(tmp_path, replace(RUN, examples=RUN.examples + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["record.json"]
