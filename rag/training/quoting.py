"""What of a text is quoted: the sentences that answer a question, and passages around them. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from rag.text import Range, content_words, sentences
from rag.training import wording
from rag.training.datasets import Record

MIN_ANSWER, MAX_ANSWER = 120, 330
"""Characters: sentences are added to a short answer, never beyond the longest."""

BOILERPLATE = re.compile(
    r"These resources address|Human Phenotype Ontology|This summary section describes|see the .{0,40}summar|"
    r"Information about clinical trials|You can use the MedlinePlus",
    re.IGNORECASE,
)
_UNCLEAN = re.compile(
    r" - |Key Points|https?:|www\.|\?|\bclick\b|: [A-Z]|\bSee \b|\bFigure \d|\bTable \d|\(Table|\(Fig|[^\x00-\x7f]{4,}"
)
_LEANING = re.compile(r"(?:It|They|Them|These|Those|Such|Other|Others|However|But|Also|In addition|Another|He|She)\b")
"""Begins a sentence that needs the one before it."""


def tidy(text: str) -> str:
    """A MedQuAD answer without the question or the list of key points that some repeat at their start."""
    text = re.sub(r"^\s*Summary\s*:\s*", "", " ".join(text.split()))
    ranges = sentences(text)
    start = 0
    if text.startswith("Key Points"):
        points = [end for begin, end in ranges if text[begin:end].startswith(("-", "Key Points"))]
        start = points[-1] if points else 0
    elif ranges and text[ranges[0][0] : ranges[0][1]].endswith("?"):
        start = ranges[0][1]
    return text[start:].strip()


def usable(sentence: str) -> bool:
    """Can it stand in an answer? Whole, plain, neither a scrap nor a paragraph."""
    return (
        30 <= len(sentence) <= 300
        and sentence.endswith((".", ".)", '."'))
        and (sentence[0].isupper() or sentence[0].isdigit())
        and _UNCLEAN.search(sentence) is None
    )


def pick(record: Record, text: str, ranges: Sequence[Range]) -> tuple[int, int] | None:
    """First and last sentence (by position) of the answer to a record's question, from the start of its text.

    The first sentence answers most questions; where another one has the words of this kind of question and
    the first one hasn't, that one does.
    """
    if BOILERPLATE.search(text):
        return None
    cue = wording.CUES.get(record.qtype)
    best, first = 0.0, None
    for position, (start, end) in enumerate(ranges[:10]):
        sentence = text[start:end]
        if not usable(sentence) or (position > 0 and _LEANING.match(sentence)):
            continue
        hit = cue is None or cue.search(sentence) is not None
        score = (1.0 if hit else 0.0) + (0.8 if position == 0 else 0.3 if position < 3 else 0.1)
        if (hit or position == 0) and score > best:
            best, first = score, position
        if cue is None:
            break
    if first is None:
        return None
    return first, _extended(text, ranges, first, 2)


def leading(text: str, ranges: Sequence[Range]) -> tuple[int, int] | None:
    """As `pick`, of a text that begins with what it has to say: its first sentence, or its first two."""
    if not ranges or not usable(text[slice(*ranges[0])]):
        return None
    return 0, _extended(text, ranges, 0, 1)


def _extended(text: str, ranges: Sequence[Range], first: int, more: int) -> int:
    """The last sentence of an answer that begins with `first`: at most so many more are added to a short one."""
    last = first
    while (
        last + 1 < len(ranges)
        and last - first < more
        and ranges[last][1] - ranges[first][0] < MIN_ANSWER
        and ranges[last + 1][1] - ranges[first][0] <= MAX_ANSWER
        and usable(text[slice(*ranges[last + 1])])
    ):
        last += 1
    return last


# --- passages ----------------------------------------------------------------------------------


def window(text: str, ranges: Sequence[Range], first: int, last: int, length: int, chance: random.Random) -> str:
    """A run of sentences around [first, last] of about `length` characters; often the start of the text."""
    begin = 0 if chance.random() < 0.5 and ranges[last][1] <= length else max(0, first - chance.choice((0, 0, 1, 2, 3)))
    while begin < first and ranges[last][1] - ranges[begin][0] > length:
        begin += 1
    end = last
    while end + 1 < len(ranges) and ranges[end + 1][1] - ranges[begin][0] <= length:
        end += 1
    return text[ranges[begin][0] : ranges[end][1]]


def shortened(text: str, length: int, chance: random.Random) -> str:
    ranges = sentences(text)
    if not ranges:
        return text[:length]
    first = chance.randrange(len(ranges)) if chance.random() < 0.3 else 0
    return window(text, ranges, first, first, length, chance)[: length + 300]


def holds(passage: str, answer: str) -> bool:
    """Does a passage say (almost) the same? Then it may not stand beside the one that answers."""
    words = content_words(answer)
    return len(words & content_words(passage)) >= 0.7 * len(words)


def around(text: str, wanted: str, length: int, chance: random.Random) -> str:
    """The run of sentences that holds the words of an answer."""
    text = " ".join(text.split())
    ranges = sentences(text)
    words = content_words(wanted)
    if not words:
        return window(text, ranges, 0, 0, length, chance)
    shares = [len(words & content_words(text[slice(*one)])) for one in ranges]
    holding = [n for n, share in enumerate(shares) if share >= max(2, 0.3 * len(words))] or [shares.index(max(shares))]
    first, last = min(holding), max(holding)
    return window(text, ranges, first, last, max(length, ranges[last][1] - ranges[first][0]), chance)
