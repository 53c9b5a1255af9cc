"""What is read of the datasets, and what is held out. The real ones are looked at where `RAG_DATASETS` says they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tiny_datasets

from rag import paths
from rag.errors import UsageError
from rag.text import content_words
from rag.training import datasets
from rag.training.abstention import QUESTIONS
from rag.training.datasets import Claim, Record, disease, is_held_out, mentions, split_medquad

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
    records = [record("GARD", "Gout"), record("NINDS", "Leigh's Disease"), record("GARD", "LEIGH syndrome (SNE)")]
    records += [record("NHLBI", "Hollow tremor"), record("NHLBI", "Gravel ataxia"), record("GARD", "Asthma")]
    training, validation, held_out = split_medquad(records)
    assert training == [records[0], records[5]]
    assert validation == [records[4]]
    assert held_out == [records[1], records[3]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alzheimer's Disease", "Alzheimer disease"),
        ("Parkinson\u2019s disease", "PARKINSON DISEASE"),
        ("Reye's Syndrome", "Reye Syndrome"),
        ("Thalassemias", "Thalassemia"),
        ("Von Hippel-Lindau Disease (VHL)", "von Hippel-Lindau syndrome"),
        ("Heart Valve Diseases", "Heart Valve Disease"),
        ("Sjgren's Syndrome", "Sj\u00f6gren syndrome"),
        ("Guillain-Barr Syndrome", "Guillain-Barre syndrome"),
    ],
)
def test_a_disease_is_the_same_in_every_spelling(one: str, other: str) -> None:
    assert disease(one) == disease(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Diabetes", "Diabetes insipidus"), ("Hepatitis A", "Hepatitis B"), ("Gas", "Ga"), ("Lupus", "Lupu")],
)
def test_diseases_that_are_not_the_same_stay_apart(one: str, other: str) -> None:
    assert disease(one) != disease(other)


def test_a_name_of_generic_words_alone_is_not_lost() -> None:
    assert disease("Syndrome") == "syndrome"


def test_a_text_mentions_a_disease_by_whole_words() -> None:
    assert mentions("Patients with Leigh's syndrome tire.", disease("Leigh Disease"))
    assert not mentions("Goutte is French.", disease("Gout"))


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


def test_share_alike_articles_are_searched_all_the_same(root: Path) -> None:
    passages = list(datasets.searched_passages(root))
    assert [passage.id for passage in passages] == [f"PMC{number}_{part}" for number in range(8) for part in (0, 1)]
    assert {p.article for p in passages} - set(datasets.articles(root)) == {"PMC7"}


# --- our own ---------------------------------------------------------------------------------------


def test_no_question_that_is_trained_on_resembles_one_of_the_evaluation() -> None:
    """Unanswerable ones have no document that could be left out, so words have to tell."""
    asked = [
        json.loads(line)["question"]
        for name in ("qa_120", "dev_60")
        for line in paths.shipped("eval", f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    told = [(question, content_words(question)) for question in asked]
    questions, _ = datasets.own()
    for row in questions:
        words = content_words(row["question"])
        for question, other in told:
            assert len(words & other) <= 0.4 * len(words | other), (row["question"], question)


def test_calibration_asks_about_documents_of_the_development_set_alone() -> None:
    """And none of what is asked there, nor anything like the evaluation's questions."""
    gold, asked = {}, {}
    for name in ("qa_120", "dev_60"):
        rows = [json.loads(line) for line in paths.shipped("eval", f"{name}.jsonl").open(encoding="utf-8")]
        gold[name] = {document for row in rows for document in row["gold_doc_ids"]}
        asked[name] = [content_words(row["question"]) for row in rows]
    rows = [json.loads(line) for line in paths.shipped("data", "training", QUESTIONS).open(encoding="utf-8")]
    assert {row["doc_id"] for row in rows} == gold["dev_60"] - gold["qa_120"]
    assert len({row["question"] for row in rows}) == len(rows)
    assert 0.4 < sum(row["answerable"] for row in rows) / len(rows) < 0.6
    alike = [
        row["question"]
        for row in rows
        for words in (*asked["qa_120"], *asked["dev_60"])
        if len(content_words(row["question"]) & words) > 0.5 * len(content_words(row["question"]) | words)
    ]
    assert alike == []


def test_a_document_of_training_has_a_name_of_its_own_and_a_question() -> None:
    rows = [json.loads(line) for line in paths.shipped("data", "training", "documents.jsonl").open(encoding="utf-8")]
    corpus = {
        json.loads(line)["id"]
        for path in paths.shipped("data", "corpus").glob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    }
    names = [row["id"] for row in rows]
    assert len(set(names)) == len(names)
    assert set(names) & corpus == set()
    questions, _ = datasets.own()
    assert set(names) <= {name for row in questions for name in row["doc_ids"]}


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
    parts = split_medquad(records)
    assert {one.source for part in parts[1:] for one in part} == set(datasets.HELD_OUT_SOURCES)
    assert {one.source for one in records} & {"NIDDK", "CDC"} == set()
    foci = [{disease(one.focus) for one in part} for part in parts]
    assert foci[0] & foci[1] == foci[0] & foci[2] == foci[1] & foci[2] == set()
    for name in ("alzheimer", "huntington", "parkinson", "friedreich ataxia", "thalassemia", "von hippel lindau"):
        assert not [focus for focus in foci[0] if name == focus], name
    assert len(parts[0]) > 10_000
    assert len(parts[1]) > 300
    assert len(parts[2]) > 1000
