"""How other processes find a server: one small file each, in the user's runtime folder.

    RUNTIME/DIGEST.json    a `ServerState`, of the server of these settings
    RUNTIME/lock           held while one of these files comes or goes

A file whose process is gone, or whose process number now belongs to another one, is removed by whoever meets it; one that
another version of `rag` has left stays as long as its process.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

import rag
from rag.errors import StorageError, UsageError
from rag.files import explaining_storage
from rag.server import is_ours, runtime_folder
from rag.settings import Loaded

_OURS = re.compile(r"[0-9a-f]{16}\.json")
"""`RAG_HOME` may be a folder that holds other things, too."""

STATUS_TIMEOUT = 5.0
"""Seconds: a server that lives answers in milliseconds."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """`created` is the process's start in seconds since the epoch, as the system tells it: with `pid` it names one process.
    `socket` is where `rag ask` comes in, `digest` what `settings_digest` makes of the settings."""

    pid: int
    created: float
    host: str
    port: int
    socket: str
    digest: str
    index: str
    profile: str
    models: str
    version: str

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def process(self) -> psutil.Process | None:
        """None where it is gone."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1  # some systems round it anew at each start of theirs
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


def settings_digest(loaded: Loaded) -> str:
    """Equal where a question would be answered in the same way: by the same code, settings, device, and profile's name, which
    answers tell.

    Of the settings' values, not of where they come from: a file of models by whatever path.
    """
    whole = {
        "code": [rag.__version__, str(Path(rag.__file__).parent)],
        "settings": loaded.settings.model_dump(mode="json"),
        "names": [loaded.profile, loaded.device],
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def of_this_process(loaded: Loaded, host: str, port: int, socket: Path) -> ServerState:
    process = psutil.Process()
    return ServerState(
        process.pid,
        process.create_time(),
        host,
        port,
        str(socket),
        settings_digest(loaded),
        loaded.settings.index.name,
        loaded.profile,
        loaded.models,
        rag.__version__,
    )


@contextmanager
def announced(state: ServerState) -> Iterator[None]:
    """Other processes find the server while the block runs.

    Raises `UsageError` where another one runs for the same settings, `StorageError` where the folder isn't ours alone.
    """
    file = _folder() / f"{state.digest}.json"
    with _locked():
        _require_none(state.digest)
        file.unlink(missing_ok=True)
        with (
            explaining_storage(file),
            os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out,
        ):
            json.dump(asdict(state), out)
    try:
        yield
    finally:
        with _locked():
            file.unlink(missing_ok=True)


def require_none(loaded: Loaded) -> None:
    """Raises `UsageError` where a server runs for these settings."""
    if Path(runtime_folder()).is_dir():
        with _locked():
            _require_none(settings_digest(loaded))


def _require_none(digest: str) -> None:
    for other in _read_all():
        if other.digest == digest:
            raise UsageError(
                f"A server for these settings runs already: http://{other.address}, pid {other.pid}. "
                "Use it, stop it (rag stop), or change a setting."
            )


def servers() -> list[ServerState]:
    """Those that run; oldest first."""
    if not Path(runtime_folder()).is_dir():
        return []
    with _locked():
        return sorted(_read_all(), key=lambda state: state.created)


def ask_status(state: ServerState) -> dict[str, Any] | None:
    """What the server says of itself at `/v1/status`; None where it doesn't answer."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(state.host, state.host)
    connection = http.client.HTTPConnection(host, state.port, timeout=STATUS_TIMEOUT)
    try:
        connection.request("GET", "/v1/status")
        said = json.loads(connection.getresponse().read())
        return said if isinstance(said, dict) and said.get("pid") == state.pid else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


@contextmanager
def socket_path() -> Iterator[Path]:
    """A path for a Unix socket that only this user can reach. Short, since the system takes no more than 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="rag-serve-")) / "ask"
    try:
        yield path
    finally:
        remove_socket(path)


def remove_socket(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def _read_all() -> list[ServerState]:
    """Files of servers that are gone, or that can't be read, are removed."""
    found = []
    for file in Path(runtime_folder()).iterdir():
        if not _OURS.fullmatch(file.name):
            continue
        said, state = _read(file)
        if state is not None and state.process is not None:
            found.append(state)
        elif state is not None or not psutil.pid_exists(said.get("pid", -1)):
            file.unlink(missing_ok=True)
            if state is not None:
                remove_socket(Path(state.socket))
    return found


def _read(file: Path) -> tuple[dict[str, Any], ServerState | None]:
    """What a file says, and whose it is, if that can be told."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        return said, ServerState(**said)
    except TypeError:
        return said if isinstance(said, dict) and isinstance(said.get("pid"), int) else {}, None
    except ValueError:
        return {}, None


def _folder() -> Path:
    folder = Path(runtime_folder())
    with explaining_storage(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_ours(str(folder)):
        raise StorageError(
            f"{folder} must be a folder of yours that nobody else can write to. Mend its owner and permissions, or set "
            "RAG_HOME or XDG_RUNTIME_DIR to a folder of yours."
        )
    return folder


def _locked() -> FileLock:
    return FileLock(_folder() / "lock")
