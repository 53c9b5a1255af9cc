"""JSON lines: BEIR's `_id, title, text`, or the sample corpus' `id, title, text` and more.

Other keys whose values are strings or numbers become metadata; lists of strings are joined by "; ".
A line that can't be read is skipped alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from rag.core import Document, Located
from rag.errors import CorpusError
from rag.ingest.source import BUFFER, File, LeftOut

MAX_LINE = 16 * 1024 * 1024
"""Bytes. A longer line is no document but a file of another kind, and would fill the memory."""

MAX_SKIPPED = 100_000
"""Lines skipped in one file before it is given up: their reasons would fill the memory."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read(file: File, left_out: LeftOut) -> Iterator[Located]:
    number = skipped = 0
    with file.open() as lines:
        while line := lines.readline(MAX_LINE + 1):
            number += 1
            where = f"{file.path}:{number}"
            size = len(line)
            while size > MAX_LINE and not line.endswith(b"\n") and (line := lines.readline(BUFFER)):
                size += len(line)
            try:
                if size > MAX_LINE:
                    raise CorpusError(f"the line is longer than {MAX_LINE >> 20} MiB. Is this a JSONL file?")
                document = _document(line) if line.strip() else None
            except CorpusError as error:
                left_out.skip(where, str(error))
                skipped += 1
                if skipped == MAX_SKIPPED:
                    raise CorpusError(
                        f"{skipped:,} of {number:,} lines can't be read. Is this a JSONL file?"
                    ) from error
                continue
            if document is not None:
                yield Located(document, where, size)


def _document(line: bytes) -> Document:
    try:
        record = json.loads(line.decode("utf-8").removeprefix("\ufeff"))
        if _SURROGATE.search(line):
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CorpusError("half of a surrogate pair, which is no character. Mend the escape.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"not valid UTF-8 (byte {error.start + 1} of the line). Convert the file.") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"not valid JSON ({error}). Each line must be one JSON object.") from error
    if not isinstance(record, dict):
        raise CorpusError(f"expected a JSON object, found {type(record).__name__}.")
    identity = record.pop("_id", None)
    identity = record.pop("id", identity) if identity is None else identity
    if not isinstance(identity, str | int) or not str(identity).strip():
        raise CorpusError("the record has no `_id` (or `id`). Each document needs one.")
    body = record.pop("text", None)
    if not isinstance(body, str) or not body.strip():
        raise CorpusError(f"document {str(identity)!r} has no `text`. Remove it or give it one.")
    title = record.pop("title", "")
    one_line = " ".join(title.split()) if isinstance(title, str) else ""
    return Document(str(identity), one_line, body, _metadata(record))


def _metadata(record: dict[str, Any]) -> dict[str, str | int | float]:
    values: dict[str, str | int | float] = {}
    for key, value in record.items():
        if isinstance(value, bool):
            if value:  # what isn't so isn't there: `--where retracted` asks for what has it
                values[key] = "yes"
        elif isinstance(value, float) and not math.isfinite(value):
            raise CorpusError(f"{key} is {value}, which no condition can ask for. Leave it out, or give it a number.")
        elif isinstance(value, str | int | float):
            values[key] = value
        elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            values[key] = "; ".join(value)
    return values
