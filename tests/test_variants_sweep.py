"""The setting that a sweep goes over, and the figures and report of its samples."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import serving
from beside import Engine, Opened, answer, head_of, numbered, plan_of, taken, written
from evaluating import SET

from rag import settings
from rag.core import Tokens
from rag.errors import SettingsError, UsageError
from rag.evaluate import Question, QuestionSet
from rag.figures import Figure
from rag.settings import Loaded
from rag.variants import asking, planning, sweep
from rag.variants.samples import Taken
from rag.variants.sweep.over import Over, label, parse

SVG = "{http://www.w3.org/2000/svg}"


# --- the setting and its values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("context.passages=3,5,10", "context.passages", (3, 5, 10)),
        ("context.chars_per_passage=400, null", "context.chars_per_passage", (400, None)),
        ("filter.min_rerank=0,0.05", "filter.min_rerank", (0, 0.05)),
        ("generator.prefix_caching=true,false", "generator.prefix_caching", (True, False)),
        ("generator.cores='0,1',0-1", "generator.cores", ("0,1", "0-1")),
        ("generator.speculation.method=none,ngram", "generator.speculation.method", ("none", "ngram")),
    ],
)
def test_values_are_those_of_a_yaml_list(text: str, key: str, values: tuple[Any, ...]) -> None:
    assert parse(text) == Over(key, values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("context.passages", "expected a setting and its values, e.g. --over context.passages=3,5,10,15"),
        ("passages=3,5", "expected a setting and its values"),
        ("context.passages=3", "two values at least"),
        ("context.passages=", "two values at least"),
        ("context.passages=3,5,3", "3 is named twice"),
        ("context.passages=3,[5", "no YAML list"),
        ("chunk.max_chars=500,1000", "all values would answer alike, since an index is built by it"),
        ("chat.turns=1,2", "all values would answer alike"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def load(assignment: str | None) -> Loaded:
    return settings.load("auto-cpu", "embedded", [assignment] if assignment is not None else [], environ={})


def test_the_value_that_holds_without_a_sweep_comes_first_else_the_first_one() -> None:
    assert load(None).settings.context.passages == 3
    assert list(parse("context.passages=5,3,2").loads(load)) == ["3", "5", "2"]
    assert list(parse("context.passages=5,2").loads(load)) == ["5", "2"]
    found = parse("context.chars_per_passage=null,800").loads(load)
    assert {name: one.settings.context.chars_per_passage for name, one in found.items()} == {"800": 800, "null": None}
    assert all(one.explicit("context.chars_per_passage") for one in found.values())


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ("context.pasages=3,5", "Unknown setting 'context.pasages' (from --set). Did you mean 'context.passages'?"),
        ("context.passages=3,0", "context.passages=0 (from --set): input should be greater than or equal to 1"),
        ("context.passages=3,many", "context.passages=many (from --set): input should be a valid integer"),
    ],
)
def test_an_unknown_setting_or_a_bad_value_is_refused(over: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(over).loads(load)
    assert str(caught.value).startswith(said)


def test_an_entry_of_a_mapping_can_be_swept_too() -> None:
    over = parse("generator.quantized.awq=one/model,another/model")
    assert list(over.loads(load)) == ["one/model", "another/model"]


def test_what_yaml_takes_for_a_date_is_a_name() -> None:
    over = parse("index.name=2024-01-01,2024-06-01")
    assert [over.assignment(value) for value in over.values] == ['index.name="2024-01-01"', 'index.name="2024-06-01"']


def test_labels_are_as_they_are_written() -> None:
    assert [label(value) for value in (3, 0.05, None, True, "ngram")] == ["3", "0.05", "null", "true", "ngram"]


def test_nothing_is_chosen_on_the_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "depends_on", lambda *_: {})
    over = parse("context.passages=2,3")
    with pytest.raises(UsageError, match="qa_120 is the test set"):
        sweep.plan(over, over.loads(load), QuestionSet("qa_120", SET.questions), "rag bench sweep")
    planned = sweep.plan(over, over.loads(load), QuestionSet("dev_60", SET.questions), "rag bench sweep")
    assert planned.head["settings"]["over"] == {"setting": "context.passages", "values": ["2", "3"]}
    assert planned.head["settings"]["engines"] == [["3", "2"]]


# --- samples -----------------------------------------------------------------------------------------


async def test_every_value_answers_every_question_once_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    serving.write(tmp_path / "indexes")
    plan = plan_of("2", "3", bench="sweep", over=OVER)
    opened = Opened(tmp_path / "indexes", Engine())
    await sweep.measure(plan, tmp_path / "results", 2, lambda *_: None, opened)
    await sweep.measure(plan, tmp_path / "results", None, lambda *_: None, opened)
    rows = [json.loads(line) for line in (tmp_path / "results" / "samples.jsonl").read_text().splitlines()[1:]]
    assert sorted((row["variant"], row["sample"]["id"], row["cold"]) for row in rows) == sorted(
        (value, question.id, False) for value in ("2", "3") for question in SET.questions
    )
    figures = {one.name for one in sweep.summarise(tmp_path / "results")}
    assert {
        "total_p50_s@2",
        "key_fact_recall@3",
        "total_ratio@3",
        "recall_at_10@2",
        "key_fact_recall_simple@3",
    } <= figures


# --- figures -----------------------------------------------------------------------------------------

OVER = {"setting": "context.passages", "values": ["2", "3"]}


def swept(folder: Path, rows: Sequence[Taken], count: int, values: Sequence[str] = ("2", "3")) -> dict[str, Figure]:
    """The first of the values is the base."""
    over = {"setting": "context.passages", "values": sorted(values)}
    head = head_of("sweep", values, QuestionSet("dev_60", tuple(numbered(count))), over=over)
    return {one.name: one for one in sweep.summarise(written(folder, head, rows))}


def rows(of: Mapping[str, tuple[float, str]], questions: Sequence[Question], **more: Any) -> list[Taken]:
    """By value the seconds and the text of all its answers."""
    return [
        taken(value, question, answer(question.question, seconds, text, **more))
        for value, (seconds, text) in of.items()
        for question in questions
    ]


def test_each_value_has_its_figures_and_the_others_are_paired_with_the_base(tmp_path: Path) -> None:
    of = {"3": (2.0, "Plasmodium [1]."), "2": (1.0, "Worms [1].")}
    figures = swept(tmp_path, rows(of, numbered(40), tokens=Tokens(400, 64, 50)), 40, ("3", "2"))
    assert (figures["total_p50_s@3"].value, figures["total_p50_s@2"].value) == (2.0, 1.0)
    assert (figures["total_ratio@2"].value, figures["total_ratio@2"].n) == (0.5, 40)
    assert "total_ratio@3" not in figures
    assert (figures["key_fact_recall@3"].value, figures["key_fact_recall@2"].value) == (1.0, 0.0)
    assert (figures["key_fact_difference@2"].value, figures["key_fact_difference@2"].met) == (-1.0, False)
    assert (figures["answer_tokens_p90@2"].value, figures["prompt_tokens_p50@2"].value) == (50, 400)
    assert figures["truncated@2"].value == 0.0
    report = (tmp_path / "report.md").read_text()
    assert "| context.passages | 2 | 3 (base) |" in report
    assert "| `key_fact_recall` | 0.000 (0.000 to 0.000) | 1.000 (1.000 to 1.000) |" in report
    assert "no loss of quality" not in report
    assert "`context.passages=2`: 0.000 of the key facts, `context.passages=3` 1.000; -100.0 points" in report


def test_no_loss_of_quality_is_said_where_it_is_shown(tmp_path: Path) -> None:
    of = {"2": (1.0, "Plasmodium [1]."), "3": (2.0, "Plasmodium [1].")}
    assert swept(tmp_path, rows(of, numbered(40)), 40)["key_fact_difference@3"].met
    assert "no loss of quality by more than 10 points is shown" in (tmp_path / "report.md").read_text()


def test_the_report_and_picture_are_the_same_from_the_same_samples(tmp_path: Path) -> None:
    of = {"2": (1.0, "Plasmodium [1]."), "3": (2.0, "Plasmodium [1].")}
    names = ("samples.jsonl", "summary.json", "report.md", "sweep.svg", "sweep.png")
    figures = swept(tmp_path, rows(of, numbered(5)), 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    first = {name: (tmp_path / name).read_bytes() for name in names}
    sweep.summarise(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == first
    assert [one["name"] for one in json.loads(first["summary.json"])["figures"]] == list(figures)
    texts = {text.text for text in ET.parse(tmp_path / "sweep.svg").getroot().iter(f"{SVG}text")}
    assert {"2", "3", "context.passages", "share of key facts in the answers"} <= texts


def test_without_key_facts_there_is_no_picture_and_an_old_one_goes(tmp_path: Path) -> None:
    (tmp_path / "sweep.svg").touch()
    of = {"2": (1.0, "Yes [1]."), "3": (2.0, "Yes [1].")}
    figures = swept(tmp_path, rows(of, numbered(5, key_facts=False)), 5)
    assert "key_fact_recall@2" not in figures
    assert not (tmp_path / "sweep.svg").exists()


def test_what_is_missing_or_failed_is_said(tmp_path: Path) -> None:
    questions = numbered(3)
    some = rows({"2": (1.0, "Plasmodium [1].")}, questions) + rows({"3": (2.0, "Plasmodium [1].")}, questions[:2])
    swept(tmp_path, [*some, taken("3", questions[2], None, error="The engine is busy.")], 3)
    report = (tmp_path / "report.md").read_text()
    assert "**Not all of the 3 questions are answered: `3` 2. The same command goes on.**" in report
    assert "- `q002` with 3 failed: The engine is busy." in report


def test_samples_of_something_else_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No samples in"):
        sweep.summarise(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"No answers with context\.passages=2 in"):
        swept(tmp_path / "empty", rows({"3": (2.0, "Yes [1].")}, numbered(2)), 2)
    other = written(tmp_path / "other", head_of("breakdown", ["v3"]), rows({"v3": (1.0, "Yes.")}, numbered(1)))
    with pytest.raises(UsageError, match="isn't of `rag bench sweep`, but of 'breakdown'"):
        sweep.summarise(other)
