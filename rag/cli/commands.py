"""All commands under one name. Heavy imports happen inside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from rag import __version__
from rag.cli import ask, batch, bench, cache, chat, config, doctor, index, models, options, search, serve, variants
from rag.cli import eval as evaluation
from rag.cli.ending import run

app = typer.Typer(
    name="rag",
    help="Answers questions over a literature corpus, with citations and a time for every stage.",
    epilog='Try it: rag ask --sample "What causes malaria?"',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rag {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    del version
    outer = context.ensure_object(options.Common)
    context.obj = replace(
        outer, profile=profile, models=models_file, assignments=tuple(assignments or ()), verbose=verbose
    )


app.command(name="ask")(ask.ask)
app.command(name="chat")(chat.chat)
app.command(name="batch")(batch.batch)
app.command(name="search")(search.search)
app.add_typer(cache.app, name="cache")
app.add_typer(index.app, name="index")
app.add_typer(models.app, name="models")
bench.app.command(name="breakdown")(variants.breakdown)
bench.app.command(name="sweep")(variants.sweep)
bench.app.command(name="cache")(variants.cache)
bench.app.command(name="batch")(variants.batch)
app.add_typer(bench.app, name="bench")
app.add_typer(evaluation.app, name="eval")
app.command(name="config")(config.config)
app.command(name="doctor")(doctor.doctor)
app.command(name="serve")(serve.serve)
app.command(name="stop")(serve.stop)
app.command(name="status")(serve.status)


def main() -> None:
    run(app, "rag")
