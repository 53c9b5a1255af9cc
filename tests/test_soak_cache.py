"""scripts/soak_cache.py: a second of each, and the defects that it is there for."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT

from rag.cache import EntryFile, Memory, save
from rag.core import Hits, Query


@pytest.fixture
def soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak_cache", ROOT / "scripts" / "soak_cache.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_goes_wrong(soak: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.hammer(1.0) == []
    assert soak.fill(1.0) == []
    assert "0 problems" in capsys.readouterr().out


def test_a_lost_update_is_found(soak: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(self: EntryFile, memory: Memory[Hits]) -> None:
        save(self._path, memory.entries(), {}, soak.DIMENSION)

    monkeypatch.setattr(EntryFile, "save", alone)
    assert any("was put, and lost" in problem for problem in soak.fill(0.3))


def test_two_that_write_at_the_same_time_are_found(soak: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second writes what the first has written since it looked away."""
    monkeypatch.setattr("rag.cache.file.only_writer", lambda *_: nullcontext())
    assert soak.fill(0.5)


def test_a_question_that_is_not_put_is_found(soak: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Memory.put

    def forgetful(self: Memory[Any], query: Query, value: Any) -> None:
        if not query.text.endswith("-0"):
            real(self, query, value)

    monkeypatch.setattr(Memory, "put", forgetful)
    assert any(problem.endswith("-0 was put, and lost") for problem in soak.fill(0.3))


def test_a_look_up_that_is_not_counted_is_found(soak: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "miss", lambda *_, **__: None)
    assert any("look-ups" in problem for problem in soak.hammer(0.3))
