"""JATS, the XML of PubMed Central and of publishers: one document an article, its abstract and then its sections.

Each heading and each paragraph stands between blank lines. Captions of figures and appendices are kept; tables, references,
supplementary files, long formulas, and acknowledgements and what else stands behind the body are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rag.core import Document, Located
from rag.ingest import xml
from rag.ingest.source import File, LeftOut
from rag.ingest.xml import Element, local_name, text

ROOTS = {"article", "pmc-articleset"}

_COUNTED = {"table-wrap": "tables", "ref": "references", "supplementary-material": "supplementary files"}

_BACK_MATTER = ("ack", "bio", "glossary", "notes", "sec")
"""What else may stand behind a body: thanks, who paid, who did what, which abbreviations there were."""

_OMIT = {
    *(
        "table-wrap",
        "table-wrap-group",
        "table",
        "supplementary-material",
        "ref-list",
        "fn",
        "fn-group",
        "graphic",
        "media",
    ),
    *("label", "object-id", "alt-text", "long-desc", "permissions", "sec-meta", "tex-math"),
}

_BLOCKS = {"fig", "fig-group", "list", "def-list", "disp-quote", "boxed-text"}
"""What may stand inside a paragraph and is none of its sentences."""

_INLINE = _OMIT | _BLOCKS

_SHORT_ABSTRACTS = {"toc", "graphical", "teaser", "short", "web-summary"}
"""Kinds that say again, in fewer words, what the abstract says."""

_RETRACTIONS = {
    "retracted-article": "retraction of",
    "retraction-forward": "retraction in",
    "partial-retraction": "partial retraction of",
    "partial-retraction-forward": "partial retraction in",
    "object-of-concern": "expression of concern for",
    "expression-of-concern": "expression of concern in",
}
_CORRECTIONS = {"corrected-article": "correction of", "correction-forward": "correction in"}
_RETRACTING_TYPES = {"retraction", "partial-retraction", "retracted-article", "expression-of-concern"}


def read(file: File, left_out: LeftOut) -> Iterator[Located]:
    for number, (article, size) in enumerate(xml.records(file, ("article",)), 1):
        where = str(file.path) if number == 1 else f"{file.path}, article {number}"
        body = "\n\n".join(_paragraphs(article))
        for tag, kind in _COUNTED.items():
            left_out.counts[kind] += sum(1 for _ in article.iter(tag))
        left_out.counts["sections behind the body"] += sum(map(_is_back_matter, article.iterfind("back/*")))
        left_out.counts["formulas"] += body.count("[formula]")
        meta = article.find("front/article-meta")
        metadata = _metadata(article, meta)
        own_name = file.name if number == 1 else f"{file.name}#{number}"
        known = str(metadata.get("pmcid", metadata.get("doi", "")))
        identity = known.replace("PMC", "pmc-") or own_name
        if not body:
            left_out.counts["articles without abstract and body"] += 1
            left_out.empty[identity] = where
            continue
        title = text(meta.find("title-group/article-title"), _INLINE) if meta is not None else ""
        yield Located(Document(identity, title, body, metadata), where, size)


# --- text --------------------------------------------------------------------------------------


def _paragraphs(article: Element) -> Iterator[str]:
    for abstract in article.iterfind("front/article-meta/abstract"):
        if abstract.get("abstract-type") not in _SHORT_ABSTRACTS:
            yield from _blocks(abstract)
    for part in article.iterfind("body"):
        yield from _blocks(part)
    yield from _blocks(part for part in article.iterfind("back/*") if not _is_back_matter(part))
    for floats in article.iterfind("floats-group"):
        yield from _blocks(floats)


def _is_back_matter(part: Element) -> bool:
    """All behind a body is, but appendices, and the figures that some publishers put there (`display-objects`)."""
    return local_name(part) in _BACK_MATTER and part.get("sec-type") != "display-objects"


def _blocks(elements: Iterable[Element]) -> Iterator[str]:
    for element in elements:
        yield from filter(None, _block(element))


def _block(element: Element) -> Iterator[str]:
    name = local_name(element)
    if name in _OMIT:
        return
    if name == "p":
        yield text(element, _INLINE)
        yield from _blocks(child for child in element if local_name(child) in _BLOCKS)
    elif name in ("sec", "app"):
        # A heading over nothing but a table has nothing to say.
        if below := list(_blocks(child for child in element if local_name(child) != "title")):
            yield text(element.find("title"), _INLINE)
            yield from below
    elif name == "fig":
        caption = " ".join(_blocks(element.iterfind("caption")))
        label = text(element.find("label")).rstrip(".:")
        yield f"{label}. {caption}" if label and caption else caption
    elif name == "def-item":
        yield f"{text(element.find('term'), _INLINE)}: {' '.join(_blocks(element.iterfind('def')))}"
    elif name in ("title", "disp-formula") or len(element) == 0:
        yield text(element, _INLINE)
    else:
        yield from _blocks(element)


# --- metadata ----------------------------------------------------------------------------------


def _metadata(article: Element, meta: Element | None) -> dict[str, str | int | float]:
    if meta is None:
        return {}
    kind = article.get("article-type", "")
    values: dict[str, str | int | float] = {
        "pmid": _article_id(meta, "pmid"),
        "pmcid": _pmcid(meta),
        "doi": _article_id(meta, "doi"),
        "journal": text(article.find("front/journal-meta//journal-title")),
        "year": min(_years(meta), default=0),
        "types": kind.replace("-", " ").capitalize(),
        "authors": "; ".join(
            filter(None, map(_author, meta.iterfind("contrib-group/contrib[@contrib-type='author']")))
        ),
        "retracted": "; ".join(
            ([kind.replace("-", " ").capitalize()] if kind in _RETRACTING_TYPES else []) + _related(meta, _RETRACTIONS)
        ),
        "corrected": "; ".join(_related(meta, _CORRECTIONS)),
    }
    return {key: value for key, value in values.items() if value}


def _article_id(meta: Element, kind: str) -> str:
    return text(meta.find(f"article-id[@pub-id-type='{kind}']"))


def _pmcid(meta: Element) -> str:
    """PMC changed both name and form of it in 2024: `pmc` 2655271, `pmcid` PMC2655271."""
    number = (_article_id(meta, "pmcid") or _article_id(meta, "pmc")).removeprefix("PMC")
    return f"PMC{number}" if number.isdecimal() else ""


def _years(meta: Element) -> Iterator[int]:
    for date in meta.iterfind("pub-date"):
        year = text(date.find("year"))[:4]
        if year.isdecimal() and date.get("pub-type") not in ("pmc-release", "nihms-submitted"):
            yield int(year)


def _author(contrib: Element) -> str:
    """As PubMed writes it: Koch R."""
    name = next(contrib.iter("name"), None)
    if name is None:
        return text(contrib.find("collab"), {"contrib-group"}) or text(contrib.find("string-name"))
    given = re.findall(r"(?<![^\W\d_])[^\W\d_]", text(name.find("given-names")))
    return f"{text(name.find('surname'))} {''.join(given)}".strip()


def _related(meta: Element, kinds: dict[str, str]) -> list[str]:
    found = []
    for related in meta.iterfind("related-article"):
        if (kind := kinds.get(related.get("related-article-type", ""))) is not None:
            target = text(related) or related.get("{http://www.w3.org/1999/xlink}href", "")
            found.append(f"{kind}: {target}".rstrip(": "))
    return found
