"""A sentence in other words, or cut short: it still says what it said.

The words put in are `data/training/synonyms.yaml`, split: what `part` "training" puts in, "held_out" never does.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache

import yaml

from rag import paths
from rag.training.corruption import Part
from rag.training.examples import shuffled


@cache
def _synonyms() -> Mapping[Part, Sequence[tuple[re.Pattern[str], str]]]:
    parts = yaml.safe_load(paths.shipped("data", "training", "synonyms.yaml").read_text(encoding="utf-8"))
    return {part: [(re.compile(pattern), new) for pattern, new in entries.items()] for part, entries in parts.items()}


def reword(sentence: str, part: Part, chance: random.Random) -> str | None:
    """The same in partly other words: two synonyms or more, or one in a short sentence. None where too few fit."""
    options = shuffled([entry for entry in _synonyms()[part] if entry[0].search(sentence)], chance)
    changed, count = sentence, 0
    for pattern, new in options[:4]:
        after = pattern.sub(new, changed, count=1)
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
