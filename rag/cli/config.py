"""`rag config`: the effective settings and where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

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
    from rich.table import Table
    from rich.text import Text

    from rag.cli.console import Terminal
    from rag.errors import SettingsError
    from rag.settings import describe

    loaded = options.load(context, profile, models_file, assignments)
    terminal = Terminal()
    rows = [(key, value, loaded.origin(key).name) for key, value in loaded.leaves() if key.startswith(prefix)]
    if not rows:
        raise SettingsError(f"No setting starts with {prefix!r}; `rag config` lists all of them.")
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
    wide = terminal.out.is_terminal and terminal.out.width >= 120
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("setting", "value", "from"):
        table.add_column(name, no_wrap=True)
    if wide:
        table.add_column("meaning")
    for key, value, origin in rows:
        cells = [key, str(_plain(value)), origin, *([describe(key)] if wide else [])]
        table.add_row(*map(Text, cells), style=None if origin == "default" else "cyan")
    terminal.out.print(
        table, soft_wrap=False, crop=False, width=terminal.out.width if terminal.out.is_terminal else 200
    )


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value
