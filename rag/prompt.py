"""What the model reads, and what its `[n]` markers mean. Pure.

Stable text comes first and the question last, so that a prefix cache can serve the start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from rag.context import render
from rag.core import Citation, Message, Prompt, Sentence, Source
from rag.settings import Cite
from rag.text import content_words, sentences

NOT_IN_SOURCES = "None of the sources answers the question."
"""Begins as hardly any answer does: a model decides to decline by its first token."""

SYSTEM = (
    "Answer the question from the numbered sources, in their words. End each sentence with the number of its "
    f"source in brackets, like [1]. If no source answers it, say: {NOT_IN_SOURCES}"
)

# What models write when they decline in words of their own. Matched at the start of an answer, so that
# a caveat at its end isn't taken for an abstention.
_SOURCES = r"(?:sources?|passages?|context|documents?|texts?)"
_TELL = r"(?:contain|hold|have|provide|mention|include|state|give|answer|say|specify|discuss|address|describe|tell|indicate)"
_DECLINES = re.compile(
    rf"""\W*
    (?:(?:unfortunately|sorry),?\s+)?
    (?:(?:based\ on|according\ to|from|in)\ (?:the\ )?(?:\w+\ )?{_SOURCES},?\s+)?
    (?:
        i(?:'m|\ am)\ (?:sorry|unable|not\ able)
      | i\ (?:do\ not|don't|cannot|can't|could\ not|couldn't)\ (?:answer|find|know|have|see|tell|determine|provide|say)\b
      | (?:(?:the|these|those|this)\ )?(?:\w+\ )?{_SOURCES}\ (?:provided\ |given\ |above\ )?(?:do|does)(?:\ not|n't)\ {_TELL}\b
      | none\ of\ (?:the|these|those)\ (?:\w+\ )?{_SOURCES}\ {_TELL}s?\b
      | there\ is\ no\ (?:answer|information|mention)\b
      | no\ (?:answer|information|mention)\ (?:(?:is|was)\ )?(?:given|available|found|provided|contained|in|about|on|of)\b
      | (?:the|this)\ (?:answer|question|information)\ (?:is\ not|isn't|cannot\ be|can't\ be|could\ not\ be)
        \ (?:contained|found|given|stated|mentioned|in|answered|available|provided|included)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)

_MARKER = re.compile(r"(?P<space>\s?)\[(?P<numbers>\d{1,3}(?: ?[,;] ?\d{1,3}){0,9})\]")
_LAST_MARKER = re.compile(rf"{_MARKER.pattern}\Z")
# What may begin a marker, also inside another ("[0[1"): taking the inner one out joins what stood around it.
# With all the white space before it: each marker taken out takes one with it.
_OPEN_MARKER = re.compile(r"(?:\s*+\[[\d ,;]{0,57}+)*+\s*+\Z")
_COMPLETE = re.compile(r"[.!?][\"'\u201d\u2019)*]*(?: ?\[[\d ,;]{1,57}\][.\"'\u201d\u2019)*]*)*$|\[[\d ,;]{1,57}\]$")


def build(question: str, sources: tuple[Source, ...]) -> Prompt:
    passages = "".join(render(source.marker, source.hit.passage.title, source.quote) for source in sources)
    return Prompt(
        (
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{passages}Question: {question}"},
        ),
        sources,
    )


def overhead(question: str) -> tuple[Message, ...]:
    """The messages without any source: what they cost isn't there for passages."""
    return build(question, ()).messages


def declines(text: str) -> bool:
    """Does the model say that the sources don't hold the answer? One that cites a source answers, unless it begins with
    the sentence that it was told to decline with."""
    text = " ".join(text.split()).replace("\u2019", "'")
    if not text or text.lower().startswith(NOT_IN_SOURCES.lower().rstrip(".")):
        return True
    said = _DECLINES.match(text) is not None or NOT_IN_SOURCES.lower() in text.lower()
    return said and _MARKER.search(text) is None


def whole_sentences(text: str) -> str:
    """A text that was cut at its length limit, without the sentence that the cut went through.

    A full stop at the end may be the abbreviation's ("P. vivax"), so a last sentence of one or two words goes too.
    """
    ends = [end for _, end in _sentences_with_markers(text)]
    if len(ends) < 2:
        return text
    complete = _COMPLETE.search(text.rstrip()) is not None and len(text[ends[-2] :].split()) > 2
    return text if complete else text[: ends[-2]]


def valid_markers(text: str, count: int) -> tuple[str, int]:
    """The text without the numbers that point to none of `count` sources, and how many those were.

    From left to right, as a stream brings it: what is left of a marker can close the one before it ("[0[9]]").
    """
    invalid, clean = 0, ""
    for piece in re.split(r"(?<=\])", text):
        clean += piece
        match = _LAST_MARKER.search(clean, max(clean.rfind("[") - 1, 0))
        if match is None:
            continue
        numbers = [int(number) for number in re.findall(r"\d+", match["numbers"])]
        good = [number for number in dict.fromkeys(numbers) if 1 <= number <= count]
        invalid += sum(not 1 <= number <= count for number in numbers)
        markers = "".join(f"[{number}]" for number in good)
        clean = clean[: match.start()] + (match["space"] + markers if good else "")
    return clean, invalid


def says_something(text: str) -> bool:
    """Has it a word, or a number, beside its markers?"""
    return any(map(str.isalnum, _MARKER.sub("", text)))


class MarkerFilter:
    """Takes markers that point nowhere out of a stream, holding text back only while a marker may be open, and until it says
    something: one of markers alone gives nothing."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held = ""
        self._begun = False

    def feed(self, delta: str) -> str:
        text = valid_markers(self._held + delta, self._count)[0]
        opened = _OPEN_MARKER.search(text)
        cut = opened.start() if opened else len(text)
        self._begun = self._begun or says_something(text[:cut])
        if not self._begun:
            cut = 0
        self._held = text[cut:]
        return text[:cut]

    def rest(self) -> str:
        text, self._held = self._held, ""
        return text if self._begun or says_something(text) else ""


def cite(
    text: str, sources: Sequence[Source], settings: Cite
) -> tuple[str, tuple[Sentence, ...], tuple[Citation, ...], int]:
    """Text without invalid markers, its sentences, the citations in order of first use, and the number removed.

    A sentence without a marker is attributed to the source that holds the largest share of its content
    words, where that share reaches `settings.min_overlap`. The text itself isn't changed by that.
    """
    text, invalid = valid_markers(text.strip(), len(sources))
    by_marker = {source.marker: source for source in sources}
    found: list[Sentence] = []
    origins: dict[int, str] = {}
    for start, end in _sentences_with_markers(text):
        sentence = text[start:end]
        markers = _markers(sentence)
        plain = _MARKER.sub("", sentence).strip()
        for marker in markers:
            origins[marker] = "model"
        if not markers and settings.attribute:
            best = _most_overlapping(plain, sources, settings.min_overlap)
            if best is not None:
                markers = (best,)
                origins.setdefault(best, "attributed")
        found.append(Sentence(plain, markers))
    citations = tuple(
        Citation(
            marker,
            by_marker[marker].hit.passage.doc_id,
            by_marker[marker].hit.passage.id,
            by_marker[marker].hit.passage.title,
            by_marker[marker].quote,
            "model" if origin == "model" else "attributed",
            by_marker[marker].hit.score,
            by_marker[marker].hit.passage.metadata,
        )
        for marker, origin in origins.items()
    )
    return text, tuple(found), citations, invalid


def written_markers(text: str) -> list[tuple[int, ...]]:
    """By sentence, the markers that stand in an answer as it is shown: those that the model wrote itself."""
    return [_markers(text[start:end]) for start, end in _sentences_with_markers(text)]


def unmarked(text: str) -> str:
    """The text without its `[n]` markers."""
    return re.sub(r"\s?\[\d{1,3}\]", "", text)


def keep(
    text: str, sentences: Sequence[Sentence], citations: Sequence[Citation], kept: Sequence[bool]
) -> tuple[str, tuple[Citation, ...]]:
    """The text without the sentences that aren't `kept`, and the citations left, in order of first use.

    Takes what `cite` gave. A citation whose marker isn't in the text any more, but which a sentence was
    attributed to, is an attributed one from then on.
    """
    starts = [start for start, _ in _sentences_with_markers(text)]
    ranges = zip(pairwise([*starts, len(text)]), kept, strict=True)
    text = "".join(text[start:end] for (start, end), good in ranges if good).strip()
    used = dict.fromkeys(marker for one, good in zip(sentences, kept, strict=True) if good for marker in one.markers)
    by_marker = {citation.marker: citation for citation in citations}
    return text, tuple(
        by_marker[marker] if f"[{marker}]" in text else replace(by_marker[marker], origin="attributed")
        for marker in used
    )


def _markers(sentence: str) -> tuple[int, ...]:
    """Each once, of a text whose markers are all valid."""
    return tuple(dict.fromkeys(int(match["numbers"]) for match in _MARKER.finditer(sentence)))


def _sentences_with_markers(text: str) -> list[tuple[int, int]]:
    """Sentence ranges; markers after a full stop belong to the sentence before it."""
    ranges: list[tuple[int, int]] = []
    for start, end in sentences(text):
        leading = re.match(r"(?:\s*\[\d{1,3}\])+[.\s]*", text[start:end])
        if leading and ranges:
            ranges[-1] = (ranges[-1][0], start + leading.end())
            start += leading.end()
        if text[start:end].strip(" .\n"):
            ranges.append((start, end))
    return ranges


def _most_overlapping(sentence: str, sources: Sequence[Source], threshold: float) -> int | None:
    words = content_words(sentence)
    if not words:
        return None
    shares = [(len(words & content_words(f"{s.hit.passage.title} {s.quote}")) / len(words), -s.marker) for s in sources]
    share, negative = max(shares, default=(0.0, 0))
    return -negative if share >= threshold else None
