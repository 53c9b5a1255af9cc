"""Lines from a pipe, and from somebody at a terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from rag.cli.console import Stream, Terminal
from rag.cli.lines import reading


def shown(terminal: Terminal) -> list[str]:
    files = [stream.file for stream in (terminal.out, terminal.err)]
    return [file.getvalue() for file in files if isinstance(file, io.StringIO)]


def test_lines_of_a_pipe_are_read_without_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\nlast"))
    terminal = Terminal(Stream(io.StringIO()), Stream(io.StringIO()))
    with reading(terminal, interactive=False) as read:
        assert [read(), read(), read(), read()] == ["one", "", "last", None]
    assert shown(terminal) == ["", ""]


def test_where_standard_output_is_no_terminal_the_prompt_goes_to_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n"))
    terminal = Terminal(Stream(io.StringIO()), Stream(io.StringIO()))
    with reading(terminal, interactive=True) as read:
        assert read() == "one"
    assert shown(terminal) == ["", "> "]


SESSION = """
from rag.cli.console import library_output
from rag.cli.lines import reading

with library_output(False) as (terminal, _), reading(terminal, True) as read:
    print("chatter of a library", flush=True)
    line = ""
    while line is not None:
        try:
            line = read()
        except KeyboardInterrupt:
            line = "interrupted"
        terminal.err.print(repr(line))
"""


def test_at_a_terminal_lines_are_edited_and_remembered_and_ctrl_c_throws_one_away(home: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION],
        preexec_fn=partial(os.login_tty, theirs),
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(theirs)
    seen = ""

    def waits_for(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < end, f"{text!r} isn't shown: {seen!r}"
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 4096).decode()
        seen = seen.partition(text)[2]

    try:
        waits_for("> ")
        for keys, answer in (
            ("half a line", "half a line"),
            ("\x03", "'interrupted'\r\n> "),
            ("helo\x7flo\n", "'hello'\r\n> "),
            ("\x1b[A", "hello"),  # the line before
            ("\n", "'hello'\r\n> "),
            ("\x04", "None\r\n"),
        ):
            time.sleep(0.5)  # Python's input() misses a signal in the moment between its prompt and its wait for keys
            os.write(ours, keys.encode())
            waits_for(answer)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    history = home / "state" / "chat_history"
    assert (history.read_text(), history.stat().st_mode & 0o777) == ("hello\n", 0o600)
