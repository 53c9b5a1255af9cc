"""`rag ask`: one question, one cited answer."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer

from rag.cli import options
from rag.core import Answer
from rag.errors import EngineError, QuestionError

if TYPE_CHECKING:
    from rag.cli.console import Terminal
    from rag.core import Message, StageTimings
    from rag.settings import Loaded

ABSTAINED = 3


def ask(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUESTION", help="The question; left out or -, it is read from standard input.", show_default=False
        ),
    ] = None,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Show what the model reads, too.")] = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Answer a question from the index, with citations and the time of every stage.

    Exit code 0: answered; 3: the sources don't hold the answer; 2: wrong usage; 1: failed.
    """
    from rag.cli.console import library_output
    from rag.cli.run import run
    from rag.pipeline import check_question

    loaded = options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    question = check_question(" ".join(words) if words and words != ["-"] else _from_stdin())
    with library_output(verbose or context.obj.verbose) as (terminal, log):
        try:
            code = run(_ask(question, loaded, terminal, sample, show_prompt, as_json))
        except EngineError as error:
            raise type(error)(f"{error} vLLM's log: {log}" if log else str(error)) from error
    raise typer.Exit(code)


def _from_stdin() -> str:
    if sys.stdin.isatty():
        raise QuestionError('No question given. Ask one: rag ask "What causes malaria?"')
    from rag.pipeline import MAX_QUESTION

    return sys.stdin.read(4 * MAX_QUESTION)


async def _ask(
    question: str, loaded: Loaded, terminal: Terminal, sample: bool, show_prompt: bool, as_json: bool
) -> int:
    from rag import build
    from rag.pipeline import Delta, Searched

    async with AsyncExitStack() as stack:
        with terminal.step("preparing") as report:
            if sample:
                await asyncio.to_thread(build.ensure_sample_index, loaded, build.Progress(step=report))
            pipeline = await stack.enter_async_context(build.open_pipeline(loaded, report))
            pipeline.startup_s = time.time() - psutil.Process().create_time()  # with all that was built on the way
        messages: tuple[Message, ...] = ()
        streamed = False
        async for event in pipeline.stream(question):
            if isinstance(event, Searched):
                messages = event.prompt.messages if event.prompt is not None else ()
                if show_prompt and not as_json:
                    _show_prompt(messages, terminal)
            elif isinstance(event, Delta):
                streamed = True
                if not as_json:
                    terminal.out.print(event.text, end="", markup=False)
                    terminal.out.file.flush()
            elif as_json:
                terminal.json({**asdict(event), **({"prompt": messages} if show_prompt else {})})
            else:
                _show(event, terminal, streamed)
            if isinstance(event, Answer):
                return ABSTAINED if event.abstained else 0
    raise AssertionError("a stream ends with its answer")


def _show_prompt(messages: tuple[Message, ...], terminal: Terminal) -> None:
    for message in messages:
        terminal.err.print(message["role"], style="bold dim")
        terminal.err.print(message["content"].rstrip() + "\n", style="dim", markup=False)


def _show(answer: Answer, terminal: Terminal, streamed: bool) -> None:
    out = terminal.out
    out.print("" if streamed else answer.answer, markup=False)
    if answer.truncated:
        terminal.err.print(f"(cut at {answer.tokens.output} tokens, generator.max_tokens)", style="yellow")
    if answer.citations:
        out.print("\nSources", style="bold")
        for citation in answer.citations:
            origin = "" if citation.origin == "model" else " (attributed by word overlap)"
            out.print(f"  [{citation.marker}] {citation.title}  ({citation.doc_id}){origin}", markup=False)
    elif not answer.abstained:
        terminal.err.print("No source was found for this answer: don't rely on it.", style="yellow")
    for name, technique in answer.engine.techniques.items():
        if technique.asked and technique.engaged is False:
            terminal.err.print(f"{name}: not engaged ({technique.reason})", style="yellow", markup=False)
    terminal.err.print(time_line(answer.timings, answer.tokens.output, answer.startup_s), style="dim", markup=False)


def time_line(timings: StageTimings, output_tokens: int | None, startup_s: float | None) -> str:
    """Stages in order, those that ran, on one line."""
    values: dict[str, Any] = asdict(timings)
    parts = []
    for stage, seconds in values.items():
        if seconds is None or stage in ("queue", "ttft", "decode", "total"):
            continue
        part = f"{stage} {duration(seconds)}"
        if stage == "generate" and timings.ttft is not None and output_tokens is not None:
            part += f" (first token {duration(timings.ttft)}, {output_tokens} tokens)"
        parts.append(part)
    line = " · ".join([*parts, f"total {duration(timings.total or 0.0)}"])
    return line if startup_s is None else f"{line} · start {duration(startup_s)}"


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"
