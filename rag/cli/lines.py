"""Lines that somebody types, edited and remembered by readline; or those of a pipe."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rag.cli.ask import keep_odd_bytes

if TYPE_CHECKING:
    from rag.cli.console import Terminal

PROMPT = "> "

REMEMBERED = 1000
"""Lines of the history file."""


@contextmanager
def reading(terminal: Terminal, interactive: bool) -> Iterator[Callable[[], str | None]]:
    """Gives what reads a line, without its end; None where there is none left."""
    with ExitStack() as stack:
        # Python's input() leaves editing to readline only where both ends are a terminal.
        if interactive and terminal.out.is_terminal:
            stack.enter_context(_remembering())
            yield lambda: _edited(terminal)
        else:
            keep_odd_bytes()
            yield lambda: _plain(terminal if interactive else None)


def _plain(prompted: Terminal | None) -> str | None:
    if prompted is not None:
        prompted.err.print(PROMPT, end="")
        prompted.err.file.flush()
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _edited(terminal: Terminal) -> str | None:
    """readline writes to descriptor 1, which holds what libraries print (`library_output`): it is the terminal meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(terminal.out.file.fileno(), 1)
    try:
        return input(PROMPT)
    except EOFError:
        terminal.out.print()
        return None
    except KeyboardInterrupt:
        terminal.out.print()
        raise
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _remembering() -> Iterator[None]:
    """Lines that were typed before are there again, in a file that this user alone can read."""
    from rag import files, paths

    if importlib.util.find_spec("readline") is None:  # a Python that was built without it
        yield
        return
    import readline

    path = paths.state_dir() / "chat_history"
    with files.explaining_storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    with suppress(OSError):  # libedit refuses an empty file, and one that readline wrote
        readline.read_history_file(path)
    readline.set_history_length(REMEMBERED)
    before = readline.get_current_history_length()
    try:
        yield
    finally:
        _append(path, readline.get_current_history_length() - before)


def _append(path: Path, lines: int) -> None:
    """Beside those that another session has written meanwhile."""
    import readline

    with suppress(OSError, AttributeError):  # a Python over libedit may lack it
        readline.append_history_file(lines, path)
