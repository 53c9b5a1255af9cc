"""JSON lines: BEIR's `_id, title, text`, or the sample corpus' `id, title, text` and more.

Other keys whose values are strings or numbers become metadata; lists of strings are joined by "; ".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.core import Document, Located
from rag.errors import CorpusError

MAX_LINE = 16 * 1024 * 1024
"""Bytes. A longer line is no document but a file of another kind, and would fill the memory."""


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read(path: Path, name: str) -> Iterator[Located]:
    del name
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_LINE:
                raise CorpusError(f"{where}: the line is longer than {MAX_LINE >> 20} MiB. Is this a JSONL file?")
            if line.strip():
                yield Located(_document(line, where), where, len(line))


def _document(line: bytes, where: str) -> Document:
    try:
        record = json.loads(line.decode("utf-8").removeprefix("\ufeff"))
        if _SURROGATE.search(line):
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CorpusError(f"{where}: half of a surrogate pair, which is no character. Mend the escape.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{where}: not valid UTF-8 (byte {error.start + 1} of the line). Convert the file."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: not valid JSON ({error}). Each line must be one JSON object.") from error
    if not isinstance(record, dict):
        raise CorpusError(f"{where}: expected a JSON object, found {type(record).__name__}.")
    identity = record.pop("_id", None)
    identity = record.pop("id", identity) if identity is None else identity
    if not isinstance(identity, str | int) or not str(identity).strip():
        raise CorpusError(f"{where}: the record has no `_id` (or `id`). Each document needs one.")
    body = record.pop("text", None)
    if not isinstance(body, str) or not body.strip():
        raise CorpusError(f"{where}: document {str(identity)!r} has no `text`. Remove it or give it one.")
    title = record.pop("title", "")
    return Document(str(identity), title if isinstance(title, str) else "", body, _metadata(record))


def _metadata(record: dict[str, Any]) -> dict[str, str | int | float]:
    values: dict[str, str | int | float] = {}
    for key, value in record.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            values[key] = value
        elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            values[key] = "; ".join(value)
    return values
