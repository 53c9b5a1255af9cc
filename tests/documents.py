"""Small PDF and DOCX files, written by hand: what the tests of their readers, and of hostile files, are made of; and the
ids that a folder's files have."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import docx

ENCRYPTED = f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'5a' * 32}> /U <{'a5' * 32}> >> /ID [<00> <00>]"
"""For a PDF's trailer: no password fits."""


def ids_in(folder: Path, *names: str) -> list[str]:
    """What the documents of these files, named by their place in a folder that is given, are called."""
    return [f"{folder.name}/{name}" for name in names]


def pdf(pages: Sequence[Sequence[str]], title: str = "", trailer: str = "", stream: bytes | None = None) -> bytes:
    """A PDF of these lines, or of pages that all show one content `stream` (a whole object)."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    objects.append(f"<< /Title ({title}) >>".encode())
    if stream is not None:
        objects.append(stream)
    kids = []
    for lines in pages:
        content = len(objects)
        if stream is None:
            shown = "".join(f"({line}) Tj T*\n" for line in lines)
            objects.append(stream_object(f"BT /F1 10 Tf 12 TL 40 760 Td\n{shown}ET".encode("latin-1")))
            content = len(objects)
        else:
            content = 5
        page = f"/Parent 2 0 R /Contents {content} 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page {page} >>".encode())
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    file = io.BytesIO()
    file.write(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(file.tell())
        file.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = file.tell()
    file.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    file.writelines(b"%010d 00000 n \n" % place for place in places)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 4 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n"
    return file.getvalue() + end.encode()


def stream_object(content: bytes, filters: str = "") -> bytes:
    return f"<< /Length {len(content)} {filters} >>\nstream\n".encode() + content + b"\nendstream"


def word(*paragraphs: str, title: str = "", parts: Mapping[str, bytes] | None = None) -> bytes:
    """A DOCX of these paragraphs; `parts` are added to the zip, or take the place of those there."""
    document = docx.Document()
    document.core_properties.title = title
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    return packed(document, parts)


def packed(document: object, parts: Mapping[str, bytes] | None = None) -> bytes:
    saved, file = io.BytesIO(), io.BytesIO()
    document.save(saved)  # type: ignore[attr-defined]
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        kept = {name: old.read(name) for name in old.namelist()}
        for name, content in {**kept, **(parts or {})}.items():
            new.writestr(name, content)
    return file.getvalue()
