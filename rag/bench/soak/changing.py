"""Changes bytes of an index's files, one at a time, and tells which of them nobody notices."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag import build, index
from rag.errors import SearchIndexError
from rag.settings import Loaded


def changes(loaded: Loaded, count: int, chance: random.Random) -> list[str]:
    """Change a byte of the current version's files and change it back, `count` times; the places that went unnoticed.

    Half of them in whatever file, half wherever a byte is; the pointer to the current version is among them.
    """
    folder = build.check_index(loaded).folder
    versions = index.versions_of(loaded.settings.index.name)
    files = [
        versions.pointer,
        *sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0),
    ]
    sizes = [path.stat().st_size for path in files]
    missed = []
    for number in range(count):
        path = chance.choice(files) if number % 2 else chance.choices(files, sizes)[0]
        position = chance.randrange(path.stat().st_size)
        with _changed(path, position, chance.randrange(1, 256)):
            try:
                build.check_index(loaded)
            except SearchIndexError:
                continue
            missed.append(f"{path.relative_to(versions.root)}:{position}")
    build.check_index(loaded)
    return missed


@contextmanager
def _changed(path: Path, position: int, by: int) -> Iterator[None]:
    with path.open("r+b", buffering=0) as file:

        def flip() -> None:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ by]))

        flip()
        try:
            yield
        finally:
            flip()
