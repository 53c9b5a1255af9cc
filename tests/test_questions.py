"""Question sets: ours and BEIR's, what is wrong with a record in one line, and which are asked first."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import UsageError
from rag.questions import TYPES, Question, QuestionSet, require_gold
from rag.questions import read as read_questions

RECORD: dict[str, Any] = {
    "id": "q1",
    "question": "What causes gout?",
    "type": "simple",
    "answer": "Urate.",
    "gold_doc_ids": ["gout"],
    "key_facts": [["urate", "uric acid"]],
}
NOTHING = RECORD | {"id": "q2", "type": "unanswerable", "gold_doc_ids": [], "key_facts": []}
EVAL = Path(__file__).parent.parent / "eval"


def write(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in records))
    return path


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_questions(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- our schema --------------------------------------------------------------------------------------


def test_a_set_in_our_schema(tmp_path: Path) -> None:
    found = read_questions(write(tmp_path / "gout.jsonl", RECORD, "", NOTHING | {"more": 1}))
    assert found.name == "gout"
    assert found.questions == (
        Question("q1", "What causes gout?", "simple", "Urate.", {"gout": 1}, (("urate", "uric acid"),)),
        Question("q2", "What causes gout?", "unanswerable", "Urate.", {}, ()),
    )
    assert [question.answerable for question in found.questions] == [True, False]


@pytest.mark.parametrize(("name", "counts"), [("qa_120", (66, 36, 18)), ("dev_60", (33, 18, 9))])
def test_the_sets_that_ship_are_read(name: str, counts: tuple[int, ...]) -> None:
    of_type = Counter(question.type for question in read_questions(EVAL / f"{name}.jsonl").questions)
    assert of_type == dict(zip(("simple", "synthesis", "unanswerable"), counts, strict=True))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ({}, "id: Field required"),
        (RECORD | {"id": 7}, "id: Input should be a valid string"),
        (RECORD | {"question": "  "}, "question: String should have at least 1 character"),
        (RECORD | {"type": "hard"}, "type: Input should be 'simple', 'synthesis' or 'unanswerable'"),
        (RECORD | {"gold_doc_ids": "gout"}, "gold_doc_ids: "),
        (RECORD | {"gold_doc_ids": ["gout", "gout"]}, "gold_doc_ids names a document twice"),
        (RECORD | {"gold_doc_ids": []}, "its type is simple, and it names 0 gold_doc_ids"),
        (RECORD | {"type": "unanswerable"}, "its type is unanswerable, and it names 1 gold_doc_ids"),
        (NOTHING | {"key_facts": [["urate"]]}, "its type is unanswerable, and it has 1 key_facts"),
        (RECORD | {"key_facts": [[]]}, "key_facts.0: "),
        (RECORD | {"key_facts": [["urate", ""]]}, "key_facts.0.1: String should have at least 1 character"),
    ],
)
def test_a_malformed_record_is_refused_with_its_line_and_field(tmp_path: Path, record: Any, said: str) -> None:
    path = write(tmp_path / "set.jsonl", NOTHING, record)
    assert refused(path).startswith(f"{path}:2: {said}")


def test_a_record_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", RECORD, NOTHING, RECORD)
    assert refused(path) == f"{path}:3: 'q1' is already used in {path}:1. Each is asked once: remove one."


def test_an_empty_set_a_missing_one_and_one_that_is_no_text(tmp_path: Path) -> None:
    assert "holds no question" in refused(write(tmp_path / "empty.jsonl"))
    assert "no such file or folder" in refused(tmp_path / "nowhere.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "Can't read" in refused(tmp_path / "binary")


def test_gold_documents_that_the_index_lacks_are_refused(tmp_path: Path) -> None:
    questions = read_questions(write(tmp_path / "set.jsonl", RECORD, NOTHING)).questions
    require_gold(questions, "notes", {"gout", "scurvy"})
    with pytest.raises(UsageError) as caught:
        require_gold(questions, "notes", {"scurvy"})
    assert str(caught.value) == (
        "Question 'q1' is answered by document 'gout', which index 'notes' lacks: 1 of 2 questions name such. "
        "Choose the index of their corpus: --index NAME, or --sample."
    )


# --- BEIR --------------------------------------------------------------------------------------------

QUERIES = ({"_id": "1", "text": "What causes gout?"}, {"_id": "2", "text": "Who?"}, {"_id": "3", "text": "Why?"})
HEAD = "query-id\tcorpus-id\tscore"


def beir(folder: Path, *judged: str, split: str = "test") -> Path:
    write(folder / "queries.jsonl", *QUERIES)
    write(folder / "qrels" / f"{split}.tsv", HEAD, *judged)
    return folder


def test_a_folder_of_beir_has_the_judged_queries_with_their_grades(tmp_path: Path) -> None:
    folder = beir(tmp_path / "nfcorpus", "1\tgout\t2", "1\turate\t1", "1\tscurvy\t0", "3\tscurvy\t1", "2\tx\t0")
    found = read_questions(folder)
    assert found.name == "nfcorpus"
    assert found.questions == (
        Question("1", "What causes gout?", "retrieval", None, {"gout": 2, "urate": 1}, ()),
        Question("3", "Why?", "retrieval", None, {"scurvy": 1}, ()),
    )


def test_the_test_split_is_taken_else_the_only_one(tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", "1\tgout\t1")
    beir(folder, "2\tgout\t1", split="train")
    assert [one.id for one in read_questions(folder).questions] == ["1"]
    (folder / "qrels" / "test.tsv").unlink()
    assert [one.id for one in read_questions(folder).questions] == ["2"]
    beir(folder, "2\tgout\t1", split="dev")
    assert "has dev.tsv, train.tsv, and no test.tsv" in refused(folder)


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        ("1 gout 1", "expected query-id, corpus-id and a whole score between tabs"),
        ("1\tgout\thigh", "expected query-id, corpus-id and a whole score between tabs"),
        ("1\tscurvy\t1", "'1 with scurvy' is already used in "),
        ("9\tgout\t1", "lacks query '9'"),
    ],
)
def test_judgements_that_cannot_be_used(tmp_path: Path, judged: str, said: str) -> None:
    assert said in refused(beir(tmp_path / "set", "1\tscurvy\t1", judged))


def test_queries_that_cannot_be_used(tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", "1\tgout\t1")
    write(folder / "queries.jsonl", QUERIES[0], {"_id": "2"})
    assert "queries.jsonl:2: no query of BEIR's" in refused(folder)
    write(folder / "queries.jsonl", QUERIES[0], QUERIES[0])
    assert "'1' is already used in" in refused(folder)
    (folder / "queries.jsonl").unlink()
    assert "is no folder of BEIR's" in refused(folder)


# --- which are asked first ---------------------------------------------------------------------------


def test_any_number_of_questions_has_about_the_mixture_of_all() -> None:
    found = read_questions(EVAL / "qa_120.jsonl")
    assert [question.type for question in found.first(5)].count("simple") == 3
    assert Counter(question.type for question in found.first(40)) == {"simple": 22, "synthesis": 12, "unanswerable": 6}
    assert sorted(question.id for question in found.first(None)) == [question.id for question in found.questions]


@given(st.lists(st.sampled_from(TYPES), min_size=1, max_size=40), st.data())
def test_more_questions_hold_those_that_fewer_are(kinds: list[Any], data: st.DataObject) -> None:
    found = QuestionSet("some", tuple(Question(str(n), "?", kind, None, {}, ()) for n, kind in enumerate(kinds)))
    count = data.draw(st.integers(1, len(kinds)))
    some = found.first(count)
    assert found.first(None)[:count] == some
    for kind, number in Counter(kinds).items():
        share = number * count / len(kinds)
        assert abs(sum(question.type == kind for question in some) - share) <= len(set(kinds)) / 2 + 0.5


def test_a_set_is_told_apart_by_what_is_asked_and_not_by_its_file(tmp_path: Path) -> None:
    one = read_questions(write(tmp_path / "one.jsonl", RECORD, NOTHING))
    spaced = read_questions(write(tmp_path / "spaced.jsonl", json.dumps(RECORD, indent=None) + "  ", "", NOTHING))
    other = read_questions(write(tmp_path / "other.jsonl", RECORD | {"answer": "Urate crystals."}, NOTHING))
    assert one.sha256 == spaced.sha256 != other.sha256
