"""Kills processes of `rag index` in each of their phases, and looks at what they leave."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.bench import SEED
from rag.bench.results import Sample
from rag.bench.soak.target import Soaked
from rag.errors import RagError

STARTING, READING, SWITCHING, SWITCHED = "starting", "reading and encoding", "switching", "switched"
REPORTED = (READING, "passages and vectors", "lexical index", "dense index", "checksums", SWITCHING)
"""The steps that `rag index` tells of, in their order."""

PHASES = (STARTING, *REPORTED, SWITCHED)
"""When a process may be killed: before its first step, in each, and once its version is in use."""

EACH = 10
"""After every so many writers `rag search` is asked too, a process that takes seconds; after all of them what it is made of."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process: `steps` with the seconds at which it told of them, and how it ended (-9: killed)."""

    steps: Mapping[str, float]
    seconds: float
    code: int
    said: str

    @property
    def phase(self) -> str:
        """The last one that it told of."""
        return next((step for step in reversed(REPORTED) if step in self.steps), STARTING)

    def lengths(self) -> dict[str, float]:
        """Seconds of each phase."""
        begun = [(STARTING, 0.0), *sorted(self.steps.items(), key=lambda step: step[1])]
        ends = [*(at for _, at in begun[1:]), self.seconds]
        return {phase: end - at for (phase, at), end in zip(begun, ends, strict=True)}


def run(command: Sequence[str], kill_in: str | None = None, after: float = 0.0) -> Run:
    """A process of `rag index`, killed `after` seconds in a phase of it unless it ends before."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    began = time.monotonic()
    steps: dict[str, float] = {}
    lines: list[str] = []

    def kill() -> None:
        time.sleep(after)
        process.kill()

    waiting = threading.Thread(target=kill)
    if kill_in == STARTING:
        waiting.start()
    for line in process.stderr:
        lines.append(line)
        step = line.removesuffix("\n").removesuffix(" ...")
        if step in REPORTED and step not in steps:
            steps[step] = time.monotonic() - began
            if step == kill_in:
                waiting.start()
    code = process.wait()
    process.stderr.close()
    seconds = time.monotonic() - began
    if waiting.ident is not None:
        waiting.join()
    return Run(steps, seconds, code, "".join(lines))


def kills(soaked: Soaked, count: int, taken: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    """Writers until `count` of them, with those `taken` before, were killed: a sample each, also of those that were quicker.

    The phases take turns. Each writer has something to write: the revision that the last one was killed over, of which it
    may find parts, or the next.
    """
    tried = Counter(sample["wanted"] for sample in taken)
    done = sum(sample["killed"] for sample in taken)
    goal = max((sample["goal"] for sample in taken), default=0)
    lengths = dict.fromkeys(PHASES, 0.1) | write_next(soaked).lengths()
    before = soaked.check()
    goal = max(goal, before)
    number = len(taken)
    while done < count:
        chance = random.Random(f"{SEED}-{number}")
        wanted = min(PHASES, key=lambda phase: tried[phase])
        tried[wanted] += 1
        if goal == before or wanted == READING or chance.random() < 0.5:
            goal += 1
        reported = SWITCHING if wanted == SWITCHED else wanted
        ended = run(soaked.write(goal), reported, chance.random() * lengths[reported])
        by_command = number % EACH == EACH - 1
        found, problem = _after(soaked, ended, (before, goal), by_command)
        killed = ended.code == -9
        done += killed
        phase = SWITCHED if killed and found == goal else ended.phase
        yield {
            "id": number,
            "wanted": wanted,
            "killed": killed,
            "phase": phase,
            "before": before,
            "goal": goal,
            "found": found,
            "parts": soaked.parts(),
            "by_command": by_command and found is not None,
            "problem": problem,
        }
        before, number = found if found is not None else before, number + 1


def write_next(soaked: Soaked) -> Run:
    """A writer of the next revision that isn't killed. Raises `RagError` where it fails."""
    ended = run(soaked.write(soaked.newest() + 1))
    if ended.code != 0:
        raise RagError(f"rag index failed without being killed: {ended.said[-500:]}")
    return ended


def _after(soaked: Soaked, ended: Run, expected: Sequence[int], by_command: bool) -> tuple[int | None, str | None]:
    """The revision that is found after a writer has ended, and what is wrong with it."""
    try:
        found = soaked.check()
        if by_command:
            soaked.search_by_command(found)
    except (RagError, OSError, ValueError, KeyError, RuntimeError) as error:
        return None, f"{type(error).__name__}: {error}"
    if found not in expected:
        return found, f"revision {found}, expected one of {', '.join(map(str, expected))}"
    if ended.code not in (0, -9):
        return found, f"the writer failed: {ended.said[-300:]}"
    if ended.code == 0 and found != expected[-1]:
        return found, f"revision {found} after revision {expected[-1]} was written"
    return found, None
