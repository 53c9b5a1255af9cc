"""PDF to documents: lines to paragraphs, and files that can't be read."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import documents as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.core import Document
from rag.errors import CorpusError
from rag.ingest import LeftOut, find_files, pdf, read_corpus
from rag.ingest.pdf import paragraphs

FULL = "Urate was measured in each of the patients every week and fell"


def read(path: Path, content: bytes) -> Document:
    path.write_bytes(content)
    left_out = LeftOut()
    [located] = read_corpus(find_files([path], left_out), left_out)
    assert left_out == LeftOut()
    return located.document


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        list(read_corpus(find_files([path], LeftOut()), LeftOut()))
    return str(caught.value).removeprefix(f"Nothing could be read: {path}: ")


# --- files -------------------------------------------------------------------------------------


def test_a_pdf_is_a_document_of_all_its_pages(tmp_path: Path) -> None:
    content = made.pdf([["Gout", FULL, "under treat-"], ["ment with cherries."]], title="Cherries and urate")
    assert read(tmp_path / "a.pdf", content) == Document(
        "a.pdf", "Cherries and urate", f"Gout\n\n{FULL} under treatment with cherries.", {"pages": 2}
    )


@pytest.mark.parametrize("title", ["", "untitled document", "Microsoft Word - paper 3", "final v2.docx", "s0140-6736"])
def test_a_title_that_is_none_gives_way_to_the_files_name(tmp_path: Path, title: str) -> None:
    assert read(tmp_path / "gout.pdf.gz", gzip.compress(made.pdf([[FULL]], title=title))).title == "gout"


def test_an_encrypted_pdf_is_named_as_one(tmp_path: Path) -> None:
    content = made.pdf([[FULL]], trailer=made.ENCRYPTED)
    assert refusal(tmp_path / "a.pdf", content) == "an encrypted PDF. Save it without its password."


def test_a_pdf_without_text_is_taken_for_a_scan(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.pdf", made.pdf([[], []])) == "no text on its 2 pages: a scan? OCR it first."


@pytest.mark.parametrize("content", [b"", b"no PDF at all", made.pdf([[FULL]])[:60], b"%PDF-1.7\n" + b"\0" * 10_000])
def test_a_damaged_pdf_is_named(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path / "a.pdf", content).startswith("a damaged PDF, or none (")


def test_a_pdf_that_breaks_its_reader_costs_that_pdf_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "pdfium.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(pdf, "__file__", str(tmp_path / "pdf.py"))
    assert refusal(tmp_path / "a.pdf", made.pdf([[FULL]])).startswith("a PDF that PDFium breaks on (exit -11)")
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(pdf, "MAX_SECONDS", 1)
    monkeypatch.setattr(pdf, "SLOW", 0.5)
    assert refusal(tmp_path / "a.pdf", made.pdf([[FULL]])).startswith("a PDF that isn't read after 1 s")


# --- lines to paragraphs -----------------------------------------------------------------------


def test_a_short_line_ends_a_paragraph_and_a_page_does_not() -> None:
    a, b, c, d, e, f = (f"{FULL} {word}" for word in ("most", "much", "soon", "less", "more", "late"))
    pages = [["Methods", a, b, "in all."], [c, d], [e, "too.", "", f]]
    assert paragraphs(pages) == ["Methods", f"{a} {b} in all.", f"{c} {d} {e} too.", f]


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ("treat-", "ment works", "treatment works"),
        ("treat\ufffe", "ment works", "treatment works"),
        ("long-", "term care", "long-term care"),  # the document has the word with its hyphen, below
        ("interleukin-", "6 rose", "interleukin- 6 rose"),
        ("anti-", "TNF drugs", "anti- TNF drugs"),
    ],
)
def test_hyphens_at_the_end_of_a_line(first: str, second: str, joined: str) -> None:
    lines = [f"{FULL} {first}", f"{second} {FULL}", f"A long-term {FULL}"]
    assert paragraphs([lines]) == [f"{FULL} {joined} {FULL} A long-term {FULL}"]


def test_running_headers_and_footers_go_and_what_only_looks_like_them_stays() -> None:
    lines = [f"{FULL} {word}" for word in ("most", "much", "soon", "less")]
    pages = [
        ["Annals of Gout 12", line, line, "42 patients.", line, f"Page {n} of 4"] for n, line in enumerate(lines, 1)
    ]
    first, *others = paragraphs(pages)
    assert first == f"{lines[0]} {lines[0]} 42 patients."
    assert others == [*(f"{a} {b} {b} 42 patients." for a, b in pairwise(lines)), lines[3]]
    assert paragraphs(pages[:2])[0] == "Annals of Gout 12"  # of two pages chance can't be told


@settings(deadline=None)  # the first reading imports libraries
@given(st.lists(st.lists(st.text(st.sampled_from("ab- .1\ufffe"), max_size=30), max_size=8), max_size=2))
def test_no_letter_is_lost_or_added(pages: list[list[str]]) -> None:
    def letters(text: str) -> str:
        return "".join(char for char in text if char in "ab1.")

    assert letters("".join(paragraphs(pages))) == letters("".join(line for page in pages for line in page))
