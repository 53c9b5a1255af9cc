"""Clients that stream their answers, each read by a thread of its own, so that they can be watched, and leave at any moment."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal, TypeAlias

from rag.bench.serve.server import Server
from rag.errors import RagError

BEGIN = 300.0
"""Seconds after which clients that are in the middle of their answers at once must have been had."""

TICK = 0.01
"""Seconds between two looks at them."""

CONNECT = 30.0
"""Seconds to connect and be listened to."""


How: TypeAlias = Literal["answer", "error", "refused", "cut", "hung"]


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended, and when by the monotonic clock: with its `answer`, with an `error` event, `refused` before its
    first event, `cut` without a word; `hung` is one that hadn't ended when nobody waited on. `said` is the error's text."""

    how: How
    at: float
    said: str | None = None


class Events:
    """Server-sent events out of a stream that comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[tuple[str, Any]]:
        """Names and data of the events that the piece completes."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        fields = [dict(line.split(": ", 1) for line in block.decode().split("\n")) for block in blocks]
        return [(one["event"], json.loads(one["data"])) for one in fields]


class Client:
    """Asks at once. `begun` is set with the first piece of the answer's text."""

    def __init__(self, server: Server, question: str) -> None:
        self.begun = threading.Event()
        self._ended = threading.Event()
        self._end: End | None = None
        connection = HTTPConnection(server.host, server.port, timeout=CONNECT)
        connection.request(
            "POST", "/v1/ask", json.dumps({"question": question}).encode(), {"content-type": "application/json"}
        )
        assert isinstance(connection.sock, socket.socket)
        self._socket = connection.sock
        self._socket.settimeout(None)  # whether it hangs is for those to judge that watch it
        self._thread = threading.Thread(target=self._read, args=(connection,), daemon=True)
        self._thread.start()

    @property
    def over(self) -> End | None:
        return self._end

    @property
    def in_the_middle(self) -> bool:
        return self.begun.is_set() and self._end is None

    def wait(self, until: float) -> End:
        """The end, `hung` where it hasn't come by then."""
        self._ended.wait(max(0.0, until - time.monotonic()))
        return self._end if self._end is not None else End("hung", until)

    def leave(self) -> bool:
        """Close the connection; was it in the middle of its answer?"""
        middle = self.in_the_middle
        with suppress(OSError):  # the server was quicker
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        return middle

    def _read(self, connection: HTTPConnection) -> None:
        how: How = "cut"
        said = None
        try:
            how, said = self._follow(connection)
        except (OSError, HTTPException, ValueError) as error:
            said = repr(error)
        finally:
            self._end = End(how, time.monotonic(), said)
            self._ended.set()
            connection.close()

    def _follow(self, connection: HTTPConnection) -> tuple[How, str | None]:
        with connection.getresponse() as response:
            if response.status != 200:
                return "refused", json.loads(response.read()).get("error")
            events = Events()
            while piece := response.read1(65536):
                for name, data in events.feed(piece):
                    if name == "answer":
                        return "answer", None
                    if name == "error":
                        return "error", data["error"]
                    if name == "delta":
                        self.begun.set()
        return "cut", None


@contextmanager
def under_way(server: Server, questions: Iterator[str], count: int) -> Iterator[list[Client]]:
    """So many clients that are in the middle of their answers, all at the same moment; they have left when the block ends.

    One whose answer ends too soon is replaced. Raises `RagError` where one gets no answer, or `BEGIN` seconds don't suffice.
    """
    clients: list[Client] = []
    give_up = time.monotonic() + BEGIN
    try:
        while not (len(clients) == count and all(one.in_the_middle for one in clients)):
            if failed := next((one.over for one in clients if one.over is not None and one.over.how != "answer"), None):
                raise RagError(f"A client that was to be in the middle of an answer was {failed.how}: {failed.said}")
            if time.monotonic() > give_up:
                raise RagError(
                    f"{count} answers weren't under way at once in {BEGIN:g} s: they are too short, or too slow."
                )
            clients = [one for one in clients if one.over is None]
            clients += [Client(server, next(questions)) for _ in range(count - len(clients))]
            time.sleep(TICK)
        yield clients
    finally:
        for one in clients:
            one.leave()
