"""The report of an evaluation: a pure function of its samples, with figures that were computed by hand."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import serving
from evaluating import ANSWERS, MALARIA, RABIES, SCURVY, Answering, plan_of, take
from serving import NoOp
from test_evaluate_scores import DECLINED, answer, sample

from rag import evaluate
from rag.bench import results
from rag.core import EngineInfo, GenerationStats, Route, Technique
from rag.engine import evidence
from rag.errors import EngineError, UsageError
from rag.evaluate import QuestionSet, coverage, samples
from rag.evaluate.samples import Sample
from rag.figures import Figure
from rag.stats import Estimate

FILES = ("summary.json", "report.md", "risk_coverage.svg", "risk_coverage.png")


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Samples of the five questions."""
    serving.write(tmp_path / "indexes")
    await take(tmp_path / "indexes", tmp_path / "results")
    return tmp_path / "results"


def by_name(figures: Sequence[Figure]) -> dict[str, Figure]:
    return {one.name: one for one in figures}


def table(report: str, heading: str) -> list[str]:
    """The rows below a heading."""
    lines = report.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    return [line for line in lines if line.startswith("|")]


# --- figures -----------------------------------------------------------------------------------------


async def test_the_figures_of_five_answers_by_hand(folder: Path) -> None:
    figures = by_name(evaluate.summarise(folder))
    values = {name: (round(one.value, 4), one.n) for name, one in figures.items()}
    expected = {
        "recall_at_10": (1.0, 3),
        "recall_at_1": (round((1 + 1 + 0.5) / 3, 4), 3),
        "recall_at_1_synthesis": (0.5, 1),
        "key_fact_recall": (round((1 + 0.5 + 0.5) / 3, 4), 3),
        "key_fact_recall_simple": (0.75, 2),
        "key_fact_recall_synthesis": (0.5, 1),
        "citation_precision": (0.75, 4),  # the answer about rabies cites malaria
        "citation_recall": (round((1 + 1 + 0.5) / 3, 4), 3),
        "cited_sentences": (0.8, 4),  # of five sentences of four answers
        "abstained": (0.2, 5),
        "abstention_precision": (1.0, 1),
        "abstention_recall": (0.5, 2),
    }
    assert {name: values[name] for name in expected} == expected
    assert "judged_right" not in figures
    assert figures["minutes"].value == pytest.approx(max(s.at for s in samples.read(folder)[1]) / 60)


async def test_summary_and_report_are_those_figures_under_the_samples_own_header(folder: Path) -> None:
    figures = evaluate.summarise(folder)
    summary = json.loads((folder / "summary.json").read_text())
    head = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert {key: summary[key] for key in head} == head
    assert [Figure(**one) for one in summary["figures"]] == figures
    report = (folder / "report.md").read_text()
    assert "5 of the 5 questions of `five` (2 simple, 1 synthesis, 2 unanswerable), one by one in 1 run" in report
    assert "| `key_fact_recall` | 0.667 | 0.500 to 1.000 | share | 3 |  |  |" in report
    assert "| `key_fact_recall` | 0.750 (0.500 to 1.000), 2 | 0.500, 1 |  |" in report
    assert "not the whole set" not in report


async def test_a_report_made_again_is_the_same_to_the_byte_whatever_order_the_samples_are_in(folder: Path) -> None:
    evaluate.summarise(folder)
    first = {name: (folder / name).read_bytes() for name in FILES}
    path = folder / "samples.jsonl"
    head, *rows = path.read_text().splitlines()
    random.Random(1).shuffle(rows)
    shuffled = "".join(f"{line}\n" for line in (head, *rows))
    path.write_text(shuffled)
    evaluate.summarise(folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == first
    assert path.read_text() == shuffled


async def test_a_part_of_the_set_and_what_failed_are_said(tmp_path: Path) -> None:
    serving.write(tmp_path / "indexes")
    broken = Answering({**ANSWERS, SCURVY.question: EngineError("The server is busy.")})
    await take(tmp_path / "indexes", tmp_path / "results", broken, limit=4)
    figures = by_name(evaluate.summarise(tmp_path / "results"))
    report = (tmp_path / "results" / "report.md").read_text()
    assert "**4 of 5 questions: not the whole set.**" in report
    assert "**1 questions failed, and count for what was found alone:**\n\n- `q2`: The server is busy." in report
    assert figures["key_fact_recall"].n == 2


def write(folder: Path, taken: Sequence[Sample], name: str = "five", settings: int = 1) -> Path:
    questions = {one.id: one.question for one in taken}
    store = results.Samples(folder)
    store.start(plan_of(QuestionSet(name, tuple(questions.values())), at_once=settings).head)
    for one in taken:
        store.add(samples.row(one))
    return folder


def test_goals_are_those_of_the_120_questions_alone(tmp_path: Path) -> None:
    taken = [sample(MALARIA, answer("Plasmodium [1].")), sample(RABIES, DECLINED)]
    with_goals = by_name(evaluate.summarise(write(tmp_path / "120", taken, "qa_120")))
    assert {one.name: (one.goal, one.met) for one in with_goals.values() if one.goal} == {
        "key_fact_recall_simple": (">= 0.75", True),
        "abstention_precision": (">= 0.75", True),
        "abstention_recall": (">= 0.75", True),
    }
    assert "| `key_fact_recall_simple` | 1.000 |" in (tmp_path / "120" / "report.md").read_text()
    assert [one for one in evaluate.summarise(write(tmp_path / "own", taken)) if one.goal] == []


def test_minutes_are_those_of_all_runs_together(tmp_path: Path) -> None:
    one = sample(MALARIA, answer("So."))
    taken = [replace(one, id=f"m{run}{at}", run=run, at=at) for run, at in ((1, 60.0), (1, 120.0), (2, 30.0))]
    assert by_name(evaluate.summarise(write(tmp_path, taken)))["minutes"].value == 2.5


def test_a_folder_without_samples_or_of_a_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No samples in"):
        evaluate.summarise(tmp_path)
    results.Samples(tmp_path).start(plan_of().head)
    with pytest.raises(UsageError, match="No question in"):
        evaluate.summarise(tmp_path)
    results.Samples(tmp_path).start(results.header("start", "rag bench start"))
    with pytest.raises(UsageError, match="isn't of `rag eval`"):
        evaluate.summarise(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]


# --- techniques --------------------------------------------------------------------------------------


async def test_planted_no_ops_are_in_the_samples_and_in_the_report_as_not_engaged(tmp_path: Path) -> None:
    serving.write(tmp_path / "indexes")
    await take(tmp_path / "indexes", tmp_path / "results", NoOp(["Malaria is caused ", "by Plasmodium [1]."]))
    evaluate.summarise(tmp_path / "results")
    _, taken = samples.read(tmp_path / "results")
    found = [one.answer.engine for one in taken if one.answer is not None]
    assert [engine.techniques["prefix_caching"].engaged for engine in found] == [None, False, False, False, False]
    assert {engine.techniques["speculation"].engaged for engine in found} == {False}
    assert found[-1].since_start["prefix_caching"].numbers["prompts"] == 5
    cached, drafted = table((tmp_path / "results" / "report.md").read_text(), "Techniques")[2:]
    assert cached.startswith("| `prefix_caching` | **no** | 0 of 5 | 0 of ")
    assert cached.endswith(
        " prompt tokens came from the cache | 5 prompts share no whole block with an earlier one that is still there |"
    )
    assert drafted == (
        "| `speculation` | **no** | 0 of 5 | 0 of 0 draft tokens accepted among 5 decoded | nothing was drafted |"
    )


def test_the_report_tells_in_how_many_answers_a_technique_engaged(tmp_path: Path) -> None:
    asked = {
        **dict.fromkeys(("prefix_caching", "speculation"), Technique(asked=True)),
        "quantization": Technique(asked=True, engaged=False, reason="no kernels"),
        "attention_backend": Technique(asked=False),
    }
    stats = [GenerationStats(9, None, 100, cached, 4, 1) for cached in (0, 64, 32)]
    engines = [
        EngineInfo("vllm", "1", "cpu", evidence.of_answer(asked, evidence.UNTOLD, one, evidence.TokenCounts(9)))
        for one in (*stats, None)  # of the last nothing was generated
    ]
    taken = [sample(MALARIA, replace(answer("So."), engine=engine)) for engine in engines]
    evaluate.summarise(write(tmp_path, [replace(one, id=f"t{number}") for number, one in enumerate(taken)]))
    assert table((tmp_path / "report.md").read_text(), "Techniques")[2:] == [
        "| `prefix_caching` | yes | 2 of 4 | 96 of 300 prompt tokens came from the cache |  |",
        "| `speculation` | yes | 3 of 4 | 3 of 12 draft tokens accepted among 24 decoded |  |",
        "| `quantization` | **no** | 0 of 4 |  | no kernels |",
    ]


async def test_without_techniques_the_report_has_no_table_of_them(folder: Path) -> None:
    evaluate.summarise(folder)
    assert "## Techniques" not in (folder / "report.md").read_text()


# --- risk and coverage -------------------------------------------------------------------------------


def sure(confidence: float | None, answered: bool, route: bool = True) -> Sample:
    """An answer with this confidence to a question that the sources answer, or don't. Without a route nothing was found."""
    chosen = Route("large", "m", 9, "") if route else None
    return sample(MALARIA if answered else RABIES, replace(answer("So."), confidence=confidence, route=chosen))


RIGHT_AND_WRONG = [sure(0.9, True), sure(0.8, True), sure(0.6, False), sure(0.5, True), sure(None, False, route=False)]


def test_the_curve_of_five_questions_by_hand() -> None:
    curve = coverage.curve(RIGHT_AND_WRONG)
    assert curve is not None
    assert curve.points() == [
        (0.9, 0.2, 0.0),
        (0.8, 0.4, 0.0),
        (0.6, 0.6, pytest.approx(1 / 3)),
        (0.5, 0.8, 0.25),
        (0.0, 1.0, 0.4),
    ]
    area = curve.aurc()
    assert (area.value, area.n) == (pytest.approx((1 / 3 + 0.25 + 0.4) / 5), 5)
    assert area.lo < area.value < area.hi
    assert coverage.table(curve)[2:] == [
        "| 20% | 0.900 | 0.000 |",
        "| 40% | 0.800 | 0.000 |",
        "| 60% | 0.600 | 0.333 |",
        "| 80% | 0.500 | 0.250 |",
        "| 100% | 0.000 | 0.400 |",
    ]


def test_the_line_of_the_picture_goes_through_the_points(tmp_path: Path) -> None:
    curve = coverage.curve(RIGHT_AND_WRONG)
    assert curve is not None
    coverage.draw(curve, tmp_path, "picture")
    svg = "{http://www.w3.org/2000/svg}"
    root = ET.parse(tmp_path / "picture.svg").getroot()
    texts = {text.text for text in root.iter(f"{svg}text")}
    assert {"questions answered", "of these wrong", "0%", "100%", "40%"} <= texts
    path = root.find(f".//{svg}g[@id='curve']/{svg}path")
    assert path is not None
    drawn = np.array(re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"]), dtype=np.float64)
    (_, covered, risk), (x, y) = np.transpose(curve.points()), drawn.T
    assert np.corrcoef(covered, x)[0, 1] == pytest.approx(1)
    assert np.corrcoef(risk, y)[0, 1] == pytest.approx(-1), "an SVG's y grows downwards"


def test_there_is_no_curve_where_nothing_was_weighed_or_all_questions_are_alike() -> None:
    assert coverage.curve([sure(None, True), sure(None, False)]) is None
    assert coverage.curve([sure(0.9, True), sure(0.8, True)]) is None
    assert coverage.curve([sample(MALARIA, None), sure(None, False, route=False)]) is None
    assert coverage.curve([]) is None


def test_the_report_has_curve_table_and_picture_where_there_is_one(tmp_path: Path) -> None:
    numbered = [replace(one, id=f"r{number}") for number, one in enumerate(RIGHT_AND_WRONG)]
    figures = by_name(evaluate.summarise(write(tmp_path, numbered)))
    assert isinstance(figures["aurc"], Figure)
    assert Estimate(figures["aurc"].value, figures["aurc"].lo, figures["aurc"].hi, 5) == coverage.curve(numbered).aurc()  # type: ignore[union-attr]
    report = (tmp_path / "report.md").read_text()
    assert table(report, "Risk and coverage")[2] == "| 20% | 0.900 | 0.000 |"
    assert "![Risk over coverage](risk_coverage.svg)" in report
    pictures = [tmp_path / "risk_coverage.svg", tmp_path / "risk_coverage.png"]
    assert all(path.is_file() for path in pictures)
    evaluate.summarise(write(tmp_path, numbered[:2]))
    assert not any(path.exists() for path in pictures)
