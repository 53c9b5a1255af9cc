"""What a warm server costs, and what it survives: `rag ask` beside the same question inside its process, an engine that is
killed under its clients, and clients that go away.

`server` starts one and looks at it from outside, `clients` stream from it, `asks` and `losses` take a sample each time they are
called, `figures` computes from those. Two servers run one after the other: one of the given settings that is asked, and one
whose answers are long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from rag.bench import results
from rag.bench.serve import asks, losses
from rag.bench.serve.figures import ASK, BENCH, KILL, LEAVE, summarise
from rag.bench.serve.server import Server, serving
from rag.errors import RagError, UsageError
from rag.progress import Progress
from rag.questions import Question
from rag.settings import Loaded

__all__ = ["BENCH", "Workload", "measure", "summarise"]

LOGS = "logs"

WARM_UP = 2
"""Questions that are asked before those that count."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How many samples there shall be, with those of earlier runs: `questions` of dev_60, `kills`, and clients that go away."""

    questions: int
    kills: int
    disconnects: int


def measure(loaded: Loaded, folder: Path, workload: Workload, command: str, progress: Progress) -> None:
    """Take what samples there aren't yet of an earlier run with the same settings.

    Raises `UsageError` where the generator is a server, or one of ours runs already for these settings; `RagError` where ours
    doesn't start, or doesn't come back after a kill.
    """
    if (url := loaded.settings.generator.base_url) is not None:
        raise UsageError(f"generator.base_url={url}: that engine isn't ours to kill. Unset it for this benchmark.")
    run = _Run(loaded, folder, command, progress)
    run.ask(workload.questions)
    run.lose(workload.kills, workload.disconnects)


class _Run:
    """One run of the benchmark: its two parts share the samples."""

    def __init__(self, loaded: Loaded, folder: Path, command: str, progress: Progress) -> None:
        self.loaded, self.progress = loaded, progress
        self.questions = asks.questions()
        self.samples = results.Samples(folder)
        taken = self.samples.resume(results.header(BENCH, command, settings=_depends_on(loaded)))
        self.taken = results.by_kind(taken, (ASK, KILL, LEAVE))
        self.logs = results.unpublished(folder, LOGS)

    def ask(self, count: int) -> None:
        known = {sample["id"] for sample in self.taken[ASK]}
        asked = self.questions[:count]
        left = [one for one in asked if one.id not in known]
        if not left:
            return
        with serving(self.loaded, self.logs / "asks.log", self.progress) as server:
            for warm_up in self.questions[-WARM_UP:]:
                self.progress("warming up")
                asks.ask(server, self.loaded, warm_up.question)
            for number, one in enumerate(left, start=len(asked) - len(left)):
                self.progress("questions", number, len(asked))
                self.samples.add({"kind": ASK, "id": one.id, **asks.ask(server, self.loaded, one.question)})

    def lose(self, kills: int, disconnects: int) -> None:
        killed = len(self.taken[KILL])
        groups = self.taken[LEAVE]
        left = sum(sample["clients"] for sample in groups)
        if killed >= kills and left >= disconnects:
            return
        questions = _answered_ones(self.questions)
        with serving(self.loaded, self.logs / "losses.log", self.progress, *losses.RAMBLING) as server:
            self._leave(server, questions, left, disconnects, len(groups))
            self._kill(server, questions, killed, kills)

    def _leave(self, server: Server, questions: Iterator[str], left: int, disconnects: int, number: int) -> None:
        while left < disconnects:
            self.progress("clients that leave", left, disconnects)
            sample = losses.leave(server, questions, min(losses.GROUP, disconnects - left))
            self.samples.add({"kind": LEAVE, "id": number, **sample})
            left, number = left + sample["clients"], number + 1

    def _kill(self, server: Server, questions: Iterator[str], killed: int, kills: int) -> None:
        for number in range(killed, kills):
            self.progress("kills of the engine", number, kills)
            sample = losses.kill(server, questions)
            self.samples.add({"kind": KILL, "id": number, **sample})
            if sample["ready"] is None:
                log = self.logs / "losses.log"
                raise RagError(f"The server didn't come back after a kill: {sample['problem']} Its log: {log}")


def _answered_ones(questions: Sequence[Question]) -> Iterator[str]:
    """Over and over those for which something is found, so that there is an answer to be in the middle of."""
    return cycle([one.question for one in questions if one.type == "simple"])


def _depends_on(loaded: Loaded) -> dict[str, Any]:
    return {
        "profile": loaded.profile,
        "models": loaded.models,
        **loaded.settings.model_dump(mode="json"),
        "losses": losses.RAMBLING,
        "streams": losses.STREAMS,
        "group": losses.GROUP,
        "hung": losses.HUNG,
        "after": losses.AFTER,
    }
