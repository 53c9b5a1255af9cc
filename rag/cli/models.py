"""`rag models`: the models that `rag` can build by itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rag.cli import options

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
            [{"name": s.name, "built": s.built, "folder": str(s.folder), **s.recipe.model_dump()} for s in statuses]
        )
        return
    for status in statuses:
        mark = "built    " if status.built else "not built"
        terminal.out.print(f"{status.name:24} {mark}  {status.recipe.description}", markup=False)


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all where left out.", show_default=False)] = None,
) -> None:
    """Build models into this machine's cache. What is built already is left as it is."""
    from rag.cli.console import library_output
    from rag.models import ModelStore

    store = ModelStore()
    for name in names or [status.name for status in store.list()]:
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
    facts: dict[str, Any] = {
        "name": status.name,
        "built": status.built,
        "folder": str(status.folder),
        **status.recipe.model_dump(exclude={"files", "produces"}),
        "files": dict(status.recipe.files),
        "produces": dict(status.recipe.produces),
    }
    if as_json:
        terminal.json(facts)
        return
    base = status.recipe.base
    facts |= {"built": "yes" if status.built else "no", "base": f"{base.path} of the wheel {base.wheel}"}
    for key, value in facts.items():
        if isinstance(value, dict):
            for file, digest in value.items():
                terminal.out.print(f"{key:12} {digest}  {file}", markup=False)
        else:
            terminal.out.print(f"{key:12} {value}", markup=False)
