"""Each sentence of an answer against the passages that it cites."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import get_args

import numpy as np

from rag.core import Sentence, Source, Support
from rag.errors import ModelError
from rag.pairs import PairModel
from rag.settings import Action, Verify
from rag.text import content_words, cut, sentences

LABELS: tuple[Support, ...] = tuple(label for label in get_args(Support) if label != "unchecked")
"""Best first: a sentence has the best verdict of the passages that it cites."""

_WORDS = "one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
_VALUES = {word: str(value) for value, word in enumerate(_WORDS, start=1)}
_NUMBER_WORD = re.compile(rf"(?<!ty-)\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)  # not the five of twenty-five
_ONE = re.compile(r"\bone\b", re.IGNORECASE)
_SPACES = "\u00a0\u2009\u202f"  # they may part thousands
_DIGITS = re.compile(rf"[0-9]+(?:[.,·][0-9]+|[{_SPACES}][0-9]{{3}}(?![0-9]))*")
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
    "century": "centuries",
    **{name: f"{name}s" for name in "second minute hour day week month year decade mile pound ounce degree".split()},  # noqa: SIM905
    **dict.fromkeys(("dl", "mmol", "mol"), ""),
}
_UNITS = {spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit, *others.split(", ")) if spelling}
_QUANTITY = re.compile(
    rf"(?P<number>{_DIGITS.pattern}|{_NUMBER_WORD.pattern})"
    rf"(?:[\s-]?(?P<unit>%|(?:{'|'.join(sorted(_UNITS, key=len, reverse=True))})\b))?",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")


class CrossEncoderChecker:
    """Thread-safe as far as its model is, and it is."""

    def __init__(self, model: PairModel, settings: Verify) -> None:
        """Raises `ModelError` for a model with other labels than `LABELS`."""
        if set(model.labels) != set(LABELS):
            raise ModelError(
                f"A support checker has the labels {', '.join(LABELS)}, this model has {', '.join(model.labels)}. "
                "Name another one in verify.model."
            )
        self._model = model
        self._settings = settings
        self._columns = [model.labels.index(label) for label in LABELS]

    def check(self, sentences: Sequence[Sentence], sources: Sequence[Source]) -> tuple[Sentence, ...]:
        by_marker = {source.marker: source for source in sources}
        cited = [(row, by_marker[marker]) for row, one in enumerate(sentences) for marker in one.markers]
        judged = self.judge([(sentences[row].text, source) for row, source in cited])
        verdicts: list[Support] = ["not_stated"] * len(sentences)  # and so they stay where nothing is cited
        for (row, _), (probabilities, numbers_stand) in zip(cited, judged, strict=True):
            found = verdict(probabilities, numbers_stand, self._settings.min_support)
            verdicts[row] = min(verdicts[row], found, key=LABELS.index)
        return tuple(replace(one, support=support) for one, support in zip(sentences, verdicts, strict=True))

    def judge(self, pairs: Sequence[tuple[str, Source]]) -> list[tuple[list[float], bool]]:
        """What a verdict rests on, for each sentence and one source: the probabilities of `LABELS`, and whether the
        sentence's numbers stand in it, with their units."""
        logits = self._model.logits([self._pair(sentence, source) for sentence, source in pairs])
        return [
            (_softmax(line.tolist()), numbers_stand(sentence, f"{source.hit.passage.title}\n{source.quote}"))
            for (sentence, source), line in zip(pairs, logits[:, self._columns], strict=True)
        ]

    def _pair(self, sentence: str, source: Source) -> tuple[str, str]:
        return sentence, premise(source.hit.passage.title, source.quote, sentence, self._settings.premise_chars)


def shown(sentences: Sequence[Sentence], action: Action) -> tuple[bool, ...]:
    """Which of the checked sentences a reader may see."""
    supported = tuple(sentence.support == "supported" for sentence in sentences)
    if action == "drop":
        return supported
    return (action == "mark" or all(supported),) * len(supported)


def verdict(probabilities: Sequence[float], numbers_stand: bool, min_support: float) -> Support:
    """From the probabilities of `LABELS`. A sentence with a number that its passage hasn't, or has with another unit
    only, is never supported."""
    supported, contradicted, not_stated = probabilities
    if numbers_stand and supported >= min_support:
        return "supported"
    return "contradicted" if contradicted > max(supported, not_stated) else "not_stated"


def premise(title: str, text: str, sentence: str, max_chars: int) -> str:
    """What the model reads of a passage beside a sentence: the title, then at most `max_chars` of the text.

    Of a longer text the sentences that share the most content words and numbers with the one checked are
    taken, and where they tie those nearest to the best, in the order of the text. Training uses it as well.
    """
    if len(text) > max_chars:
        text = _nearest(text, sentence, max_chars)
    return f"{title}\n{text}"


def _nearest(text: str, sentence: str, max_chars: int) -> str:
    parts = [text[start:end] for start, end in sentences(text)]
    words = content_words(sentence) | numbers(sentence)
    shared = [len(words & (content_words(part) | numbers(part))) for part in parts]
    best = shared.index(max(shared)) if parts else 0
    taken: list[int] = []
    left = max_chars
    for row in sorted(range(len(parts)), key=lambda row: (-shared[row], abs(row - best), row)):
        if len(parts[row]) <= left:
            taken.append(row)
            left -= len(parts[row]) + 1
        elif not taken:
            return cut(parts[row], max_chars)
    return " ".join(parts[row] for row in sorted(taken))


def numbers_stand(sentence: str, passage: str) -> bool:
    return not missing_numbers(sentence, passage) and not wrong_units(sentence, passage)


def missing_numbers(sentence: str, passage: str) -> frozenset[str]:
    """The numbers of a sentence that its passage doesn't hold. The word "one" asks for none: it is mostly a pronoun."""
    return numbers(_ONE.sub("", sentence)) - numbers(passage)


def wrong_units(sentence: str, passage: str) -> frozenset[str]:
    """The sentence's numbers that its passage holds with other units only: "2 months" where it says "2 weeks". A number
    that stands there without a unit that is known ("between 2 and 4 weeks") may have any."""
    told = _quantities(passage)
    return frozenset(
        value
        for value, units in _quantities(sentence).items()
        if value in told and "" not in told[value] and not units - {""} <= told[value]
    )


def _quantities(text: str) -> dict[str, set[str]]:
    """By a number's value its units, "" for none."""
    found: dict[str, set[str]] = {}
    for match in _QUANTITY.finditer(text):
        for value in numbers(match["number"]):
            found.setdefault(value, set()).add(_UNITS.get((match["unit"] or "").lower(), ""))
    return found


def numbers(text: str) -> frozenset[str]:
    """Values of a text's numbers as plain decimals: "1,200" and "1200", "3·50" and "3.5", "five" and "5", "5%"
    and "5 per cent" are the same. For units see `wrong_units`."""
    found = {_VALUES[match.lower()] for match in _NUMBER_WORD.findall(text)}
    return frozenset(found.union(*(_decimals(match) for match in _DIGITS.findall(text))))


def _decimals(written: str) -> Iterator[str]:
    """A comma parts thousands where three digits follow each, a list where there are several, else decimals."""
    written = re.sub(f"[{_SPACES}]", "", written).replace("·", ".")
    if _THOUSANDS.fullmatch(written):
        written = written.replace(",", "")
    elif written.count(",") == 1 and "." not in written:
        written = written.replace(",", ".")
    for part in written.split(","):
        # "1.2.3" is a section or a version: it stays as it is.
        yield format(Decimal(part).normalize(), "f") if part.count(".") < 2 else part


def _softmax(logits: Sequence[float]) -> list[float]:
    powers = np.exp(np.asarray(logits, dtype=np.float64) - max(logits))
    probabilities: list[float] = (powers / powers.sum()).tolist()
    return probabilities
