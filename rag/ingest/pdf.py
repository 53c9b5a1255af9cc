"""PDF, by pypdfium2 (Apache-2.0 and BSD: PDFium, which Chrome reads PDFs with): one document a file.

PDFium is native code that strangers' files reach, so that a process of its own reads each file, with bounds on memory
and time. What it gives is lines; here they become paragraphs, without running headers, footers and hyphens at lines' ends.
Tables and figures come as their lines; an exponent isn't told from its base.
"""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rag.core import Document, Located
from rag.errors import CorpusError
from rag.ingest.source import File, LeftOut

MAX_FILE = 128 * 1024 * 1024
"""Bytes."""

MAX_SECONDS = 8
"""Of processor time for one file, and one more for each MiB of it. Long books have many."""

SLOW = 10
"""How much longer than its processor time a file may take, on a busy machine."""

MAX_PARAGRAPH = 10_000
"""Characters. A longer one has lost its end, and its lines would be joined in quadratic time."""

MAX_WORD = 60
"""Characters of a line that are looked at for a broken word."""

_EDGE = 2
"""Lines at the top and at the bottom of a page that may be a running header or footer."""

_HYPHEN_AT_END = re.compile(r"([^\W\d_]+)[-\u00ad\u2010\ufffe\x02]$")
"""PDFium itself marks a hyphen that it takes for a break of the line by U+FFFE, or by U+0002."""


def read(file: File, left_out: LeftOut) -> Iterator[Located]:
    del left_out
    content = file.read(MAX_FILE)
    title, pages = _extract(content)
    body = "\n\n".join(paragraphs([page.splitlines() for page in pages]))
    if not body:
        raise CorpusError(f"no text on its {len(pages):,} pages: a scan? OCR it first.")
    yield Located(
        Document(file.name, _fit(title) or file.stem, body, {"pages": len(pages)}), str(file.path), len(content)
    )


def _extract(content: bytes) -> tuple[str, list[str]]:
    """(title, text of each page), read by the process that `pdfium.py` is."""
    seconds = MAX_SECONDS + (len(content) >> 20)
    # -P: the folder of that script holds modules of ours that are called like the standard library's.
    command = [sys.executable, "-P", str(Path(__file__).with_name("pdfium.py")), str(seconds)]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=SLOW * seconds, check=False)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode == -signal.SIGXCPU:
        raise CorpusError(f"a PDF that isn't read after {seconds} s. Leave it out, or split it.")
    if done.returncode != 0:
        raise CorpusError(f"a PDF that PDFium breaks on (exit {done.returncode}). Leave it out, or print it anew.")
    read = json.loads(done.stdout)
    if "error" in read:
        raise CorpusError(read["error"])
    return read["title"], read["pages"]


def _fit(title: str) -> str:
    """The title that a PDF gives itself, where it isn't the name of the file that it was made from."""
    title = " ".join(title.split())
    is_name = re.search(r"(?i)^untitled|^microsoft |\.\w{2,5}$|^\S+$", title)
    return "" if is_name else title


# --- lines to paragraphs -----------------------------------------------------------------------


def paragraphs(pages: Sequence[Sequence[str]]) -> list[str]:
    """A line that is clearly shorter than others ends a paragraph, and a blank one does. A paragraph may cross pages."""
    running = _running(pages)
    lines = [line for page in pages for line in _without(running, page)]
    words = Counter(word.lower() for line in lines for word in re.findall(r"[^\W_]+(?:-[^\W_]+)*", line))
    full = statistics.median([len(line) for line in lines if line] or [0])
    found: list[str] = []
    so_far = ""
    for line in lines:
        so_far = _join(so_far, line, words)
        if so_far and (not line or (len(line) < 0.7 * full and not _broken(line)) or len(so_far) > MAX_PARAGRAPH):
            found.append(so_far)
            so_far = ""
    return [*found, so_far] if so_far else found


def _running(pages: Sequence[Sequence[str]]) -> set[str]:
    """Lines at the edges of more than half of the pages, page numbers apart. With two pages chance can't be told."""
    counts = Counter(line for page in pages for line in {_pattern(line) for line in _edges(page)})
    return {line for line, count in counts.items() if line and len(pages) > 2 and count > len(pages) / 2}


def _without(running: set[str], page: Sequence[str]) -> Iterator[str]:
    kept = [line.strip() for line in page]
    for number, line in enumerate(kept):
        at_edge = number < _EDGE or number >= len(kept) - _EDGE
        if not (at_edge and _pattern(line) in running):
            yield line


def _edges(page: Sequence[str]) -> list[str]:
    return [*page[:_EDGE], *page[-_EDGE:]]


def _pattern(line: str) -> str:
    return re.sub(r"\d+", "#", " ".join(line.split()))


def _join(before: str, line: str, words: Counter[str]) -> str:
    """Both with a blank between, or without the hyphen of a word that was broken: what the document writes elsewhere."""
    broken = _broken(before)
    start = re.match(r"[^\W\d_]+", line)
    if not broken or start is None or not start[0][0].islower():
        return f"{before} {line}".strip()
    whole, hyphened = broken + start[0], f"{broken}-{start[0]}"
    keeps = words[hyphened.lower()] > words[whole.lower()]
    return before[: -len(broken) - 1] + (hyphened if keeps else whole) + line[start.end() :]


def _broken(line: str) -> str:
    """The first part of a word that goes on in the next line; "" where none does."""
    found = _HYPHEN_AT_END.search(line[-MAX_WORD:])
    return found[1] if found is not None else ""
