"""The other side of `client`: `rag ask` of another process, understood and rendered inside the server.

The options are read by the code that would have read them there, and the answer is shown by it too, on two streams that
lead to that process. Whatever can't be understood isn't ours: the other process then finds out by itself what is wrong.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeAlias, cast

import typer

import rag
from rag import workers
from rag.cli import ask, client, commands, options
from rag.cli.ask import Asked, require_input
from rag.cli.console import Stream, Terminal, printable
from rag.engine import spec
from rag.errors import EngineError
from rag.pipeline import MAX_QUESTION, check_question
from rag.server.app import described
from rag.server.state import settings_digest
from rag.server.warm import WarmPipeline
from rag.settings import Loaded

PATIENCE = 300.0
"""Seconds that a question waits for a server that is starting: longer than a start takes, and another engine beside it would
take as long."""

Send: TypeAlias = Callable[[bytes, bytes], None]

_asking = typer.Typer()
_asking.callback()(commands.root)
_asking.command(name="ask")(ask.ask)
ASK = typer.main.get_command(_asking)
"""`rag ask` alone: nothing else of a command line may run inside a server."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What `client` sends; `terminals` says of the three standard streams whether they are one."""

    code: list[str]
    argv: list[str]
    folder: str
    settings: Mapping[str, str]
    places: Mapping[str, str | None]
    rendering: Mapping[str, str]
    terminals: list[bool]


class Hosted:
    """Answers each connection of a Unix socket. `log` is where vLLM's lines go."""

    def __init__(self, warm: WarmPipeline, loaded: Loaded, address: str, log: Path | None = None) -> None:
        self._warm = warm
        self._digest = settings_digest(loaded)
        self._address = address
        self._log = log

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()

        def send(kind: bytes, payload: bytes) -> None:
            """From any thread; a spinner's pieces and the answer's stay in order."""
            loop.call_soon_threadsafe(writer.write, kind + len(payload).to_bytes(4, "big") + payload)

        try:
            caller = Caller(**json.loads(await reader.readline()))
            asked = await asyncio.to_thread(understand, caller, self._digest)
            if asked is None:
                send(b"n", b"")
            else:
                send(b"a", b"")
                send(b"x", str(await self._answer(asked, caller, reader, send)).encode())
            await asyncio.sleep(0)  # what was sent is written by now
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError, TypeError):
            pass  # it has gone, or is no client of ours
        finally:
            writer.close()

    async def _answer(self, asked: Asked, caller: Caller, reader: asyncio.StreamReader, send: Send) -> int:
        """The exit code; 130 where the other process went away."""
        stdin, *streams = caller.terminals
        out, err = (
            Stream(cast(TextIO, Sent(send, kind, is_terminal)), caller.rendering)
            for kind, is_terminal in zip((b"o", b"e"), streams, strict=True)
        )
        try:
            question = check_question(
                asked.question if asked.question is not None else await _input(reader, send, stdin)
            )
            code = await workers.unless(reader.read(1), self._show(question, asked, Terminal(out, err)))
            return code if code is not None else 130
        except (ConnectionError, asyncio.IncompleteReadError):
            raise
        except Exception as error:
            said = described(error)
            more = f" vLLM's log: {self._log}" if isinstance(error, EngineError) and self._log is not None else ""
            send(b"e", printable(f"rag: {said['error']}{more}\n").encode())
            return int(str(said["exit_code"]))

    async def _show(self, question: str, asked: Asked, terminal: Terminal) -> int:
        with ExitStack() as waiting:
            if not self._warm.ready:
                waiting.enter_context(terminal.step("waiting for the server"))(
                    f"waiting for the server: {self._warm.doing}"
                )
            async with self._warm.pipeline(PATIENCE) as pipeline:
                waiting.close()
                return await ask.show(pipeline, question, asked, terminal, f"server {self._address}")


class Sent(io.TextIOBase):
    """A text stream that is written in another process."""

    encoding = "utf-8"

    def __init__(self, send: Send, kind: bytes, is_terminal: bool) -> None:
        self._send, self._kind, self._is_terminal = send, kind, is_terminal

    def write(self, text: str) -> int:
        if text:
            self._send(self._kind, text.encode("utf-8", "replace"))
        return len(text)

    def isatty(self) -> bool:
        return self._is_terminal


async def _input(reader: asyncio.StreamReader, send: Send, is_terminal: bool) -> str:
    require_input(is_terminal)
    send(b"i", str(4 * MAX_QUESTION).encode())
    length = int.from_bytes(await reader.readexactly(4), "big")
    return (await reader.readexactly(length)).decode("utf-8", "surrogateescape")


def understand(caller: Caller, digest: str) -> Asked | None:
    """None where it isn't ours: other code, places or settings, options that only a process of its own can do, or wrong ones."""
    ours = [rag.__version__, os.path.dirname(rag.__file__)]  # noqa: PTH120  (as the client has it)
    if caller.code != ours or caller.places != {name: os.environ.get(name) for name in client.PLACES}:
        return None
    try:
        asked = read_options(caller.argv, caller.settings)
        spec.check(asked.loaded)  # what is asked for by hand and can't be had is refused
    except (Exception, SystemExit):
        return None
    same_files = Path(caller.folder) == Path.cwd() or not _names_files_of(caller.folder, asked.loaded)
    return asked if same_files and not asked.verbose and settings_digest(asked.loaded) == digest else None


def read_options(argv: Sequence[str], environ: Mapping[str, str]) -> Asked:
    """Raises what a wrong command line raises."""
    taken: list[Asked] = []
    ASK.main(list(argv), prog_name="rag", standalone_mode=False, obj=options.Common(environ=environ, take=taken.append))
    [asked] = taken
    return asked


def _names_files_of(folder: str, loaded: Loaded) -> bool:
    """Do these settings name files of a working folder, which isn't this process's?"""
    bundles = (name for name in (loaded.profile, loaded.models) if name.endswith((".yaml", ".yml")))
    values = (value for key, value in loaded.leaves() if key.endswith(("model", "tokenizer")) and value is not None)
    return any(
        not name.startswith(("/", "~")) and any((Path(place) / name).exists() for place in (folder, "."))
        for name in (*bundles, *map(str, values))
    )
