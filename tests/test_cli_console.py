"""Progress where there is no terminal: a line a job, the time left, and not too many of them."""

from __future__ import annotations

import io

from rag.cli import console
from rag.cli.console import CountReport, Stream, Terminal


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def counting(file: io.StringIO) -> tuple[CountReport, Clock]:
    terminal, clock = Terminal(Stream(io.StringIO()), Stream(file)), Clock()
    progress = terminal.bar()
    return CountReport(terminal.err, progress, progress.add_task("", total=None, rate=""), clock), clock


def test_a_counted_job_says_how_long_it_will_take_now_and_then() -> None:
    file = io.StringIO()
    report, clock = counting(file)
    report("loading")
    report("questions", 0, 100)
    for done in range(1, 101):
        clock.now += 6
        report("questions", done, 100)
    lines = file.getvalue().splitlines()
    assert lines[:3] == ["loading ...", "questions: 0 of 100 ...", "questions: 5 of 100, 9.5 min left ..."]
    assert lines[-1] == "questions: 100 of 100, 0.0 min left ..."
    assert len(lines) == 2 + 600 / console.EVERY


def test_what_an_earlier_run_did_tells_nothing_of_the_speed() -> None:
    file = io.StringIO()
    report, clock = counting(file)
    report("questions", 90, 100)
    clock.now = 60
    report("questions", 91, 100)
    assert file.getvalue().splitlines() == ["questions: 90 of 100 ...", "questions: 91 of 100, 9.0 min left ..."]
