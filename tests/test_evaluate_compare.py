"""Two runs compared: the figures by hand, what may be said of a loss, and runs that can't be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from evaluating import MALARIA, RABIES, plan_of
from test_evaluate_scores import DECLINED, answer, cited, sample

from rag import stats
from rag.bench import results
from rag.core import Answer
from rag.errors import UsageError
from rag.evaluate import Comparison, Difference, Question, QuestionSet, compare, samples
from rag.evaluate.samples import Found
from rag.stats import paired_bootstrap, permutation_test, power

ANSWERABLE = [replace(MALARIA, id=f"m{number:02}") for number in range(40)]
UNANSWERABLE = [replace(RABIES, id=f"r{number:02}") for number in range(4)]
ALL = QuestionSet("many", (*ANSWERABLE, *UNANSWERABLE))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples: how good they are is tested with `rag.stats`."""
    monkeypatch.setattr(stats, "RESAMPLES", 1000)


Answers = Callable[[Question, int], Answer | None]


def run(
    folder: Path, answers: Answers, questions: QuestionSet = ALL, asked: int | None = None, **settings: object
) -> Path:
    """A run in which the question at a place was answered so."""
    store = results.Samples(folder)
    store.start(plan_of(questions, **settings).head)
    for place, question in list(enumerate(questions.questions))[:asked]:
        store.add(samples.row(sample(question, answers(question, place), Found(("malaria",), None))))
    return folder


def right(question: Question, place: int) -> Answer:
    del place
    return answer("Plasmodium parasites [1].", *cited("malaria")) if question.answerable else DECLINED


def wrong_at(*places: int) -> Answers:
    return lambda question, place: answer("Lemons.") if place in places else right(question, place)


def by_name(found: Comparison) -> dict[str, Difference]:
    return {one.name: one for one in found.differences}


# --- differences -------------------------------------------------------------------------------------


def judged(folder: Path, judge: str, verdicts: dict[str, str]) -> Path:
    answers = dict(sample.judged for sample in samples.read(folder)[1])
    store = results.Samples(folder, samples.VERDICTS)
    store.start(
        {"bench": "judge", "versions": {"rag": folder.name}, "settings": {"model": judge}}
    )  # whenever it was asked
    for name, verdict in verdicts.items():
        store.add({"id": name, "answer": answers[name], "verdict": verdict, "said": verdict})
    return folder


def test_verdicts_count_where_one_judge_has_seen_both_answers(tmp_path: Path) -> None:
    ids = [question.id for question in ANSWERABLE]
    half = {name: "no" if place % 2 else "yes" for place, name in enumerate(ids)}
    first = judged(run(tmp_path / "a", right), "strict", half)
    few = judged(run(tmp_path / "b", right), "strict", dict.fromkeys(ids[:4], "yes"))
    found = by_name(compare(first, few))["judged_right"]
    assert (found.before, found.after, found.n, found.not_worse) == (0.5, 1.0, 4, False)
    other = judged(run(tmp_path / "c", right), "lenient", dict.fromkeys(ids, "yes"))
    by_another = compare(first, other)
    assert "judged_right" not in by_name(by_another)
    assert ("settings.model", "strict", "lenient") in by_another.changed


def test_a_difference_is_that_of_the_second_run_to_the_first_with_paired_tests(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", wrong_at(0, 1)), run(tmp_path / "b", wrong_at(1, 2, 3, 4, 5, 6, 7))
    found = by_name(compare(first, second))["key_fact_recall"]
    assert (found.before, found.after, found.n) == (38 / 40, 33 / 40, 40)
    assert found.difference == pytest.approx(-5 / 40)
    before, after = np.ones(40), np.ones(40)
    before[[0, 1]], after[1:8] = 0, 0
    expected = paired_bootstrap(before, after)
    assert (found.lo, found.hi) == pytest.approx((expected.lo, expected.hi))
    assert found.p == pytest.approx(permutation_test(before, after))
    assert found.power == pytest.approx(power(expected, 0.10))
    assert found.not_worse is False


def test_each_metric_is_compared_over_all_questions_and_by_type(tmp_path: Path) -> None:
    found = by_name(compare(run(tmp_path / "a", right), run(tmp_path / "b", wrong_at(0, 41))))
    assert {"recall_at_1", "token_f1", "citation_precision", "abstention_recall", "total_s"} <= set(found)
    assert (found["key_fact_recall_simple"].type, found["key_fact_recall_simple"].n) == ("simple", 40)
    assert found["key_fact_recall"].type is None
    assert (found["abstained_unanswerable"].before, found["abstained_unanswerable"].after) == (1.0, 0.75)
    assert (found["abstention_precision"].before, found["abstention_precision"].after) == (1.0, 1.0)
    assert "judged_right" not in found
    assert "fused_mrr" not in found


def test_shares_of_sentences_are_compared_over_all_of_them(tmp_path: Path) -> None:
    def long_at_0(question: Question, place: int) -> Answer | None:
        return answer("So [1]. No. No. No.", *cited("malaria")) if place == 0 else right(question, place)

    found = by_name(compare(run(tmp_path / "a", right), run(tmp_path / "b", long_at_0)))["cited_sentences"]
    assert (found.before, found.after) == (1.0, 40 / 43)


# --- what may be said --------------------------------------------------------------------------------


def test_equal_runs_of_enough_questions_show_that_nothing_was_lost(tmp_path: Path) -> None:
    found = compare(run(tmp_path / "a", right), run(tmp_path / "b", right))
    assert {"key_fact_recall", "citation_precision", "recall_at_1"} <= set(found.shown(True))
    of = by_name(found)
    assert (of["key_fact_recall"].not_worse, of["key_fact_recall"].power, of["key_fact_recall"].p) == (True, 1.0, 1.0)
    assert found.changed == ()


def test_equal_runs_of_few_questions_do_not(tmp_path: Path) -> None:
    few = QuestionSet("few", tuple(ANSWERABLE[:30]))
    found = compare(run(tmp_path / "a", right, few), run(tmp_path / "b", right, few))
    assert found.shown(True) == []
    assert "key_fact_recall" in found.shown(False)
    assert by_name(found)["key_fact_recall"].power == 0.0
    abstention = compare(run(tmp_path / "c", right), run(tmp_path / "d", right))
    assert "abstention_recall" in abstention.shown(False), "four questions tell little"


def test_a_loss_within_a_wider_margin_is_none(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", right), run(tmp_path / "b", wrong_at(*range(4)))
    assert by_name(compare(first, second))["key_fact_recall"].not_worse is False
    assert by_name(compare(first, second, margin=0.25))["key_fact_recall"].not_worse is True


def test_nothing_is_said_of_what_has_no_more_to_lose_than_the_margin_or_is_no_quality(tmp_path: Path) -> None:
    """Two of forty right: losing both is no more than the margin, and still everything."""
    first, second = run(tmp_path / "a", wrong_at(*range(38))), run(tmp_path / "b", wrong_at(*range(40)))
    found = by_name(compare(first, second))
    assert (found["key_fact_recall"].not_worse, found["key_fact_recall"].power) == (None, None)
    assert (found["total_s"].not_worse, found["answer_tokens"].power) == (None, None)
    assert "key_fact_recall" not in compare(first, second).shown(True)


# --- which runs can be compared ----------------------------------------------------------------------


def refused(first: Path, second: Path) -> str:
    with pytest.raises(UsageError) as caught:
        compare(first, second)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_runs_of_other_questions_are_refused(tmp_path: Path) -> None:
    others = QuestionSet("others", tuple(ANSWERABLE))
    line = refused(run(tmp_path / "a", right), run(tmp_path / "b", right, others))
    assert line == (
        f"{tmp_path / 'a'} asked the 44 questions of 'many', {tmp_path / 'b'} the 40 of 'others', which aren't the same. "
        "Only runs over the same questions can be compared."
    )


def test_runs_of_other_parts_of_a_set_are_refused(tmp_path: Path) -> None:
    line = refused(run(tmp_path / "a", right), run(tmp_path / "b", right, asked=12))
    assert "has 44 of the 44 questions" in line
    assert "12, and 'm12' is in one of them alone. Finish both, or run both with the same --limit." in line


def test_a_run_with_failures_is_refused(tmp_path: Path) -> None:
    def failing(question: Question, place: int) -> Answer | None:
        return None if place == 3 else right(question, place)

    assert "1 questions failed in" in refused(run(tmp_path / "a", right), run(tmp_path / "b", failing))
    assert "'m03' the first" in refused(run(tmp_path / "a", failing), run(tmp_path / "b", right))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    results.Samples(tmp_path / "b").start(results.header("start", "rag bench start"))
    assert "isn't of `rag eval`" in refused(run(tmp_path / "a", right), tmp_path / "b")
    assert "No samples in" in refused(run(tmp_path / "a", right), tmp_path / "c")


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Sequence[str]:
    first = run(tmp_path / "a", right, pipeline={"context": {"passages": 2}})
    return str(first), str(run(tmp_path / "b", wrong_at(0, 1), pipeline={"context": {"passages": 3}}))


@pytest.mark.usefixtures("home")
def test_the_command_tells_what_changed_and_what_may_be_said(rag: Cli, two: Sequence[str]) -> None:
    done = rag("eval", "compare", *two)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "settings.pipeline.context.passages: 2 -> 3"
    [row] = [line for line in lines if line.startswith("key_fact_recall ")]
    assert row.split()[1:4] == ["1.000", "0.950", "-0.050"]
    assert "not shown (" in row
    [shown] = [line for line in lines if line.startswith("No loss of quality by more than 0.1 is shown for: ")]
    assert "key_fact_recall" not in shown
    assert "recall_at_1" in shown


@pytest.mark.usefixtures("home")
def test_the_command_prints_json_alone(rag: Cli, two: Sequence[str]) -> None:
    done = rag("eval", "compare", *two, "--json", "--margin", "0.2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["margin"], found["questions"]) == (0.2, 44)
    assert found["changed"] == [["settings.pipeline.context.passages", 2, 3]]
    of = {one["name"]: one for one in found["differences"]}
    assert (of["key_fact_recall"]["not_worse"], of["total_s"]["not_worse"]) == (True, None)


@pytest.mark.usefixtures("home")
def test_the_command_refuses_in_one_line(rag: Cli, two: Sequence[str], tmp_path: Path) -> None:
    done = rag("eval", "compare", two[0], str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert [line for line in done.stderr.splitlines() if not line.endswith("...")] == [
        f"rag: No samples in {tmp_path / 'none' / 'samples.jsonl'}: nothing was measured there. "
        "Measure first, without --report-only."
    ]
