"""`rag bench`: what each thing costs and gains on this machine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import options

if TYPE_CHECKING:
    from rag.bench.results import Figure
    from rag.cli.console import Terminal

app = typer.Typer(help="Measure on this machine; samples and report go to eval/results/.", no_args_is_help=True)

Results = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for samples and report.", show_default="eval/results/DEVICE/BENCH"),
]
ReportOnly = Annotated[bool, typer.Option("--report-only", help="Compute the report again from the samples there.")]


@app.command()
def start(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of bare, rag, bare.")] = 7,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
) -> None:
    """Process start to first token, against a bare vLLM script with the same arguments and prompt."""
    from rag.bench import start as bench
    from rag.cli.console import Terminal

    loaded = options.load(context, profile, models_file, assignments)
    folder = _folder(output, loaded.device, bench.BENCH)
    terminal = Terminal()
    if not report_only:
        with terminal.step("preparing") as report:
            bench.measure(loaded, folder, rounds, _command(), report)
    figures = bench.summarise(folder)
    _show(figures, folder, terminal, as_json)


def _folder(output: Path | None, device: str, bench: str) -> Path:
    return output if output is not None else Path("eval/results") / ("cpu" if device == "cpu" else "gpu") / bench


def _command() -> str:
    return shlex.join(["rag", *sys.argv[1:]])


def _show(figures: Sequence[Figure], folder: Path, terminal: Terminal, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        terminal.json([asdict(figure) for figure in figures])
        return
    for figure in figures:
        goal = "" if figure.goal is None else f"  goal {figure.goal}: {'met' if figure.met else 'NOT met'}"
        terminal.out.print(
            f"{figure.name:28} {figure.value:8.3f} {figure.unit}  [{figure.lo:.3f}, {figure.hi:.3f}]  n={figure.n}{goal}",
            markup=False,
        )
    terminal.err.print(f"Samples, summary.json and report.md: {folder}", style="dim", markup=False)
