"""`rag config`: the effective settings and where each value comes from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import typer
import yaml

from rag.cli import options


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
    """Print the effective settings and where each value comes from."""
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
                "settings": {key: {"value": _plain(value), "origin": origin} for key, value, origin in rows},
            }
        )
        return
    terminal.out.print(f"profile {loaded.profile}, models file {loaded.models}, device {loaded.device}", style="bold")
    table = [(key, _written(value), origin) for key, value, origin in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    wide = terminal.out.is_terminal and terminal.out.width > sum(widths) + 50
    for cells in table:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
        meaning = f"  {describe(cells[0])}" if wide else ""
        terminal.out.print(line + meaning, style=None if cells[2] == "default" else "cyan", markup=False)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _written(value: object) -> str:
    """As `--set` and a YAML file take it: null and true, and quotes around a text that would be read as another value."""
    text: str = yaml.safe_dump(_plain(value), default_flow_style=True, allow_unicode=True, width=sys.maxsize)
    return text.removesuffix("...\n").strip()
