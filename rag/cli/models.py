"""`rag models`: the models that `rag` can build by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import options

if TYPE_CHECKING:
    from rag.models import ModelStatus

app = typer.Typer(help="List, build and inspect the models that need no hub.", no_args_is_help=True)


@app.command(name="list")
def list_models(as_json: options.Json = False) -> None:
    """The recipes, and which of them are built on this machine."""
    from rag.cli.console import Terminal
    from rag.models import ModelStore

    terminal = Terminal()
    statuses = ModelStore().list()
    if as_json:
        terminal.json(
            [
                {"name": s.name, "built": s.built, "folder": str(s.folder), **s.recipe.model_dump(mode="json")}
                for s in statuses
            ]
        )
        return
    for status in statuses:
        mark = "built    " if status.built else "not built"
        terminal.out.print(f"{status.name:24} {mark}  {status.recipe.description}", markup=False)


@app.command()
def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Which; all that can be where left out.", show_default=False),
    ] = None,
) -> None:
    """Build models into this machine's cache. What is built already is left as it is."""
    from rag.build import model_store
    from rag.cli.console import Terminal, library_output

    store = model_store()
    for name in names or [status.name for status in store.list()]:
        if not names and (reason := store.left_out(name)) is not None:
            Terminal().err.print(f"{name}: {reason}", markup=False)
            continue
        with library_output(verbose=False) as (terminal, _):
            with terminal.step(name) as report:
                folder = store.build(name, report)
            terminal.out.print(f"{name}: {folder}", markup=False)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A recipe's name.")], as_json: options.Json = False) -> None:
    """A recipe in full; checks every built file's SHA-256."""
    from rag.cli.console import Terminal
    from rag.models import ModelStore

    terminal = Terminal()
    store = ModelStore()
    status = store.status(name)
    if status.built:
        store.verify(name)
    if as_json:
        terminal.json(
            {
                "name": status.name,
                "built": status.built,
                "folder": str(status.folder),
                "model_card": str(status.card) if status.card is not None else None,
                **status.recipe.model_dump(mode="json"),
            }
        )
        return
    for key, value in _facts(status):
        terminal.out.print(f"{key:12} {value}", markup=False)


def _facts(status: ModelStatus) -> Iterator[tuple[str, object]]:
    """What a recipe says, for people; parts that it lacks are left out."""
    recipe = status.recipe
    yield "name", status.name
    yield "built", "yes" if status.built else "no"
    yield "folder", status.folder
    if status.card is not None:
        yield "model card", status.card
    for key in ("description", "kind", "licence", "origin", "base", "format"):
        yield key, getattr(recipe, key)
    if recipe.layers is not None:
        yield "layers", f"{', '.join(map(str, recipe.layers))} of the base"
    if recipe.adapter is not None:
        yield "adapter", f"{recipe.adapter.file}, rank {recipe.adapter.rank}, alpha {recipe.adapter.alpha:g}"
    if recipe.head is not None:
        yield "head", ", ".join(recipe.head.labels)
    yield "disk_mb", recipe.disk_mb
    for key, value in recipe.training.items():
        yield "training", f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
    adapter = {recipe.adapter.file: recipe.adapter.sha256} if recipe.adapter is not None else {}
    for key, digests in (("files", recipe.files), ("adapter", adapter), ("produces", recipe.produces)):
        for file, digest in digests.items():
            yield key, f"{digest}  {file}"
