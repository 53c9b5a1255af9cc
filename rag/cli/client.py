"""`rag ask` by a server that is up: the command line goes there as it is, and what comes back is shown as it comes.

The standard library alone, and little of it: this is what a warm answer waits for. The server (`hosted`) reads the options and
renders the answer with the code that would have done so here. Everything goes over a Unix socket that only this user can reach.

A request is a line of JSON. A reply is frames: a letter, the payload's length in 4 bytes, the payload.

    a       accepted: it is mine
    o, e    bytes for standard output, standard error
    i       send what stands on standard input, this many characters at most: 4 bytes of length, then UTF-8, or what isn't
    x       the exit code; the last one
    n       not mine: other settings, or a command line that is wrong; nothing was written
"""

from __future__ import annotations

import _socket  # socket's own module takes 7 ms to import, half as long as Python to start
import os
import sys

import rag
from rag.server import is_ours, runtime_folder

LOCAL = {"--no-server", "--help", "--verbose", "-v"}
"""Options with which this process answers."""

PATIENCE = 10.0
"""Seconds for a server to say whether it is its question. One that is stuck must not hold this process up, too."""

PLACES = ("RAG_HOME", "HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
"""Variables that say where models and indexes are."""

RENDERING = ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES")
"""Variables that say what this terminal can show."""


def ask(argv: list[str]) -> int | None:
    """The exit code; None where no server answers this: then nothing was written or read."""
    if "ask" not in argv or not LOCAL.isdisjoint(argv):
        return None
    folder = runtime_folder()
    try:
        files = sorted(name for name in os.listdir(folder) if name.endswith(".json"))  # noqa: PTH208
        if not files or not is_ours(folder):
            return None
    except OSError:
        return None
    for name in files:
        if (code := _ask_one(os.path.join(folder, name), argv)) is not None:  # noqa: PTH118
            return code
    return None


def _ask_one(state_file: str, argv: list[str]) -> int | None:
    import json

    try:
        with open(state_file, encoding="utf-8") as file:  # noqa: PTH123
            path = json.load(file)["socket"]
        connection = _socket.socket(_socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.sendall(json.dumps(_request(argv)).encode() + b"\n")
    except (OSError, ValueError, KeyError):  # it is gone, or going
        return None
    try:
        return _show(connection)
    except KeyboardInterrupt:
        _leave(connection)
        return 130
    except BrokenPipeError:  # `rag ask ... | head`
        return 0
    finally:
        connection.close()


def _request(argv: list[str]) -> dict[str, object]:
    environ = os.environ
    columns, lines = _size()
    size = {"COLUMNS": str(columns), "LINES": str(lines)}
    return {
        "code": [rag.__version__, os.path.dirname(rag.__file__)],  # noqa: PTH120
        "argv": argv,
        "folder": os.getcwd(),  # noqa: PTH109
        "settings": {name: value for name, value in environ.items() if name.upper().startswith("RAG__")},
        "places": {name: environ.get(name) for name in PLACES},
        "rendering": {**size, **{name: environ[name] for name in RENDERING if name in environ}},
        "terminals": [os.isatty(descriptor) for descriptor in (0, 1, 2)],
    }


def _size() -> tuple[int, int]:
    for descriptor in (0, 1, 2):
        try:
            return os.get_terminal_size(descriptor)
        except OSError:
            continue
    return 80, 25


def _show(connection: _socket.socket) -> int | None:
    """The exit code; None where the server hasn't taken the question, so that this process can."""
    received = bytearray()
    accepted = False
    while chunk := _receive(connection):
        received += chunk
        while len(received) >= 5 and len(received) >= (end := 5 + int.from_bytes(received[1:5], "big")):
            kind, payload = bytes(received[:1]), bytes(received[5:end])
            del received[:end]
            if kind == b"x":
                return int(payload)
            if kind == b"n":
                return None
            if kind == b"a":
                accepted = True
                connection.settimeout(None)
            elif kind == b"i":
                text = _read(int(payload))
                _send(connection, len(text).to_bytes(4, "big") + text)
            else:
                _write(1 if kind == b"o" else 2, payload)
    if not accepted:
        return None
    _write(
        2,
        b"\nrag: The server went away in the middle of the answer. Ask again: without a server this process answers.\n",
    )
    return 1


def _read(characters: int) -> bytes:
    # As `rag.cli.ask.keep_odd_bytes`, which the server does the rest of.
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    return sys.stdin.read(characters).encode("utf-8", "surrogateescape")


def _receive(connection: _socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except (ConnectionError, TimeoutError):
        return b""


def _send(connection: _socket.socket, data: bytes) -> None:
    """What a server that has gone doesn't take is no reader's broken pipe: that it has gone shows as the replies end."""
    try:  # noqa: SIM105  (contextlib would be one more module to import)
        connection.sendall(data)
    except ConnectionError:
        pass


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _leave(connection: _socket.socket) -> None:
    """Tell the server that nobody reads on, which ends the generation; show how it leaves the terminal."""
    try:
        connection.shutdown(_socket.SHUT_WR)
        connection.settimeout(1)
        _show(connection)
    except (OSError, KeyboardInterrupt):
        pass
