"""Seconds of what runs in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from rag.core import Clock

PAUSE = 0.05
"""Seconds before a timed run: threads of the one before it spin for a while."""

Returned = TypeVar("Returned")


def timed(run: Callable[[], Returned], clock: Clock, pause: float = 0.0) -> tuple[float, Returned]:
    """Seconds of a run, and what it returned."""
    time.sleep(pause)
    began = clock()
    returned = run()
    return clock() - began, returned


def in_turn(
    runs: Mapping[str, Callable[[], Returned]], clock: Clock, pause: float = 0.0
) -> tuple[dict[str, float], dict[str, Returned]]:
    """Seconds of runs, one after the other, and what they returned. The same one twice shows what two of it differ by."""
    seconds: dict[str, float] = {}
    returned: dict[str, Returned] = {}
    for name, run in runs.items():
        seconds[name], returned[name] = timed(run, clock, pause)
    return seconds, returned
