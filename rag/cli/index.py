"""`rag index`: a corpus becomes searchable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import options

if TYPE_CHECKING:
    from rag.ingest import LeftOut

SHOWN = 20
"""Skipped files and lines that are named one by one."""


def build(
    context: typer.Context,
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...",
            help="Files and folders: PubMed and JATS XML, PDF, HTML, DOCX, JSONL, text, Markdown; each also .gz.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Index the corpus that ships with rag.")] = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Index a corpus. The index that was there before stays in use until the new one is complete.

    What can't be read is skipped, and named with its reason on standard error. With --sample, nothing is done where the
    index of the shipped corpus is up to date.
    """
    from rag import build as building
    from rag import paths
    from rag.cli.console import StepReport, library_output
    from rag.errors import UsageError
    from rag.index import folder_size

    if sample == bool(sources):
        wanted = "either files and folders, or --sample" if sample else "the files and folders to index, or --sample"
        raise UsageError(f"Give {wanted} for the corpus that ships with rag.")
    loaded = options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    with library_output(verbose or context.obj.verbose) as (terminal, _):
        with terminal.bar() as bar:
            task = bar.add_task("preparing", total=None, rate="")
            report = StepReport(terminal.err, bar, task)
            began: list[float] = []

            def update(done: int, total: int, passages: int) -> None:
                rate = passages / max(1e-9, time.monotonic() - began[0])
                bar.update(task, completed=done, total=total, rate=f"{passages:,} passages, {rate:,.0f}/s")

            def step(what: str) -> None:
                began.append(time.monotonic())
                report(what)

            progress = building.Progress(update, step)
            if sample:
                built = building.ensure_sample_index(loaded, progress)
            else:
                built = building.build_index(loaded, list(sources or []), progress)
        if built is None:
            terminal.err.print("The sample index is up to date.")
            return
        contents, left_out = built.manifest, built.left_out
        size = folder_size(paths.indexes_dir() / built.name / "versions" / built.version)
        if as_json:
            manifest = asdict(contents)
            manifest.pop("files")
            terminal.json(
                {
                    "index": built.name,
                    "version": built.version,
                    "seconds": built.seconds,
                    "bytes": size,
                    "skipped": [asdict(one) for one in left_out.skipped],
                    "left_out": dict(left_out.counts),
                    "deleted": sorted(left_out.deleted),
                    **manifest,
                }
            )
        else:
            terminal.out.print(
                f"Index {built.name!r} version {built.version}: {contents.documents:,} documents, {contents.passages:,} passages, "
                f"{size / 1e6:.1f} MB, in {built.seconds:.1f} s ({contents.model}, {contents.dense}).",
                markup=False,
            )
        for line in _losses(left_out):
            terminal.err.print(line, style="yellow", markup=False)


def _losses(left_out: LeftOut) -> Iterator[str]:
    for one in left_out.skipped[:SHOWN]:
        yield f"Skipped {one.where}: {one.reason}"
    if (more := len(left_out.skipped) - SHOWN) > 0:
        yield f"Skipped {more:,} more; --json lists them all."
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.counts.items()) if count)
    if kinds:
        yield f"Left out: {kinds}."
