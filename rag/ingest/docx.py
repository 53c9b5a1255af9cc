"""DOCX, by python-docx (MIT; lxml is all it needs): one document a file, a paragraph each between blank lines.

Chosen over mammoth and markitdown, which go by way of HTML. Tables are left out and counted; notes, headers and footers
are left out. A .docx is a zip of XML: its table of contents is looked at before anything is expanded.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from lxml import etree

from rag.core import Document, Located
from rag.errors import CorpusError
from rag.ingest.source import File, LeftOut
from rag.ingest.xml import MARKER, raised, tidy

MAX_FILE = 128 * 1024 * 1024
"""Bytes; also of all parts that aren't XML when expanded (images)."""

MAX_XML = 16 * 1024 * 1024
"""Bytes of all XML parts when expanded: as trees they take up to 30 times as much."""

MAX_PARTS = 10_000

MAX_RUNS = 100_000
"""Paragraphs, and runs of one formatting in them. Each becomes an object of Python."""

_XML = (".xml", ".rels")

_ENCRYPTED = 0x1
"""Of a zip's flags."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""What begins Word's older format, and the shell around an encrypted file."""


def read(file: File, left_out: LeftOut) -> Iterator[Located]:
    content = file.read(MAX_FILE)
    try:
        _check(content)
        title, paragraphs, tables = _read(content)
    except CorpusError:
        raise
    except Exception as error:  # whatever a stranger's file makes a library raise: that file alone is lost
        raise CorpusError(f"a damaged DOCX ({type(error).__name__}: {error}). Save it anew.") from error
    if not paragraphs:
        raise CorpusError("no text in it. Leave it out.")
    left_out.counts["tables"] += tables
    yield Located(Document(file.name, title or file.stem, "\n\n".join(paragraphs)), str(file.path), len(content))


def _check(content: bytes) -> None:
    """Raises `CorpusError` for what isn't safe to expand. `zipfile` expands no part beyond the size told here."""
    if content.startswith(_OLE):
        raise CorpusError("encrypted, or a .doc by another name. Save it as .docx without a password.")
    try:
        package = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise CorpusError(f"no DOCX file ({error}). Save it anew.") from error
    parts = package.infolist()
    if any(part.flag_bits & _ENCRYPTED for part in parts):
        raise CorpusError("an encrypted zip. Save it as .docx without a password.")
    expanded = {True: 0, False: 0}
    for part in parts:
        expanded[part.filename.lower().endswith(_XML)] += part.file_size
        if ".." in PurePosixPath(part.filename.replace("\\", "/")).parts or part.filename.startswith(("/", "\\")):
            raise CorpusError(f"it names a part outside of itself ({part.filename!r}). Don't trust it.")
    if len(parts) > MAX_PARTS:
        raise CorpusError(f"it has {len(parts):,} parts, at most {MAX_PARTS:,} are read. Split it.")
    for is_xml, limit in ((True, MAX_XML), (False, MAX_FILE)):
        if expanded[is_xml] > limit:
            kind = "XML" if is_xml else "images"
            raise CorpusError(
                f"its {kind} would expand to {expanded[is_xml] >> 20:,} MiB, at most {limit >> 20}. A bomb?"
            )
    if (hidden := _xml_by_another_name(package)) is not None:
        raise CorpusError(f"it declares {hidden!r} as XML. Save it anew.")


def _xml_by_another_name(package: zipfile.ZipFile) -> str | None:
    """A part, or an ending of parts, of which the package says that it is XML and which wasn't counted as such. python-docx goes by
    what is said there. Only after the sizes were checked."""
    types = etree.fromstring(package.read("[Content_Types].xml"), etree.XMLParser(resolve_entities=False))
    for one in types.iter("{*}Override", "{*}Default"):
        name = one.get("PartName") or f".{one.get('Extension', '')}"
        if one.get("ContentType", "").lower().rstrip().endswith("xml") and not name.lower().endswith(_XML):
            return name
    return None


def _read(content: bytes) -> tuple[str, list[str], int]:
    """(title, paragraphs, number of tables)"""
    import docx

    document = docx.Document(io.BytesIO(content))
    if (count := int(document.element.xpath("count(//w:p) + count(//w:r)"))) > MAX_RUNS:
        raise CorpusError(f"it has {count:,} paragraphs and runs, at most {MAX_RUNS:,} are read. Split it.")
    title = " ".join((document.core_properties.title or "").split())
    # By their ids: `paragraph.style` looks through all styles each time.
    titles = {style.style_id for style in document.styles if style.name in ("Title", "Heading 1")}
    paragraphs, tables = [], 0
    for block in document.iter_inner_content():
        if not hasattr(block, "runs"):
            tables += 1
        elif body := _text(block):
            if not title and block._p.style in titles:
                title = body
            paragraphs.append(body)
    return title, paragraphs, tables


def _text(paragraph: Any) -> str:
    """With its links' text, and with exponents marked."""
    pieces = [""]
    for part in paragraph.iter_inner_content():
        for run in getattr(part, "runs", None) or [part]:
            raise_it = run.font.superscript if hasattr(run, "font") else False
            pieces.append(raised(pieces[-1], run.text) if raise_it else run.text)
    return tidy("".join(pieces).replace(MARKER, ""))
