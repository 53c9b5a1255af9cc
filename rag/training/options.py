"""What the training scripts take on the command line, and how they end: the same for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rag.errors import RagError

Folder = Annotated[Path, typer.Option(help="Checkpoints, adapter and curve; goes on after the last checkpoint in it.")]
Datasets = Annotated[Path | None, typer.Option("--datasets", help="The datasets' folder.", envvar="RAG_DATASETS")]
Examples = Annotated[int, typer.Option(min=64, help="Examples to train on.")]
HeldOut = Annotated[int, typer.Option(min=1, help="Held-out examples for the curve.")]
Index = Annotated[
    str | None,
    typer.Option(
        help="Index of MedQuAD that passages are searched in; left out, one is built.", show_default="bench-medquad"
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Stop after this many steps: a trial.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the examples, their order and the weights that are new.")]


def say(what: str) -> None:
    typer.echo(f"{what} ...", err=True)


def run(script: Callable[..., None]) -> None:
    """The script, with an error of ours as one line and its exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(script)
    try:
        app()
    except RagError as error:
        typer.echo(f"{Path(sys.argv[0]).name}: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
