"""The numbers of a text and their units, so that a sentence's can be looked for in its passage. Pure.

Signs are left out, since a dash is mostly a range's ("2-5"). Ordinals and fractions in words ask for no number in a
passage, and answer for one: "a third" there holds "one in three" and "33%".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from math import gcd

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
    "\u03bcg": "\u00b5g, mcg, microgram, micrograms",
    "mg": "milligram, milligrams",
    "g": "gram, grams",
    "kg": "kilogram, kilograms",
    "ml": "milliliter, milliliters, millilitre, millilitres",
    "l": "liter, liters, litre, litres",
    "mm": "millimeter, millimeters, millimetre, millimetres",
    "cm": "centimeter, centimeters, centimetre, centimetres",
    "m": "meter, meters, metre, metres",
    "km": "kilometer, kilometers, kilometre, kilometres",
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
    **{name: f"{name}s" for name in ("mile", "pound", "ounce", "degree")},
    **dict.fromkeys(("dl", "mmol", "mol"), ""),
}
_UNITS = {spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit, *others.split(", ")) if spelling}
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_QUANTITY = re.compile(
    rf"(?P<number>{_DIGITS.pattern})(?:[\s-]?(?P<unit>%|(?:{_UNIT})\b)(?:\s?(?:/|\bper\s)\s?(?P<per>kg|kilogram|dl|ml|l|litre|liter)\b)?)?",
    re.IGNORECASE,
)


_ORDINALS = {
    word: value
    for value, word in enumerate(
        "second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(),  # noqa: SIM905
        start=2,
    )
}
_ORDINAL = re.compile(rf"\b(?:{'|'.join(_ORDINALS)})\b", re.IGNORECASE)
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4}
_PARTS |= {word + s: value for word, value in _ORDINALS.items() if word != "second" for s in ("", "s")}
_FRACTION = re.compile(rf"\b(?:(?P<many>{'|'.join(_UP_TO_NINE)})[\s-])?(?P<part>{'|'.join(_PARTS)})\b", re.IGNORECASE)
_PERCENT = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?=\s?%|\sper\s?cent\b)", re.IGNORECASE)
_OUT_OF = re.compile(r"\b(?P<many>[0-9]+) (?:\w+ )?(?:in|(?:out )?of)(?: an?| every)? (?P<all>[0-9]+)\b", re.IGNORECASE)
_DENOMINATORS = (2, 3, 4, 5, 10, 20)
"""Of the fractions that a percentage is told as."""

_DECADE = re.compile(r"\b(?P<decade>[12][0-9]{2})0s\b")


def numbers_stand(sentence: str, passage: str) -> bool:
    return not missing_numbers(sentence, passage) and not wrong_units(sentence, passage)


def missing_numbers(sentence: str, passage: str) -> frozenset[str]:
    """The numbers of a sentence that its passage doesn't hold, in these or other words. The word "one" asks for none: it is
    mostly a pronoun."""
    told = numbers(passage)
    asked = _DECADE.sub(lambda match: "" if any(_is_in(year, match["decade"]) for year in told) else match[0], sentence)
    return numbers(_PRONOUN.sub("", asked)) - told - _implied(passage)


def _is_in(year: str, decade: str) -> bool:
    return len(year) == len(decade) + 1 and year.startswith(decade)


def _implied(passage: str) -> frozenset[str]:
    """What its fractions, percentages and ordinals say of numbers: "a third" 3 and 33, "nine in ten" 90, "90%" 9 (of) 10 and
    90 of 100, "76.3%" 76, "the sixth day" 6."""
    found = {_ORDINALS[match[0].lower()] for match in _ORDINAL.finditer(passage)}
    for match in _FRACTION.finditer(passage):
        many, part = _VALUES.get((match["many"] or "one").lower(), 1), _PARTS[match["part"].lower()]
        found |= {many, part, round(100 * many / part)}
    for match in _OUT_OF.finditer(_in_digits(passage)):
        if 0 < int(match["many"]) < int(match["all"]):
            found.add(round(100 * int(match["many"]) / int(match["all"])))
    for match in _PERCENT.finditer(passage):
        percent = Decimal(match["number"])
        found |= {round(percent), 100}
        for part in _DENOMINATORS:
            many = round(percent * part / 100)
            if round(Decimal(100 * many) / part) == percent and gcd(many, part) == 1:
                found |= {many, part}
    return frozenset(map(str, found))


def wrong_units(sentence: str, passage: str) -> frozenset[str]:
    """The sentence's numbers that its passage holds with other units only: "2 months" where it says "2 weeks", "5 mg"
    where it says "5 mg/kg". A number that stands there without a unit that is known ("between 2 and 4 weeks") may have
    any."""
    told = _quantities(passage)
    return frozenset(
        value
        for value, units in _quantities(sentence).items()
        if value in told and "" not in told[value] and not units - {""} <= told[value]
    )


def numbers(text: str) -> frozenset[str]:
    """Values of a text's numbers as plain decimals: "1,200" and "1200", "3\u00b750" and "3.5", ".5" and "0.5", "twenty-five"
    and "25", "1.5 million" and "1500000", "5%" and "5 per cent" are the same. For units see `wrong_units`."""
    return frozenset(_quantities(text))


def _quantities(text: str) -> dict[str, set[str]]:
    """By a number's value its units, "" for none."""
    found: dict[str, set[str]] = {}
    for match in _QUANTITY.finditer(_in_digits(text)):
        unit = _UNITS.get((match["unit"] or "").lower(), "")
        per = f"/{_UNITS[match['per'].lower()]}" if match["per"] else ""
        for value in _decimals(match["number"]):
            found.setdefault(value, set()).add(unit + per)
    return found


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
