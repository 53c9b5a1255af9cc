"""`rag chat`: a conversation over one warm pipeline, with somebody at a terminal or from a pipe."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import typer

from rag.cli import options
from rag.cli.rendering import Streaming, duration, idle, show_source, warnings
from rag.errors import RagError, UsageError

if TYPE_CHECKING:
    from rag.chat import Conversation, Standalone
    from rag.cli.console import Stream, Terminal
    from rag.core import Answer, Prompt, Source
    from rag.pipeline import Pipeline
    from rag.settings import Loaded

COMMANDS = {
    "/sources": "what the last answer cites, with the passages",
    "/timings": "where the last answer's time went",
    "/clear": "forget the conversation",
    "/help": "this list",
    "/quit": "end; so does Ctrl-D",
}
"""Ctrl-C stops an answer and empties a line."""

INSIDE_GENERATE = ("queue", "ttft", "decode")

ReadLine: TypeAlias = Callable[[], str | None]
"""The next line; None at the end. Raises `KeyboardInterrupt` where it is thrown away."""

Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]
"""Runs a coroutine to its end. Raises `KeyboardInterrupt` once it was cancelled by Ctrl-C."""


def chat(
    context: typer.Context,
    where: options.Where = None,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Ask one question after the other; one that leans on those before it is completed, and shown so.

    /help lists the commands. In a pipe, each line of standard input is a question. With --json each answer is a line:
    "question" as it was typed, "standalone" as it was asked.
    """
    from rag.cli.console import library_output, naming_log

    loaded = options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    options.check_where(where)
    with library_output(verbose or context.obj.verbose) as (terminal, log), naming_log(log, loaded):
        _chat(loaded, where, sample, as_json, terminal)


def _chat(loaded: Loaded, where: str | None, sample: bool, as_json: bool, terminal: Terminal) -> None:
    """Between two answers no event loop runs: whoever types has the main thread, and with it Ctrl-C, for themselves."""
    from rag.chat import Conversation
    from rag.cli.lines import reading
    from rag.cli.opening import opened
    from rag.cli.run import supervise

    interactive = sys.stdin.isatty()
    with asyncio.Runner() as runner, ExitStack() as closing:
        stack = AsyncExitStack()
        closing.callback(lambda: runner.run(stack.aclose()))
        pipeline = runner.run(supervise(stack.enter_async_context(opened(loaded, sample, terminal))))
        closing.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _terminate))
        session = Session(pipeline, Conversation(loaded.settings.chat), where, as_json, terminal)
        if interactive:
            about = f"index {loaded.settings.index.name}, {pipeline.generator.model}, profile {loaded.profile}"
            terminal.err.print(f"{about}; ready in {duration(pipeline.startup_s or 0)}. /help", style="dim")
        read_line = closing.enter_context(reading(terminal, interactive))
        hold(session, read_line, runner.run, interactive)


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


# --- a session -----------------------------------------------------------------------------------


def hold(session: Session, read_line: ReadLine, run: Run, interactive: bool) -> None:
    """Answer line after line until there is none, or "/quit". Ctrl-C stops an answer, or in a pipe everything.

    Raises `EngineError` where the engine is lost.
    """
    while True:
        line: str | None = ""
        with _kept_up(session, interactive):
            line = read_line()
        if line is None or line.strip() == "/quit":
            return
        with _kept_up(session, interactive, "stopped"):
            _do(session, line.strip(), run)


@contextmanager
def _kept_up(session: Session, interactive: bool, said: str | None = None) -> Iterator[None]:
    """Ctrl-C ends what is inside alone, where somebody is there to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if not interactive:
            raise
        if said is not None:
            session.terminal.err.print(said, style="dim")


def _do(session: Session, line: str, run: Run) -> None:
    try:
        if line.startswith("/"):
            session.command(line)
        elif line:
            run(session.ask(line))
    except RagError as error:
        if not session.alive:
            raise
        session.refuse(line, error)


@dataclass(frozen=True, slots=True)
class Exchange:
    made: Standalone
    answer: Answer


class Session:
    """A conversation on a terminal's two streams."""

    def __init__(
        self, pipeline: Pipeline, conversation: Conversation, where: str | None, as_json: bool, terminal: Terminal
    ) -> None:
        self.terminal = terminal
        self._pipeline = pipeline
        self._conversation = conversation
        self._where = where
        self._as_json = as_json
        self._last: Exchange | None = None

    async def ask(self, question: str) -> None:
        """Stream the answer, and remember it. Cancelled, it aborts the generation and remembers the question.

        Raises what `Pipeline.stream` raises.
        """
        from rag.chat import turn, unanswered
        from rag.pipeline import check_question

        question = check_question(question)
        made = await self._conversation.standalone(question, self._pipeline.generator)
        if made.by is not None and not self._as_json:
            self.terminal.err.print(made.text, style="dim", markup=False)
        sources: tuple[Source, ...] = ()

        def searched(prompt: Prompt | None) -> None:
            nonlocal sources
            sources = prompt.sources if prompt is not None else ()

        streaming = Streaming(self.terminal, self._as_json)
        try:
            answer = await streaming.answer(self._pipeline, made.text, self._where, searched)
        except (asyncio.CancelledError, RagError):
            if streaming.begun and not self._as_json:
                self.terminal.out.print()
            self._conversation.add(unanswered(made.text, sources))
            raise
        self._last = Exchange(made, answer)
        self._conversation.add(turn(answer, sources))
        self._show(question, made, answer)

    def command(self, line: str) -> None:
        """Raises `UsageError` for one that isn't known."""
        out = self.terminal.err if self._as_json else self.terminal.out  # with --json there are answers alone
        match line:
            case "/sources" | "/timings":
                if self._last is None:
                    self.terminal.err.print("No answer yet.", style="dim")
                elif line == "/sources":
                    _show_sources(self._last.answer, out)
                else:
                    _show_timings(self._last, out)
            case "/clear":
                self._last = None
                self._conversation.clear()
                self.terminal.err.print("The conversation is forgotten.", style="dim")
            case "/help":
                for name, description in COMMANDS.items():
                    out.print(f"{name:9} {description}", markup=False)
            case _:
                raise UsageError(f"{line} is no command. There are {', '.join(COMMANDS)}.")

    @property
    def alive(self) -> bool:
        """Can another question be answered?"""
        return self._pipeline.alive

    def refuse(self, line: str, error: RagError) -> None:
        if self._as_json and not line.startswith("/"):
            self.terminal.json({"question": line, "error": str(error)})
        self.terminal.err.print(f"rag: {error}", markup=False)

    def _show(self, question: str, made: Standalone, answer: Answer) -> None:
        out, err = self.terminal.out, self.terminal.err
        if self._as_json:
            beside = {"standalone": made.text, "rewritten_by": made.by, "rewrite_s": made.seconds}
            self.terminal.json({**asdict(answer), "question": question, **beside})
            return
        for citation in answer.citations:
            origin = "" if citation.origin == "model" else ", attributed by word overlap"
            out.print(f"[{citation.marker}] {citation.title} ({citation.doc_id}{origin})", style="dim", markup=False)
            show_source(citation.metadata, out, 4, described_too=False)
        out.print()
        for line in warnings(answer, self._pipeline.settings.verify.action):
            err.print(line, style="yellow", markup=False)


def _show_sources(answer: Answer, out: Stream) -> None:
    if not answer.citations:
        out.print("The last answer cites nothing.")
    for citation in answer.citations:
        out.print(f"[{citation.marker}] {citation.title}", style="bold", end="  ", markup=False)
        out.print(f"{citation.passage_id}, score {citation.score:.3f}", style="dim", markup=False)
        show_source(citation.metadata, out, 4)
        quote = " ".join(citation.quote.split())
        out.print(textwrap.indent(textwrap.fill(quote, 96), "    "), markup=False)


def _show_timings(exchange: Exchange, out: Stream) -> None:
    """A stage a line, in order; what lies inside another is indented."""
    seconds: dict[str, float | None] = {"rewrite": exchange.made.seconds, **asdict(exchange.answer.timings)}
    for stage, spent in seconds.items():
        if spent is not None:
            name = f"  {stage}" if stage in INSIDE_GENERATE else stage
            out.print(f"{name:10} {duration(spent):>9}", markup=False)
    if (unused := idle(exchange.answer.engine)) is not None:
        out.print(unused, style="dim yellow", markup=False)
