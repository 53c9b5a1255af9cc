"""What is read of the datasets, and what is held out. The real ones are looked at where `RAG_DATASETS` says they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tiny_datasets

from rag import paths
from rag.errors import UsageError
from rag.training import datasets
from rag.training.datasets import Claim, Record, is_held_out, normalised, split_medquad

needs_real = pytest.mark.skipif("RAG_DATASETS" not in os.environ, reason="RAG_DATASETS isn't set: no real datasets")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_datasets.write(tmp_path_factory.mktemp("datasets"))


def record(source: str, focus: str) -> Record:
    return Record(f"{source}-{focus}", source, focus, "causes", "Why?", "So.")


# --- where they are --------------------------------------------------------------------------------


def test_the_option_wins_over_the_environment(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_DATASETS", str(tmp_path))
    assert datasets.folder(root) == root
    with pytest.raises(UsageError, match=f"No datasets in {tmp_path}"):
        datasets.folder()


def test_an_incomplete_folder_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "medquad").mkdir()
    assert datasets.folder(tmp_path) == tmp_path
    with pytest.raises(UsageError, match=r"train\.jsonl\.gz is missing"):
        datasets.medquad(tmp_path)


# --- what is held out ------------------------------------------------------------------------------


def test_held_out_sources_and_their_foci_are_not_in_training() -> None:
    records = [record("GARD", "Gout"), record("NINDS", "Mumps"), record("GARD", "MUMPS "), record("NHLBI", "Asthma")]
    training, held_out = split_medquad(records)
    assert training == records[:1]
    assert held_out == [records[1], records[3]]


@pytest.mark.parametrize(("one", "other"), [("Ménière-Disease", "m ni re disease"), ("  Gout (acute)", "gout acute")])
def test_foci_are_the_same_whatever_their_writing(one: str, other: str) -> None:
    assert normalised(one) == other


def test_a_quarter_is_held_out_and_always_the_same() -> None:
    held_out = {n for n in range(4000) if is_held_out(str(n))}
    assert len(held_out) / 4000 == pytest.approx(0.25, abs=0.02)
    assert [n for n in range(20) if n in held_out] == [11, 12, 13]


def test_claims_about_one_abstract_fall_on_one_side(root: Path) -> None:
    training, held_out, _ = datasets.scifact(root)
    sides = [{name for claim in part for name in claim.cited} for part in (training, held_out)]
    assert min(map(len, sides)) > 0
    assert sides[0] & sides[1] == set()
    assert len(training) + len(held_out) == 48


# --- what is read ----------------------------------------------------------------------------------


def test_records_are_numbered_as_they_are_indexed(root: Path) -> None:
    records = datasets.medquad(root)
    assert [one.id for one in records] == [f"m{n:05d}" for n in range(len(records))]
    assert records[1].question == "What causes Amber fever ?"


def test_a_claim_keeps_what_decides_it(root: Path) -> None:
    training, held_out, abstracts = datasets.scifact(root)
    claims = {claim.id: claim for claim in [*training, *held_out]}
    assert claims["1"] == Claim("1", "Zinc 1 speeds up cell 1.", ("1",), (("1", False, (0,)),))
    assert claims["3"].evidence[0][1] is True
    assert claims["2"].evidence == ()
    assert abstracts["4"][0] == "Zinc 4 and the cell"


def test_share_alike_articles_and_their_trials_stay_out(root: Path) -> None:
    articles = datasets.articles(root)
    assert set(articles) == {f"PMC{n}" for n in range(7)}
    training, held_out = datasets.trials(root, articles)
    assert [trial.id for trial in training] == [f"t{n}" for n in range(5)]
    assert [trial.id for trial in held_out] == ["t5", "t6"]  # t7 is about the share-alike one
    assert training[0].question == "What is the effect of lotion 0 on itch compared with plain cream?"
    assert training[0].passage.id == "PMC0_1"


# --- our own ---------------------------------------------------------------------------------------


def test_no_evaluation_question_is_about_a_document_that_is_trained_on() -> None:
    gold: set[str] = set()
    for path in paths.shipped("eval").glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            gold.update(json.loads(line).get("gold_doc_ids", ()))
    documents = datasets.documents()
    questions, sentences = datasets.own()
    assert len(documents) > 50
    assert set(documents) & gold == set()
    assert {name for row in questions for name in row["doc_ids"]} <= set(documents)
    assert {part["doc_id"] for row in questions for part in row["answer"]} <= set(documents)
    assert {row["doc_id"] for row in sentences} <= set(documents)


# --- the real ones ---------------------------------------------------------------------------------


@needs_real
def test_of_the_real_medquad_no_held_out_focus_is_trained_on() -> None:
    records = datasets.medquad(datasets.folder())
    training, held_out = split_medquad(records)
    assert {one.source for one in held_out} == set(datasets.HELD_OUT_SOURCES)
    assert {one.source for one in records} & {"NIDDK", "CDC"} == set()
    assert {normalised(one.focus) for one in training} & {normalised(one.focus) for one in held_out} == set()
    assert len(training) > 10_000
    assert len(held_out) > 1000
