"""Where output goes: results to standard output, progress to standard error, libraries' chatter to a log file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rag.core import Clock
from rag.errors import EngineError

if TYPE_CHECKING:
    from rag.settings import Loaded

KEPT_LOGS = 10

CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")}, "\ufffd")

EVERY = 30.0
"""Seconds between two lines about a counted job where there is no terminal to draw a bar on."""


def printable(text: str) -> str:
    """Without what a terminal would take for a command: a document, or a server, may say anything."""
    return text.replace("\r\n", "\n").translate(CONTROLS)


class Stream(Console):
    """A console that writes text as it is, but for control characters, and lets `main` see that its reader has gone."""

    def __init__(self, file: TextIO, environ: Mapping[str, str] | None = None) -> None:
        """`environ` is the reader's where that isn't this process's: colours and size depend on it."""
        super().__init__(file=file, highlight=False, soft_wrap=True, _environ=environ)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@dataclass(frozen=True, slots=True)
class Terminal:
    """The two streams as they were at the start, whatever libraries do to theirs."""

    out: Stream = field(default_factory=lambda: Stream(sys.stdout))
    err: Stream = field(default_factory=lambda: Stream(sys.stderr))

    def json(self, value: object) -> None:
        import json

        with _reader_gone():
            self.out.file.write(json.dumps(value, ensure_ascii=False) + "\n")
            self.out.file.flush()

    @contextmanager
    def step(self, first: str) -> Iterator[StepReport]:
        """A spinner with elapsed seconds; without a terminal, one line a step."""
        with self._progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
            yield StepReport(self.err, progress, progress.add_task(first))

    @contextmanager
    def count(self, first: str) -> Iterator[CountReport]:
        """A bar a job with its share done, its note and the time left; without a terminal lines, with `EVERY` seconds between."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with self._progress(*columns, TextColumn("{task.fields[note]}"), TimeRemainingColumn()) as progress:
            yield CountReport(self.err, progress, progress.add_task(first, total=None, note=""))

    def _progress(self, *columns: ProgressColumn) -> Progress:
        return Progress(
            *columns,
            console=self.err,
            transient=True,
            # Else rich shows above its bar what libraries print, which belongs in the log.
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self.err.is_terminal,
        )


class StepReport:
    """What is being done, once; how far it is goes untold."""

    def __init__(self, err: Console, progress: Progress, task: TaskID) -> None:
        self._err, self._progress, self._task = err, progress, task
        self._what = ""

    def __call__(self, what: str, *_: object) -> None:
        if what == self._what:
            return
        self._what = what
        self._progress.update(self._task, description=what)
        if not self._err.is_terminal:
            self._err.print(f"{what} ...", style="dim", markup=False)


class CountReport:
    """What is being done, and how far it is where that can be counted."""

    def __init__(self, err: Console, progress: Progress, task: TaskID, clock: Clock = time.monotonic) -> None:
        self._err, self._progress, self._task, self._clock = err, progress, task, clock
        self._what = ""
        self._began = self._said = clock()
        self._before = 0

    def __call__(self, what: str, done: int = 0, total: int = 0, note: str = "") -> None:
        now = self._clock()
        fresh = what != self._what
        if fresh:
            # A job that goes on where another run stopped begins with what that one did: it tells nothing of the speed.
            self._what, self._began, self._before = what, now, done
            self._progress.reset(
                self._task, description=what, completed=done, total=total if total else None, note=note
            )
        else:
            self._progress.update(self._task, completed=done, total=total if total else None, note=note)
        if not self._err.is_terminal and (fresh or now - self._said >= EVERY):
            self._said = now
            beside = f", {note}" if note else ""
            self._err.print(f"{what}{self._far(done, total, now)}{beside} ...", style="dim", markup=False)

    def _far(self, done: int, total: int, now: float) -> str:
        if not total:
            return ""
        taken = done - self._before
        left = f", {(now - self._began) / taken * (total - done) / 60:.1f} min left" if taken else ""
        return f": {done:,} of {total:,}{left}"


@contextmanager
def _reader_gone() -> Iterator[None]:
    """Typer makes exit code 1 of a `BrokenPipeError` that has its number, before `main` sees it."""
    try:
        yield
    except BrokenPipeError:
        raise BrokenPipeError from None


@contextmanager
def library_output(verbose: bool) -> Iterator[tuple[Terminal, Path | None]]:
    """Send what libraries and child processes write to a log file, and keep both streams for us.

    File descriptors are redirected, not `sys.stdout`, since vLLM's processes inherit descriptors. With
    `verbose` they go to standard error instead, so that standard output holds results alone.
    """
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    streams = [os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") for descriptor in saved]
    terminal = Terminal(*map(Stream, streams))
    sys.stdout.flush()
    sys.stderr.flush()
    path = None if verbose else new_log("engine")
    target = saved[1] if path is None else os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(target, 1)
    if path is not None:
        os.dup2(target, 2)
        os.close(target)
    try:
        yield terminal, path
    finally:
        try:
            with _reader_gone():
                for stream in (sys.stdout, sys.stderr, *streams):
                    stream.flush()
        finally:
            for descriptor, kept in zip((1, 2), saved, strict=True):
                os.dup2(kept, descriptor)


@contextmanager
def naming_log(log: Path | None, loaded: Loaded) -> Iterator[None]:
    """An `EngineError` from the block says where the lines of an engine of ours are."""
    try:
        yield
    except EngineError as error:
        ours = log is not None and loaded.settings.generator.base_url is None
        raise type(error)(f"{error} vLLM's log: {log}" if ours else str(error)) from error


def new_log(kind: str) -> Path:
    """A new file among the logs of its kind, of which the last `KEPT_LOGS` stay, and those of processes that live."""
    import psutil

    from rag import files, paths

    folder = paths.logs_dir()
    log = folder / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    with files.explaining_storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        log.touch(mode=0o600)
    for old in sorted(folder.glob(f"{kind}-*.log"))[:-KEPT_LOGS]:
        if not psutil.pid_exists(_pid(old)):
            with suppress(OSError):
                old.unlink(missing_ok=True)
    return log


def _pid(log: Path) -> int:
    """Of the process that writes it; -1 for a file of another name."""
    number = log.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1
