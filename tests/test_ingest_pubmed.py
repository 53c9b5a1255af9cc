"""PubMed XML to documents: both forms, labels, identifiers, retractions, deletions, and counts of real files."""

from __future__ import annotations

import gzip
import json
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.core import Document
from rag.errors import CorpusError
from rag.ingest import File, LeftOut, Skipped, find_files, pubmed, read_corpus, xml


def citation(pmid: int | str = 1, abstract: str = "<AbstractText>Urate falls.</AbstractText>", extra: str = "") -> str:
    return f"""<MedlineCitation Status="MEDLINE"><PMID Version="1">{pmid}</PMID><Article>
      <Journal><JournalIssue><PubDate><Year>2019</Year></PubDate></JournalIssue><Title>Annals of Gout</Title></Journal>
      <ArticleTitle>Cherries and <i>urate</i>.</ArticleTitle><Abstract>{abstract}</Abstract>
      <PublicationTypeList><PublicationType>Journal Article</PublicationType></PublicationTypeList>
    </Article>{extra}</MedlineCitation>"""


def article(pmid: int | str = 1, data: str = "", **parts: str) -> str:
    return f"<PubmedArticle>{citation(pmid, **parts)}<PubmedData>{data}</PubmedData></PubmedArticle>"


def deletion(*pmids: int) -> str:
    return f"<DeleteCitation>{''.join(f'<PMID>{pmid}</PMID>' for pmid in pmids)}</DeleteCitation>"


def write(path: Path, *children: str, root: str = "PubmedArticleSet") -> Path:
    content = f'<?xml version="1.0" encoding="utf-8"?>\n<{root}>{"".join(children)}</{root}>'.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(path: Path) -> tuple[list[Document], LeftOut]:
    left_out = LeftOut()
    documents = [one.document for one in read_corpus(find_files([path], left_out), left_out)]
    return documents, left_out


def only(tmp_path: Path, *children: str) -> Document:
    [document], _ = read(write(tmp_path / "a.xml", *children))
    return document


# --- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["PubmedArticleSet", "MedlineCitationSet"])
def test_a_citation_is_read_in_both_forms(tmp_path: Path, root: str) -> None:
    child = citation(29) if root == "MedlineCitationSet" else article(29)
    [document], left_out = read(write(tmp_path / "a.xml.gz", child, root=root))
    assert document == Document(
        "pmid-29",
        "Cherries and urate.",
        "Urate falls.",
        {"pmid": "29", "journal": "Annals of Gout", "year": 2019, "types": "Journal Article"},
    )
    assert left_out == LeftOut()


def test_labels_of_a_structured_abstract_stand_in_the_text(tmp_path: Path) -> None:
    abstract = """<AbstractText Label="METHODS" NlmCategory="METHODS">We fed cherries.</AbstractText>
      <AbstractText Label="UNLABELLED">Twice.</AbstractText><AbstractText Label="NOTES"/>
      <AbstractText Label="RESULTS">Urate fell.</AbstractText>"""
    assert (
        only(tmp_path, article(abstract=abstract)).text == "METHODS: We fed cherries.\n\nTwice.\n\nRESULTS: Urate fell."
    )


@pytest.mark.parametrize(
    ("mixed", "text"),
    [
        ("At 10<sup>6</sup> and 10<sup>-3</sup> cells/m<sup>2</sup>.", "At 10^6 and 10^-3 cells/m2."),
        ("CD4<sup>+</sup>, <sup>131</sup>I and H<sub>2</sub>O.", "CD4+, 131I and H2O."),
        ("Pretty \u03b2\n\t\t<sub>2</sub>-agonist\n\tprinted.\n", "Pretty \u03b22-agonist printed."),
        ("Below 5&#xa0;mg &lt; 6&#160;mg, <i>in <b>vivo</b></i>.", "Below 5 mg < 6 mg, in vivo."),
        ("Kept [12] as it was (3).", "Kept [12] as it was (3)."),
    ],
)
def test_mixed_content_reads_as_it_is_printed(tmp_path: Path, mixed: str, text: str) -> None:
    assert only(tmp_path, article(abstract=f"<AbstractText>{mixed}</AbstractText>")).text == text


@settings(deadline=None)  # the first reading imports libraries
@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1).filter(str.strip))
def test_any_text_survives_its_way_through_the_xml(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    element = ET.Element("AbstractText")
    element.text = words
    abstract = ET.tostring(element, encoding="unicode")
    assert only(tmp_path_factory.mktemp("a"), article(abstract=abstract)).text == " ".join(words.split())


def test_what_has_no_abstract_is_counted(tmp_path: Path) -> None:
    book = "<PubmedBookArticle><BookDocument><PMID>9</PMID></BookDocument></PubmedBookArticle>"
    documents, left_out = read(write(tmp_path / "a.xml", article(1, abstract=""), article(2), book))
    assert [document.id for document in documents] == ["pmid-2"]
    assert left_out.counts == {"citations without an abstract": 1, "books and chapters in PubMed files": 1}
    assert left_out.skipped == []


def test_a_citation_without_a_pmid_is_skipped_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", article(1), article(""), article("../x"), article(4))
    documents, left_out = read(path)
    assert [document.id for document in documents] == ["pmid-1", "pmid-4"]
    assert left_out.skipped == [Skipped(f"{path}, citation {n}", "a citation without a PMID.") for n in (2, 3)]


# --- metadata ----------------------------------------------------------------------------------


def test_identifiers_are_the_articles_own_and_not_those_of_its_references(tmp_path: Path) -> None:
    reference = """<ReferenceList><Reference><ArticleIdList><ArticleId IdType="doi">10.1/other</ArticleId>
      <ArticleId IdType="pmc">PMC1</ArticleId></ArticleIdList></Reference></ReferenceList>"""
    own = """<ArticleIdList><ArticleId IdType="doi">10.1/own</ArticleId><ArticleId IdType="pmc">PMC2</ArticleId></ArticleIdList>"""
    without = only(tmp_path, article(data=reference)).metadata
    assert (without.get("doi"), without.get("pmcid")) == (None, None)
    with_own = only(tmp_path, article(data=reference + own)).metadata
    assert (with_own["doi"], with_own["pmcid"]) == ("10.1/own", "PMC2")


def test_a_doi_that_is_marked_invalid_is_passed_over(tmp_path: Path) -> None:
    places = [f'<ELocationID EIdType="doi" ValidYN="{valid}">10.1/{valid}</ELocationID>' for valid in "NY"]
    text = article().replace("<Abstract>", f'<ELocationID EIdType="pii">S1</ELocationID>{"".join(places)}<Abstract>')
    assert only(tmp_path, text).metadata["doi"] == "10.1/Y"


def test_pmc_stands_among_other_ids_in_the_old_form(tmp_path: Path) -> None:
    others = '<OtherID Source="NLM">NIHMS7</OtherID><OtherID Source="NLM">PMC46 [Available on 12/22/16]</OtherID>'
    assert only(tmp_path, citation(extra=others)).metadata["pmcid"] == "PMC46"


@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("<MedlineDate>1998 Dec-1999 Jan</MedlineDate>", 1998),
        ("<MedlineDate>Winter 1998</MedlineDate>", None),
        ("", None),
    ],
)
def test_a_year_in_words(tmp_path: Path, date: str, year: int | None) -> None:
    assert only(tmp_path, article().replace("<Year>2019</Year>", date)).metadata.get("year") == year


def test_authors_are_people_and_groups(tmp_path: Path) -> None:
    people = """<AuthorList><Author><LastName>Koch</LastName><ForeName>Robert</ForeName><Initials>R</Initials></Author>
      <Author><CollectiveName>Cherry Group</CollectiveName></Author><Author/></AuthorList>"""
    text = article().replace("<PublicationTypeList>", f"{people}<PublicationTypeList>")
    assert only(tmp_path, text).metadata["authors"] == "Koch R; Cherry Group"


def notice(kind: str, pmid: str = "<PMID>7</PMID>") -> str:
    one = f'<CommentsCorrections RefType="{kind}"><RefSource>Gut. 2020</RefSource>{pmid}</CommentsCorrections>'
    return f"<CommentsCorrectionsList>{one}</CommentsCorrectionsList>"


@pytest.mark.parametrize(
    ("kind", "key", "told"),
    [
        ("RetractionIn", "retracted", "retraction in: Gut. 2020 (PMID 7)"),
        ("RetractionOf", "retracted", "retraction of: Gut. 2020 (PMID 7)"),
        ("ExpressionOfConcernIn", "retracted", "expression of concern in: Gut. 2020 (PMID 7)"),
        ("ErratumIn", "corrected", "erratum in: Gut. 2020 (PMID 7)"),
        ("CommentIn", "retracted", None),
        ("CommentIn", "corrected", None),
    ],
)
def test_notices_about_a_citation_are_kept(tmp_path: Path, kind: str, key: str, told: str | None) -> None:
    assert only(tmp_path, article(extra=notice(kind))).metadata.get(key) == told


def test_a_retraction_is_told_by_the_type_and_by_its_notice(tmp_path: Path) -> None:
    text = article(extra=notice("RetractionIn", "")).replace(
        "</PublicationTypeList>", "<PublicationType>Retracted Publication</PublicationType></PublicationTypeList>"
    )
    metadata = only(tmp_path, text).metadata
    assert metadata["types"] == "Journal Article; Retracted Publication"
    assert metadata["retracted"] == "Retracted Publication; retraction in: Gut. 2020"


# --- versions and deletions --------------------------------------------------------------------

GONE = "citations that a later one replaces or deletes"


def test_a_citation_is_deleted_by_its_own_file_and_by_a_later_one(tmp_path: Path) -> None:
    write(tmp_path / "1.xml", article(1), article(2), article(3), deletion(2, 99))
    write(tmp_path / "2.xml.gz", deletion(3))
    documents, left_out = read(tmp_path)
    assert [document.id for document in documents] == ["pmid-1"]
    assert left_out.counts == {GONE: 2}
    assert left_out.deleted == {"pmid-2", "pmid-3", "pmid-99"}
    assert left_out.skipped == []


def test_what_pubmed_deletes_is_no_document_of_another_format(tmp_path: Path) -> None:
    write(tmp_path / "1.xml", article(1), article(3), deletion(2))
    lines = [{"id": f"pmid-{number}", "text": "Of another file."} for number in (2, 3)]
    (tmp_path / "2.jsonl").write_text("\n".join(map(json.dumps, lines)))
    documents, left_out = read(tmp_path)
    assert [document.id for document in documents] == ["pmid-1", "pmid-3", "pmid-2"]
    assert (left_out.counts, left_out.deleted) == ({}, set())
    assert [one.reason for one in left_out.skipped] == [
        f"document id 'pmid-3' stands already in {tmp_path}/1.xml, citation 2. Give it another."
    ]


def test_a_citation_that_comes_again_after_its_deletion_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "1.xml", article(1), deletion(1))
    write(tmp_path / "2.xml", article(1))
    documents, left_out = read(tmp_path)
    assert [document.id for document in documents] == ["pmid-1"]
    assert left_out.deleted == set()


def test_the_last_of_a_citations_versions_is_kept_whichever_file_it_is_in(tmp_path: Path) -> None:
    texts = [f"<AbstractText>Version {number}.</AbstractText>" for number in range(4)]
    write(tmp_path / "1.xml", article(1, abstract=texts[0]), article(2), article(1, abstract=texts[1]))
    write(tmp_path / "2.xml", citation(1, abstract=texts[2]), citation(1, abstract=texts[3]), root="MedlineCitationSet")
    documents, left_out = read(tmp_path)
    assert [(document.id, document.text) for document in documents] == [
        ("pmid-2", "Urate falls."),
        ("pmid-1", "Version 3."),
    ]
    assert left_out.counts == {GONE: 3}
    assert left_out.skipped == []


def test_a_version_without_an_abstract_replaces_one_with_it(tmp_path: Path) -> None:
    write(tmp_path / "1.xml", article(1), article(2))
    write(tmp_path / "2.xml", article(1, abstract=""))
    assert [document.id for document in read(tmp_path)[0]] == ["pmid-2"]


@pytest.mark.parametrize("children", [(deletion(1),), (article(1, abstract=""),)])
def test_a_file_that_only_takes_back_what_an_earlier_one_had_is_read(tmp_path: Path, children: tuple[str, ...]) -> None:
    documents, left_out = read(write(tmp_path / "2.xml", *children))
    assert documents == []
    assert {*left_out.deleted, *left_out.empty} == {"pmid-1"}


def test_a_citation_that_has_its_abstract_again_is_not_taken_back(tmp_path: Path) -> None:
    write(tmp_path / "1.xml", article(1, abstract=""))
    write(tmp_path / "2.xml", article(1))
    documents, left_out = read(tmp_path)
    assert [document.id for document in documents] == ["pmid-1"]
    assert left_out.empty == {}


def revised(day: str, version: int, text: str) -> str:
    date = "".join(
        f"<{part}>{value}</{part}>" for part, value in zip(("Year", "Month", "Day"), day.split("-"), strict=False)
    )
    one = article(1, abstract=f"<AbstractText>{text}</AbstractText>", extra=f"<DateRevised>{date}</DateRevised>")
    return one.replace('Version="1"', f'Version="{version}"')


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (("2021-02-01", 1), ("2021-01-28", 1), "First"),
        (("2021-01-28", 1), ("2021-02-01", 1), "Second"),
        (("2021-02-01", 2), ("2021-03-01", 1), "First"),  # the text of a version stays what it was
        (("2021-02-01", 10), ("2021-02-01", 9), "First"),
        (("2021-02-01", 1), ("2021-02-01", 1), "Second"),
        (("2021-02-01", 1), ("", 1), "First"),  # never revised
        (("2021", 1), ("soon-02-01", 1), "First"),
        (("9" * 5000, 1), ("2021-02-01", 1), "First"),
    ],
)
def test_the_last_version_is_that_of_the_highest_number_then_the_latest_revision_then_the_last_in_order(
    tmp_path: Path, first: tuple[str, int], second: tuple[str, int], kept: str
) -> None:
    write(tmp_path / "1.xml", revised(*first, "First"))
    write(tmp_path / "2.xml", revised(*second, "Second"))
    [document], left_out = read(tmp_path)
    assert document.text == kept
    assert left_out.counts == {GONE: 1}


def test_a_version_that_is_deleted_takes_no_later_one_with_it(tmp_path: Path) -> None:
    first = '<DeleteCitation><PMID Version="1">1</PMID></DeleteCitation>'
    write(tmp_path / "1.xml", revised("2021-01-01", 2, "Second"), first)
    [document], left_out = read(tmp_path)
    assert (document.text, left_out.deleted) == ("Second", set())
    write(tmp_path / "2.xml", first.replace('"1"', '"2"'), revised("2021-02-01", 1, "First"))
    documents, left_out = read(tmp_path)
    assert (documents, left_out.deleted) == ([], {"pmid-1"})


BOOK = "<PubmedBookArticle><BookDocument><PMID>9</PMID><Abstract/></BookDocument></PubmedBookArticle>"


def test_books_between_citations_hide_nothing_that_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xml, "MAX_RECORD", 1 << 18)
    path = write(tmp_path / "a.xml", article(1), article(2), BOOK * 4000, article(1), deletion(2))
    assert path.stat().st_size > xml.MAX_RECORD
    documents, left_out = read(path)
    assert [document.id for document in documents] == ["pmid-1"]
    assert left_out.deleted == {"pmid-2"}
    assert left_out.counts == {GONE: 2, "books and chapters in PubMed files": 4000}
    assert left_out.skipped == []


def test_a_file_that_cannot_tell_what_it_withdraws_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(file: File) -> Iterator[pubmed.Version]:
        yield from ()
        raise CorpusError(f"{file.path.name} is broken off.")

    monkeypatch.setattr(pubmed, "versions", failing)
    path = write(tmp_path / "a.xml", article(1))
    write(tmp_path / "b.xml", article(2)).write_text("<PubmedArticleSet>")
    documents, left_out = read(tmp_path)
    assert [document.id for document in documents] == ["pmid-1"]
    of_a, of_b = left_out.skipped
    assert of_a == Skipped(str(path), "which citations it replaces or deletes isn't known: a.xml is broken off.")
    assert of_b.reason.startswith("not well-formed XML")


@pytest.mark.parametrize("root", ["PubmedArticle", "MedlineCitation"])
def test_a_file_of_one_citation_is_read_with_what_stands_beside_it(tmp_path: Path, root: str) -> None:
    path = tmp_path / "a.xml"
    data = '<ArticleIdList><ArticleId IdType="doi">10.1/own</ArticleId></ArticleIdList>'
    path.write_text(article(29, data) if root == "PubmedArticle" else citation(29))
    [document], left_out = read(path)
    assert (document.id, document.text) == ("pmid-29", "Urate falls.")
    assert document.metadata.get("doi") == ("10.1/own" if root == "PubmedArticle" else None)
    assert left_out == LeftOut()


# --- damage ------------------------------------------------------------------------------------


def test_what_stands_before_the_damage_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", *(article(number) for number in range(1, 400)))
    path.write_bytes(path.read_bytes()[:-100])
    documents, left_out = read(path)
    assert 300 < len(documents) < 400
    [skipped] = left_out.skipped
    assert skipped.where == str(path)
    assert skipped.reason.startswith("not well-formed XML (")
    assert skipped.reason.endswith(f"What stands before it is read ({len(documents)}).")


@pytest.mark.parametrize("children", [(), ("<Other/>" * 3,)])
def test_a_set_without_a_citation_holds_nothing(tmp_path: Path, children: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.xml", *children)
    assert list(pubmed.read(File(path, "a.xml"), LeftOut())) == []
    with pytest.raises(CorpusError, match="no document has any text"):
        read(path)


def test_one_citation_is_in_memory_at_a_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", *(article(number) + "<Other/>" for number in range(3000)))
    beside = [len(element.getparent()) for element, _ in xml.records(File(path, "a.xml"), ["PubmedArticle"])]
    assert len(beside) == 3000
    assert max(beside) < 500  # those that one chunk of the file brings


# --- real files --------------------------------------------------------------------------------


def real_files() -> list[Path]:
    folder = os.environ.get("RAG_DATASETS")
    if folder is None:
        pytest.skip("RAG_DATASETS doesn't name the folder of the datasets")
    return sorted(Path(folder, "pubmed_xml").glob("*.xml*"))


def test_real_files_are_read_whole_by_an_independent_count() -> None:
    expected: Counter[str] = Counter()
    paragraphs: dict[str, int] = {}
    for path in real_files():
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for one in re.findall(r"<MedlineCitation[ >].*?</MedlineCitation>", raw.decode(), re.DOTALL):
            pmid = re.search(r"<PMID[^>]*>(\d+)", one)
            abstract = re.search(r"<Abstract>.*?</Abstract>", one, re.DOTALL)
            assert pmid is not None
            expected["citations"] += 1
            expected["labels"] += (
                len(re.findall(r'<AbstractText[^>]* Label="(?!UNLABELLED)', abstract[0])) if abstract else 0
            )
            if abstract is None:
                expected["without abstract"] += 1
            else:
                paragraphs[f"pmid-{pmid[1]}"] = len(re.findall(r"<AbstractText[ >]", abstract[0]))
        expected["deletions"] += len(re.findall(r"<DeleteCitation>", raw.decode()))
    left_out = LeftOut()
    files = [File(path, path.name) for path in real_files()]
    documents = [one.document for one in read_corpus(files, left_out)]
    assert left_out.skipped == []
    assert {document.id: document.text.count("\n\n") + 1 for document in documents} == paragraphs
    assert left_out.counts == {"citations without an abstract": expected["without abstract"]}
    assert len(documents) + expected["without abstract"] == expected["citations"] > 600
    assert sum(len(re.findall(r"(?m)^[A-Z][^.:]*: ", d.text)) for d in documents) >= expected["labels"] > 500
    assert len(left_out.deleted) == expected["deletions"] == 1
    assert all({"pmid", "journal", "year", "types"} <= set(document.metadata) for document in documents)
