"""DOCX to documents: paragraphs, headings, exponents, and files that can't be read."""

from __future__ import annotations

from pathlib import Path

import documents as made
import docx as python_docx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.core import Document
from rag.errors import CorpusError
from rag.ingest import LeftOut, find_files, read_corpus


def read(path: Path, content: bytes) -> tuple[Document, LeftOut]:
    path.write_bytes(content)
    left_out = LeftOut()
    [located] = read_corpus(find_files([path], left_out), left_out)
    return located.document, left_out


def refusal(path: Path, content: bytes) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path, content)
    return str(caught.value).removeprefix(f"Nothing could be read: {path}: ")


def test_paragraphs_and_headings_stand_between_blank_lines(tmp_path: Path) -> None:
    written = python_docx.Document()
    written.core_properties.title = ""
    written.add_heading("Cherries and urate", 1)
    written.add_paragraph("We fed\ncherries.")
    written.add_paragraph("  ")
    written.add_table(1, 1).cell(0, 0).text = "Seven"
    written.add_heading("Results", 2)
    written.add_paragraph("Urate fell.")
    document, left_out = read(tmp_path / "a.docx", made.packed(written))
    text = "Cherries and urate\n\nWe fed cherries.\n\nResults\n\nUrate fell."
    assert document == Document("a.docx", "Cherries and urate", text)
    assert left_out.counts == {"tables": 1}


@pytest.mark.parametrize(("title", "found"), [("On\n gout", "On gout"), ("", "draft")])
def test_the_title_is_the_files_own_or_its_name(tmp_path: Path, title: str, found: str) -> None:
    assert read(tmp_path / "draft.docx", made.word("Text.", title=title))[0].title == found


def test_exponents_are_marked(tmp_path: Path) -> None:
    written = python_docx.Document()
    paragraph = written.add_paragraph("Of 10")
    paragraph.add_run("6").font.superscript = True
    paragraph.add_run(" cells/m")
    paragraph.add_run("2").font.superscript = True
    assert read(tmp_path / "a.docx", made.packed(written))[0].text == "Of 10^6 cells/m2"


@settings(max_examples=20, deadline=None)  # each writes a DOCX
@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1).filter(str.strip), min_size=1
    )
)
def test_any_text_survives_its_way_through_a_docx(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    document, _ = read(tmp_path_factory.mktemp("a") / "a.docx", made.word(*words))
    assert document.text.split("\n\n") == [" ".join(one.split()) for one in words]


def test_a_document_without_text_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.docx", made.word("")) == "no text in it. Leave it out."


def test_an_encrypted_one_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path / "a.docx", bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 504)
    assert message.startswith("encrypted, or a .doc by another name")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", made.word("Text.")[:-100]])
def test_what_is_no_zip_is_named(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path / "a.docx", content).startswith("no DOCX file (")


@pytest.mark.parametrize(
    ("name", "content"),
    [("word/document.xml", b"<w:document"), ("word/document.xml", b"<other/>"), ("[Content_Types].xml", b"<a/>")],
)
def test_a_damaged_part_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    assert refusal(tmp_path / "a.docx", made.word("Text.", parts={name: content})).startswith("a damaged DOCX (")


@pytest.mark.parametrize(
    ("header", "place", "value", "reason"),
    [
        (6, 8, b"\x01\0", "an encrypted zip. Save it as .docx without a password."),
        (8, 10, b"\x63\0", "a damaged DOCX (NotImplementedError: "),
        (14, 16, b"\0\0\0\0", "a damaged DOCX (BadZipFile: "),
        (None, 42, b"\xff\xff\xff\x7f", "a damaged DOCX ("),
    ],
)
def test_a_zip_that_cannot_be_expanded_is_named(
    tmp_path: Path, header: int | None, place: int, value: bytes, reason: str
) -> None:
    """Of its first part: a password, an unknown compression, another checksum, a place behind the file's end."""
    content = bytearray(made.word("Text."))
    starts = [(content.index(b"PK\x01\x02"), place)] + ([(0, header)] if header is not None else [])
    for start, offset in starts:
        content[start + offset : start + offset + len(value)] = value
    assert refusal(tmp_path / "a.docx", bytes(content)).startswith(reason)


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        ('<Override PartName="/word/document.bin" ContentType="{}"/>', "/word/document.bin"),
        ('<Default Extension="PNG" ContentType="{}"/>', ".PNG"),
    ],
)
def test_what_would_be_parsed_and_was_not_counted_as_xml_is_refused(tmp_path: Path, declared: str, name: str) -> None:
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    types = (
        f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">{declared.format(kind)}</Types>'
    )
    content = made.word("Text.", parts={"[Content_Types].xml": types.encode(), "word/document.bin": b"<a/>"})
    assert refusal(tmp_path / "a.docx", content) == f"it declares '{name}' as XML. Save it anew."
