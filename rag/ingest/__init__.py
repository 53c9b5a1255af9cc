"""Files to documents. One module a format family; `chunk` turns documents into passages.

`read_corpus` walks files and folders in a stable order and yields documents one by one, so that a
corpus of any size passes through without its texts piling up.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rag.core import Located
from rag.errors import CorpusError
from rag.ingest import jsonl, text

Reader = Callable[[Path, str], Iterator[Located]]
"""(file, its name relative to the folder given) -> its documents."""

READERS: Mapping[str, Reader] = {
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".txt": text.read_plain,
    ".md": text.read_markdown,
    ".markdown": text.read_markdown,
}


def find_files(sources: Sequence[Path]) -> tuple[list[tuple[Path, str]], Counter[str]]:
    """Every readable file under `sources` with its relative name, and a count of other suffixes left out.

    Hidden files and folders are left out. Raises `CorpusError` where a source doesn't exist, is a file
    of an unknown type, or where nothing readable is found.
    """
    found: list[tuple[Path, str]] = []
    skipped: Counter[str] = Counter()
    known = ", ".join(READERS)
    for source in sources:
        # Two folders may hold files of the same name.
        prefix = f"{source.name}/" if len(sources) > 1 else ""
        if source.is_file():
            if source.suffix.lower() not in READERS:
                raise CorpusError(f"Can't read {source}: {source.suffix or 'no suffix'} isn't a known type ({known}).")
            found.append((source, source.name))
        elif source.is_dir():
            for path in _walk(source):
                if path.suffix.lower() in READERS:
                    found.append((path, prefix + path.relative_to(source).as_posix()))
                else:
                    skipped[path.suffix.lower() or path.name] += 1
        else:
            raise CorpusError(f"No such file or folder: {source}. Give a corpus of {known} files.")
    if not found:
        places = ", ".join(str(source) for source in sources)
        raise CorpusError(f"Nothing to index in {places}: expected files of type {known}.")
    return found, skipped


def read_corpus(files: Sequence[tuple[Path, str]]) -> Iterator[Located]:
    """Documents of all files, in order.

    Raises `CorpusError`, naming file and place, for what isn't valid, and for an id that stands twice.
    """
    seen: dict[str, str] = {}
    for path, name in files:
        for located in _read(path, name):
            identity, where = located.document.id, located.where
            if identity in seen:
                raise CorpusError(
                    f"Document id {identity!r} stands twice: {seen[identity]} and {where}. Ids must be unique."
                )
            seen[identity] = where
            yield located


def _read(path: Path, name: str) -> Iterator[Located]:
    try:
        yield from READERS[path.suffix.lower()](path, name)
    except OSError as error:
        raise CorpusError(f"Can't read {path}: {error.strerror}. Mend its permissions, or leave it out.") from error


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))
