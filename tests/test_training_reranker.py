"""Lists of passages for the reranker: what is relevant, and what stands beside it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_datasets
import torch

from rag.training import datasets, reranker
from rag.training.reranker import LIST, SHARES, Lists, Ranking, list_loss


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_datasets.write(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def lists(root: Path) -> Lists:
    return Lists(root, tiny_datasets.search(root))


@pytest.fixture(scope="module")
def rankings(lists: Lists) -> list[Ranking]:
    return lists.training(400, 0)


def of_medquad(ranking: Ranking) -> str | None:
    """The focus that a question of MedQuAD is about."""
    foci = [focus for group in tiny_datasets.FOCI.values() for focus in group]
    return next((focus for focus in foci if focus in ranking.question), None)


def test_the_shares_are_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_a_longer_training_begins_as_a_shorter_one(lists: Lists, rankings: list[Ranking]) -> None:
    """As far as both teach the order alone."""
    assert lists.training(150, 0)[:100] == rankings[:100]
    assert lists.training(150, 1)[:100] != rankings[:100]


def test_a_list_has_relevant_passages_and_others_and_is_no_longer_than_may_be(rankings: list[Ranking]) -> None:
    for one in rankings:
        assert len(one.relevant) in ({0, 1, 2} if one.absolute else {1, 2})
        assert one.others
        assert len(one.relevant) + len(one.others) <= LIST
        assert not set(one.relevant) & set(one.others)


def test_the_first_lists_teach_the_order_and_later_ones_also_that_nothing_may_answer(
    lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranker, "ORDERED", 0.2)
    made = lists.training(500, 0)
    assert not any(one.absolute for one in made[:100])
    assert all(one.relevant for one in made[:100])
    absolute = made[100:]
    assert all(one.absolute for one in absolute)
    asked = [one for one in absolute if of_medquad(one)]
    assert 0.1 < sum(not one.relevant for one in asked) / len(asked) < 0.3
    unanswered = {row["question"]: row["doc_ids"][0] for row in datasets.own()[0] if row["type"] == "unanswerable"}
    ours = [one for one in absolute if one.question in unanswered]
    assert ours
    documents = datasets.documents()
    for one in ours:
        assert not one.relevant
        assert any(passage.startswith(documents[unanswered[one.question]]["title"]) for passage in one.others)


@pytest.mark.parametrize(
    ("relevant", "absolute", "target"),
    [
        (("a",), False, [1, 0, 0]),
        (("a", "b"), False, [0.5, 0.5, 0, 0]),
        (("a",), True, [1, 0, 0, 0]),
        ((), True, [0, 0, 1]),
    ],
)
def test_an_absolute_list_has_a_target_for_none_of_these(
    relevant: tuple[str, ...], absolute: bool, target: list[float]
) -> None:
    assert Ranking("?", relevant, ("y", "z"), absolute).target == target


def test_the_loss_of_a_list_is_its_cross_entropy_beside_a_score_of_0_where_it_is_absolute() -> None:
    scores = [torch.tensor([2.0, -1.0]), torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.1])]
    targets = [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])]
    ordered = math.log(math.exp(2) + math.exp(-1)) - 2
    absolute = math.log(math.exp(2) + math.exp(-1) + 1) - 2
    none = math.log(math.exp(0.5) + math.exp(0.1) + 1)
    assert list_loss(scores, targets).item() == pytest.approx((ordered + absolute + none) / 3)


def test_our_own_records_are_asked_about_beside_passages_of_medquad(rankings: list[Ranking]) -> None:
    texts = {f"{record.focus}\n{record.answer}" for record in datasets.aspects()}
    asked = [one for one in rankings if texts.issuperset(one.relevant) and one.relevant]
    assert len(asked) > 0.04 * len(rankings)
    assert all(texts.intersection(one.others) for one in asked)
    assert any(not texts.issuperset(one.others) for one in asked)


def test_what_is_relevant_is_about_what_is_asked(rankings: list[Ranking]) -> None:
    asked = [one for one in rankings if of_medquad(one)]
    assert len(asked) > 150
    for one in asked:
        assert all(str(of_medquad(one)) in passage for passage in one.relevant)


def test_beside_it_stands_the_same_disease_and_another_question(rankings: list[Ranking]) -> None:
    asked = [one for one in rankings if of_medquad(one)]
    same = [one for one in asked if any(str(of_medquad(one)) in passage for passage in one.others)]
    assert len(same) > 0.5 * len(asked)


def test_a_paper_has_no_title_for_that_is_the_question(rankings: list[Ranking]) -> None:
    papers = [one for one in rankings if one.question.startswith("Does walking")]
    assert papers
    assert all(passage.startswith("\n") for one in papers for passage in (*one.relevant, *one.others))


def test_a_sentence_of_an_abstract_asks_for_what_is_left_of_it(root: Path, rankings: list[Ranking]) -> None:
    _, measured, abstracts = datasets.scifact(root)
    whose = {part: name for name, (title, text) in abstracts.items() for part in (title, *text)}
    asked = [one for one in rankings if one.question in whose]
    assert asked
    for one in asked:
        title, text = abstracts[whose[one.question]]
        left = " ".join(sentence for sentence in text if sentence != one.question)
        assert one.relevant in ((f"\n{left}",), (f"{title}\n{left}",))
    assert {one.question in {title for title, _ in abstracts.values()} for one in asked} == {True, False}
    assert {whose[one.question] for one in asked} & {name for claim in measured for name in claim.cited} == set()


def test_training_never_sees_what_is_held_out(root: Path, lists: Lists, rankings: list[Ranking]) -> None:
    _, validation, held_out = datasets.split_medquad(datasets.medquad(root))
    foci = {record.focus for record in (*validation, *held_out)}
    passages = [passage for one in rankings for passage in (*one.relevant, *one.others)]
    assert not [passage for passage in passages if passage.partition("\n")[0] in foci]
    seen = lists.held_out(6, 0)
    assert len(seen) == 6
    assert {of_medquad(one) for one in seen} <= {record.focus for record in validation}
