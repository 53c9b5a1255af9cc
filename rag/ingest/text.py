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
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def read_plain(path: Path, name: str) -> Iterator[Located]:
    yield Located(Document(name, Path(name).stem, _decode(path)), str(path), path.stat().st_size)


def read_markdown(path: Path, name: str) -> Iterator[Located]:
    """The title is the front matter's, or the first heading's outside fenced code, or the file's name."""
    whole = _decode(path).replace("\r\n", "\n")
    front = _FRONT_MATTER.match(whole)
    body = _filled(whole[front.end() :] if front else whole, path)
    named = _FRONT_TITLE.search(front[1]) if front else None
    heading = named or _HEADING.search(_FENCED.sub("", body))
    title = heading[1] if heading else Path(name).stem
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
