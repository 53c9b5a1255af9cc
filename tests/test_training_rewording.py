"""Sentences in other words, and cut short."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import pytest
import yaml

from rag import paths
from rag.training.corruption import Part
from rag.training.rewording import reword, shorten

SYNONYMS: Mapping[Part, Mapping[str, str]] = yaml.safe_load(
    paths.shipped("data", "training", "synonyms.yaml").read_text(encoding="utf-8")
)


def reworded(sentence: str, part: Part = "training") -> set[str | None]:
    """What 50 chances make of it."""
    return {reword(sentence, part, random.Random(seed)) for seed in range(50)}


def test_what_is_put_in_for_training_holds_nothing_that_is_put_in_on_held_out_sentences() -> None:
    trivial = {"may", "people", "like"}  # words of any text
    phrases = [phrase for phrase in SYNONYMS["held_out"].values() if phrase not in trivial]
    assert len(phrases) > 12
    training = " | ".join(SYNONYMS["training"].values())
    assert [phrase for phrase in phrases if re.search(rf"\b{re.escape(phrase)}\b", training)] == []


def test_a_short_sentence_takes_one_synonym() -> None:
    assert reworded("It is caused by a worm.") == {"It results from a worm.", "It is due to a worm."}
    assert reworded("It is caused by a worm.", "held_out") == {"It is brought on by a worm."}
    assert reworded("Nothing fits here.") == {None}


def test_a_long_sentence_takes_two_or_is_left_alone() -> None:
    long = f"It is due to a worm {'that nobody ever saw ' * 5}at all."
    assert len(long) > 110
    assert reworded(long) == {None}
    assert reworded(long.replace("worm", "worm and usually mild")) != {None}


@pytest.mark.parametrize(
    ("sentence", "short"),
    [
        ("The disease (a rare one) is found in the lungs of adults.", "The disease is found in the lungs of adults."),
        (
            "The disease is found in the lungs of older adults, which swell.",
            "The disease is found in the lungs of older adults.",
        ),
        (
            "The disease is found in the lungs of older adults and it is rare.",
            "The disease is found in the lungs of older adults.",
        ),
        ("Usually, the disease is found in the lungs.", "The disease is found in the lungs."),
    ],
)
def test_shortening_leaves_a_part_out(sentence: str, short: str) -> None:
    assert shorten(sentence, random.Random(0)) == short


@pytest.mark.parametrize("sentence", ["It is found in lungs.", "In some people, the disease is found in the lungs."])
def test_what_does_not_follow_from_the_whole_is_not_made(sentence: str) -> None:
    assert shorten(sentence, random.Random(0)) is None
