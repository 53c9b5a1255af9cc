"""Sentences with one detail made wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Set
from typing import Any, get_args

import pytest
import yaml

from rag import paths
from rag.training.corruption import KINDS, Kind, Part, corrupt

SENTENCES: Mapping[Kind, str] = {
    "number": "About 40 of 1,200 patients in 1987 had a fever of 38.5 degrees.",
    "unit": "It is taken for 14 days at 20 mg.",
    "negation": "The disease is common, and doctors should treat it.",
    "drug": "It is treated with amoxicillin for a week.",
    "organism": "It is caused by salmonella in the water.",
    "direction": "The elevated pressure increases the risk.",
    "subgroup": "It is found in men and in newborns.",
}
WORDS: Mapping[str, Mapping[Part, Any]] = yaml.safe_load(
    paths.shipped("data", "training", "words.yaml").read_text(encoding="utf-8")
)
PARTS: tuple[Part, ...] = get_args(Part)


def corrupted(sentence: str, kind: Kind, part: Part = "training", premise: str = "") -> set[str]:
    """What 200 chances make of it."""
    made = (corrupt(sentence, kind, part, random.Random(seed), premise) for seed in range(200))
    return {one for one in made if one is not None}


def put_in(words: Any, both_ways: bool) -> Set[str]:
    if isinstance(words, list):
        return set(words)
    return set(words.values()) | (set(words) if both_ways else set())


@pytest.mark.parametrize("kind", ["drug", "organism", "direction", "subgroup", "unit"])
def test_no_word_is_put_in_both_in_training_and_in_the_test(kind: str) -> None:
    training, held_out = (put_in(WORDS[kind][part], kind == "direction") for part in PARTS)
    if kind == "unit":  # there are few: the pairs differ
        training, held_out = (set(WORDS[kind][part].items()) for part in PARTS)
    assert training
    assert held_out
    assert training & held_out == set()


def test_there_is_a_sentence_for_every_kind() -> None:
    assert set(SENTENCES) == set(KINDS) == set(get_args(Kind))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_detail_is_changed_and_the_rest_stays(kind: Kind, part: Part) -> None:
    sentence = SENTENCES[kind]
    made = corrupted(sentence, kind, part)
    assert made
    assert sentence not in made
    for one in made:
        before, after = sentence.split(), one.split()
        start = next(n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
        end = next(n for n, (a, b) in enumerate(zip(before[::-1], after[::-1], strict=False)) if a != b)
        # At most two words in a row: "is" to "is not", "will not" to "will".
        assert len(before) - start - end <= 2
        assert len(after) - start - end <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_without_such_a_detail_can_not_be_corrupted(kind: Kind) -> None:
    assert corrupted("Hello there everybody.", kind) == set()


@pytest.mark.parametrize("kind", ["drug", "organism"])
def test_only_names_of_its_part_are_put_in(kind: Kind) -> None:
    old = {"drug": "amoxicillin", "organism": "salmonella"}[kind]
    before, after = SENTENCES[kind].split(old)
    for part in PARTS:
        names = {one.removeprefix(before).removesuffix(after) for one in corrupted(SENTENCES[kind], kind, part)}
        assert len(names) > 5
        assert names <= set(WORDS[kind][part])


def test_what_stands_in_the_passage_is_not_put_in() -> None:
    premise = "Doctors tried albendazole, aspirin and insulin as well."
    made = corrupted("It is treated with amoxicillin for a week.", "drug", premise=premise)
    assert made
    assert not [one for one in made if re.search("albendazole|aspirin|insulin", one)]


def test_a_change_that_the_passage_states_too_is_dropped() -> None:
    sentence = "It affects men."
    assert corrupted(sentence, "subgroup") == {"It affects women."}
    assert corrupted(sentence, "subgroup", premise="It affects men. it affects women.") == set()


@pytest.mark.parametrize(
    ("sentence", "pattern"),
    [
        ("It began in 1987.", r"It began in (19|20)\d\d\."),  # a year stays one
        ("It weighs 38.5 grams.", r"It weighs \d+\.\d grams\."),  # with as many decimals
        ("It affects 1,200 people.", r"It affects (\d{1,3},)?\d{1,3}(,\d{3})* people\."),
        ("It affects five people.", r"It affects (two|three|four|six|seven|eight|nine|ten|eleven|twelve) people\."),
        ("It affects 1 of them.", r"It affects [1-9]\d* of them\."),  # never 0
    ],
)
def test_a_number_is_replaced_by_another_of_its_form(sentence: str, pattern: str) -> None:
    made = corrupted(sentence, "number")
    assert len(made) > 2
    assert not [one for one in made if not re.fullmatch(pattern, one)]


def test_a_unit_needs_a_number() -> None:
    assert corrupted("It lasts for many days.", "unit") == set()
    assert corrupted("It lasts for three days.", "unit") == {"It lasts for three weeks."}


@pytest.mark.parametrize(
    ("sentence", "made"),
    [
        ("It is common.", {"It is not common."}),
        ("It is not common.", {"It is common."}),
        ("It does not spread.", {"It spread."}),
        ("It cannot spread.", {"It can spread."}),
    ],
)
def test_negation_goes_both_ways(sentence: str, made: set[str]) -> None:
    assert corrupted(sentence, "negation") == made


def test_direction_goes_both_ways() -> None:
    assert corrupted("It increases the risk.", "direction") == {"It decreases the risk."}
    assert corrupted("It decreases the risk.", "direction") == {"It increases the risk."}


def test_a_capital_stays_one() -> None:
    assert corrupted("Men have it.", "subgroup") == {"Women have it."}
