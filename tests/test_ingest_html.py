"""HTML to documents: the page's text without its navigation, and pages that can't be read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rag.core import Document
from rag.errors import CorpusError
from rag.ingest import LeftOut, find_files, read_corpus
from rag.ingest.chunk import split
from rag.ingest.html import MAX_ELEMENTS

pytest.importorskip("trafilatura", reason="trafilatura (the extra `documents`) isn't installed")

TEXT = "Cherries lowered the urate of all the patients who ate them for a whole month, and of some who did not. "


def page(body: str, head: str = "<title>Cherries - Annals of Gout</title>") -> str:
    return f"""<!DOCTYPE html><html><head>{head}</head><body><nav><ul><li><a href="/">Home</a></li><li><a href="/b">About
      us</a></li></ul></nav><main><article>{body}</article></main><footer>Imprint and cookies</footer></body></html>"""


def read(path: Path, content: str | bytes) -> tuple[Document, LeftOut]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    left_out = LeftOut()
    [located] = read_corpus(find_files([path], left_out), left_out)
    return located.document, left_out


def refusal(path: Path, content: str | bytes) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path, content)
    return str(caught.value).removeprefix(f"Nothing could be read: {path}: ")


def test_a_page_is_a_document_without_its_navigation(tmp_path: Path) -> None:
    body = f"<h1>Cherries</h1><p>{TEXT * 3}</p><h2>What we did</h2><p>{TEXT * 2}</p><ul><li>Fresh ones.</li></ul>"
    document, left_out = read(tmp_path / "a.html", page(body))
    assert (document.id, document.title) == ("a.html", "Cherries")
    assert "Home" not in document.text
    assert "cookies" not in document.text
    blocks = document.text.split("\n\n")
    assert [blocks.index(block.strip()) for block in (TEXT * 3, "What we did", TEXT * 2)] == [1, 2, 3]
    assert "What we did" not in {passage.text.split("\n\n")[-1][:12] for passage in split(document, 200)[:1]}
    assert left_out.counts["tables"] == 0


@pytest.mark.parametrize(
    ("body", "head", "title"),
    [
        ("<h1>One</h1>", "<title>Head</title>", "One"),
        ("<h1>One</h1><h1>Two</h1>", "<title>  The\nhead </title>", "The head"),
        ("", "<title></title>", "gout"),
        ("", "", "gout"),
    ],
)
def test_the_title_is_the_only_first_heading_or_the_heads_or_the_files(
    tmp_path: Path, body: str, head: str, title: str
) -> None:
    assert read(tmp_path / "gout.htm", page(f"{body}<p>{TEXT * 3}</p>", head))[0].title == title


def test_exponents_are_marked_and_references_dropped(tmp_path: Path) -> None:
    mixed = "Of 10<sup>6</sup> cells/m<sup>2</sup> <b>x</b><sup><a href='#1'>[1]</a></sup> few."
    assert "Of 10^6 cells/m2 x few." in read(tmp_path / "a.html", page(f"<p>{TEXT * 3}</p><p>{mixed}</p>"))[0].text


@pytest.mark.parametrize("char", ["\x01", "\x1b", "\ufffe", "&#1;", "&#xfffe;"])
def test_what_no_text_may_hold_is_taken_out_of_an_exponent(tmp_path: Path, char: str) -> None:
    mixed = f"<p>{TEXT * 3}</p><p>Of 10<sup>{char}6</sup> cells.</p>"
    assert "Of 10^6 cells." in read(tmp_path / "a.html", page(mixed))[0].text


def test_an_exponent_in_an_exponent_costs_nothing(tmp_path: Path) -> None:
    assert (
        "Of 2" in read(tmp_path / "a.html", page(f"<p>{TEXT * 3}</p><p>Of 2<sup>3<sup>4</sup></sup> few.</p>"))[0].text
    )


def test_tables_are_counted(tmp_path: Path) -> None:
    table = "<table><tr><td>Seven of nine</td></tr></table>"
    document, left_out = read(tmp_path / "a.html", page(f"<p>{TEXT * 3}</p>{table}<p>{TEXT}</p>"))
    assert "Seven" not in document.text
    assert left_out.counts["tables"] == 1


@pytest.mark.parametrize(
    ("encoding", "head"),
    [("utf-8", ""), ("iso-8859-1", '<meta charset="iso-8859-1">'), ("utf-8", '<meta charset="utf-8">'), ("utf-16", "")],
)
def test_letters_are_right_in_the_encoding_of_the_page(tmp_path: Path, encoding: str, head: str) -> None:
    document, _ = read(tmp_path / "a.html", page(f"<p>Br\u00fbl\u00e9. {TEXT * 3}</p>", head).encode(encoding))
    assert document.text.startswith("Br\u00fbl\u00e9. Cherries")


@pytest.mark.parametrize("content", ["<html><body><script>draw()</script></body></html>", "<html></html>"])
def test_a_page_without_text_is_named(tmp_path: Path, content: str) -> None:
    assert refusal(tmp_path / "a.html", content).startswith("no text in it: is it made by scripts")


@pytest.mark.parametrize("content", ["", " ", b"\x89PNG\0\0 <p>Text.</p>"])
def test_what_is_no_page_is_named(tmp_path: Path, content: str | bytes) -> None:
    assert refusal(tmp_path / "a.html", content).startswith(("no HTML page (", "a binary file"))


def test_a_page_of_too_many_elements_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "a.html", page("<br>" * MAX_ELEMENTS))
    assert message.startswith(f"a page of {MAX_ELEMENTS + 13:,} elements")


def test_without_trafilatura_the_page_is_skipped_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    assert refusal(tmp_path / "a.html", page(TEXT)).endswith("Install it with: pip install trafilatura")
