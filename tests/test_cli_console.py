"""Progress where there is no terminal: a line a job, the time left, and not too many of them."""

from __future__ import annotations

import io
import os
import shutil

import pytest
from rich.progress import Progress

from rag.cli import console
from rag.cli.console import CountReport, StepReport, Stream, Terminal
from rag.errors import StorageError


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


@pytest.mark.parametrize("text", ["\x1b]52;c;cm0gLXJm\x07", "\x1b[2J", "\x9b31m", "\x7f", "a\rb"])
def test_a_document_tells_the_terminal_nothing(text: str) -> None:
    stream = Stream(io.StringIO())
    stream.print(f"Malaria{text}\r\n\tnets", style="bold", markup=False)
    assert isinstance(stream.file, io.StringIO)
    found = stream.file.getvalue()
    assert "Malaria\ufffd" in found or "a\ufffdb" in found
    assert "\n\tnets" in found or "\n        nets" in found
    assert not {"\x1b", "\x07", "\x9b", "\x7f", "\r"} & set(found)


def test_a_reader_that_has_gone_is_told_apart_from_a_failure() -> None:
    """Typer makes exit code 1 of a broken pipe that has its number."""
    end, other = os.pipe()
    os.close(end)
    with os.fdopen(other, "w") as gone:
        terminal = Terminal(Stream(gone), Stream(io.StringIO()))
        with pytest.raises(BrokenPipeError) as raised:
            terminal.json({})
        assert raised.value.errno is None
        with pytest.raises(BrokenPipeError):
            gone.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())


@pytest.mark.usefixtures("home")
def test_the_last_logs_stay_and_those_of_processes_that_live() -> None:
    first = console.new_log("engine")
    alive = first.rename(first.with_name(f"engine-20200101-000000-{os.getppid()}.log"))
    gone = [first.with_name(f"engine-20200101-00000{second}-{2**22 + second}.log") for second in range(1, 9)]
    for log in gone:
        log.touch()
    logs = [console.new_log("engine") for _ in range(1)] + [first.with_name("engine-old.log")]
    logs[-1].touch()
    for _ in range(3):
        log = console.new_log("engine")
        log.rename(log.with_name(f"{log.stem[: -len(str(os.getpid()))]}{2**22 + 100 + _}.log"))
    left = sorted(first.parent.glob("engine-*.log"))
    assert alive in left
    assert len(left) <= console.KEPT_LOGS + 1
    assert gone[0] not in left


@pytest.mark.usefixtures("home")
def test_a_folder_for_logs_that_cannot_be_written_is_one_line() -> None:
    folder = console.new_log("engine").parent
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.raises(StorageError, match=str(folder)):
        console.new_log("engine")


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
