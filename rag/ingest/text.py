"""Plain text and Markdown: one document a file, its id the file's `name`: the path from the folder given on."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from rag.core import Document, Located
from rag.errors import CorpusError
from rag.ingest.source import File, LeftOut

MAX_FILE = 16 * 1024 * 1024
"""Bytes. Text of this size is no document but a dump; split it, or use JSONL. Nothing but short lines, it has 6 million sentences."""

# Ends are stripped in Python: patterns for them take quadratic time on a line of many blanks.
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(\S.*)$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def read_plain(file: File, left_out: LeftOut) -> Iterator[Located]:
    del left_out
    body, size = _decode(file)
    yield Located(Document(file.name, file.stem, body), str(file.path), size)


def read_markdown(file: File, left_out: LeftOut) -> Iterator[Located]:
    """The title is the front matter's, or the first heading's outside fenced code, or the file's name."""
    del left_out
    body, size = _decode(file)
    whole = body.replace("\r\n", "\n")
    front = _FRONT_MATTER.match(whole)
    body = _filled(whole[front.end() :] if front else whole)
    named = _FRONT_TITLE.search(front[1]) if front else None
    heading = _HEADING.search(_FENCED.sub("", body))
    if named is not None:
        title = named[1].strip().strip("\"'")
    elif heading is not None:
        title = heading[1].rstrip().rstrip("#").rstrip()
    else:
        title = file.stem
    yield Located(Document(file.name, title, body), str(file.path), size)


def _decode(file: File) -> tuple[str, int]:
    """The text, and its size in bytes."""
    raw = file.read(MAX_FILE, "Split it, or turn it into JSONL.")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CorpusError("UTF-16, and UTF-8 is read. Convert the file.")
    if b"\0" in raw:
        raise CorpusError("a binary file with a text suffix. Remove it or rename it.")
    try:
        body = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise CorpusError(f"not valid UTF-8 (byte {error.start + 1}). Convert the file.") from error
    return _filled(body), len(raw)


def _filled(body: str) -> str:
    if not body.strip():
        raise CorpusError("the file is empty. Remove it.")
    return body
