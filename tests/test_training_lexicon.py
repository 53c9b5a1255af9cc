"""rag/training/lexicon.py: questions put together of expressions and frames."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rag.training.lexicon import filled, pairs

TERMS = [
    {"kind": "disease", "term": "tetanus", "same": ["lockjaw"], "near": ["rabies", "trismus"]},
    {"kind": "disease", "term": "a heart attack", "same": ["an MI"], "near": ["angina"]},
    {"kind": "drug", "term": "aspirin", "same": ["ASA", "acetylsalicylic acid"], "near": ["paracetamol"]},
]
FRAMES = [
    {"kind": "disease", "frame": "What causes {}?", "same": ["{}: cause?"], "near": ["What does {} cause?"]},
    {"kind": "disease", "frame": "Who gets {}?", "same": ["Whom does {} befall?"], "near": ["Who treats {}?"]},
    {"kind": "drug", "frame": "Is {} safe?", "same": ["Can one take {} without harm?"], "near": ["Is {} cheap?"]},
]
SEEDS = range(40)


def meanings(kind: str) -> dict[str, set[tuple[str, str]]]:
    """Every question that can be put together, with the terms and frames that it stands for."""
    found: dict[str, set[tuple[str, str]]] = {}
    for term in (term for term in TERMS if term["kind"] == kind):
        for name in [term["term"], *term["same"], *term["near"]]:
            meant = term["term"] if name not in term["near"] else name
            for frame in (frame for frame in FRAMES if frame["kind"] == kind):
                for wording in [frame["frame"], *frame["same"], *frame["near"]]:
                    asked = frame["frame"] if wording not in frame["near"] else wording
                    found.setdefault(filled(wording, name), set()).add((str(meant), str(asked)))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_questions_are_the_same_where_both_the_term_and_the_frame_mean_the_same(seed: int) -> None:
    known = meanings("disease") | meanings("drug")
    for a, b, same, kind in pairs(TERMS, FRAMES, random.Random(seed)):
        [(one, asked)], [(other, too)] = known[a], known[b]
        assert same == ((one, asked) == (other, too)), (a, b)
        assert (one == other) == (kind != "other term"), (a, b)
        assert (asked == too) == (kind != "other aspect"), (a, b)


def test_every_term_gives_as_many_pairs_that_ask_the_same_as_others() -> None:
    made = list(pairs(TERMS, FRAMES, random.Random(0)))
    assert Counter(kind for *_, kind in made) == dict.fromkeys(
        ("same term", "other term", "same aspect", "other aspect"), len(TERMS)
    )
    assert [pair for pair in made if pair[0] == pair[1]] == []


def test_terms_and_frames_are_drawn_by_chance_and_all_of_them() -> None:
    made = [pair for seed in SEEDS for pair in pairs(TERMS, FRAMES, random.Random(seed))]
    assert {text for a, b, *_ in made for text in (a, b)} == {*meanings("disease"), *meanings("drug")} - {
        filled(wording, near)
        for term in TERMS
        for near in term["near"]
        for frame in FRAMES
        if frame["kind"] == term["kind"]
        for wording in frame["near"]
    }, "all but what is wrong in both"
    assert list(pairs(TERMS, FRAMES, random.Random(1))) == list(pairs(TERMS, FRAMES, random.Random(1)))
    assert list(pairs(TERMS, FRAMES, random.Random(1))) != list(pairs(TERMS, FRAMES, random.Random(2)))


@pytest.mark.parametrize(
    ("frame", "term", "expected"),
    [
        ("What causes {}?", "a heart attack", "What causes a heart attack?"),
        ("{}: aetiology?", "an MI", "An MI: aetiology?"),
        ("{} in pregnancy?", "mRNA", "mRNA in pregnancy?"),
    ],
)
def test_a_filled_frame_begins_with_a_capital(frame: str, term: str, expected: str) -> None:
    assert filled(frame, term) == expected
