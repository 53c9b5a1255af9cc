"""Writing so that nothing is ever half-written, and reading so that nothing damaged goes unnoticed."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rag.errors import RagError, StorageError, UsageError


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that is renamed over it on success and removed on failure.

    Raises `StorageError` where the disk is full or not writable.
    """
    with explaining_storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _sync(temporary)
            temporary.replace(target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place on success and is removed on failure.

    `target` must not exist, or be a folder that nobody is reading: a folder can't be swapped atomically.
    Raises `StorageError` where the disk is full or not writable.
    """
    with explaining_storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield temporary
            for path in (temporary, *temporary.rglob("*")):
                if path.is_file() or path.is_dir():
                    _sync(path)
            temporary.chmod(0o777 & ~_umask())
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def only_writer(
    target: Path, patience: float = 0.0, refusal: RagError | None = None, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Only one process at a time writes `target`, a file or a folder. `patience` in seconds, -1 to wait forever; where another process
    still writes it after that, raises `refusal`, else a `StorageError`. `waiting` is called where there is another."""
    path = target.parent / f".{target.name}.lock"
    with explaining_storage(target):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            held = _acquired(lock, patience, waiting)
        except Timeout:
            raise refusal or StorageError(
                f"Another process is writing {target}. Wait until it ends, or name another one."
            ) from None
    with held:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # one that waits for it takes a new one, as nobody could find this


def _acquired(lock: FileLock, patience: float, waiting: Callable[[], None]) -> AbstractContextManager[object]:
    """Raises `Timeout`."""
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        waiting()
        return lock.acquire(timeout=patience)


@contextmanager
def explaining_storage(where: Path) -> Iterator[None]:
    """Turns the operating system's storage errors into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"No room on the disk while writing {where}: nothing was changed. "
                "Free some space, or set RAG_HOME to a folder on another disk."
            ) from error
        if error.errno in (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EEXIST,
            errno.ENAMETOOLONG,
        ) or _cannot_hold(error, where):
            path = _ours_or(error.filename, where)
            raise StorageError(
                f"Can't {'write' if path == where else 'use'} {path}: {error.strerror}. "
                "Mend the permissions or the path, or set RAG_HOME to a folder of yours."
            ) from error
        raise


def require_room(where: Path, needed: int) -> None:
    """Raises `StorageError` where fewer than `needed` bytes are free, before any work is lost on it."""
    existing = next(folder for folder in (where, *where.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(
            f"No room on the disk for {where}: {_sizes(needed, free)}. "
            "Free some space, or set RAG_HOME to a folder on another disk."
        )


def append(path: Path, line: bytes) -> int:
    """Add the whole line, or nothing; where it begins. Raises `StorageError` where there is no room for it."""
    left = line
    with explaining_storage(path), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(end)
            raise
    return end


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Those of a user's file that hold anything, with their numbers. Raises `UsageError` for one that can't be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Can't read {path}: {' '.join(str(error).split())}.") from error
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """A folder too: a name that was given in it is only then on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_hold(error: OSError, where: Path) -> bool:
    """Is it a folder of the target's own path that can't be made, as under /proc?"""
    named = error.filename
    return error.errno == errno.ENOENT and named is not None and Path(named) in (where, *where.parents)


def _ours_or(named: str | None, where: Path) -> Path:
    """The target, also for its temporary name; another file where the error was about that."""
    if named is None:
        return where
    other = Path(named)
    ours = (path == where or path.name.startswith(f".{where.name}.") for path in (other, *other.parents))
    return where if any(ours) else other


def _sizes(needed: int, free: int) -> str:
    unit, name = (1_000_000, "MB") if math.ceil(needed / 1e6) > free // 1_000_000 + 1 else (1000, "kB")
    return f"{math.ceil(needed / unit):,} {name} needed, {free // unit:,} {name} free"


def _umask() -> int:
    """What a new file's permissions lack. Only setting it tells it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
