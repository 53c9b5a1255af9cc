"""`rag index`: a corpus becomes searchable, and stays so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rag.cli import options

if TYPE_CHECKING:
    from rag.build import Built
    from rag.cli.console import Terminal
    from rag.index import Changes, Versions
    from rag.ingest import LeftOut

SHOWN = 20
"""Skipped files and lines that are named one by one."""


class PathsOrCommand(TyperGroup):
    """What isn't a command's name is a path: `rag index PATH...` is `rag index build PATH...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["build", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=PathsOrCommand,
    help="Index a corpus: [cyan]rag index PATH...[/cyan], short for [cyan]rag index build PATH...[/cyan]; options: "
    "[cyan]rag index build --help[/cyan]. Indexes are kept in versions.",
    no_args_is_help=True,
)


@app.command(name="build")
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
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove the documents that aren't in these files and folders.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Begin with nothing, e.g. for another embedding model or chunk length.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another process that writes this index.")] = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Index files and folders, or what changed in them. The version before stays in use until the new one is complete.

    Documents that are there as they are aren't encoded again. An interrupted run goes on where it stopped. What can't be read
    is skipped, and named with its reason on standard error. With --sample, the index is made one of the shipped corpus as it is,
    whatever there was before, and another writer is waited for.
    """
    from rag import build as building
    from rag.cli.console import library_output
    from rag.errors import UsageError

    if sample == bool(sources):
        wanted = "either files and folders, or --sample" if sample else "the files and folders to index, or --sample"
        raise UsageError(f"Give {wanted} for the corpus that ships with rag.")
    loaded = options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    with library_output(verbose or context.obj.verbose) as (terminal, _):
        try:
            with terminal.count("preparing") as progress:
                built = building.ensure_sample_index(loaded, progress) if sample and not rebuild else None
                if built is None:
                    corpus = building.sample_corpus() if sample else list(sources or [])
                    built = building.build_index(
                        loaded, corpus, progress, prune=prune or sample, rebuild=rebuild, wait=wait or sample
                    )
        except KeyboardInterrupt:
            terminal.err.print("Interrupted. The same command goes on after what is encoded.", markup=False)
            raise
        _show(built, as_json, terminal)
        if prune and not built.pruned:
            why = "what was skipped may hold documents of the index. Move those files elsewhere, or begin anew with --rebuild."
            terminal.err.print(f"Nothing was pruned: {why}", style="yellow", markup=False)


def _show(built: Built, as_json: bool, terminal: Terminal) -> None:
    from rag.index import folder_size, versions_of

    contents, left_out = built.manifest, built.left_out
    size = folder_size(versions_of(built.name).folder(built.version))
    if as_json:
        manifest = asdict(contents)
        manifest.pop("files")
        terminal.json(
            {
                "index": built.name,
                "version": built.version,
                "seconds": built.seconds,
                "bytes": size,
                **asdict(built.changes),
                "pruned": built.pruned,
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
        terminal.out.print(_changed(built.changes, contents.documents, bool(left_out.skipped)), markup=False)
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


def _changed(changes: Changes, documents: int, skipped: bool) -> str:
    counts = {name: count for name, count in asdict(changes).items() if count}
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
    others = documents - changes.added - changes.changed - changes.unchanged
    way = "" if skipped else "; --prune removes that"
    kept = f" Kept, though nothing that was read has it: {others:,}{way}." if others else ""
    return f"Documents: {told}.{kept}"


@app.command(name="list")
def list_indexes(as_json: options.Json = False) -> None:
    """The indexes on this machine and their versions; the one in use is marked."""
    from rag import paths
    from rag.cli.console import Terminal
    from rag.index import all_versions

    terminal = Terminal()
    found = list(all_versions(paths.indexes_dir()))
    if as_json:
        terminal.json([asdict(one) for one in found])
        return
    for one in found:
        mark = "in use" if one.is_current else ""
        said = (
            f"{one.created}  {one.documents:>9,} documents  {one.passages:>9,} passages  {one.bytes / 1e6:>9.1f} MB"
            if one.problem is None
            else one.problem
        )
        terminal.out.print(f"{one.name:20} {one.version}  {mark:6}  {said}", markup=False)
    if not found:
        terminal.err.print("There is no index yet. Build one: rag index PATH, or rag index --sample.")


@app.command()
def verify(context: typer.Context, index_name: options.IndexName = None, as_json: options.Json = False) -> None:
    """Compare every file of every version with the checksum that was taken when it was written.

    Exit code 1 where one is damaged.
    """
    from rag.index import check

    terminal, versions = _opened(context, index_name)

    versions.current()
    problems = {version: check(versions, version) for version in versions.all()}
    if as_json:
        terminal.json({"index": versions.name, "versions": problems})
    else:
        for version, problem in problems.items():
            terminal.out.print(f"{versions.name} {version}  {problem or 'whole'}", markup=False)
    if any(problems.values()):
        raise typer.Exit(1)


@app.command()
def rollback(
    context: typer.Context,
    version: Annotated[
        str | None, typer.Argument(help="Which; the one before where left out.", show_default=False)
    ] = None,
    index_name: options.IndexName = None,
) -> None:
    """Go back to an earlier version. The last three are kept."""
    terminal, versions = _opened(context, index_name)
    chosen = versions.roll_back(version)
    terminal.out.print(f"Index {versions.name!r} is at version {chosen}.", markup=False)


@app.command()
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="An index's name.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Remove an index with all its versions."""
    from rag.server import state

    terminal, versions = _opened(context, name)
    if not yes and versions.root.is_dir():
        typer.confirm(f"Remove the index {name} with {len(versions.all())} versions?", abort=True, err=True)
    versions.remove()
    terminal.out.print(f"Index {name!r} is removed.", markup=False)
    for server in state.servers():
        if server.index == name:
            told = f"The server at http://{server.address} still answers from it: rag stop {server.pid}"
            terminal.err.print(told, style="yellow", markup=False)


def _opened(context: typer.Context, index_name: str | None) -> tuple[Terminal, Versions]:
    from rag.cli.console import Terminal
    from rag.index import versions_of

    loaded = options.load(context, None, None, None, options.choose_index(index_name, sample=False))
    return Terminal(), versions_of(loaded.settings.index.name)
