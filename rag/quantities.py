"""The numbers of a text and their units, so that a sentence's can be looked for in its passage. Pure.

Signs are left out, since a dash is mostly a range's ("2-5"). A share is the same however it is told, "a third", "one in three" and
"33%", and so are "day six" and "the sixth day", the 1930s of the sentence and 1933 in the passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

_UP_TO_NINE = "one two three four five six seven eight nine".split()  # noqa: SIM905
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()  # noqa: SIM905
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_VALUES = {word: value for value, word in enumerate([*_UP_TO_NINE, *_TEENS], start=1)}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_FACTORS = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_FACTOR = "|".join(_FACTORS)

_SPELLED = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(_TENS)})(?:[\s-](?P<ones>{'|'.join(_UP_TO_NINE)}))?|(?P<small>{'|'.join([*_UP_TO_NINE, *_TEENS])}))\b",
    re.IGNORECASE,
)
_A_FACTOR = re.compile(rf"\ban? (?={_FACTOR}\b)", re.IGNORECASE)
_HUNDREDS = re.compile(r"\b(?P<hundreds>[1-9]) hundred(?: and)? (?P<rest>[1-9][0-9]?)\b(?![.,][0-9])", re.IGNORECASE)
_TIMES = re.compile(rf"(?P<number>[0-9]+(?:[.,][0-9]+)*)[\s-](?P<factor>{_FACTOR})\b", re.IGNORECASE)
_PRONOUN = re.compile(rf"(?<!ty[\s-])\bone\b(?![\s-](?:{_FACTOR})\b)", re.IGNORECASE)

_SPACES = "\u00a0\u2009\u202f"  # they may part thousands
_DIGITS = re.compile(rf"(?:(?<![0-9A-Za-z.])\.)?[0-9]+(?:[.,\u00b7][0-9]+|[{_SPACES}][0-9]{{3}}(?![0-9]))*")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")

_SPELLINGS = {
    "%": "percent, per cent",
    "\u03bcg": "\u00b5g, ug, mcg, microgram, micrograms",
    "ng": "nanogram, nanograms",
    "pg": "picogram, picograms",
    "mg": "milligram, milligrams",
    "g": "gram, grams",
    "kg": "kilogram, kilograms",
    "ml": "milliliter, milliliters, millilitre, millilitres",
    "l": "liter, liters, litre, litres",
    "mm": "millimeter, millimeters, millimetre, millimetres",
    "cm": "centimeter, centimeters, centimetre, centimetres",
    "m": "meter, meters, metre, metres",
    "km": "kilometer, kilometers, kilometre, kilometres",
    "iu": "international unit, international units, unit, units, u",
    "mmhg": "mm hg",
    "°c": "° c, degrees celsius, degree celsius, degrees c",
    "°f": "° f, degrees fahrenheit, degree fahrenheit, degrees f",
    "foot": "feet",
    "inch": "inches",
    "second": "seconds, sec, secs",
    "minute": "minutes, min, mins",
    "hour": "hours, hr, hrs, h",
    "day": "days",
    "week": "weeks, wk, wks",
    "month": "months",
    "year": "years, yr, yrs",
    "decade": "decades",
    "century": "centuries",
    **{name: f"{name}s" for name in ("mile", "pound", "ounce")},
    **dict.fromkeys(
        ("dl", "mol", "meq", "kpa", "sv", "gy", "bq", "hz", "nm", "ms", "ns", "mv", "kv", "kcal", "kj"), ""
    ),
    **{prefix + of: "" for of in ("mol", "sv", "gy", "bq", "hz") for prefix in ("n", "p", "m", "c", "k", "g")},
    **{f"\u03bc{of}": f"\u00b5{of}" for of in ("mol", "sv", "gy", "m", "s", "l", "v")},
}
_UNITS = {spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit, *others.split(", ")) if spelling}
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_QUANTITY = re.compile(
    rf"(?P<number>{_DIGITS.pattern})(?:[\s-]?(?P<unit>%|(?:{_UNIT})\b)(?:\s?(?:/|\bper\s)\s?(?P<per>kg|kilogram|dl|ml|l|litre|liter)\b)?"
    r"(?:(?:\s(?:once|(?P<times>twice|[0-9]+ times)))?"
    r"(?:\s?(?:/|\b(?:per|an?|every|each)\s)\s?(?P<span>minute|min|hour|h|day|d|week|month|year)|\s(?P<ly>hour|dai|week|month|year)ly)\b)?)?",
    re.IGNORECASE,
)
_SPANS = {"dai": "day", "d": "day", "h": "hour", "min": "minute"}

_ORDINALS = {
    word: value
    for value, word in enumerate(
        "second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(),  # noqa: SIM905
        start=2,
    )
}
_ORDINAL = re.compile(rf"\b(?P<ordinal>{'|'.join(_ORDINALS)}) (?P<noun>[a-z]+)\b", re.IGNORECASE)
_NUMBERED = re.compile(r"\b(?P<noun>[a-z]+) (?P<number>[0-9]+)\b(?![.,]?[0-9])", re.IGNORECASE)

_PARTS = {"half": 2, "quarter": 4, "quarters": 4}
_PARTS |= {word + s: value for word, value in _ORDINALS.items() if word != "second" for s in ("", "s")}
_ONE = "\ue000"
"""In the place of the pronoun, which may also be the one of "one in three"."""

_FRACTION = re.compile(
    rf"(?<!\w)(?:(?P<many>[1-9]|{_ONE})[\s-](?P<part>{'|'.join(_PARTS)})"
    rf"|an? (?P<one>{'|'.join(word for word in _PARTS if not word.endswith('s'))})|(?P<half>half))\b",
    re.IGNORECASE,
)
_PERCENT = re.compile(
    r"(?<![0-9.,])(?P<number>[0-9]+(?:\.(?P<decimals>[0-9]+))?)(?:\s?%|[\s-]per\s?cent\b)", re.IGNORECASE
)
_OUT_OF = re.compile(
    rf"(?<![\w.,])(?P<many>[0-9]+|{_ONE}) (?:[a-z]+ ){{0,2}}?(?:in|(?:out )?of)(?: an?| every)? (?P<all>[0-9]+)\b(?![.,][0-9]|\s?%)",
    re.IGNORECASE,
)
_DECADE = re.compile(r"\b(?P<decade>[12][0-9]{2})0s\b")


TEXTS = 4096
"""That are remembered: a passage is read again for each sentence that cites it."""


def numbers_stand(sentence: str, passage: str) -> bool:
    return not missing_numbers(sentence, passage) and not wrong_units(sentence, passage)


def missing_numbers(sentence: str, passage: str) -> frozenset[str]:
    """The numbers of a sentence that its passage doesn't hold, in these or other words. The word "one" asks for none: it is
    mostly a pronoun."""
    told = numbers(passage)
    asked, passage = _in_digits(_PRONOUN.sub(_ONE, sentence)), _in_digits(passage)
    return numbers(asked) & numbers(_without_what_is_told_otherwise(asked, passage, told)) - told


def _without_what_is_told_otherwise(sentence: str, passage: str, told: frozenset[str]) -> str:
    """The sentence without shares, numbered things and decades that the passage has in another form; both in digits."""
    shares = [share for _, share in _shares(passage)]
    for (start, end), share in _shares(sentence):
        if any(share.agrees_with(other) for other in shares):
            sentence = sentence[:start] + " " * (end - start) + sentence[end:]
    ordinals = {(m["noun"].lower(), _ORDINALS[m["ordinal"].lower()]) for m in _ORDINAL.finditer(passage)}
    sentence = _NUMBERED.sub(lambda m: "" if (m["noun"].lower(), int(m["number"])) in ordinals else m[0], sentence)
    return _DECADE.sub(
        lambda m: "" if any(re.fullmatch(m["decade"] + "[0-9]", one) for one in told) else m[0], sentence
    )


@dataclass(frozen=True, slots=True)
class _Share:
    """Of 100. A percentage is known to half of its last decimal, a fraction exactly."""

    percent: Fraction
    decimals: int | None = None

    def agrees_with(self, told: _Share) -> bool:
        """Is this one told, or what it comes to when rounded? "76%" for "76.3%", not the other way round."""
        decimals = self.decimals if self.decimals is not None else told.decimals
        off = abs(self.percent - told.percent)
        return off == 0 if decimals is None else off <= Fraction(1, 2 * 10**decimals)


def _shares(text: str) -> list[tuple[tuple[int, int], _Share]]:
    """With their places in the text, which is in digits."""
    found = [(m.span(), _Share(Fraction(m["number"]), len(m["decimals"] or ""))) for m in _PERCENT.finditer(text)]
    for match in _OUT_OF.finditer(text):
        many, of = _count(match["many"]), int(match["all"])
        if 0 < many < of:
            found.append((match.span(), _Share(Fraction(100 * many, of))))
    for match in _FRACTION.finditer(text):
        part = match["part"] or match["one"] or match["half"]
        found.append((match.span(), _Share(Fraction(100 * _count(match["many"]), _PARTS[part.lower()]))))
    return found


def _count(written: str | None) -> int:
    return int(written) if written not in {None, _ONE} else 1


def wrong_units(sentence: str, passage: str) -> frozenset[str]:
    """The sentence's numbers that its passage holds with other units only: "2 months" where it says "2 weeks", "5 mg"
    where it says "5 mg/kg". A number that stands there without a unit that is known ("between 2 and 4 weeks") may have
    any. "20 mg" may be a dose of "20 mg daily", while "20 mg weekly" isn't."""
    told = _quantities(passage)
    return frozenset(
        value
        for value, units in _quantities(sentence).items()
        if value in told and any(not any(unit.stands_for(other) for other in told[value]) for unit in units)
    )


_COUNTED = re.compile(r"(?<![\w.,-])(?P<count>[0-9]+) (?:more |other |single )?(?P<noun>[a-z]{4,})\b", re.IGNORECASE)


def one_or_several(a: str, b: str) -> bool:
    """Is there one of a thing in one text, and another count of it in the other? "One dose" and "two doses": `missing_numbers` asks
    for no "one", which may be a pronoun."""
    one, other = _counts(a), _counts(b)
    counts = ((one[noun], other[noun]) for noun in one.keys() & other.keys())
    return any(1 in ours | theirs and ours.isdisjoint(theirs) for ours, theirs in counts)


def _counts(text: str) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for match in _COUNTED.finditer(_in_digits(text)):
        found.setdefault(match["noun"].lower().removesuffix("s"), set()).add(int(match["count"]))
    return found


@lru_cache(TEXTS)
def numbers(text: str) -> frozenset[str]:
    """Values of a text's numbers as plain decimals: "1,200" and "1200", "3\u00b750" and "3.5", ".5" and "0.5", "twenty-five"
    and "25", "1.5 million" and "1500000", "5%" and "5 per cent" are the same. For units see `wrong_units`."""
    return frozenset(_quantities(text))


@dataclass(frozen=True, slots=True)
class _Unit:
    """ "mg/kg", and how often: "2/day". Each is "" where it isn't told."""

    name: str
    often: str

    def stands_for(self, told: _Unit) -> bool:
        if "" in (self.name, told.name):
            return True
        return self.name == told.name and ("" in (self.often, told.often) or self.often == told.often)


def _quantities(text: str) -> dict[str, set[_Unit]]:
    """By a number's value its units."""
    found: dict[str, set[_Unit]] = {}
    for match in _QUANTITY.finditer(_in_digits(text)):
        unit = _UNITS.get((match["unit"] or "").lower(), "")
        per = f"/{_UNITS[match['per'].lower()]}" if match["per"] else ""
        for value in _decimals(match["number"]):
            found.setdefault(value, set()).add(_Unit(unit + per, _often(match)))
        if match["times"] and match["times"][0].isdigit():  # which is a number of the text too
            found.setdefault(match["times"].split()[0], set()).add(_Unit("", ""))
    return found


def _often(match: re.Match[str]) -> str:
    span = (match["span"] or match["ly"] or "").lower()
    times = "2" if (match["times"] or "").lower() == "twice" else (match["times"] or "1").split()[0]
    return f"{times}/{_SPANS.get(span, span)}" if span else ""


@lru_cache(TEXTS)
def _in_digits(text: str) -> str:
    """With the numbers that stand in words in digits, and those in millions in full."""
    text = _SPELLED.sub(_value, text)
    text = _A_FACTOR.sub("1 ", text)
    text = _HUNDREDS.sub(lambda match: str(100 * int(match["hundreds"]) + int(match["rest"])), text)
    for _ in range(2):  # "two hundred thousand"
        text = _TIMES.sub(_product, text)
    return text


def _value(match: re.Match[str]) -> str:
    words = (match[group] for group in ("tens", "ones", "small") if match[group])
    return str(sum(_VALUES[word.lower()] for word in words))


def _product(match: re.Match[str]) -> str:
    values = list(_decimals(match["number"]))
    if len(values) != 1 or values[0].count(".") > 1:
        return match[0]
    return format((Decimal(values[0]) * _FACTORS[match["factor"].lower()]).normalize(), "f")


def _decimals(written: str) -> Iterator[str]:
    """A comma parts thousands where three digits follow each, a list where there are several, else decimals."""
    written = re.sub(f"[{_SPACES}]", "", written).replace("\u00b7", ".")
    if _THOUSANDS.fullmatch(written):
        written = written.replace(",", "")
    elif written.count(",") == 1 and "." not in written:
        written = written.replace(",", ".")
    for part in written.split(","):
        # "1.2.3" is a section or a version: it stays as it is.
        yield format(Decimal(part).normalize(), "f") if part.count(".") < 2 else part
