"""The generator's examples of all datasets together."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_datasets

from rag.training import datasets
from rag.training.mixture import SHARES, Mixture


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    root = tiny_datasets.write(tmp_path_factory.mktemp("datasets"))
    with tiny_datasets.few_aspects():
        return Mixture(root, tiny_datasets.search(root))


def source(identity: str) -> str:
    prefixes = {"m": "medquad", "a": "medquad", "own-": "own", "t": "trials", "9": "abstracts"}
    return next(name for prefix, name in prefixes.items() if identity.startswith(prefix))


def test_the_shares_are_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_a_longer_training_begins_as_a_shorter_one(mixture: Mixture) -> None:
    assert mixture.training(90, 0)[:40] == mixture.training(40, 0)
    assert mixture.training(40, 0) != mixture.training(40, 1)


def test_every_source_is_there_and_a_second_round_asks_otherwise(mixture: Mixture) -> None:
    made = mixture.training(300, 0)
    assert {source(example.id) for example in made} == set(SHARES)
    (first, second, *_) = [example for example in made if example.id == "m00001"]
    assert first != second


def test_training_never_sees_what_is_held_out(mixture: Mixture, tmp_path: Path) -> None:
    root = tiny_datasets.write(tmp_path)
    training, validation, measured = datasets.split_medquad(datasets.medquad(root))
    allowed = {record.focus for record in [*training, *datasets.aspects()]}
    for example in mixture.training(300, 0):
        if source(example.id) == "medquad":
            assert {piece.title for piece in example.passages} <= allowed
    assert {example.id for example in mixture.held_out(100, 0)} <= {record.id for record in validation} != set()
    assert {example.id for example in mixture.measured(100, 0)} <= {record.id for record in measured} != set()


def test_held_out_prompts_have_three_to_five_passages_of_all_sources(mixture: Mixture) -> None:
    prompts = mixture.measured(100, 0)
    assert {len(example.passages) for example in prompts} <= {3, 4, 5}
    assert len({example.id for example in prompts}) == len(prompts) > 8
    assert {piece.title for example in prompts for piece in example.passages} & set(tiny_datasets.FOCI["GARD"])
    assert mixture.measured(5, 0) == prompts[:5]
