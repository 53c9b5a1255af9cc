"""Pairs for the support checker: labels that are right by how the sentence was made."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_datasets

from rag.training import datasets
from rag.training.corruption import KINDS
from rag.training.datasets import Claim
from rag.training.support import PREMISE_CHARS, SHARES, Pairs, SupportPair, from_claims
from rag.verify import LABELS

needs_real = pytest.mark.skipif("RAG_DATASETS" not in os.environ, reason="RAG_DATASETS isn't set: no real datasets")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_datasets.write(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def made(root: Path) -> Pairs:
    with tiny_datasets.few_aspects():
        return Pairs(root)


@pytest.fixture(scope="module")
def pairs(made: Pairs) -> list[SupportPair]:
    return made.training(800, 0)


def plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def verbatim(pair: SupportPair) -> bool:
    return plain(pair.sentence) in plain(pair.premise)


def test_the_shares_are_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_a_longer_training_begins_as_a_shorter_one(made: Pairs, pairs: list[SupportPair]) -> None:
    assert made.training(200, 0) == pairs[:200]
    assert made.training(200, 1) != pairs[:200]


def test_every_label_is_there_and_every_source(pairs: list[SupportPair]) -> None:
    assert {pair.label for pair in pairs} == set(LABELS)
    kinds = Counter(pair.kind for pair in pairs)
    assert {"claim", "trial", "foreign", "elsewhere", "verbatim"} <= set(kinds)
    assert [kind for kind in kinds if kind.startswith("own ")]


def test_a_verbatim_sentence_stands_in_its_passage_and_a_wrong_one_does_not(pairs: list[SupportPair]) -> None:
    of = {kind: [pair for pair in pairs if pair.kind == kind] for kind in ("verbatim", "foreign", "elsewhere", *KINDS)}
    assert all(verbatim(pair) for pair in of["verbatim"])
    assert not [pair for kind in of if kind != "verbatim" for pair in of[kind] if verbatim(pair)]


def test_a_label_is_the_one_that_its_kind_has(pairs: list[SupportPair]) -> None:
    labels = {"verbatim": "supported", "shortened": "supported", "reworded": "supported"}
    labels |= dict.fromkeys(("foreign", "elsewhere"), "not_stated") | dict.fromkeys(KINDS, "contradicted")
    of_kind = [pair for pair in pairs if pair.kind in labels]
    assert {pair.kind for pair in of_kind} == set(labels)
    assert {pair.label == labels[pair.kind] for pair in of_kind} == {True}


def test_sentences_in_our_own_words_are_made_wrong_too_and_only_for_training(
    made: Pairs, pairs: list[SupportPair]
) -> None:
    _, rows = datasets.own()
    written = {row["sentence"] for row in rows}
    documents = {document["title"]: " ".join(document["text"].split()) for document in datasets.documents().values()}

    def changed(some: list[SupportPair]) -> list[SupportPair]:
        whole = [pair for pair in some if documents.get(pair.title) == pair.passage]
        return [pair for pair in whole if pair.sentence not in written]

    assert len(changed(pairs)) > 20
    assert {pair.label for pair in changed(pairs)} == {"contradicted"}
    assert changed(made.measured(0)["own"]) == []


def test_a_negated_passage_supports_the_negated_sentence_and_contradicts_the_other(pairs: list[SupportPair]) -> None:
    said = [pair for pair in pairs[:-2] if pair.kind == "said negation"]
    assert len(said) > 10
    assert {pair.label for pair in said} == {"supported"}
    for pair in said:
        others = [one for one in pairs if one.passage == pair.passage and one.kind == "negation"]
        assert {one.label for one in others} == {"contradicted"}
        assert not any(map(verbatim, others))
    as_they_stand = [pair for pair in said if verbatim(pair)]
    assert 0 < len(as_they_stand) < len(said)


def test_what_is_measured_is_as_its_passages_say_it(made: Pairs) -> None:
    measured = [pair for some in made.measured(0).values() for pair in some]
    assert not [pair for pair in measured if pair.kind.startswith("said ")]


def test_a_premise_is_no_longer_than_the_stage_s(pairs: list[SupportPair]) -> None:
    assert max(len(pair.premise.partition("\n")[2]) for pair in pairs) <= PREMISE_CHARS


def test_trials_are_told_rightly_and_the_wrong_way_round(pairs: list[SupportPair]) -> None:
    trials = {pair.label: pair.sentence for pair in pairs if pair.kind == "trial"}
    assert set(trials) == {"supported", "contradicted"}
    assert any(word in trials["supported"] for word in ("decreased", "lowered", "led to lower"))
    assert not any(word in trials["contradicted"] for word in ("decreased", "lowered", "led to lower"))


def test_what_is_held_out_is_about_other_things(root: Path, made: Pairs, pairs: list[SupportPair]) -> None:
    training, *_ = datasets.split_medquad(datasets.medquad(root))
    foci = {focus for group in tiny_datasets.FOCI.values() for focus in group}
    trained = {record.focus for record in training}
    by_source = made.measured(0)
    assert set(by_source) == set(SHARES)
    assert {title(pair) for pair in by_source["medquad"]} <= foci - trained
    assert {title(pair) for pair in pairs} & foci <= trained
    own = {title(pair) for pair in by_source["own"]}
    assert own
    assert {title(pair) for pair in pairs} & own == set()


def title(pair: SupportPair) -> str:
    return pair.premise.partition("\n")[0]


def test_the_curve_is_of_other_diseases_than_the_figures(made: Pairs) -> None:
    some = made.held_out(20, 0)
    assert len(some) == 20
    assert {title(pair) for pair in some} & {title(pair) for pair in made.measured(0)["medquad"]} == set()
    assert made.held_out(10, 0) == some[:10]


def test_the_model_reads_what_decides_a_claim() -> None:
    rationale = "Statins halved the number of strokes in the trial that lasted five years."
    filler = [
        f"Statins and strokes in trial {n} were studied, and the statins of the trial were weighed." for n in range(9)
    ]
    abstracts = {"a": ("Statins", [*filler, rationale])}
    claims = [Claim("1", "Statins prevent strokes in a trial.", ("a",), (("a", True, (9,)),))]
    (pair,) = from_claims(claims, abstracts)
    assert rationale in pair.premise
    assert rationale in pair.passage
    scattered = [replace(claims[0], evidence=(("a", True, tuple(range(10))),))]
    assert list(from_claims(scattered, abstracts)) == []  # more than the model reads


@needs_real
def test_of_the_real_pairs_at_least_half_of_the_supported_are_not_verbatim() -> None:
    pairs = Pairs(datasets.folder()).training(4000, 0)
    supported = [pair for pair in pairs if pair.label == "supported"]
    assert sum(not verbatim(pair) for pair in supported) >= 0.5 * len(supported)
