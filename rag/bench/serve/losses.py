"""What a server loses in the middle of answers: its engine, which is killed, and its clients, who go away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rag.bench.serve import server as servers
from rag.bench.serve.clients import under_way
from rag.bench.serve.server import Server
from rag.errors import RagError
from rag.server import launching

RAMBLING = (
    "--models=embedded",
    "--set=generator.model=smollm2-135m-instruct",
    "--set=generator.temperature=2",
    "--set=generator.seed=null",  # on a CPU one would change how prompts are read (rag.engine.spec)
    "--set=generator.max_tokens=1000",
    "--set=generator.max_num_seqs=16",
    "--set=generator.speculation.method=none",
    "--set=verify.action=mark",
)
"""Options of a server whose answers are long, so that whoever goes away does so in the middle of one: at this temperature its
model hardly ever ends one by itself. 1,000 tokens take 20 s on two busy cores."""

STREAMS = 4
"""Clients that are in the middle of an answer when the engine is killed."""

GROUP = 10
"""Clients that go away at once."""

HUNG = 30.0
"""Seconds without an end after which a client hangs: six times as long as it may take."""

AFTER = 1.0
"""Seconds after the last of a group has gone at which nothing may run any more."""


def kill(server: Server, questions: Iterator[str]) -> dict[str, Any]:
    """SIGKILL to the engine's process under `STREAMS` clients: how and after how many seconds each of them ended, when the
    server was ready again (None: it wasn't), and whether it answered then.

    Raises `RagError` where the clients can't be had, or there is no such process.
    """
    rebuilt = server.status()["counts"]["rebuilt"]
    engine = server.engine()
    with under_way(server, questions, STREAMS) as clients:
        killed = time.monotonic()
        engine.kill()
        ends = [one.wait(killed + HUNG) for one in clients]
    sample: dict[str, Any] = {
        "clients": [{"end": end.how, "seconds": end.at - killed, "said": end.said} for end in ends],
        "ready": None,
        "answered": False,
        "problem": None,
    }
    try:
        sample["ready"] = _ready_again(server, rebuilt) - killed
        sample["answered"] = bool(server.ask(next(questions))["answer"])
    except RagError as error:
        sample["problem"] = str(error)
    return sample


def _ready_again(server: Server, rebuilt: int) -> float:
    """When it was, with another engine than the one it had: it may not have noticed yet that this is gone."""
    give_up = time.monotonic() + servers.START
    while time.monotonic() < give_up:
        if server.status()["counts"]["rebuilt"] > rebuilt and server.ready:
            return time.monotonic()
        time.sleep(launching.LOOK)
    raise RagError(
        f"The server isn't ready {servers.START:g} s after its engine was killed: {server.status()['doing']}"
    )


def leave(server: Server, questions: Iterator[str], count: int) -> dict[str, Any]:
    """So many clients go away at once: what ran before, and `AFTER` seconds later, by the server's count of requests
    (`running`) and by the engine's (`generating`). `clients` are those that were in the middle of an answer."""
    with under_way(server, questions, count) as clients:
        before = _counts(server)
        middle = sum([one.leave() for one in clients])
        left = time.monotonic()
    time.sleep(max(0.0, left + AFTER - time.monotonic()))
    return {"clients": middle, "before": before, "after": _counts(server)}


def _counts(server: Server) -> dict[str, int | None]:
    counts = server.status()["counts"]
    return {name: counts[name] for name in ("running", "generating")}
