"""How a command line ends, that of `rag` and those of scripts/: an error of ours is one line, and its exit code says which."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from rag.errors import RagError


def run(app: Callable[[], object], name: str) -> None:
    try:
        app()
    except RagError as error:
        from rag.cli.console import printable

        typer.echo(f"{name}: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `rag ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def run_script(script: Callable[..., None]) -> None:
    """Its arguments are the options of its command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(script)
    run(app, Path(sys.argv[0]).name)
