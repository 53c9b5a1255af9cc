"""PubMed XML: the yearly baseline and its update files (also in the form before 2017), and what E-utilities return.

A document is a citation with an abstract. Labels of a structured abstract stand in the text. A citation comes again when
it is revised, and `DeleteCitation` takes citations back: `versions` tells what is needed to know the last record of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rag.core import Document, Located
from rag.ingest import xml
from rag.ingest.source import File, LeftOut
from rag.ingest.xml import Element, text

ROOTS = {"PubmedArticleSet", "MedlineCitationSet", "PubmedArticle", "MedlineCitation"}

_CITATIONS = ("PubmedArticle", "MedlineCitation")
_BOOKS = ("PubmedBookArticle", "BookDocument")
_RECORDS = (*_CITATIONS, *_BOOKS, "DeleteCitation")
"""Both passes go by all of them: what lies between two bounds what is read at once."""

_NEVER = 99_999_999
"""A day after all others."""

# RefType in CommentsCorrectionsList -> how it is told.
_RETRACTIONS = {
    "RetractionIn": "retraction in",
    "RetractionOf": "retraction of",
    "PartialRetractionIn": "partial retraction in",
    "PartialRetractionOf": "partial retraction of",
    "RetractedandRepublishedIn": "retracted and republished in",
    "RetractedandRepublishedFrom": "retracted and republished from",
    "ExpressionOfConcernIn": "expression of concern in",
    "ExpressionOfConcernFor": "expression of concern for",
}
_CORRECTIONS = {
    "ErratumIn": "erratum in",
    "ErratumFor": "erratum for",
    "CorrectedandRepublishedIn": "corrected and republished in",
    "CorrectedandRepublishedFrom": "corrected and republished from",
}


@dataclass(frozen=True, slots=True)
class Version:
    """A record of a citation, or of its being withdrawn.

    `rank`: the number of the version, which NLM counts from 1 and gives once, then the day of its last revision. Of what withdraws
    a version, above all its revisions.
    """

    identity: str
    where: str
    rank: int
    is_deleted: bool = False


def read(file: File, left_out: LeftOut) -> Iterator[Located]:
    number = 0
    for element, size in xml.records(file, _RECORDS):
        if element.tag in _BOOKS:
            left_out.counts["books and chapters in PubMed files"] += 1
        if element.tag not in _CITATIONS:
            continue
        number += 1
        where = _where(file, number)
        citation = _citation(element)
        pmid = text(citation.find("PMID"))
        body = _abstract(citation)
        if not pmid.isdecimal():
            left_out.skip(where, "a citation without a PMID.")
        elif not body:
            left_out.counts["citations without an abstract"] += 1
            left_out.empty[_identity(pmid)] = where
        else:
            title = text(citation.find("Article/ArticleTitle"))
            yield Located(Document(_identity(pmid), title, body, _metadata(element, citation, pmid)), where, size)


def versions(file: File) -> Iterator[Version]:
    """One of each record that `read` comes to, and of each that is withdrawn. Texts aren't looked at."""
    number = 0
    for element, _ in xml.records(file, _RECORDS):
        if element.tag == "DeleteCitation":
            for pmid in element.iterfind("PMID"):
                where = f"{file.path}, DeleteCitation"
                yield Version(_identity(text(pmid)), where, _rank(pmid, _NEVER), is_deleted=True)
        elif element.tag in _CITATIONS:
            number += 1
            citation = _citation(element)
            pmid = citation.find("PMID")
            yield Version(_identity(text(pmid)), _where(file, number), _rank(pmid, _revised(citation)))


def _identity(pmid: str) -> str:
    return f"pmid-{pmid}"


def _rank(pmid: Element | None, day: int) -> int:
    number = _digits(pmid.get("Version", ""), 4) if pmid is not None else 0
    return max(1, number) * (_NEVER + 1) + day


def _revised(citation: Element) -> int:
    """YYYYMMDD; 0 where it never was."""
    sizes = {"Year": 4, "Month": 2, "Day": 2}
    year, month, day = (_digits(text(citation.find(f"DateRevised/{part}")), size) for part, size in sizes.items())
    return (year * 100 + month) * 100 + day


def _digits(string: str, size: int) -> int:
    """The number that its first `size` characters are, 0 where they are none. Of any number of them `int` would fail, or take long."""
    return int(string[:size]) if string[:size].isdecimal() else 0


def _where(file: File, number: int) -> str:
    # Not the line: a whole file may stand on one.
    return f"{file.path}, citation {number}"


def _citation(element: Element) -> Element:
    """The same in both forms: a `PubmedArticle` holds it beside `PubmedData`."""
    inner = element.find("MedlineCitation")
    return inner if inner is not None else element


def _abstract(citation: Element) -> str:
    parts = []
    for part in citation.iterfind("Article/Abstract/AbstractText"):
        label, body = " ".join(part.get("Label", "").split()), text(part)
        if body:
            parts.append(f"{label}: {body}" if label and label.upper() != "UNLABELLED" else body)
    return "\n\n".join(parts)


def _metadata(element: Element, citation: Element, pmid: str) -> dict[str, str | int | float]:
    article = citation.find("Article")
    types = [text(kind) for kind in article.iterfind("PublicationTypeList/PublicationType")]
    retracted = [kind for kind in types if "retract" in kind.lower() or kind == "Expression of Concern"]
    values: dict[str, str | int | float] = {
        "pmid": pmid,
        "pmcid": _article_id(element, "pmc") or _other_id(citation),
        "doi": _doi(article) or _article_id(element, "doi"),
        "journal": text(article.find("Journal/Title")),
        "year": _year(article),
        "types": "; ".join(types),
        "authors": "; ".join(filter(None, map(_author, article.iterfind("AuthorList/Author")))),
        "retracted": "; ".join(retracted + _notices(citation, _RETRACTIONS)),
        "corrected": "; ".join(_notices(citation, _CORRECTIONS)),
    }
    return {key: value for key, value in values.items() if value}


def _doi(article: Element) -> str:
    for place in article.iterfind("ELocationID[@EIdType='doi']"):
        if place.get("ValidYN", "Y") == "Y":
            return text(place)
    return ""


def _article_id(element: Element, kind: str) -> str:
    # The path matters: each reference has an ArticleIdList too.
    return text(element.find(f"PubmedData/ArticleIdList/ArticleId[@IdType='{kind}']"))


def _other_id(citation: Element) -> str:
    """`PMC4688250 [Available on 12/22/16]` in the form before 2017."""
    for other in citation.iterfind("OtherID"):
        if text(other).startswith("PMC"):
            return text(other).split()[0]
    return ""


def _year(article: Element) -> int:
    """0 where none is told."""
    for path in ("Journal/JournalIssue/PubDate/Year", "Journal/JournalIssue/PubDate/MedlineDate", "ArticleDate/Year"):
        if year := _digits(text(article.find(path)), 4):
            return year
    return 0


def _author(author: Element) -> str:
    names = [text(author.find(part)) for part in ("LastName", "Initials")]
    return " ".join(filter(None, names)) or text(author.find("CollectiveName"))


def _notices(citation: Element, kinds: dict[str, str]) -> list[str]:
    found = []
    for notice in citation.iterfind("CommentsCorrectionsList/CommentsCorrections"):
        if (kind := kinds.get(notice.get("RefType", ""))) is not None:
            pmid = text(notice.find("PMID"))
            found.append(f"{kind}: {text(notice.find('RefSource'))}" + (f" (PMID {pmid})" if pmid else ""))
    return found
