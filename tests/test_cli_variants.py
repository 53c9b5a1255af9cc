"""`rag bench breakdown`, `sweep`, `cache` and `batch` without an engine: what they refuse, and reports of samples that are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from beside import answer, head_of, numbered, taken, written
from conftest import Cli
from test_cli_eval import RECORD
from test_variants_batching import runs
from test_variants_batching import summarised as summarised_batch
from test_variants_caching import HITS, PAIRS, TRACED
from test_variants_caching import summarised as summarised_cache

from rag.evaluate import QuestionSet

pytestmark = pytest.mark.usefixtures("home")


def refused(run: Cli, *arguments: str, code: int = 2) -> str:
    """The one line that it says, apart from what it is doing."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    [line] = [line for line in done.stderr.splitlines() if not line.endswith("...")]
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("breakdown", "nowhere.jsonl"), "nowhere.jsonl: no such file or folder"),
        (("breakdown", "--variants", "v3,v4"), "Unknown profile 'v4'. Did you mean 'v3'?"),
        (("breakdown", "--set", "context.pasages=3"), "Unknown setting 'context.pasages'"),
        (("breakdown", "--sample", "--index", "other"), "name two indexes"),
        (("breakdown", "--report-only", "--output", "nowhere"), "No samples in nowhere/samples.jsonl"),
        (("sweep",), "Name a setting and its values, e.g. --over context.passages=3,5,10,15."),
        (("sweep", "--over", "context.passages=3"), "two values at least"),
        (("sweep", "--over", "context.pasages=3,5"), "Unknown setting 'context.pasages' (from --set). Did you mean"),
        (("sweep", "--over", "context.passages=3,0"), "context.passages=0 (from --set): input should be greater"),
        (("sweep", "--over", "chunk.max_chars=500,900"), "all values would answer alike"),
        (("sweep", "--over", "context.passages=3,5", "nowhere.jsonl"), "nowhere.jsonl: no such file or folder"),
        (
            ("sweep", "--over", "context.passages=3,5", "--report-only", "-o", "nowhere"),
            "No samples in nowhere/samples",
        ),
        (("cache", "--datasets", "nowhere"), "cache.model is null: there is nothing to measure."),
        (("cache", "--datasets", "nowhere", "--set", "cache.model=any"), "No datasets in nowhere."),
        (("cache", "--set", "cache.max_entris=3"), "Unknown setting 'cache.max_entris'"),
        (("cache", "--report-only", "--output", "nowhere"), "No samples in nowhere/samples.jsonl"),
        (("batch", "nowhere.jsonl"), "nowhere.jsonl: no such file or folder"),
        (("batch", "--set", "batch.lookahead=4"), "lookahead (4) is below search_batch (8)"),
        (("batch", "--sample", "--index", "other"), "name two indexes"),
        (("batch", "--report-only", "--output", "nowhere"), "No samples in nowhere/samples.jsonl"),
    ],
)
def test_what_is_refused_before_anything_is_opened(rag: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(rag, "bench", *arguments)


def test_profiles_are_named_in_one_way(cli: Cli) -> None:
    assert "name them with --variants" in refused(cli, "--profile", "v3", "bench", "breakdown")


@pytest.mark.parametrize("command", [("breakdown",), ("sweep", "--over", "context.passages=3,5"), ("batch",)])
def test_an_empty_set_or_one_over_an_index_that_is_not_there(
    rag: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "set.jsonl").write_text("")
    asked = ("bench", *command, str(tmp_path / "set.jsonl"), "-o", str(tmp_path / "results"))
    assert "holds no question" in refused(rag, *asked)
    (tmp_path / "set.jsonl").write_text(json.dumps(RECORD) + "\n")
    assert "No index named 'default' yet" in refused(rag, *asked, code=1)
    assert not (tmp_path / "results").exists()


def test_a_server_in_place_of_the_engine_is_refused(rag: Cli, tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text(json.dumps(RECORD) + "\n")
    served = ("--set", "generator.base_url=http://127.0.0.1:1/v1", str(tmp_path / "set.jsonl"))
    assert "starts an engine of its own" in refused(rag, "bench", "breakdown", *served)
    assert "starts an engine of its own" in refused(rag, "bench", "sweep", "--over", "context.passages=2,3", *served)


def test_a_breakdown_of_samples_that_are_there_is_shown_with_bars(rag: Cli, tmp_path: Path) -> None:
    questions = numbered(2)
    samples = [
        taken(name, question, answer(question.question, seconds))
        for name, seconds in (("v3", 4.0), ("v3_again", 4.0), ("v3_1", 2.0))
        for question in questions
    ]
    head = head_of("breakdown", ("v3", "v3_again", "v3_1"), QuestionSet("qa_120", tuple(questions)))
    folder = str(written(tmp_path, head, samples))
    done = rag("bench", "breakdown", "--report-only", "--output", folder)
    assert done.returncode == 0, done.stderr
    assert "v3_1_over_v3_total              0.500 ratio  [0.500, 0.500]  n=2  goal <= 0.7: met" in done.stdout
    assert "v3.generate.p50_ms" not in done.stdout
    first, second, legend = done.stdout.splitlines()[-3:]
    assert first.startswith("v3   █")
    assert first.endswith(" 4.00 s")
    assert second.endswith(" 2.00 s")
    assert "prefill" in legend
    as_json = rag("bench", "breakdown", "--report-only", "--output", folder, "--json")
    assert {"v3_1_over_v3_total", "v3.generate.p50_ms"} <= {one["name"] for one in json.loads(as_json.stdout)}


def test_a_sweep_of_samples_that_are_there_is_shown_by_value(rag: Cli, tmp_path: Path) -> None:
    questions = numbered(2)
    samples = [
        taken(value, question, answer(question.question, seconds))
        for value, seconds in (("2", 4.0), ("3", 2.0))
        for question in questions
    ]
    over = {"setting": "context.passages", "values": ["2", "3"]}
    head = head_of("sweep", ("2", "3"), QuestionSet("dev_60", tuple(questions)), over=over)
    folder = str(written(tmp_path, head, samples))
    done = rag("bench", "sweep", "--over", "context.passages=2,3", "--report-only", "--output", folder)
    assert done.returncode == 0, done.stderr
    values, total, ratio, *_ = done.stdout.splitlines()
    assert values.split() == ["2", "3"]
    assert total.split() == ["total_p50_s", "4.000", "[4.000,", "4.000]", "2.000", "[2.000,", "2.000]"]
    assert ratio.split() == ["total_ratio", "0.500", "[0.500,", "0.500]"]


def test_a_cache_s_and_a_batch_s_samples_that_are_there_are_shown(rag: Cli, tmp_path: Path) -> None:
    cached, batch = (str(tmp_path / name) for name in ("cached", "batch"))
    summarised_cache(tmp_path / "cached", [*PAIRS, *HITS, *TRACED])
    summarised_batch(tmp_path / "batch", runs())
    done = rag("bench", "cache", "--report-only", "--output", cached)
    assert done.returncode == 0, done.stderr
    assert "skewed_trace_gain               1.600 ratio" in done.stdout
    done = rag("bench", "batch", "--report-only", "--output", batch, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "batch" / "summary.json").read_text())["figures"]
