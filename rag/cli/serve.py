"""`rag serve`, `rag stop`, `rag status`: a pipeline that stays warm between questions."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer

from rag.cli import options
from rag.errors import UsageError

if TYPE_CHECKING:
    from rag.cli.console import Terminal
    from rag.server.state import ServerState
    from rag.settings import Loaded

PORT = 8642

DETACHED = "RAG_DETACHED"
"""In the environment of a process that is in the background already."""

KILL_AFTER = 45.0
"""Seconds that `rag stop` waits: running answers have 30 of them, and the engine ends in 5."""

ENGAGED = {True: "engaged", False: "not engaged", None: "not known to have engaged"}


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = PORT,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Go on in the background once it is ready.")] = False,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Keep engine, index and models ready, so that rag ask answers without starting an engine, and so does POST /v1/ask.

    One server for each set of settings. It takes up new versions of its index by itself, and starts its engine again when that
    is lost. Ctrl-C or rag stop ends it; answers under way have 30 s.
    """
    from rag import build
    from rag.cli.console import Terminal, library_output, naming_log

    loaded = options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    from rag.server.app import on_loopback

    if not on_loopback(host):
        warning = f"Whoever reaches {host} can ask: there is no authentication."
        Terminal().err.print(warning, style="yellow", markup=False)
    if detach and os.environ.pop(DETACHED, None) is None:
        _detach(Terminal())
        return
    with library_output(verbose or context.obj.verbose) as (terminal, log):
        if sample:
            with terminal.step("preparing") as report:
                build.ensure_sample_index(loaded, report)
        with naming_log(log, loaded):
            asyncio.run(_serve(loaded, host, port, terminal, log))


async def _serve(loaded: Loaded, host: str, port: int, terminal: Terminal, log: Path | None) -> None:
    from rag.cli.hosted import Hosted
    from rag.cli.run import leave
    from rag.server import serving, state
    from rag.server.app import make_app
    from rag.server.warm import WarmPipeline

    def say(what: str) -> None:
        with suppress(OSError):  # a full disk, or nobody who reads it, is no reason to fail an answer
            terminal.err.print(f"{datetime.now():%H:%M:%S}  {what}", style="dim", markup=False)

    stop = asyncio.Event()
    warm = WarmPipeline(loaded, say, say)

    def interrupted() -> None:
        (warm.end_now if stop.is_set() else stop.set)()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    state.require_none(loaded)  # before the port, which that one has
    with serving.listen(host, port) as listener, state.socket_path() as path:
        me = state.of_this_process(loaded, host, listener.getsockname()[1], path)
        with state.announced(me):
            say(f"http://{me.address}  pid {me.pid}")
            about = {name: value for name, value in asdict(me).items() if name != "socket"}
            hosted = Hosted(warm, loaded, me.address, log if loaded.settings.generator.base_url is None else None)
            await serving.serve(warm, make_app(warm, about, host), listener, (path, hosted), stop, say)
    say("stopped")
    leave(0)


def _detach(terminal: Terminal) -> None:
    """The same command in a session of its own; waits until it is ready."""
    from rag.cli.console import new_log
    from rag.server import launching

    log = new_log("server")
    child = launching.start(
        [sys.executable, "-P", "-m", "rag", *sys.argv[1:]],  # -P: no module of the working folder's
        log,
        environ={**os.environ, DETACHED: "1"},
    )
    try:
        with terminal.step("starting the server") as report:
            ready = launching.until_ready(child, report)
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    if ready is None:
        raise _like(child.returncode, log)
    terminal.out.print(f"http://{ready.address}  pid {ready.pid}  log {log}", markup=False)


def _like(code: int, log: Path) -> typer.Exit:
    """The server's own end, with its last word said."""
    from rag.server import launching

    last = launching.last_line(log)
    typer.echo(last if last is not None else f"rag: The server ended with code {code}. Its log: {log}", err=True)
    return typer.Exit(code if code > 0 else 1)


def stop(
    pids: Annotated[list[int] | None, typer.Argument(metavar="PID", help="Which; needed where several run.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Stop all of them.")] = False,
) -> None:
    """Stop the server. Answers under way have 30 s to end."""
    from rag.cli.console import Terminal
    from rag.server import state

    terminal = Terminal()
    running = state.servers()
    chosen = [one for one in running if one.pid in pids] if pids else running
    if not chosen or (pids and len(chosen) < len(set(pids))):
        known = f"Running: {_listed(running)}." if running else "Start one: rag serve --detach."
        raise UsageError(f"No server {'of that number ' if pids else ''}runs. {known}")
    if len(chosen) > 1 and not pids and not everyone:
        raise UsageError(f"{len(running)} servers run: {_listed(running)}. Name one, or stop --all.")
    for one in chosen:
        with terminal.step(f"stopping {one.address}"):
            how = _stop(one)
        terminal.out.print(f"{how} {one.address} (pid {one.pid}, index {one.index})", markup=False)


def _stop(server: ServerState) -> str:
    """What was done."""
    from rag.engine import processes

    process = server.process
    if process is None:
        return "was gone:"
    try:
        by_itself = processes.stop(process, KILL_AFTER)
    except psutil.NoSuchProcess:
        return "was gone:"
    return "stopped" if by_itself else f"killed, since it didn't stop in {KILL_AFTER:g} s:"


def status(as_json: options.Json = False) -> None:
    """The servers that run, and what they have done. Exit code 1 where none does."""
    from rag.cli.console import Terminal
    from rag.server import state

    terminal = Terminal()
    known = [(one, state.ask_status(one)) for one in state.servers()]
    if as_json:
        terminal.json([{**asdict(one), **(said if said is not None else {"ready": False})} for one, said in known])
    else:
        for one, said in known:
            _show_status(one, said, terminal)
        if not known:
            terminal.err.print("No server runs. Start one: rag serve --detach", markup=False)
    raise typer.Exit(0 if known else 1)


def _show_status(server: ServerState, said: dict[str, object] | None, terminal: Terminal) -> None:
    if said is None:
        state, style = "doesn't answer", "red"
    elif said["ready"]:
        state, style = "ready", "green"
    else:
        state, style = str(said["doing"]), "yellow"
    terminal.out.print(f"http://{server.address}", style="bold", end="  ", markup=False)
    terminal.out.print(state, style=style, markup=False)
    started = datetime.fromtimestamp(server.created)
    about = f"pid {server.pid}, since {started:%Y-%m-%d %H:%M}, profile {server.profile}, models {server.models}"
    terminal.out.print(f"  {about}", style="dim", markup=False)
    if said is not None and isinstance(said["counts"], dict):
        counts = ", ".join(f"{number} {what}" for what, number in said["counts"].items() if number)
        version = said["index_version"] if said["index_version"] is not None else server.index
        terminal.out.print(f"  index {version}: {counts if counts else 'nothing asked yet'}", style="dim", markup=False)
        for name, counts in _cached(said):
            terminal.out.print(f"  cache of {name}: {counts}", style="dim", markup=False)
        for line in _techniques(said.get("engine")):
            terminal.out.print(f"  {line}", style="dim", markup=False)


def _cached(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What each query cache has done."""
    for name, counts in said.get("cache", {}).items():
        looked = counts["exact"] + counts["matched"] + counts["missed"]
        served = f"{counts['exact']} repeats and {counts['matched']} in other words of {looked} questions served"
        yield (
            name,
            f"{served}, {counts['refused']} candidates refused, {counts['evicted']} evicted, {counts['expired']} expired",
        )


def _techniques(engine: Any) -> Iterator[str]:
    """What each technique that was asked for has done since the engine started."""
    since_start = engine.get("since_start", {}) if isinstance(engine, dict) else {}
    for name, one in since_start.items():
        if one["asked"]:
            why = [text for text in (one["evidence"], one["reason"]) if text is not None]
            yield f"{name}: {', '.join([ENGAGED[one['engaged']], *why])}"


def _listed(servers: list[ServerState]) -> str:
    return ", ".join(f"pid {one.pid} ({one.address}, index {one.index})" for one in servers)
