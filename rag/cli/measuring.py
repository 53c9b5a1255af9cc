"""How a benchmark is run from the command line: samples and figures in its folder, what libraries print in a log file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rag.cli.console import Terminal
    from rag.figures import Figure
    from rag.progress import Progress
    from rag.settings import Loaded

    class Bench(Protocol):
        """A module of `rag.bench`."""

        BENCH: str

        def summarise(self, folder: Path) -> list[Figure]: ...

    Draw = Callable[[Sequence[Figure], Path, Terminal], None]
    """Shows the figures of a folder."""

CACHE_ANEW = "cache.keep=false"
"""What an earlier run has found would be this one's speed."""


def run(
    bench: Bench,
    loaded: Loaded,
    measure: Callable[[Path, Progress], None],
    output: Path | None,
    report_only: bool,
    as_json: bool,
    verbose: bool,
    draw: Draw | None = None,
) -> None:
    """Measure, unless `report_only`, and report: by a line a figure, or as `draw` does it. Raises what `measure` and the
    benchmark's `summarise` raise."""
    from rag import files
    from rag.cli.console import library_output, naming_log

    results = folder(output, loaded.device, bench.BENCH)
    with library_output(verbose) as (terminal, log):
        if not report_only:
            before, aside = _written(results), _aside(results)
            try:
                with files.only_writer(results), terminal.count("preparing") as progress, naming_log(log, loaded):
                    measure(results, progress)
            finally:
                for path in sorted(_aside(results) - aside):
                    terminal.err.print(f"Set aside as another run's: {path} ({_why(results, path)}).", markup=False)
            if _written(results) == before:
                terminal.err.print(f"All samples were there already. Remove {results} to measure again.", markup=False)
        show(bench.summarise(results), results, terminal, as_json, draw)


def _written(folder: Path) -> bytes | None:
    from rag.bench.results import SAMPLES

    path = folder / SAMPLES
    return path.read_bytes() if path.is_file() else None


def _aside(folder: Path) -> set[Path]:
    from rag.bench.results import Samples

    return set(Samples(folder).aside())


def _why(folder: Path, aside: Path) -> str:
    """The first of what differs."""
    from rag.bench.results import SAMPLES, differences, header_of

    changes = differences(header_of(aside), header_of(folder / SAMPLES))
    name, was, now = changes[0]
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{name} was {was}, and is {now}{more}"


def folder(output: Path | None, device: str, bench: str) -> Path:
    return output if output is not None else Path("eval/results") / ("cpu" if device == "cpu" else "gpu") / bench


def command() -> str:
    return shlex.join(["rag", *sys.argv[1:]])


def show(figures: Sequence[Figure], written: Path, terminal: Terminal, as_json: bool, draw: Draw | None = None) -> None:
    """`written` is where they are."""
    from dataclasses import asdict

    if as_json:
        terminal.json([asdict(figure) for figure in figures])
        return
    (draw if draw is not None else lines)(figures, written, terminal)
    terminal.err.print(f"Samples and figures: {written}", style="dim", markup=False)


def lines(figures: Sequence[Figure], written: Path, terminal: Terminal) -> None:
    """One a figure."""
    del written
    for figure in figures:
        goal = "" if figure.goal is None else f"  goal {figure.goal}: {'met' if figure.met else 'NOT met'}"
        terminal.out.print(
            f"{figure.name:28} {figure.value:8.3f} {figure.unit}{figure.interval('  [{:.3f}, {:.3f}]')}  n={figure.n}{goal}",
            markup=False,
        )
