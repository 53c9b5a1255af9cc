"""rag/bench/timing.py, by a clock that tells the time it is told."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from rag.bench.timing import in_turn, timed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: float, returned: str) -> Callable[[], str]:
        def run() -> str:
            self.now += seconds
            return returned

        return run


def test_a_run_is_timed_and_returns_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.taking(100 * seconds, "")())
    assert timed(clock.taking(3.0, "done"), clock, pause=0.05) == (3.0, "done")
    assert clock.now == 8.0, "it begins after a pause, which isn't counted"


def test_runs_take_turns() -> None:
    clock = Clock()
    ours = clock.taking(1.0, "ours")
    assert in_turn({"ours": ours, "reference": clock.taking(4.0, "theirs"), "again": ours}, clock) == (
        {"ours": 1.0, "reference": 4.0, "again": 1.0},
        {"ours": "ours", "reference": "theirs", "again": "ours"},
    )
    assert clock.now == 6.0
