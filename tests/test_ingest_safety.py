"""Hostile files: each is skipped with its reason, in 10 s and 1 GiB, and the file beside it is read.

Each is made at run time, and read and made into passages by a process of its own whose address space is bounded.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import documents as made
import pytest

from rag.errors import CorpusError
from rag.ingest import File, LeftOut, chunk, find_files, read_corpus, source, xml
from rag.ingest import text as text_file
from rag.ingest.source import Skipped

SECONDS = 10
MEMORY = 1 << 30

READ = f"""
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
from pathlib import Path
from rag.ingest import LeftOut, chunk, find_files, read_corpus
left_out, ids = LeftOut(), []
for one in read_corpus(find_files([Path(sys.argv[1])], left_out), left_out):
    ids.append(one.document.id)
    assert chunk.split(one.document, 1000, 1)
print(json.dumps([ids, [[one.where, one.reason] for one in left_out.skipped]]))
"""


def read_bounded(folder: Path) -> tuple[list[str], dict[str, str]]:
    """(ids, reason by the name of what was skipped). Processor time: the machine may be busy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * SECONDS, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-2000:]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    ids, skipped = json.loads(done.stdout)
    return ids, {Path(where).name: reason for where, reason in skipped}


# --- entities ----------------------------------------------------------------------------------


def jats(dtd: str, text: str = "Urate falls.", attribute: str = "") -> bytes:
    return f"<!DOCTYPE article {dtd}><article><body><p {attribute}>{text}</p></body></article>".encode()


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
BLOWUP = f'[<!ENTITY big "{"x" * 100_000}">]'
SECRET = "file:///etc/hostname"

ENTITIES = {
    "laughs": (jats(f'[<!ENTITY l0 "ha">{LAUGHS}]', "&l11;"), "entit"),
    "laughs in an attribute": (jats(f'[<!ENTITY l0 "ha">{LAUGHS}]', attribute='id="&l11;"'), "entit"),
    "quadratic blow-up": (jats(BLOWUP, "&big;" * 20_000), "entit"),
    "a file": (jats(f'[<!ENTITY x SYSTEM "{SECRET}">]', "&x;"), "declares the entity 'x'"),
    "a file in the DTD": (jats(f'[<!ENTITY % x SYSTEM "{SECRET}"> %x;]'), "declares the entity 'x'"),
    "a harmless one": (jats('[<!ENTITY urate "urate">]', "&urate; falls."), "declares the entity 'urate'"),
    "one that nothing defines": (jats('PUBLIC "a" "b.dtd"', "5&nbsp;mg"), "an entity that it doesn't define"),
    "in UTF-16": (jats('[<!ENTITY x "y">]', "&x;").decode().encode("utf-16"), "declares the entity 'x'"),
    "300 levels": (b"<article><body>" + b"<sec>" * 300 + b"</sec>" * 300 + b"</body></article>", "Excessive depth"),
}


@pytest.mark.parametrize("case", ENTITIES)
def test_entities_are_neither_expanded_nor_fetched(tmp_path: Path, case: str) -> None:
    content, reason = ENTITIES[case]
    (tmp_path / "bad.xml").write_bytes(content)
    (tmp_path / "good.txt").write_text("Urate falls.")
    ids, skipped = read_bounded(tmp_path)
    assert ids == made.ids_in(tmp_path, "good.txt")
    assert list(skipped) == ["bad.xml"]
    assert reason in skipped["bad.xml"]


def test_a_dtd_elsewhere_is_not_fetched(tmp_path: Path) -> None:
    """Files of the archives name one; it isn't needed."""
    (tmp_path / "a.xml").write_bytes(jats(f'PUBLIC "-//NLM//DTD" "{SECRET}"'))
    assert read_bounded(tmp_path) == (made.ids_in(tmp_path, "a.xml"), {})


# --- size --------------------------------------------------------------------------------------

GIB = 1 << 30

WORD = (
    b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    b"<w:p><w:r><w:t>Urate falls.</w:t></w:r></w:p>"
)
"""How the text of a DOCX begins."""


def long_line(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(1000):
            file.write(b"x" * 1_000_000)


def zeros(size: int) -> bytes:
    """gzip of that many zeros, in members of 64 MiB."""
    return gzip.compress(bytes(1 << 26), 1) * (size >> 26)


def padded_bomb() -> bytes:
    """What doesn't compress comes first, so that the ratio of the whole is small."""
    return gzip.compress(os.urandom(1 << 20)) + zeros(4 * GIB)


def tiny_elements(head: bytes, tail: bytes) -> bytes:
    return head + b"<a/>" * (60_000_000 // 4) + tail


def nested_pdf() -> bytes:
    """Drawing commands of 1 GB that deflate twice to 5 kB."""
    packer = zlib.compressobj(9)
    once = b"".join(packer.compress(b" " * (1 << 24)) for _ in range(64)) + packer.flush()
    return made.pdf([[""]], stream=made.stream_object(zlib.compress(once, 9), "/Filter [/FlateDecode /FlateDecode]"))


def loud_pdf() -> bytes:
    """5,000 pages that all draw the same 20,000 words."""
    words = b"BT /F1 10 Tf 12 TL 40 760 Td\n" + b"(urate falls) Tj T*\n" * 10_000 + b"ET"
    return made.pdf([[""]] * 5000, stream=made.stream_object(zlib.compress(words), "/Filter /FlateDecode"))


SIZES: dict[str, tuple[str, Callable[[], bytes] | Callable[[Path], None], str]] = {
    "a line of 1 GB": ("bad.jsonl", long_line, "the line is longer than 16 MiB"),
    "a text of 1 GB": ("bad.txt", long_line, "larger than 16 MiB"),
    "a page of 1 GB": ("bad.html", long_line, "larger than 8 MiB"),
    "XML of 1 GB in one word": ("bad.xml", long_line, "not well-formed XML"),
    "a gzip bomb": ("bad.jsonl.gz", lambda: zeros(4 * GIB), "a bomb?"),
    "a gzip bomb behind noise": ("bad.jsonl.gz", padded_bomb, "a bomb?"),
    "a gzip bomb of text": ("bad.txt.gz", lambda: zeros(GIB), "larger than 16 MiB"),
    "a gzip bomb in a PDF's name": ("bad.pdf.gz", lambda: zeros(GIB), "a bomb?"),
    "an article of tiny elements": (
        "bad.xml",
        lambda: tiny_elements(b"<article><body>", b"</body></article>"),
        "one record takes more than 16 MiB",
    ),
    "a citation of tiny elements": (
        "bad.xml",
        lambda: tiny_elements(b"<PubmedArticleSet><PubmedArticle>", b"</PubmedArticle></PubmedArticleSet>"),
        "one record takes more than 16 MiB",
    ),
    "an article just below the limit of bytes": (
        "bad.xml",
        lambda: b"<article><body>" + b"<a/>" * 4_000_000 + b"</body></article>",
        "one record has 4,000,001 elements",
    ),
    "a page of tiny elements": ("bad.html", lambda: b"<html><body>" + b"<a>" * 2_700_000, " elements, at most 100,000"),
    "a DOCX of zeros": ("bad.docx", lambda: made.word("T", parts={"media/a.bin": bytes(200 << 20)}), "A bomb?"),
    "a DOCX of much XML": (
        "bad.docx",
        lambda: made.word("T", parts={"word/document.xml": b"<a>" + b" " * (20 << 20) + b"</a>"}),
        "its XML would expand to 20 MiB, at most 16. A bomb?",
    ),
    "a DOCX of many paragraphs": (
        "bad.docx",
        lambda: made.word("T", parts={"word/document.xml": WORD + b"<w:p/>" * 2_000_000 + b"</w:body></w:document>"}),
        "it has 2,000,002 paragraphs and runs, at most 100,000",
    ),
    "a DOCX of many parts": (
        "bad.docx",
        lambda: made.word("T", parts={f"media/{number}": b"" for number in range(10_001)}),
        "parts, at most 10,000",
    ),
    "a PDF that deflates twice": ("bad.pdf", nested_pdf, "a PDF that PDFium breaks on"),
    "a PDF of 50 million words": ("bad.pdf", loud_pdf, "isn't read after 8 s"),
    "a PDF of too many pages": ("bad.pdf", lambda: made.pdf([["T"]] * 5001), "a PDF of 5,001 pages, at most 5,000"),
    "an encrypted PDF": ("bad.pdf", lambda: made.pdf([["Text."]], trailer=made.ENCRYPTED), "an encrypted PDF"),
}


@pytest.mark.parametrize("case", SIZES)
def test_what_would_fill_the_memory_is_skipped(tmp_path: Path, case: str) -> None:
    name, make, reason = SIZES[case]
    if name.endswith(".html"):
        pytest.importorskip("trafilatura", reason="trafilatura (the extra `documents`) isn't installed")
    path = tmp_path / name
    if make is long_line:
        long_line(path)
    else:
        path.write_bytes(make())  # type: ignore[call-arg, arg-type]
    (tmp_path / "good.txt").write_text("Urate falls.")
    ids, skipped = read_bounded(tmp_path)
    assert ids == made.ids_in(tmp_path, "good.txt")
    assert reason in list(skipped.values())[-1]


def test_the_largest_xml_that_is_read_stays_within_the_memory(tmp_path: Path) -> None:
    """The worst that the bounds let through: as many elements, and the rest text."""
    content = b"<article><body><p>Urate falls.</p>" + b"<a/>" * (xml.MAX_ELEMENTS - 2)
    content += b"x" * ((xml.MAX_RECORD >> 1) - len(content)) + b"</body></article>"
    (tmp_path / "a.xml").write_bytes(content)
    assert read_bounded(tmp_path) == (made.ids_in(tmp_path, "a.xml"), {})


def test_the_largest_docx_that_is_read_stays_within_the_memory(tmp_path: Path) -> None:
    content = WORD + b"<a/>" * (15_000_000 // 4) + b"</w:body></w:document>"
    (tmp_path / "a.docx").write_bytes(made.word("T", parts={"word/document.xml": content}))
    ids, skipped = read_bounded(tmp_path)
    assert (ids, skipped) == (made.ids_in(tmp_path, "a.docx"), {})


@pytest.mark.parametrize("line", ["\n", "a word.\n\n", "x", "\U0001f600 word. "])
def test_the_largest_text_is_made_into_passages_within_the_memory(tmp_path: Path, line: str) -> None:
    """16 MiB of newlines are a `.gz` of 16 kB."""
    text = line * (text_file.MAX_FILE // len(line.encode()) - 1) + "."
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert read_bounded(tmp_path) == (made.ids_in(tmp_path, "a.txt.gz"), {})


def test_wrong_lines_fill_the_memory_no_more_than_a_large_file_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag.ingest import jsonl

    monkeypatch.setattr(jsonl, "MAX_SKIPPED", 5)
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "text": "A."}\n' + "x\n" * 100)
    left_out = LeftOut()
    assert len(list(read_corpus([File(path, "a.jsonl")], left_out))) == 1
    assert len(left_out.skipped) == 6
    assert left_out.skipped[5].reason.startswith("5 of 6 lines can't be read. Is this a JSONL file?")


@pytest.mark.parametrize("blanks", ["# {}x", "---\ntitle: {}x\n---\nText.", "#{}"])
def test_a_line_of_blanks_takes_no_quadratic_time(tmp_path: Path, blanks: str) -> None:
    (tmp_path / "a.md").write_text(blanks.format(" " * 5_000_000) + " " * 5_000_000)
    assert read_bounded(tmp_path) == (made.ids_in(tmp_path, "a.md"), {})


def test_a_gz_may_expand_to_what_text_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "RATIO_SLACK", 1 << 10)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(" ".join(str(number * 7919 % 10_007) for number in range(100_000)).encode()))
    assert len(File(path, "a.txt.gz").read(1 << 20)) > 400_000
    path.write_bytes(gzip.compress(bytes(1 << 19)))
    with pytest.raises(CorpusError, match="a bomb"):
        File(path, "a.txt.gz").read(1 << 20)


# --- names and links ---------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text("A secret.")
    return folder


def read_here(*folders: Path) -> tuple[list[str], list[Skipped]]:
    ids, left_out = read_with_what_is_left_out(*folders)
    return ids, left_out.skipped


def read_with_what_is_left_out(*folders: Path) -> tuple[list[str], LeftOut]:
    left_out = LeftOut()
    return [one.document.id for one in read_corpus(find_files(folders, left_out), left_out)], left_out


def test_links_that_lead_out_of_the_folder_are_skipped(tmp_path: Path, outside: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "sub" / "a.txt").write_text("Urate falls.")
    (inside / "in.txt").symlink_to("sub/a.txt")
    (inside / "out.txt").symlink_to(outside / "secret.txt")
    (inside / "up.txt").symlink_to("sub/../../outside/secret.txt")
    (inside / "gone.txt").symlink_to("nowhere.txt")
    (inside / "self.txt").symlink_to("self.txt")
    (inside / "folder").symlink_to(outside)
    (inside / "again").symlink_to("sub")
    (inside / "loop").symlink_to(".")
    ids, skipped = read_here(inside)
    assert ids == ["inside/sub/a.txt"]
    reasons = {Path(one.where).name: one.reason for one in skipped}
    assert {name for name, reason in reasons.items() if "leads out of the folder" in reason} == {
        "out.txt",
        "up.txt",
        "folder",
    }
    assert "leads nowhere" in reasons["gone.txt"]
    assert set(reasons) == {"out.txt", "up.txt", "folder", "gone.txt", "self.txt"}


def test_a_file_is_read_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    """Of two of the same text each would take a place among the few passages of a prompt."""
    folder = tmp_path / "notes"
    (folder / ".store").mkdir(parents=True)
    (folder / "v3.md").write_text("Urate falls.")
    (folder / "latest.md").symlink_to("v3.md")
    (folder / ".store" / "1f2e").write_text("Joints swell.")
    (folder / "gout.txt").symlink_to(".store/1f2e")
    (folder / "too.txt").symlink_to("gout.txt")
    ids, left_out = read_with_what_is_left_out(folder)
    assert ids == ["notes/gout.txt", "notes/v3.md"]
    assert (left_out.counts, left_out.skipped) == ({"links to files that are read anyway": 2}, [])


def test_a_folder_given_by_a_link_is_read(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    assert read_here(tmp_path / "link") == (["outside/secret.txt"], [])


def test_a_link_to_itself_that_is_given_is_nowhere(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(CorpusError, match="No such file or folder"):
        read_here(tmp_path / "self")


def test_no_id_holds_a_way_up(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.txt").write_text("B.")
    monkeypatch.chdir(tmp_path / "other")
    assert read_here(Path("../outside"), Path()) == (["outside/secret.txt", "other/b.txt"], [])
    monkeypatch.chdir(outside)
    assert read_here(Path("../other"), Path("..") / "outside") == (["other/b.txt", "outside/secret.txt"], [])


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("Urate falls.")
    os.mkfifo(tmp_path / "pipe.txt")
    ids, skipped = read_bounded(tmp_path)
    assert (ids, skipped) == (made.ids_in(tmp_path, "good.txt"), {"pipe.txt": "no regular file."})


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"two\nlines.txt", b"\x1b[31mred.txt"])
def test_a_name_that_cannot_be_shown_is_skipped_and_shown_all_the_same(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "good.txt").write_text("Urate falls.")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("Text.")
    ids, [skipped] = read_here(tmp_path)
    assert ids == made.ids_in(tmp_path, "good.txt")
    assert skipped.where.isprintable()
    json.dumps(skipped.where, ensure_ascii=False).encode()


def test_a_folder_whose_name_cannot_be_shown_gives_it_to_no_id(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    for name in (tmp_path / "good" / "a.txt", folder / "b.txt"):
        name.parent.mkdir()
        name.write_text("Urate falls.")
    ids, [skipped] = read_here(tmp_path / "good", folder)
    assert ids == ["good/a.txt"]
    assert skipped.reason == "its name, or its folder's, holds characters that can't be shown. Rename it."


@pytest.mark.parametrize("name", ["../../evil.xml", "/etc/evil", "word/..\\..\\evil"])
def test_a_docx_that_names_parts_outside_of_itself_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.docx").write_bytes(made.word("Text.", parts={name: b"evil"}))
    (tmp_path / "good.txt").write_text("Urate falls.")
    ids, [skipped] = read_here(tmp_path)
    assert ids == made.ids_in(tmp_path, "good.txt")
    assert "names a part outside of itself" in skipped.reason
    assert not list(tmp_path.rglob("evil*"))


def test_a_part_that_is_larger_than_it_says_is_not_expanded(tmp_path: Path) -> None:
    """`zipfile` stops at the size that was looked at."""
    content = bytearray(made.word("Text.", parts={"word/document.xml": b"<a>" + b" " * (20 << 20) + b"</a>"}))
    real = (20 << 20) + 7
    for _ in range(2):  # in the part's own header and in the table of contents
        at = content.index(real.to_bytes(4, "little"))
        content[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.docx").write_bytes(content)
    (tmp_path / "good.txt").write_text("Urate falls.")
    ids, skipped = read_bounded(tmp_path)
    assert ids == made.ids_in(tmp_path, "good.txt")
    assert "a damaged DOCX" in skipped["a.docx"]


def test_memory_is_bounded_where_the_tests_say_so() -> None:
    """The bound itself: else none of the above could fail."""
    script = READ.split("from pathlib")[0] + f"bytearray({MEMORY})"
    done: Any = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


# --- damage ------------------------------------------------------------------------------------

PAGE = b"""<html><head><title>T</title></head><body><h1>H</h1><p>Urate falls 10<sup>6</sup> times, which is a long sentence.</p>
<table><tr><td>x</td></tr></table><p>Another paragraph<sup>[1]</sup> that has some more words in it.</p></body></html>"""

ARTICLE = b"""<article article-type="research-article"><front><article-meta><article-id pub-id-type="pmc">12</article-id>
<title-group><article-title>T</article-title></title-group><pub-date><year>2020</year></pub-date><abstract><p>Hi
<xref ref-type="bibr">1</xref>.</p></abstract></article-meta></front><body><sec><title>S</title><p>Text <inline-formula><math>
<msup><mi>a</mi><mn>2</mn></msup></math></inline-formula>.</p><fig><label>F</label><caption><p>C</p></caption></fig></sec></body>
</article>"""

CITATIONS = b"""<?xml version="1.0" encoding="utf-8"?><PubmedArticleSet><PubmedArticle><MedlineCitation><PMID Version="1">1</PMID>
<DateRevised><Year>2020</Year><Month>01</Month><Day>02</Day></DateRevised><Article><Journal><JournalIssue><PubDate>
<Year>2020</Year></PubDate></JournalIssue></Journal><ArticleTitle>A</ArticleTitle><Abstract><AbstractText Label="X">Body
<sup>6</sup>.</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle><DeleteCitation><PMID>2</PMID></DeleteCitation>
</PubmedArticleSet>"""

INSERTED = (
    *(
        b"\0",
        b"\x01",
        b"\x1b",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbf\xbe",
        b"&#1;",
        b"&#55296;",
        b"&",
        b"<",
        b"<!--",
        b"<?x?>",
    ),
    *(b'"', b"9" * 5000, b"<sup>", b"<p>", b"</p>", b"A\xe2\x80\x83.", b"\r"),
)


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Bytes changed, put in, taken out and said twice."""
    changed = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 5, 20])):
        at, size = dice.randrange(len(changed) + 1), dice.randrange(1, 40)
        match dice.randrange(4):
            case 0:
                changed[at : at + 1] = dice.randbytes(1)
            case 1:
                changed[at:at] = dice.choice(INSERTED)
            case 2:
                del changed[at : at + size]
            case _:
                changed[at:at] = changed[at - size : at]
    return bytes(changed)


def damaged_part(content: bytes, dice: random.Random) -> bytes:
    return made.word("x", parts={"word/document.xml": damaged(content, dice)})


def damaged_directory(content: bytes, dice: random.Random) -> bytes:
    """What stands elsewhere in a zip has checksums."""
    start = content.index(b"PK\x01\x02")
    return content[:start] + damaged(content[start:], dice)


DAMAGES: dict[str, tuple[str, bytes, Callable[[bytes, random.Random], bytes], int]] = {
    "a page": ("a.html", PAGE, damaged, 300),
    "an article": ("a.xml", ARTICLE, damaged, 500),
    "citations": ("a.xml", CITATIONS, damaged, 500),
    "a DOCX's directory": ("a.docx", made.word("Urate falls."), damaged_directory, 500),
    "a DOCX's text": ("a.docx", WORD.replace(b"falls", b"falls " * 100) + b"</w:body></w:document>", damaged_part, 50),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_of_any_kind_has_a_reason_or_does_no_harm(tmp_path: Path, case: str) -> None:
    """And none that nobody foresaw: those `read_corpus` begins with "can't be read"."""
    name, content, damage, times = DAMAGES[case]
    if name == "a.html":
        pytest.importorskip("trafilatura", reason="trafilatura (the extra `documents`) isn't installed")
    dice, path = random.Random(7), tmp_path / name
    read = 0
    for _ in range(times):
        path.write_bytes(damage(content, dice))
        left_out = LeftOut()
        with contextlib.suppress(CorpusError):
            for one in read_corpus([File(path, name)], left_out):
                read += all(passage.titled.encode() for passage in chunk.split(one.document, 1000, 1))
        assert [one.reason for one in left_out.skipped if one.reason.startswith("can't be read")] == []
    assert 0 < read < times
