"""XML by strangers, read piece by piece, and the text of mixed content.

Nothing is expanded and nothing fetched: what declares entities, or refers to one that only its DTD defines, is refused.
libxml2's own limits (256 levels, 10 MB for a text) stay on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeAlias

from lxml import etree

from rag.errors import CorpusError
from rag.ingest.source import File

Element: TypeAlias = Any
"""An lxml element: lxml has no types of its own."""

MAX_RECORD = 16 * 1024 * 1024
"""Bytes between two ends of records. As a tree they take up to 30 times as much: half a GiB."""

MAX_ELEMENTS = 200_000
"""Of one record: each is visited in Python."""

MARKER = "\0"
"""Stands for a reference marker until `tidy` takes it out: no XML can hold it."""

_CHUNK = 1 << 16
# Author and year ("Koch, 1882") are words of the sentence and stay.
_NUMERIC = re.compile(r"(?!.*\d{4})[\s\d\[\](),;*†‡–—‐‑−-]*(?:(?<=\d)[a-z])?[\s\])]*")  # noqa: RUF001

_BETWEEN = r"\s,;–—‐‑−-"  # noqa: RUF001
# Square brackets may hold the end of a range that is no reference of its own: [\0-5].
_GROUP = rf"(?:\[[\d{_BETWEEN}]*{MARKER}[\d{MARKER}{_BETWEEN}]*\]|\([{MARKER}{_BETWEEN}]*{MARKER}\s?\)|{MARKER})"
_MARKERS = re.compile(rf"\s?{_GROUP}(?:\s?[,;–—‐‑−-]?\s?{_GROUP})*")  # noqa: RUF001


def root(file: File) -> str:
    """The name of the root element, without reading on. Raises `CorpusError` where there is none."""
    with file.open() as stream:
        for element in _parse(_Counting(stream), "start"):
            return str(element.tag)
    raise CorpusError("no XML element in it.")


def records(file: File, tags: Sequence[str]) -> Iterator[tuple[Element, int]]:
    """The root, if it has one of these names, else its children that have, each whole, with the bytes read since the one before.

    One is in memory at a time. Raises `CorpusError` where the XML is damaged or refers to entities, or one takes more than
    `MAX_RECORD` or `MAX_ELEMENTS`.
    """
    with file.open() as stream:
        counted = _Counting(stream)
        for element in _parse(counted, "end", tags):
            parent = element.getparent()
            if parent is not None and (parent.getparent() is not None or parent.tag in tags):
                continue
            _check(element)
            yield element, counted.since_last()
            element.clear()
            while element.getprevious() is not None:
                del parent[0]


def text(element: Element | None, omit: Collection[str] = ()) -> str:
    """The text of mixed content on one line, without that of elements called `omit`; "" for None.

    Reference markers are taken out, exponents are marked (10^6), and a formula that doesn't fit into a line is "[formula]".
    """
    return tidy("".join(_pieces(element, frozenset(omit)))) if element is not None else ""


def tidy(raw: str) -> str:
    return _MARKERS.sub("", " ".join(raw.split())).strip()


def raised(before: str, exponent: str) -> str:
    """A superscript in plain text: only where it would change a number it needs a sign."""
    is_power = before[-1:].isdigit() and re.match(r"[-−–+]?\d", exponent) is not None  # noqa: RUF001
    return f"^{exponent}" if is_power else exponent


def _pieces(element: Element, omit: frozenset[str]) -> list[str]:
    pieces = [element.text or ""]
    for child in element:
        name = local_name(child)
        if name in ("sup", "sub"):
            # Pretty-printed files break lines before them, in the middle of a word.
            stripped = pieces[-1].rstrip()
            pieces[-1] = stripped if "\n" in pieces[-1][len(stripped) :] else pieces[-1]
        if name == "sup":
            before = next((piece[-1] for piece in reversed(pieces) if piece), "")
            pieces.append(raised(before, "".join(_pieces(child, omit)).strip()))
        elif name == "xref" and child.get("ref-type") == "bibr" and _is_number("".join(child.itertext())):
            pieces.append(MARKER)
        elif name in ("inline-formula", "disp-formula", "math"):
            pieces.append(_formula(child))
        elif name == "break":
            pieces.append(" ")
        elif name not in omit:
            pieces += _pieces(child, omit)
        pieces.append(child.tail or "")
    return pieces


def _is_number(reference: str) -> bool:
    return len(reference) < 100 and _NUMERIC.fullmatch(reference) is not None


# --- formulas ----------------------------------------------------------------------------------

MAX_FORMULA = 80
"""Characters. A longer formula is no part of a sentence."""

_LINEAR = {"mrow", "mi", "mn", "mo", "mtext", "mspace", "mstyle", "semantics", "math", "mfenced"}


def _formula(element: Element) -> str:
    """In a line where that says the same: "ab" for a fraction or a matrix would not."""
    math = element if local_name(element) == "math" else next(element.iter("{*}math"), None)
    if math is not None:
        line = _line(math)
    elif next(element.iter("tex-math", "graphic", "inline-graphic"), None) is not None:
        line = None
    else:
        line = "".join(_pieces(element, frozenset({"label"})))
    short = " ".join(line.split()) if line is not None else ""
    return short if 0 < len(short) <= MAX_FORMULA else "[formula]"


def _line(element: Element) -> str | None:
    """MathML in a line; None where there is no such line."""
    name = local_name(element)
    if name in ("annotation", "annotation-xml"):
        return ""
    parts = [_line(child) for child in element if isinstance(child.tag, str)]
    if any(part is None for part in parts):
        return None
    inner = [part for part in parts if part is not None]
    if name == "msub" and len(inner) == 2:
        return "".join(inner)
    if name == "msup" and len(inner) == 2:
        return "^".join(inner)
    if name == "mfenced":
        return f"({', '.join(inner)})"
    return (element.text or "").strip() + "".join(inner) if name in _LINEAR else None


# --- parsing -----------------------------------------------------------------------------------


class _Counting:
    """A stream that knows how much was read since a record ended."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._read = stream, 0

    def read(self, size: int) -> bytes:
        chunk: bytes = self._stream.read(size)
        self._read += len(chunk)
        if self._read > MAX_RECORD:
            raise CorpusError(f"one record takes more than {MAX_RECORD >> 20} MiB. Leave it out.")
        return chunk

    def since_last(self) -> int:
        read, self._read = self._read, 0
        return read


def _parse(stream: _Counting, event: str, tags: Sequence[str] | None = None) -> Iterator[Element]:
    """Each element of these names at its start or end. Events for all of them would take seconds for a hostile file."""
    parser = etree.XMLPullParser(
        events=(event,),
        tag=tags,
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        while chunk := stream.read(_CHUNK):
            parser.feed(chunk)
            for _, element in parser.read_events():
                yield element
        parser.close()
    except etree.XMLSyntaxError as error:
        raise CorpusError(f"not well-formed XML ({error.msg}). Fetch it again.") from error


def _check(element: Element) -> None:
    dtd = element.getroottree().docinfo.internalDTD
    if dtd is not None and (entity := next(dtd.iterentities(), None)) is not None:
        raise CorpusError(f"declares the entity {entity.name!r}. Entities aren't expanded: they can be bombs.")
    if next(element.iter(etree.Entity), None) is not None:
        raise CorpusError(f"line {element.sourceline}: refers to an entity that it doesn't define.")
    if (count := int(element.xpath("count(descendant::*)"))) > MAX_ELEMENTS:
        raise CorpusError(f"one record has {count:,} elements, at most {MAX_ELEMENTS:,} are read. Leave it out.")


def local_name(element: Element) -> str:
    """Without its namespace; "" for what is no element."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
