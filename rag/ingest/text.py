"""Plain text and Markdown: one document a file, its id the path relative to the folder given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rag.core import Document, Located
from rag.errors import CorpusError

MAX_FILE = 64 * 1024 * 1024
"""Bytes. Text of this size is no document but a dump; split it, or use JSONL."""

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def read_plain(path: Path, name: str) -> Iterator[Located]:
    yield Located(Document(name, Path(name).stem, _decode(path)), str(path), path.stat().st_size)


def read_markdown(path: Path, name: str) -> Iterator[Located]:
    body = _filled(_FRONT_MATTER.sub("", _decode(path).replace("\r\n", "\n")), path)
    heading = _HEADING.search(body)
    title = heading.group(1) if heading else Path(name).stem
    yield Located(Document(name, title, body), str(path), path.stat().st_size)


def _decode(path: Path) -> str:
    if path.stat().st_size > MAX_FILE:
        raise CorpusError(f"{path}: larger than {MAX_FILE >> 20} MiB. Split it, or turn it into JSONL.")
    raw = path.read_bytes()
    if b"\0" in raw:
        raise CorpusError(f"{path}: a binary file with a text suffix. Remove it or rename it.")
    try:
        body = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not valid UTF-8 (byte {error.start + 1}). Convert the file.") from error
    return _filled(body, path)


def _filled(body: str, path: Path) -> str:
    if not body.strip():
        raise CorpusError(f"{path}: the file is empty. Remove it.")
    return body
