"""A sentence with one detail made wrong, and a sentence in other words.

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


# --- the same in other words -------------------------------------------------------------------

_SYNONYMS: dict[Part, Sequence[tuple[str, str]]] = {
    "training": (
        (r"\bis caused by\b", "results from"),
        (r"\bcaused by\b", "due to"),
        (r"\bcauses\b", "brings about"),
        (r"\bbecause of\b", "owing to"),
        (r"\bapproximately\b", "about"),
        (r"\babout (?=\d)", "around "),
        (r"\bmay\b", "can"),
        (r"\bpeople with this (?:condition|disorder)\b", "those affected"),
        (r"\baffected individuals\b", "patients"),
        (r"\bpeople\b", "individuals"),
        (r"\bsuch as\b", "for example"),
        (r"\bincluding\b", "among them"),
        (r"\busually\b", "as a rule"),
        (r"\bphysician\b", "doctor"),
        (r"\bis characterized by\b", "is marked by"),
        (r"\boccurs in\b", "is found in"),
        (r"\bhelps\b", "aids"),
        (r"\bmedicines?\b", "drugs"),
        (r"\bsurgery\b", "an operation"),
        (r"\btreated with\b", "managed with"),
        (r"\ba number of\b", "several"),
        (r"\bbegin(s?)\b", r"start\1"),
        (r"\bshould\b", "ought to"),
        (r"\bsome people\b", "certain people"),
        (r"\bmost (?=people|patients|cases|children|women|men)", "the majority of "),
        (r"\bmany (?=people|patients|cases|children|women|men)", "numerous "),
        (r"\bolder adults\b", "elderly people"),
        (r"\binfants\b", "babies"),
        (r"\bchildren\b", "youngsters"),
        (r"\bwomen\b", "females"),
        (r"\bsevere\b", "serious"),
        (r"\bmild\b", "slight"),
        (r"\bfatal\b", "deadly"),
        (r"\brare\b", "uncommon"),
        (r"\bharmful\b", "damaging"),
        (r"\bpainful\b", "sore"),
        (r"\babnormal\b", "unusual"),
        (r"\bpermanent\b", "lasting"),
        (r"\bincreases the risk\b", "raises the risk"),
        (r"\bincreased risk\b", "greater risk"),
        (r"\breduces? the risk\b", "cuts the risk"),
        (r"\bmore likely\b", "likelier"),
        (r"\bdiagnosed\b", "identified"),
        (r"\bdetect\b", "find"),
        (r"\bshow\b", "reveal"),
        (r"\bincludes\b", "comprises"),
        (r"\binclude\b", "comprise"),
        (r"\brequires\b", "calls for"),
        (r"\bneed to\b", "have to"),
        (r"\bprevent\b", "avert"),
        (r"\bremove\b", "take out"),
        (r"\bremoved\b", "taken out"),
        (r"\bdamage to\b", "harm to"),
        (r"\bdamaged\b", "harmed"),
        (r"\bcured\b", "healed"),
        (r"\bimproves\b", "gets better"),
        (r"\bworsens?\b", "gets worse"),
        (r"\bis called\b", "is named"),
        (r"\bis also called\b", "also goes by the name of"),
        (r"\bknown as\b", "called"),
        (r"\bis a type of\b", "is a kind of"),
        (r"\bis thought to\b", "is believed to"),
        (r"\bdepends on\b", "hinges on"),
        (r"\bdepend on\b", "hinge on"),
        (r"\binvolves\b", "concerns"),
        (r"\bappears?\b", "shows up"),
        (r"\bhappens\b", "comes about"),
        (r"\bdevelops in\b", "arises in"),
        (r"\bspreads?\b", "passes"),
        (r"(?<![Bb]y )\busing\b", "by means of"),
        (r"\bduring\b", "in the course of"),
        (r"\bbefore\b", "prior to"),
        (r"\bafter\b", "following"),
        (r"\bHowever,", "Still,"),
        (r"\bIn addition,", "Besides,"),
        (r"\bfor example\b", "for instance"),
        (r"\bas well as\b", "and also"),
        (r"\bin order to\b", "so as to"),
        (r"\bdue to\b", "on account of"),
        (r"\bbecause (?!of\b)", "since "),
        (r"\b[Aa]lthough\b", "even though"),
        (r"\boften\b", "commonly"),
        (r"\bsometimes\b", "at times"),
        (r"\brarely\b", "seldom"),
        (r"\balways\b", "in every case"),
        (r"\bgenerally\b", "on the whole"),
        (r"\btypically\b", "ordinarily"),
        (r"\bprimarily\b", "mainly"),
        (r"\bmainly\b", "chiefly"),
        (r"\bslowly\b", "gradually"),
        (r"\b(?:quickly|rapidly)\b", "fast"),
        (r"\bsuddenly\b", "all at once"),
        (r"\bover time\b", "as time goes by"),
        (r"\bthroughout\b", "all over"),
        (r"\bworldwide\b", "around the world"),
        (r"\bhealth care (?:provider|professional)\b", "health worker"),
        (r"\bdoctor\b", "physician"),
        (r"\bresearchers\b", "scientists"),
        (r"\bcondition\b", "disorder"),
        (r"\bdisorder\b", "condition"),
        (r"\bsymptoms\b", "manifestations"),
        (r"\btreatment of\b", "management of"),
        (r"\btests\b", "examinations"),
        (r"\bdifficulty\b", "trouble"),
        (r"\bproblems with\b", "troubles with"),
        (r"\bweight loss\b", "loss of weight"),
        (r"\bmuscle weakness\b", "weakness of the muscles"),
        (r"\bchest pain\b", "pain in the chest"),
        (r"\bheart failure\b", "failure of the heart"),
        (r"\blung cancer\b", "cancer of the lung"),
        (r"\bbreast cancer\b", "cancer of the breast"),
        (r"\bblood vessels\b", "vessels that carry blood"),
        (r"\bimmune system\b", "body's defences"),
        (r"\bhigh blood pressure\b", "hypertension"),
        (r"\bmore than (?=\d)", "over "),
        (r"\bless than (?=\d)", "under "),
        (r"\bat least (?=\d)", "no fewer than "),
        (r"\beach year\b", "every year"),
        (r"\bin the United States\b", "in the US"),
        (r"\bis inherited\b", "is passed on in families"),
        (r"\bmutations in\b", "changes in"),
        (r"\bis needed\b", "is necessary"),
        (r"\bavailable\b", "at hand"),
    ),
    "held_out": (
        (r"\bcaused by\b", "brought on by"),
        (r"\bcauses\b", "leads to"),
        (r"\bapproximately\b", "roughly"),
        (r"\bpeople\b", "persons"),
        (r"\bindividuals\b", "people"),
        (r"\bsuch as\b", "like"),
        (r"\bis a disorder\b", "is an illness"),
        (r"\bcan\b", "may"),
        (r"\busually\b", "in most cases"),
        (r"\boften\b", "frequently"),
        (r"\bdoctors?\b", "clinicians"),
        (r"\bsymptoms\b", "complaints"),
        (r"\btreatment\b", "therapy"),
        (r"\boccurs\b", "takes place"),
        (r"\bresults from\b", "stems from"),
        (r"\bseveral\b", "a number of"),
        (r"\bmedications?\b", "medicine"),
        (r"\bbegins\b", "sets in"),
    ),
}


def reword(sentence: str, part: Part, chance: random.Random) -> str | None:
    """The same in partly other words: two synonyms or more, or one in a short sentence. None where too few fit."""
    options = [entry for entry in _SYNONYMS[part] if re.search(entry[0], sentence)]
    chance.shuffle(options)
    changed, count = sentence, 0
    for pattern, new in options[:4]:
        after = re.sub(pattern, new, changed, count=1)
        count += after != changed
        changed = after
    return changed if count >= (1 if len(sentence) < 110 else 2) and changed != sentence else None


def shorten(sentence: str, chance: random.Random) -> str | None:
    """A part of the sentence that follows from the whole: without an aside, an addition or an introduction."""
    options = []
    without = re.sub(r"\s*\([^()]*\)", "", sentence)
    if without != sentence:
        options.append(without)
    match = re.match(
        r"^(.{40,}?), (?:which|who|where|so that|although|while|with|including|especially|such as)\b", sentence
    )
    if match:
        options.append(match[1] + ".")
    match = re.match(r"^(.{40,}?[a-z)]),? and (?:it|they|the|this|can|may|is|are)\b", sentence)
    if match:
        options.append(match[1] + ".")
    match = re.match(r"^(?:In [^,]{4,40}|However|Usually|Typically|As a result|Rarely|Often), (.+)$", sentence)
    if match and not re.match(r"In (?:some|many|most|rare|about|a few)", sentence):
        options.append(match[1][0].upper() + match[1][1:])
    options = [one for one in options if len(one) >= 30 and one.count("(") == one.count(")")]
    return chance.choice(options) if options else None
