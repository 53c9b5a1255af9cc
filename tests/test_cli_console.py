"""Progress where there is no terminal: a line a job, the time left, and not too many of them."""

from __future__ import annotations

import io

from rich.progress import Progress

from rag.cli import console
from rag.cli.console import CountReport, StepReport, Stream, Terminal


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def counting(file: io.StringIO) -> tuple[CountReport, Clock]:
    terminal, clock = Terminal(Stream(io.StringIO()), Stream(file)), Clock()
    progress = Progress(disable=True)
    return CountReport(terminal.err, progress, progress.add_task("", total=None, note=""), clock), clock


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


def test_a_step_that_is_counted_begins_uncounted_and_its_note_stands_behind() -> None:
    file = io.StringIO()
    report, clock = counting(file)
    report("reading")
    clock.now = 60
    report("reading", 50, 100, "8 passages, 1/s")
    report("switching")
    assert file.getvalue().splitlines() == [
        "reading ...",
        "reading: 50 of 100, 1.0 min left, 8 passages, 1/s ...",
        "switching ...",
    ]


def test_a_step_is_told_once_however_often_it_is_counted() -> None:
    file = io.StringIO()
    progress = Progress(disable=True)
    report = StepReport(Stream(file), progress, progress.add_task("preparing"))
    for what, done in (("reading", 0), ("reading", 1), ("reading", 2), ("switching", 0)):
        report(what, done, 2, "8 passages")
    assert file.getvalue().splitlines() == ["reading ...", "switching ..."]
