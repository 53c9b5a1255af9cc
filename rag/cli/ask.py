"""`rag ask`: one question, one cited answer."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import options
from rag.cli.rendering import Streaming, from_cache, idle, show_source, time_line, warnings
from rag.core import Answer
from rag.errors import QuestionError

if TYPE_CHECKING:
    from rag.cli.console import Terminal
    from rag.core import Prompt
    from rag.pipeline import Pipeline
    from rag.settings import Action, Loaded

ABSTAINED = 3


def ask(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUESTION", help="The question; left out or -, it is read from standard input.", show_default=False
        ),
    ] = None,
    where: options.Where = None,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Show what the model reads, too.")] = False,
    as_json: options.Json = False,
    server: Annotated[
        bool, typer.Option(help="Let a server answer that is up for the same settings (rag serve).")
    ] = True,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Answer a question from the index, with citations and the time of every stage.

    Exit code 0: answered; 3: the sources don't hold or support the answer; 2: wrong usage; 1: failed.
    """
    del server  # rag.cli.client has looked at it
    loaded = options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    options.check_where(where)
    common: options.Common = context.obj
    words = None if words == ["-"] else words
    asked = Asked(
        " ".join(words) if words else None, where, loaded, sample, show_prompt, as_json, verbose or common.verbose
    )
    if common.take is not None:
        common.take(asked)
    else:
        raise typer.Exit(_answer(asked))


@dataclass(frozen=True, slots=True)
class Asked:
    """A command line that was understood. Without a `question` it stands on standard input."""

    question: str | None
    where: str | None
    loaded: Loaded
    sample: bool
    show_prompt: bool
    as_json: bool
    verbose: bool


def _answer(asked: Asked) -> int:
    from rag.cli.console import library_output, naming_log
    from rag.cli.run import run
    from rag.pipeline import check_question

    question = check_question(asked.question if asked.question is not None else _from_stdin())
    with library_output(asked.verbose) as (terminal, log), naming_log(log, asked.loaded):
        return run(_ask(question, asked, terminal))


def _from_stdin() -> str:
    from rag.pipeline import MAX_QUESTION

    require_input(sys.stdin.isatty())
    keep_odd_bytes()
    return sys.stdin.read(4 * MAX_QUESTION)


def keep_odd_bytes() -> None:
    """What on standard input isn't UTF-8 is read as surrogates, as it is in arguments, so that `check_question` finds it."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def require_input(is_terminal: bool) -> None:
    """Raises `QuestionError` where standard input is a terminal: nobody has been told to type there."""
    if is_terminal:
        raise QuestionError('No question given. Ask one: rag ask "What causes malaria?"')


async def _ask(question: str, asked: Asked, terminal: Terminal) -> int:
    from rag.cli.opening import opened

    async with opened(asked.loaded, asked.sample, terminal) as pipeline:
        return await show(pipeline, question, asked, terminal)


async def show(
    pipeline: Pipeline, question: str, asked: Asked, terminal: Terminal, answered_by: str | None = None
) -> int:
    """Stream the answer to a terminal, this process's or another's; the exit code. `answered_by` ends the line of times.

    Raises what `Pipeline.stream` raises.
    """
    from rag.pipeline import answer_json

    prompt: Prompt | None = None

    def searched(read: Prompt | None) -> None:
        nonlocal prompt
        prompt = read
        if asked.show_prompt and not asked.as_json:
            _show_prompt(prompt, terminal)

    answer = await Streaming(terminal, asked.as_json).answer(pipeline, question, asked.where, searched)
    if asked.as_json:
        terminal.json(answer_json(answer, prompt, asked.show_prompt))
        if answered_by is not None:
            terminal.err.print(answered_by, style="dim", markup=False)
    else:
        _show(answer, asked.loaded.settings.verify.action, terminal, answered_by)
    return ABSTAINED if answer.abstained else 0


def _show_prompt(prompt: Prompt | None, terminal: Terminal) -> None:
    for message in prompt.messages if prompt is not None else ():
        terminal.err.print(message["role"], style="bold dim")
        terminal.err.print(message["content"].rstrip() + "\n", style="dim", markup=False)


def _show(answer: Answer, action: Action, terminal: Terminal, answered_by: str | None) -> None:
    """What stands below an answer's text."""
    out = terminal.out
    if answer.citations:
        out.print("\nSources", style="bold")
        for citation in answer.citations:
            origin = "" if citation.origin == "model" else " (attributed by word overlap)"
            out.print(f"  [{citation.marker}] {citation.title}  ({citation.doc_id}){origin}", markup=False)
            show_source(citation.metadata, out, 6)
    for line in warnings(answer, action):
        terminal.err.print(line, style="yellow", markup=False)
    if (unused := idle(answer.engine)) is not None:
        terminal.err.print(unused, style="dim yellow", markup=False)
    if (served := from_cache(answer)) is not None:
        terminal.err.print(served, style="dim", markup=False)
    if answer.confidence is not None:
        terminal.err.print(f"confidence that the sources answer: {answer.confidence:.0%}", style="dim", markup=False)
    times = time_line(answer.timings, answer.tokens.output, answer.startup_s)
    terminal.err.print(times if answered_by is None else f"{times} · {answered_by}", style="dim", markup=False)
