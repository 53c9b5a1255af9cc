"""Rules that set near-identical texts apart: opposites, negation, two members of a class, exchanged roles. Pure.

The words are in tables beside this module: `opposites.txt`, `asked.txt`, `drug_stems.txt` and `drugs.txt`, read once.

A small model takes "overactive" for another word for "underactive" now and then, as a cosine does. Where two questions differ in
little else, that it is an opposite is looked up. In longer rewordings an opposite may say the same ("isn't raised", "stays normal"):
those are the model's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from rag.differences import Aligned

ALIKE, NEARLY_THE_SAME = 0.5, 0.7
"""Shares of the shorter question's words that the other one has too: for an opposite to set them apart, and for a negation."""

LONGEST_REPLACED = 5
"""Words of a sentence in another's place. More are another clause rather than another word."""

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|cannot|nor|neither|none|without|unlike|non|avoid(?:s|ed|ing)?|forbid(?:s|den)?|fail(?:s|ed)?|contraindicated|unsuitable|useless)\b"
    r"|n['\u2019]t\b",
    re.IGNORECASE,
)
"""Also what says as much: "not given" is "avoided"."""

_LACK = re.compile(
    r"\b(?:un(?!der|til|ion|it|iv|ique)[a-z]{3,}|in(?:visible|operable|sufficient)|[a-z]{3,}less|non[a-z]+|malformed|lack(?:s|ed|ing)?"
    r"|missing|absen(?:t|ce)|free|fail(?:ing|ure)|fault|ban(?:s|ned)?|bar(?:s|red)?|prohibit(?:s|ed)|exclud(?:e|es|ed)|spar(?:e|es|ed|ing)"
    r"|wrong|bad|withh(?:old|eld)|prevent(?:s|ed)?|refus(?:e|es|ed)|limit(?:s|ed)?|stop(?:s|ped|ping)?|ceases?|instead|rather|different"
    r"|distinguishes|apart|except|only|alone|contrast|against|contraindication|miss(?:es)?|los(?:t|s|es)|normal|clear|nobody|nothing"
    r"|discouraged|shun(?:s|ned)?|let down|(?:ke(?:ep|eps|pt)|stay(?:s|ed|ing)?) (?:\w+ )?(?:away|off|from|clear|down))\b",
    re.IGNORECASE,
)
"""What may say as much as a negation: "unreliable", "spared", "rather than". That one of these is none is the model's to judge."""

_AMBIGUOUS = frozenset({"least", "most", "last"})
"""In statements: "at least", "at most", "they last"."""

Sides: TypeAlias = dict[str, list[tuple[int, int]]]
"""The lines and sides that a word stands on."""


def _lines(name: str) -> list[str]:
    """Of a table, without its comments."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _sides_of_each(lines: Sequence[str], without: frozenset[str] = frozenset()) -> Sides:
    places: Sides = {}
    for number, line in enumerate(lines):
        for side, words in enumerate(line.split("|")):
            for word in set(words.split()) - without:
                places.setdefault(word, []).append((number, side))
    return places


_OPPOSITES = _lines("opposites.txt")
_IN_QUESTIONS, _IN_SENTENCES = _sides_of_each(_OPPOSITES + _lines("asked.txt")), _sides_of_each(_OPPOSITES, _AMBIGUOUS)

_CLASSES = [
    re.compile(rf"\b(?:{pattern})\b", flags)
    for pattern, flags in (
        ("first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth", re.IGNORECASE),
        ("I{1,3}|IV|VI{0,3}|IX|XI{0,2}", 0),
        ("(?<=hepatitis )[a-e]|(?<=vitamin )[a-k]|(?<=influenza )[a-c]", re.IGNORECASE),
        # Species of a genus: Enterococcus faecalis and faecium.
        (r"(?!Which|Where|Whose|Could|Should|Would)[A-Z][a-z]{4,} ([a-z]{3,}(?:um|us|is|ae|ii?|ans|ens))", 0),
    )
]

_NAMED = {name: names.split()[0] for names in _lines("drugs.txt") for name in names.split()}
_NO_DRUGS = frozenset({"except", "accept", "concept", "intercept", "cholesterol", "histidine"})
"""Which end as drugs do."""
_STEM = re.compile(rf"[a-z]{{2,}}(?:{'|'.join(' '.join(_lines('drug_stems.txt')).split())})")


def contrast(a: str, b: str) -> bool:
    """Do questions of much the same words differ in what can't be the same?"""
    one, other = _words(a), _words(b)
    alike = len(one & other) / max(1, min(len(one), len(other)))
    if alike < ALIKE:
        return False
    negated = alike >= NEARLY_THE_SAME and _negated(a, b)
    exchanged = _exchanged(a, b)
    compared = _compared(a, b) if exchanged else None
    if compared is not None:  # "A is more than B" and "B is less than A" are the same again
        one, other = one - compared[0], other - compared[1]
    turned = (exchanged and compared is None) or _opposed(one, other, _IN_QUESTIONS)
    return negated or turned or _of_one_class(a, b)


def _compared(a: str, b: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """What stands in the comparative before each one's "than", where these are opposites."""
    before = [text.lower().rpartition(" than ")[0] for text in (a, b)]
    one, other = (frozenset(" ".join(_COMPARATIVE.findall(text)).split()) for text in before)
    return (one, other) if _opposed(one, other, _IN_QUESTIONS) else None


def opposite(sentence: str, passage: str, aligned: Aligned | None) -> bool:
    """Does a sentence follow the one of the passage that it is aligned with, but for one word on another side of what can't be the
    same? What a passage says word for word it says, whatever else it says besides. Where two words are turned, or roles too, or one of
    both sentences is negated, they may say the same ("isn't safe", "is unsafe"): that is the model's to judge."""
    if aligned is None or _plain(sentence) in _plain(passage):
        return False
    said, told = aligned.texts
    if bool(_NEGATION.search(said)) != bool(_NEGATION.search(told)):
        return False
    ours, theirs = aligned.words
    turned = [
        _opposed(frozenset(new) - theirs, frozenset(old) - ours, _IN_SENTENCES)
        for new, old in aligned.replaced()
        if max(len(new), len(old)) <= LONGEST_REPLACED
    ]
    return sum(turned) == 1 and not _exchanged(said, told)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _negated(a: str, b: str) -> bool:
    """Is one of them, and the other neither so nor in other words?"""
    one, other = (bool(_NEGATION.search(text)) for text in (a, b))
    if one == other:
        return False
    negated, plain = (a, b) if one else (b, a)
    # What both have, as "stop" in "should I stop it" and "should I not stop it", stands for no negation.
    return not _lacks(plain) - _lacks(negated)


def _lacks(text: str) -> set[str]:
    return {found.group().lower() for found in _LACK.finditer(text)}


def _opposed(one: frozenset[str], other: frozenset[str], places: Sides) -> bool:
    """Has each a side of a line that the other hasn't?"""
    ours, theirs = _sides_of(one, places), _sides_of(other, places)
    return any(sides - theirs[line] and theirs[line] - sides for line, sides in ours.items() if line in theirs)


def _sides_of(words: frozenset[str], places: Sides) -> dict[int, set[int]]:
    """By line the sides that the words stand on."""
    found: dict[int, set[int]] = {}
    for word in words:
        for line, side in places.get(word, ()):
            found.setdefault(line, set()).add(side)
    return found


def _of_one_class(a: str, b: str) -> bool:
    """Names each a member that the other doesn't?"""
    named = [(_members(pattern, a), _members(pattern, b)) for pattern in _CLASSES] + [(_drugs(a), _drugs(b))]
    return any(one - other and other - one for one, other in named)


def _members(pattern: re.Pattern[str], text: str) -> set[str]:
    return {name.lower() for name in pattern.findall(text)}


def _drugs(text: str) -> set[str]:
    """One for all names of it that are known."""
    words = re.findall(r"[a-z]+", text.lower())
    return {_NAMED.get(word, word) for word in words if word in _NAMED or _STEM.fullmatch(word)} - _NO_DRUGS


def _exchanged(a: str, b: str) -> bool:
    """Do two words change sides of what sets one against the other: "stents rather than bypasses", "from warfarin to apixaban"?"""
    for pattern in _BETWEEN:
        first, second = pattern.search(a), pattern.search(b)
        if first is not None and second is not None:
            (before, after), (before_too, after_too) = _sides(first), _sides(second)
            to_the_right = (before & after_too) - after - before_too
            to_the_left = (after & before_too) - before - after_too
            if to_the_right and to_the_left:
                return True
    return False


_COMPARATIVE = re.compile(
    r"\b(?:(?:more|less)(?: [a-z]+)?|fewer|better|worse|higher|lower|earlier|later|faster|slower|shorter|longer|smaller|larger|older"
    r"|younger|commoner|rarer|safer|warmer|cooler)\b"
)

_BETWEEN = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?P<between>than)\b",
        r"\b(?P<between>but|whereas|while|instead of)\b",
        r"\bpreferred (?P<between>to)\b",
        r"\bfrom [\w-]+ (?P<between>to)\b",
    )
]


def _sides(found: re.Match[str]) -> tuple[frozenset[str], frozenset[str]]:
    start, end = found.span("between")
    return _words(found.string[:start]), _words(found.string[end:])


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
