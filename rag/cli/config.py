"""`rag config`: the effective settings, where each value comes from, and what it means."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from rag.cli import options

if TYPE_CHECKING:
    from rag.cli.console import Stream


def config(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Argument(help="Only keys that start with this, e.g. generator.", show_default=False)
    ] = "",
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
) -> None:
    """Print the effective settings, where each value comes from, and what it means."""
    from rag.cli.console import Terminal
    from rag.errors import SettingsError
    from rag.settings import describe, nearest

    loaded = options.load(context, profile, models_file, assignments)
    terminal = Terminal()
    rows = [(key, value, loaded.origin(key).name) for key, value in loaded.leaves() if key.startswith(prefix)]
    if not rows:
        known = nearest(prefix, [key for key, _ in loaded.leaves()])
        raise SettingsError(f"No setting starts with {prefix!r}.{known} `rag config` lists all of them.")
    if as_json:
        terminal.json(
            {
                "profile": loaded.profile,
                "models": loaded.models,
                "device": loaded.device,
                "settings": {
                    key: {"value": _plain(value), "origin": origin, "meaning": describe(key)}
                    for key, value, origin in rows
                },
            }
        )
        return
    terminal.out.print(f"profile {loaded.profile}, models file {loaded.models}, device {loaded.device}", style="bold")
    show([(key, _written(value), origin) for key, value, origin in rows], terminal.out)


def show(table: Sequence[tuple[str, str, str]], out: Stream) -> None:
    """Key, value and origin, each setting's meaning beside them, or on a line below where there is no room, as in a pipe."""
    from rag.settings import describe

    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    wide = out.is_terminal and out.width > sum(widths) + 50
    for cells in table:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
        style = None if cells[2] == "default" else "cyan"
        meaning = describe(cells[0])
        out.print(f"{line}  {meaning}" if wide else line.rstrip(), style=style, markup=False)
        if not wide:
            out.print(f"    {meaning}", style="dim", markup=False)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _written(value: object) -> str:
    """As `--set` and a YAML file take it: null and true, and quotes around a text that would be read as another value."""
    text: str = yaml.safe_dump(_plain(value), default_flow_style=True, allow_unicode=True, width=sys.maxsize)
    return text.removesuffix("...\n").strip()
