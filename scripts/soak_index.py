"""An index under attack: `rag index` killed at any moment, bytes changed in its files, readers while it is updated.

    python scripts/soak_index.py [--kills 1000] [--changes 10000] [--updates 100]

Goes on where it was interrupted. Counts go to eval/results/cpu/index/soak.json; exit code 1 where anything failed.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rag.bench import soak
from rag.cli import ending
from rag.cli.console import library_output
from rag.cli.measuring import show


def main(
    kills: Annotated[int, typer.Option(min=0, help="Processes of rag index that are killed.")] = 1000,
    changes: Annotated[int, typer.Option(min=0, help="Bytes that are changed, one at a time.")] = 10_000,
    updates: Annotated[int, typer.Option(min=0, help="Updates while readers search.")] = 100,
    readers: Annotated[int, typer.Option(min=1, max=64, help="Readers.")] = 8,
    # A third of them changes at a time: more than a batch, so that a killed run leaves several parts.
    documents: Annotated[int, typer.Option(min=3, help="Documents of the corpus.")] = 1600,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of samples and counts.")] = Path(
        "eval/results/cpu/index"
    ),
    report_only: Annotated[bool, typer.Option("--report-only", help="Count the samples there again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """Kill, change and read an index while it is written."""
    with library_output(verbose=False) as (terminal, _):
        if not report_only:
            command = shlex.join(["python", "scripts/soak_index.py", *sys.argv[1:]])
            with terminal.count("preparing") as progress:
                soak.measure(output, documents, soak.Workload(kills, changes, updates, readers), command, progress)
        figures = soak.summarise(output)
        show(figures, output / soak.SUMMARY, terminal, as_json)
    if any(figure.met is False and figure.goal == "<= 0" for figure in figures):
        raise typer.Exit(1)


if __name__ == "__main__":
    ending.run_script(main)
