"""Questions in other words."""

from __future__ import annotations

import random
import re

import pytest

from rag.training.wording import BOTH, CUES, TWO, WORDINGS, ask, ask_both, ask_two


def places(template: str) -> set[str]:
    return set(re.findall(r"\b[XY]\b", template))


def test_every_template_has_a_place_for_what_it_asks_about() -> None:
    assert {frozenset(places(t)) for templates in WORDINGS.values() for t in templates} == {frozenset("X")}
    assert {frozenset(places(t)) for templates in BOTH.values() for t in templates} == {frozenset("X")}
    assert {frozenset(places(t)) for templates in TWO.values() for t in templates} == {frozenset("XY")}


def test_kinds_asked_in_pairs_and_cues_are_kinds_that_are_asked_alone() -> None:
    assert {kind for pair in BOTH for kind in pair} | set(TWO) | set(CUES) <= set(WORDINGS)


@pytest.mark.parametrize(
    ("template", "question"),
    [
        ("What is (are) Gout ?", "What is Gout?"),
        ("what causes Gout ?", "What causes Gout?"),
        ("What is Gout ??", "What is Gout?"),
        ("Tell me about Gout", "Tell me about Gout?"),
    ],
)
def test_the_datasets_own_wording_is_tidied(template: str, question: str) -> None:
    assert ask("causes", "Gout", template, random.Random(0), as_given=1.0) == question


def test_otherwise_it_is_asked_in_other_words_about_the_same() -> None:
    asked = {ask("causes", "gout", "What causes Gout ?", random.Random(seed), as_given=0.0) for seed in range(60)}
    assert asked == {template.replace("X", "gout") for template in WORDINGS["causes"]}


def test_a_kind_without_wordings_is_asked_as_given_where_that_is_a_question() -> None:
    chance = random.Random(0)
    assert ask("unknown", "gout", "Is gout new ?", chance, as_given=0.0) == "Is gout new?"
    assert ask("unknown", "gout", "About gout", chance, as_given=0.0) is None


def test_a_name_with_a_place_s_letter_in_it_stays_whole() -> None:
    names = ("X-linked Y syndrome", "Y disease")
    templates = [t.replace("X", "\0").replace("Y", names[1]).replace("\0", names[0]) for t in TWO["causes"]]
    assert {ask_two("causes", *names, random.Random(seed)) for seed in range(30)} == set(templates)


def test_kinds_that_are_not_asked_together_give_none() -> None:
    assert ask_both(("treatment", "causes"), "gout", random.Random(0)) is None  # the other way round there is one
    assert ask_two("exams and tests", "gout", "mumps", random.Random(0)) is None
    both = ask_both(("causes", "treatment"), "gout", random.Random(0))
    assert both is not None
    assert both.count("gout") == 1


def test_a_question_begins_with_a_capital_also_where_the_name_comes_first() -> None:
    asked = [ask("information", "gout", "", random.Random(seed), as_given=0.0) for seed in range(60)]
    assert "Gout: what is it?" in asked
    assert all(question is not None and question[0].isupper() for question in asked)
