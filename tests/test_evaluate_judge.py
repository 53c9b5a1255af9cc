"""The judge, behind a real HTTP server that says what it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluating import BOTH, MALARIA, RABIES, SCURVY, plan_of
from test_evaluate_scores import DECLINED, answer, sample
from tiny_server import Play, event

from rag import evaluate
from rag.bench import results
from rag.errors import EngineError
from rag.evaluate import samples
from rag.evaluate.judge import INSTRUCTION, read_verdict
from rag.settings import Generator


@pytest.fixture
def play() -> Iterator[Play]:
    with Play().running() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two answers, one that declines, one that failed, and one to a question that nothing answers."""
    store = results.Samples(tmp_path)
    store.start(plan_of().head)
    came = ((MALARIA, answer("Plasmodium parasites [1].")), (SCURVY, answer("Lemons [1].")), (BOTH, DECLINED))
    for question, one in (*came, (RABIES, answer("So.")), (replace(MALARIA, id="q9"), None)):
        store.add(samples.row(sample(question, one)))
    return tmp_path


def says(play: Play, *verdicts: str) -> None:
    play.scripts = [play.says(event(verdict), event("", finish="stop")) for verdict in verdicts]


def judge(folder: Path, play: Play, model: str = "served") -> None:
    settings = Generator(base_url=play.url, model=model, read_timeout_s=5, connect_timeout_s=0.2)
    asyncio.run(evaluate.judge(folder, settings, "rag eval", lambda *_: None))


def verdicts(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()[1:]]
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row for row in found}


def test_each_answer_is_judged_against_its_reference_at_temperature_0(folder: Path, play: Play) -> None:
    says(play, "Yes.")
    judge(folder, play)
    assert len(play.asked) == 2
    for body, _ in play.asked:
        assert (body["model"], body["temperature"]) == ("served", 0)
        assert body["messages"][0]["content"] == INSTRUCTION
    asked = {body["messages"][1]["content"] for body, _ in play.asked}
    assert asked == {
        "Question: What is malaria caused by?\n\nReference: Plasmodium parasites.\n\nAnswer: Plasmodium parasites.",
        "Question: What cures scurvy?\n\nReference: Lemons do.\n\nAnswer: Lemons.",
    }


def test_raw_verdicts_are_kept_and_counted_with_declined_answers_as_wrong(folder: Path, play: Play) -> None:
    says(play, "Yes.", "The answer differs. No")
    judge(folder, play)
    found = verdicts(folder)
    assert sorted(found) == ["q1", "q2", "q3"]
    assert {(found[name]["verdict"], found[name]["said"]) for name in ("q1", "q2")} == {
        ("yes", "Yes."),
        ("no", "The answer differs. No"),
    }
    declined = "None of the sources answers the question."
    assert found["q3"] == {"id": "q3", "answer": declined, "verdict": "no", "said": None}
    figures = {one.name: one for one in evaluate.summarise(folder)}
    assert (figures["judged_right"].value, figures["judged_right"].n) == (pytest.approx(1 / 3), 3)
    assert "neither yes nor no" not in (folder / "report.md").read_text()


def test_a_verdict_that_is_none_counts_nowhere_and_is_said(folder: Path, play: Play) -> None:
    says(play, "Perhaps.")
    judge(folder, play)
    figures = {one.name: one for one in evaluate.summarise(folder)}
    assert (figures["judged_right"].value, figures["judged_right"].n) == (0.0, 1)
    assert "Of the judge's verdicts 2 were neither yes nor no" in (folder / "report.md").read_text()


def test_verdicts_stay_and_those_of_another_judge_make_room(folder: Path, play: Play) -> None:
    says(play, "yes")
    judge(folder, play)
    before = (folder / "verdicts.jsonl").read_bytes()
    judge(folder, play)
    assert (folder / "verdicts.jsonl").read_bytes() == before
    assert len(play.asked) == 2
    says(play, "no")
    judge(folder, play, "other")
    assert {row["verdict"] for row in verdicts(folder).values()} == {"no"}
    (aside,) = results.Samples(folder, "verdicts.jsonl").aside()
    assert aside.read_bytes() == before


def test_a_verdict_on_another_answer_is_none_on_this_one(folder: Path, play: Play) -> None:
    says(play, "yes")
    judge(folder, play)
    path = folder / "samples.jsonl"
    head, *rows = (json.loads(line) for line in path.read_text().splitlines())
    changed = next(row for row in rows if row["id"] in verdicts(folder) and not row["answer"]["abstained"])
    changed["answer"]["answer"] = "Something else."
    path.write_text("".join(f"{json.dumps(row)}\n" for row in (head, *rows)))
    judged = {sample.id: sample.verdict for sample in samples.read(folder)[1]}
    assert judged[changed["id"]] is None
    assert sum(verdict is not None for verdict in judged.values()) == len(verdicts(folder)) - 1
    asked = len(play.asked)
    judge(folder, play)
    assert len(play.asked) == asked + 1


def test_a_judge_that_cannot_be_reached_is_one_line_and_the_answers_stay(folder: Path) -> None:
    before = (folder / "samples.jsonl").read_bytes()
    with Play().running() as gone:
        pass
    with pytest.raises(EngineError, match="can't be reached"):
        judge(folder, gone)
    assert (folder / "samples.jsonl").read_bytes() == before
    assert set(verdicts(folder)) <= {"q3"}


@pytest.mark.parametrize(
    ("said", "verdict"),
    [("yes", "yes"), ("No.", "no"), ("**Yes**", "yes"), ("No... but on reflection: yes", "yes"), ("", "unclear")],
)
def test_a_verdict_is_the_last_word_that_is_one(said: str, verdict: str) -> None:
    assert read_verdict(said) == verdict
    assert read_verdict("It knows, yesterday.") == "unclear"
