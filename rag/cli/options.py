"""Options that every command takes, before or after its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rag.cli.ask import Asked
    from rag.settings import Loaded

_PANEL = "Settings"

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        help="Bundle of techniques: auto, auto-cpu, auto-gpu, v3, v3_1, v3_2, or a YAML file (auto chooses by device; v3, v3_1 and "
        "v3_2 are those whose latency was published). [dim]default: auto[/dim]",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        help="Which weights: auto, embedded, qwen3-8b, qwen2.5-7b, remote, or a YAML file. [dim]default: auto[/dim]",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, e.g. generator.max_tokens=256; repeatable. `rag config` lists them.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
IndexName = Annotated[
    str | None, typer.Option("--index", "-i", metavar="NAME", help="Which index.", show_default="default")
]
Sample = Annotated[bool, typer.Option("--sample", help="Use the corpus that ships with rag; indexed at first use.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help='What the sources have to meet, e.g. [cyan]year>=2020 and journal~"Lancet" and not retracted[/cyan].',
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what vLLM and other libraries log.", rich_help_panel=_PANEL)
]


@dataclass(frozen=True, slots=True)
class Common:
    """What stood before the command's name. A server that reads somebody else's command line adds that one's environment, and
    takes the question (`take`) in place of answering it at once."""

    profile: str | None = None
    models: str | None = None
    assignments: tuple[str, ...] = ()
    verbose: bool = False
    environ: Mapping[str, str] | None = None
    take: Callable[[Asked], None] | None = None


def load(
    context: typer.Context,
    profile: str | None,
    models: str | None,
    assignments: list[str] | None,
    index_name: str | None = None,
) -> Loaded:
    """Settings from both places; what stands after the command wins.

    Raises `SettingsError`.
    """
    import json

    from rag import settings

    before = context.ensure_object(Common)
    named = (f"index.name={json.dumps(index_name)}",) if index_name is not None else ()
    return settings.load(
        next((name for name in (profile, before.profile) if name is not None), "auto"),
        next((name for name in (models, before.models) if name is not None), "auto"),
        (*before.assignments, *(assignments or ()), *named),
        environ=before.environ,
    )


def choose_index(index_name: str | None, sample: bool) -> str | None:
    """Raises `UsageError` where both are given, or the name is none."""
    from rag.build import SAMPLE
    from rag.errors import UsageError
    from rag.settings import INDEX_NAME

    if index_name is not None and not re.fullmatch(INDEX_NAME, index_name):
        raise UsageError(f"--index {index_name}: a name has small letters, digits, dots and dashes, e.g. my-papers.")

    if sample and index_name not in (None, SAMPLE):
        raise UsageError(f"--sample and --index {index_name} name two indexes: give one of them.")
    return SAMPLE if sample else index_name


def check_where(where: str | None) -> None:
    """Before anything is loaded. Raises `UsageError`."""
    from rag.where import parse

    if where is not None:
        parse(where)
