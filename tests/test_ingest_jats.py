"""JATS to documents: sections and paragraphs, what is left out, markers, formulas, metadata, and counts of real files."""

from __future__ import annotations

import os
import re
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.core import Document
from rag.errors import CorpusError
from rag.ingest import File, LeftOut, find_files, jats, read_corpus
from rag.ingest.chunk import split

PARAGRAPH = "<p>Urate falls.</p>"


def article(
    body: str = PARAGRAPH, meta: str = "", abstract: str = "", kind: str = "research-article", after: str = ""
) -> str:
    return f"""<article article-type="{kind}" xmlns:xlink="http://www.w3.org/1999/xlink"
      xmlns:mml="http://www.w3.org/1998/Math/MathML"><front>
      <journal-meta><journal-title-group><journal-title>Annals of Gout</journal-title></journal-title-group></journal-meta>
      <article-meta>{meta}<title-group><article-title>Cherries <italic>and</italic> urate<fn><p>A note.</p></fn>
      </article-title></title-group>{abstract}</article-meta></front><body>{body}</body>{after}</article>"""


def read(path: Path, content: str) -> tuple[list[Document], LeftOut]:
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{content}', encoding="utf-8")
    left_out = LeftOut()
    documents = [one.document for one in read_corpus(find_files([path], left_out), left_out)]
    assert left_out.skipped == []
    return documents, left_out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.nxml"


def text(path: Path, body: str) -> str:
    [document], _ = read(path, article(body))
    return document.text


# --- text --------------------------------------------------------------------------------------


def test_the_abstract_comes_first_and_each_heading_stands_alone(path: Path) -> None:
    abstract = "<abstract><sec><title>Aim</title><p>To see.</p></sec></abstract>"
    body = """<p>Opening.</p><sec><title>Methods</title><p>We fed.</p><p>Twice.</p>
      <sec><title>Diet</title><p>Cherries.</p></sec></sec>"""
    [document], _ = read(path, article(body, abstract=abstract))
    assert document.title == "Cherries and urate"
    assert document.text.split("\n\n") == [
        "Aim",
        "To see.",
        "Opening.",
        "Methods",
        "We fed.",
        "Twice.",
        "Diet",
        "Cherries.",
    ]


def test_a_heading_runs_into_no_sentence(path: Path) -> None:
    [document], _ = read(path, article("<sec><title>What we did</title><p>We fed cherries to all of them.</p></sec>"))
    assert [passage.text for passage in split(document, 36)] == ["What we did", "We fed cherries to all of them."]


def test_abstracts_that_repeat_the_abstract_are_left_out(path: Path) -> None:
    kinds = ["", ' abstract-type="summary"', ' abstract-type="toc"', ' abstract-type="graphical"']
    abstracts = "".join(f"<abstract{kind}><p>Number {number}.</p></abstract>" for number, kind in enumerate(kinds))
    [document], _ = read(path, article("", abstract=abstracts + "<trans-abstract><p>Nummer 4.</p></trans-abstract>"))
    assert document.text == "Number 0.\n\nNumber 1."


def test_what_is_no_prose_is_left_out_and_counted(path: Path) -> None:
    body = """<sec><title>Results</title><p>Kept<fn><p>Note.</p></fn> whole.<table-wrap><label>Table 1</label>
      <table><tr><td>7</td></tr></table></table-wrap></p>
      <supplementary-material><caption><p>Raw data.</p></caption></supplementary-material></sec>
      <sec><title>A table alone</title><table-wrap><caption><p>Its caption.</p></caption></table-wrap></sec>"""
    after = (
        "<back><ack><p>Thanks.</p></ack><ref-list><title>References</title><ref><p>Koch.</p></ref></ref-list></back>"
    )
    [document], left_out = read(path, article(body, after=after))
    assert document.text == "Results\n\nKept whole."
    assert left_out.counts == {
        "tables": 2,
        "references": 1,
        "supplementary files": 1,
        "sections behind the body": 1,
        "formulas": 0,
    }


def test_of_what_stands_behind_the_body_appendices_and_figures_are_read_and_the_rest_is_counted(path: Path) -> None:
    after = """<back><ack><sec><title>Funding</title><p>By growers.</p></sec></ack>
      <app-group><app><title>Appendix A</title><p>The diet by day.</p></app>
      <app><title>Appendix B</title><supplementary-material/></app></app-group>
      <sec sec-type="display-objects"><title>Figures</title><fig><caption><p>By week.</p></caption></fig></sec>
      <sec><title>Consent</title><p>Was given.</p></sec><notes><p>A. fed them.</p></notes>
      <glossary><def-list><def-item><term>SUA</term><def><p>serum urate</p></def></def-item></def-list></glossary></back>"""
    [document], left_out = read(path, article(after=after))
    assert document.text.split("\n\n") == [
        "Urate falls.",
        "Appendix A",
        "The diet by day.",
        "Figures",
        "By week.",
    ]
    assert left_out.counts["sections behind the body"] == 4


def test_captions_of_figures_are_kept_wherever_the_figures_stand(path: Path) -> None:
    figure = """<fig><label>Figure 1.</label><caption><title>Urate.</title><p>By week.</p></caption><graphic/></fig>"""
    assert text(path, f"<p>Seen below.{figure}</p>") == "Seen below.\n\nFigure 1. Urate. By week."
    [document], _ = read(path, article(after=f"<floats-group>{figure}</floats-group>"))
    assert document.text == "Urate falls.\n\nFigure 1. Urate. By week."


def test_lists_quotes_boxes_and_definitions_are_paragraphs_of_their_own(path: Path) -> None:
    body = """<p>We used<list><list-item><label>1</label><p>cherries;</p></list-item><list-item><p>water.</p></list-item></list></p>
      <disp-quote><p>Drink more.</p></disp-quote><boxed-text><caption><title>Box</title></caption><p>Inside.</p></boxed-text>
      <def-list><def-item><term>SUA</term><def><p>serum urate</p></def></def-item></def-list>"""
    assert text(path, body).split("\n\n") == [
        "We used",
        "cherries;",
        "water.",
        "Drink more.",
        "Box",
        "Inside.",
        "SUA: serum urate",
    ]


def marker(label: str = "1") -> str:
    return f'<xref ref-type="bibr" rid="B1">{label}</xref>'


@pytest.mark.parametrize(
    ("mixed", "plain"),
    [
        (f"It fell [{marker()}].", "It fell."),
        (f"It fell [{marker()}-{marker('4')}], then [{marker('2')}, {marker('3')}] rose.", "It fell, then rose."),
        (f"It fell {marker('[1]')}, {marker('[2]')} soon.", "It fell soon."),
        (f"It fell <sup>{marker()},{marker('2')}</sup> soon.", "It fell soon."),
        (f"It fell to 10.<sup>{marker()}</sup> Then", "It fell to 10. Then"),
        (f"It fell ({marker()}) in 12 (n = 5).", "It fell in 12 (n = 5)."),
        (f"It fell in [3\u2013{marker('5')}] all.", "It fell in all."),
        (f"As {marker('Koch, 1882')} says (see {marker('Koch et al., 1882a')}).", "As Koch, 1882 says (see Koch et al., 1882a)."),
        ('See <xref ref-type="fig" rid="F1">Figure 1</xref>.', "See Figure 1."),
        ("Of 7 [95% CI 3, 9] and [12].", "Of 7 [95% CI 3, 9] and [12]."),
        ("From <bold>10<sup>6</sup></bold> to 2<sup>-1</sup>, <sup>125</sup>I, m<sup>2</sup>.", "From 10^6 to 2^-1, 125I, m2."),
        ("Never<break/>glued.", "Never glued."),
    ],
)  # fmt: skip
def test_reference_markers_go_and_numbers_stay(path: Path, mixed: str, plain: str) -> None:
    assert text(path, f"<p>{mixed}</p>") == plain


@pytest.mark.parametrize(
    ("formula", "plain"),
    [
        ("<mml:math><mml:mi>x</mml:mi><mml:mo>&lt;</mml:mo><mml:mn>5</mml:mn></mml:math>", "x<5"),
        ("<mml:math><mml:msup><mml:mn>10</mml:mn><mml:mn>6</mml:mn></mml:msup></mml:math>", "10^6"),
        ("<mml:math><mml:mfrac><mml:mn>1</mml:mn><mml:mn>2</mml:mn></mml:mfrac></mml:math>", "[formula]"),
        ("<tex-math>\\frac{1}{2}</tex-math>", "[formula]"),
        ("<alternatives><tex-math>x</tex-math><mml:math><mml:mi>x</mml:mi></mml:math></alternatives>", "x"),
        ("<italic>E</italic> = mc<sup>2</sup>", "E = mc2"),
        (f"<mml:math><mml:mtext>{'long ' * 30}</mml:mtext></mml:math>", "[formula]"),
    ],
)
def test_a_formula_is_kept_where_a_line_says_the_same(path: Path, formula: str, plain: str) -> None:
    [document], left_out = read(path, article(f"<p>Thus <inline-formula>{formula}</inline-formula> holds.</p>"))
    assert document.text == f"Thus {plain} holds."
    assert left_out.counts["formulas"] == (plain == "[formula]")


@settings(deadline=None)  # the first reading imports libraries
@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1).filter(str.strip), min_size=1
    )
)
def test_any_text_survives_its_way_through_jats(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    body = ET.Element("sec")
    for one in words:
        ET.SubElement(body, "p").text = one
    path = tmp_path_factory.mktemp("a") / "a.xml"
    [document], _ = read(path, article(ET.tostring(body, encoding="unicode")))
    assert document.text.split("\n\n") == [" ".join(one.split()) for one in words]


def test_an_article_without_text_is_counted(path: Path) -> None:
    documents, left_out = read(path, f"<pmc-articleset>{article('')}{article()}</pmc-articleset>")
    assert len(documents) == 1
    assert left_out.counts["articles without abstract and body"] == 1


@pytest.mark.parametrize("meta", ["", '<article-id pub-id-type="pmc">46</article-id>'])
def test_an_article_that_has_lost_its_text_is_told_by_its_id(path: Path, meta: str) -> None:
    documents, left_out = read(path, article("", meta=meta))
    assert documents == []
    assert left_out.empty == {"pmc-46" if meta else "a.nxml": str(path)}


def test_an_article_that_has_its_text_elsewhere_is_not_taken_back(tmp_path: Path) -> None:
    for name, body in (("a.xml", ""), ("b.xml", PARAGRAPH), ("c.xml", "")):
        (tmp_path / name).write_text(article(body, meta='<article-id pub-id-type="pmc">46</article-id>'))
    left_out = LeftOut()
    [located] = read_corpus(find_files([tmp_path], left_out), left_out)
    assert located.document.id == "pmc-46"
    assert left_out.empty == {}


# --- metadata ----------------------------------------------------------------------------------

PMC, DOI = '<article-id pub-id-type="pmc">46</article-id>', '<article-id pub-id-type="doi">10.1/x</article-id>'


@pytest.mark.parametrize(
    ("meta", "identity"),
    [
        (PMC + DOI, "pmc-46"),
        ('<article-id pub-id-type="pmcid">PMC46</article-id>', "pmc-46"),
        ('<article-id pub-id-type="pmc">../../x</article-id>', "a.nxml"),
        (DOI, "10.1/x"),
        ("", "a.nxml"),
    ],
)
def test_the_id_is_that_of_pmc_or_the_doi_or_the_file(path: Path, meta: str, identity: str) -> None:
    [document], _ = read(path, article(meta=meta))
    assert document.id == identity


def test_the_name_of_a_file_is_no_id_of_pmc(tmp_path: Path) -> None:
    (tmp_path / "PMC").mkdir()
    (tmp_path / "PMC" / "PMC46.xml").write_text(article(), encoding="utf-8")
    [located] = read_corpus(find_files([tmp_path / "PMC"], LeftOut()), LeftOut())
    assert located.document.id == "PMC/PMC46.xml"


def test_articles_of_one_file_have_ids_and_places_of_their_own(path: Path) -> None:
    read(path, f"<pmc-articleset>{article()}{article()}{article(meta=PMC)}</pmc-articleset>")
    located = list(jats.read(File(path, "a.nxml"), LeftOut()))
    assert [one.document.id for one in located] == ["a.nxml", "a.nxml#2", "pmc-46"]
    assert [one.where for one in located] == [str(path), f"{path}, article 2", f"{path}, article 3"]


def test_metadata_in_full(path: Path) -> None:
    meta = f"""<article-id pub-id-type="pmid">7</article-id>{PMC}{DOI}<contrib-group>
      <contrib contrib-type="author"><name><surname>Koch</surname><given-names>Heinrich H.-R.</given-names></name></contrib>
      <contrib contrib-type="author"><collab>Cherry Group<contrib-group><contrib/></contrib-group></collab></contrib>
      <contrib contrib-type="editor"><name><surname>Virchow</surname></name></contrib></contrib-group>
      <pub-date pub-type="nihms-submitted"><year>2001</year></pub-date><pub-date pub-type="ppub"><year>2004</year></pub-date>
      <pub-date pub-type="epub"><year>2003</year></pub-date>"""
    [document], _ = read(path, article(meta=meta))
    assert document.metadata == {
        "pmid": "7",
        "pmcid": "PMC46",
        "doi": "10.1/x",
        "journal": "Annals of Gout",
        "year": 2003,
        "types": "Research article",
        "authors": "Koch HHR; Cherry Group",
    }


@pytest.mark.parametrize(
    ("year", "read_as"), [("2003", 2003), ("9" * 5000, 9999), ("in press", None), ("\u00b2", None)]
)
def test_a_year_is_four_digits(path: Path, year: str, read_as: int | None) -> None:
    [document], _ = read(path, article(meta=f"<pub-date><year>{year}</year></pub-date>"))
    assert document.metadata.get("year") == read_as


@pytest.mark.parametrize(
    ("kind", "relation", "key", "told"),
    [
        ("research-article", "retraction-forward", "retracted", "retraction in: 10.1/y"),
        ("retraction", "retracted-article", "retracted", "Retraction; retraction of: 10.1/y"),
        ("research-article", "correction-forward", "corrected", "correction in: 10.1/y"),
        ("correction", "corrected-article", "retracted", None),
        ("research-article", "companion", "retracted", None),
    ],
)
def test_notices_about_an_article_are_kept(path: Path, kind: str, relation: str, key: str, told: str | None) -> None:
    related = f'<related-article related-article-type="{relation}" xlink:href="10.1/y"/>'
    [document], _ = read(path, article(meta=related, kind=kind))
    assert document.metadata.get(key) == told


def test_an_article_without_front_matter_is_named_by_its_file(path: Path) -> None:
    [document], _ = read(path, f"<article><body>{PARAGRAPH}</body></article>")
    assert document == Document("a.nxml", "", "Urate falls.")


def test_xml_of_another_kind_is_named_by_its_root(path: Path) -> None:
    path.write_text("<html><p>Text.</p></html>", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.nxml: XML with the root <html>: neither PubMed nor JATS"):
        list(read_corpus(find_files([path], LeftOut()), LeftOut()))


# --- real files --------------------------------------------------------------------------------

NOT_READ = {
    "table-wrap",
    "supplementary-material",
    "fn",
    "fn-group",
    "fig",
    "fig-group",
    "caption",
    "label",
    "graphic",
    "media",
}
BLOCKS = {"list", "def-list", "disp-quote", "boxed-text"}


def real_articles(folder: Path) -> dict[str, ET.Element]:
    if (datasets := os.environ.get("RAG_DATASETS")) is None:
        pytest.skip("RAG_DATASETS doesn't name the folder of the datasets")
    with tarfile.open(Path(datasets, "jats_xml", "articles.tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    return {path.name: ET.parse(path).getroot() for path in folder.iterdir()}


def prose(element: ET.Element) -> str:
    """What a paragraph or a title itself holds, found without the reader."""
    parts = [element.text or ""]
    for child in element:
        parts += ["" if child.tag in NOT_READ | BLOCKS else prose(child), child.tail or ""]
    return "".join(parts).strip()


def letters(string: str) -> str:
    return re.sub(r"\W|\d", "", string)


def below(element: ET.Element, *tags: str) -> list[ET.Element]:
    """Elements with text in what is read."""
    found = []
    for child in element:
        found += [child] if child.tag in tags and prose(child) else []
        found += [] if child.tag in NOT_READ else below(child, *tags)
    return found


def captioned(part: ET.Element) -> list[ET.Element]:
    """Figures that have something to say."""
    figures = part.iter("fig")
    return [fig for fig in figures if any("".join(caption.itertext()).strip() for caption in fig.findall("caption"))]


def test_real_articles_are_read_whole_by_an_independent_count(tmp_path: Path) -> None:
    articles = real_articles(tmp_path)
    left_out = LeftOut()
    located = list(read_corpus(find_files([tmp_path], left_out), left_out))
    assert left_out.skipped == []
    assert {Path(one.where).name for one in located} == set(articles)
    assert len(articles) == 62
    for kind, tag in (
        ("tables", "table-wrap"),
        ("references", "ref"),
        ("supplementary files", "supplementary-material"),
    ):
        assert left_out.counts[kind] == sum(len(list(root.iter(tag))) for root in articles.values()) > 100
    kinds = ("ack", "glossary", "notes", "bio", "sec")
    back_matter = [part for root in articles.values() for kind in kinds for part in root.iterfind(f"back/{kind}")]
    read = sum(1 for root in articles.values() for _ in root.iterfind("back/sec[@sec-type='display-objects']"))
    assert left_out.counts["sections behind the body"] == len(back_matter) - read > 80
    totals: Counter[str] = Counter()
    for one in located:
        root = articles[Path(one.where).name]
        body = root.find("body")
        assert body is not None
        behind = [*root.iterfind("back/app-group/app"), *root.iterfind("back/sec[@sec-type='display-objects']")]
        sections = [
            title
            for sec in (
                *body.iter("sec"),
                *(sec for part in behind for tag in ("app", "sec") for sec in part.iter(tag)),
            )
            if below(sec, "p") or captioned(sec)
            for title in sec.findall("title")
            if prose(title)
        ]
        paragraphs = [paragraph for part in (body, *behind) for paragraph in below(part, "p")]
        abstracts = [part for part in root.findall("front/article-meta/abstract") if part.get("abstract-type") != "toc"]
        figures = [figure for part in (body, *behind, *root.findall("floats-group")) for figure in captioned(part)]
        in_paragraphs = {id(formula) for p in body.iter("p") for formula in p.iter("disp-formula")}
        counts = {
            "sections": len(sections),
            "paragraphs": len(paragraphs),
            "abstract": sum(len(below(part, "p", "title")) for part in abstracts),
            "figures": len(figures),
            "formulas": sum(1 for formula in body.iter("disp-formula") if id(formula) not in in_paragraphs),
        }
        totals.update(counts)
        blocks = one.document.text.split("\n\n")
        assert len(blocks) == sum(counts.values()), (one.where, counts)
        plain = {letters(block) for block in blocks}
        assert {letters(prose(title)) for title in sections} <= plain
        # Up to the first marker or formula, which are not read as they stand there.
        begins = [letters((paragraph.text or "").split("\n")[0]) for paragraph in paragraphs]
        assert [begin for begin in begins if not any(block.startswith(begin) for block in plain)] == []
    assert totals["sections"] > 1000
    assert totals["paragraphs"] > 2000
