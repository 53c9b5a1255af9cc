"""HTML, by trafilatura (Apache-2.0, several releases a year): the text of a page without its navigation.

Chosen over readability-lxml, which says which part is the text but not how it reads, and markitdown, which keeps menus
and brings an ONNX runtime. An optional dependency (the extra `documents`): with its calendars it takes 45 MB.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

from rag.core import Document, Located
from rag.errors import CorpusError
from rag.ingest.source import File, LeftOut
from rag.ingest.xml import raised

MAX_FILE = 8 * 1024 * 1024
"""Bytes."""

MAX_ELEMENTS = 100_000
"""trafilatura copies the tree more than once."""

# What lxml reads in a page and refuses to write.
_NO_TEXT = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read(file: File, left_out: LeftOut) -> Iterator[Located]:
    try:
        import trafilatura
    except ImportError as error:
        raise CorpusError("reading HTML needs trafilatura. Install it with: pip install trafilatura") from error

    content = file.read(MAX_FILE)
    tree = _parse(content)
    title = _title(tree) or file.stem
    tables = sum(1 for _ in tree.iter("table"))
    _mark_exponents(tree)
    try:
        lines = trafilatura.extract(tree, include_tables=False, include_comments=False) or ""
    except Exception as error:  # whatever a stranger's page makes a library raise: that page alone is lost
        raise CorpusError(
            f"a page that trafilatura breaks on ({type(error).__name__}: {error}). Leave it out."
        ) from error
    # A line each for headings, paragraphs and items; between blank lines none runs into the next.
    body = "\n\n".join(line.strip() for line in lines.splitlines() if line.strip())
    if not body:
        raise CorpusError("no text in it: is it made by scripts, or a page of links? Save it as text.")
    left_out.counts["tables"] += tables
    yield Located(Document(file.name, title, body), str(file.path), len(content))


def _parse(content: bytes) -> Any:
    from lxml import etree, html

    if b"\0" in content and not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CorpusError("a binary file with the suffix of a page. Remove it or rename it.")
    try:
        content.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = None  # what the page declares
    parser = html.HTMLParser(
        encoding=encoding, no_network=True, huge_tree=False, remove_comments=True, remove_pis=True, collect_ids=False
    )
    try:
        tree = html.document_fromstring(content, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise CorpusError(f"no HTML page ({error}). Leave it out.") from error
    if (count := sum(1 for _ in tree.iter())) > MAX_ELEMENTS:
        raise CorpusError(f"a page of {count:,} elements, at most {MAX_ELEMENTS:,} are read. Split it.")
    return tree


def _title(tree: Any) -> str:
    """The only h1, or the title, which names the site as well."""
    headings = [" ".join(heading.text_content().split()) for heading in tree.iter("h1")]
    if len(headings) == 1 and headings[0]:
        return headings[0]
    return " ".join((tree.findtext(".//title") or "").split())


def _mark_exponents(tree: Any) -> None:
    """trafilatura keeps a superscript's text alone: 10^6 would be 106. What marks a reference there goes."""
    for sup in list(tree.iter("sup")):
        if sup.getparent() is None:  # stood in another one, whose text has its own already
            continue
        previous = sup.getprevious()
        before = (previous.tail if previous is not None else sup.getparent().text) or ""
        inside = _NO_TEXT.sub("", sup.text_content()).strip()
        is_reference = inside.startswith("[") and inside.endswith("]")
        for child in list(sup):
            sup.remove(child)
        sup.text = "" if is_reference else raised(before, inside)
