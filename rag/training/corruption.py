"""A sentence with one detail made wrong.

The words put in are `data/training/words.yaml`, split: what `part` "training" puts in, "held_out" never does.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeAlias

import yaml

from rag import paths
from rag.quantities import numbers

Part: TypeAlias = Literal["training", "held_out"]
Kind: TypeAlias = Literal["number", "unit", "negation", "drug", "organism", "direction", "subgroup"]

Change: TypeAlias = Callable[[str, Part, random.Random, str], str | None]
"""(sentence, part, chance, premise in lower case) to the changed sentence."""
Words: TypeAlias = Mapping[str, Mapping[Part, Any]]


@cache
def _words() -> Words:
    words: Words = yaml.safe_load(paths.shipped("data", "training", "words.yaml").read_text(encoding="utf-8"))
    return words


_VERBS = "cause|affect|include|require|help|need|occur|develop|lead|involve|reduce|improve"
_NO_VERB = "".join(
    f"(?<!{word} )" for word in ("to", "can", "may", "will", "might", "could", "should", "the", "The", "a", "A", "of")
)
"""Before what looks like a verb: an infinitive, or a noun."""

_NO_NOUN = r"(?! (?:of|for|and|or|is|are|was|were|can|may|include)\b|[,.;])"
"""After it: a noun has these."""

_NEGATIVE = r"(?:un(?:known|able|clear|common|likely|usual)|never|without|rarely|seldom)\b"
"""Isn't negated once more."""

_NEGATIONS: dict[Part, Sequence[tuple[str, str]]] = {
    "training": (
        (rf"\b(is|are|was|were) (?!not\b|no\b|{_NEGATIVE})", r"\1 not "),
        (r"\b(can|may|could|might) (?!not\b)", r"\1 not "),
        (r"\b(do|does|did) not ", ""),
        (r"\b(is|are|was|were|can|may) not ", r"\1 "),
        (r"\bcannot\b", "can"),
        (rf"(?<=[a-z]s )(?:{_VERBS})\b{_NO_NOUN}", r"do not \g<0>"),
        (rf"{_NO_VERB}\b({_VERBS})s\b{_NO_NOUN}", r"does not \1"),
        (r"\bthere (is|are) (?!no\b|not\b)(?:an? )?", r"there \1 no "),
        (r"\b(?:[Mm]ost|[Mm]any|[Ss]ome) (people|patients|cases|individuals|children)\b", r"no \1"),
        (r"\bin (?:most|many|some) cases\b", "in no case"),
        (r"\bfails? to\b", "manages to"),
        (r"\bboth\b", "neither of"),
        (r"\bneither\b", "both"),
    ),
    "held_out": (
        (r"\b(has|have|had) (?=been|a |an |no )", r"\1 never "),
        (r"\b(should|will|must|would) (?!not\b)", r"\1 not "),
        (r"\bwithout\b", "with"),
        (r"\bwith\b", "without"),
        (r"\bunable to\b", "able to"),
        (r"\bno (?=\w)", "a "),
        (r"\b(usually|often|sometimes|typically|generally) ", "never "),
    ),
}

_NUMBERS = "two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905


def corrupt(sentence: str, kind: Kind, part: Part, chance: random.Random, premise: str) -> str | None:
    """The sentence with one detail of a kind made wrong; None where it has none, or what is put in stands in `premise`."""
    changed = _CORRUPTIONS[kind](sentence, part, chance, premise.lower())
    return changed if changed is not None and changed.lower() not in premise.lower() else None


def _number(sentence: str, part: Part, chance: random.Random, premise: str) -> str | None:  # noqa: ARG001
    places = list(re.finditer(r"\b\d[\d,]*(?:\.\d+)?\b", sentence))
    places += list(re.finditer(rf"\b(?:{'|'.join(_NUMBERS)})\b", sentence))
    if not places:
        return None
    place = chance.choice(places)
    old = place[0]
    for _ in range(8):
        new = _other_number(old, chance)
        if numbers(new) == numbers(old):  # 0.1 of 0.5, rounded
            continue
        if not re.search(rf"\b{re.escape(new)}\b", premise) or chance.random() < 0.2:
            return _put(sentence, place, new)
    return None


def _other_number(old: str, chance: random.Random) -> str:
    if old in _NUMBERS:
        return chance.choice([word for word in _NUMBERS if word != old])
    plain = old.replace(",", "")
    value = float(plain)
    if plain.isdigit() and 1700 <= value <= 2030:
        return str(int(value) + chance.choice((-30, -12, -7, -3, 3, 6, 11, 20)))
    new = value * chance.choice((0.1, 0.25, 0.5, 0.8, 1.3, 1.5, 2, 3, 10)) if value else 5.0
    if "." in plain:
        return f"{new:.{len(plain.partition('.')[2])}f}"
    new = max(1, round(new))
    return f"{new + (new == value):,}" if "," in old else str(new + (new == value))


def _swap(kind: Kind, both_ways: bool = False) -> Change:
    def change(sentence: str, part: Part, chance: random.Random, premise: str) -> str | None:  # noqa: ARG001
        swaps = dict(_words()[kind][part])
        if both_ways:
            swaps |= {new: old for old, new in swaps.items()}
        places = list(re.finditer(rf"\b(?:{'|'.join(map(re.escape, swaps))})\b", sentence, re.IGNORECASE))
        place = chance.choice(places) if places else None
        new = place and swaps.get(place[0].lower(), swaps.get(place[0]))
        return _put(sentence, place, new) if place and new else None

    return change


def _unit(sentence: str, part: Part, chance: random.Random, premise: str) -> str | None:
    """Only in a sentence with a number: "many years" has no unit to be wrong about."""
    if not re.search(rf"\d|\b(?:{'|'.join(_NUMBERS)})\b", sentence):
        return None
    return _swap("unit")(sentence, part, chance, premise)


def _negation(sentence: str, part: Part, chance: random.Random, premise: str) -> str | None:  # noqa: ARG001
    fitting = [(pattern, new) for pattern, new in _NEGATIONS[part] if re.search(pattern, sentence)]
    if not fitting:
        return None
    pattern, new = chance.choice(fitting)
    changed = re.sub(pattern, new, sentence, count=1)
    return changed[0].upper() + changed[1:] if sentence[0].isupper() else changed


def _name(kind: Kind) -> Change:
    def change(sentence: str, part: Part, chance: random.Random, premise: str) -> str | None:
        known = [*_words()[kind]["training"], *_words()[kind]["held_out"]]
        places = list(re.finditer(rf"\b(?:{'|'.join(known)})\b", sentence, re.IGNORECASE))
        if not places:
            return None
        place = chance.choice(places)
        options = [name for name in _words()[kind][part] if name not in premise and name != place[0].lower()]
        # Plural for plural: a slip in grammar would give it away.
        options = [name for name in options if name.endswith("s") == place[0].lower().endswith("s")] or options
        return _put(sentence, place, chance.choice(options)) if options else None

    return change


def _put(sentence: str, place: re.Match[str], new: str) -> str:
    if place[0][0].isupper():
        new = new[0].upper() + new[1:]
    return sentence[: place.start()] + new + sentence[place.end() :]


_CORRUPTIONS: dict[Kind, Change] = {
    "number": _number,
    "unit": _unit,
    "negation": _negation,
    "drug": _name("drug"),
    "organism": _name("organism"),
    "direction": _swap("direction", both_ways=True),
    "subgroup": _swap("subgroup"),
}
KINDS: tuple[Kind, ...] = tuple(_CORRUPTIONS)
