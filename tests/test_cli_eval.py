"""`rag eval` without an engine: what it refuses, and reports of samples that are there. The real one: test_whole_path."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import serving
from conftest import Cli
from evaluating import ANSWERS, SCURVY, Answering, take
from tiny_server import Play, event

from rag.cli.eval import app
from rag.errors import EngineError

pytestmark = pytest.mark.usefixtures("home")

RECORD = {
    "id": "q1",
    "question": "What causes gout?",
    "type": "simple",
    "answer": "Urate.",
    "gold_doc_ids": ["gout"],
    "key_facts": [["urate"]],
}


def refused(run: Cli, *arguments: str, code: int = 2) -> str:
    """The one line that it says, apart from what it is doing."""
    done = run("eval", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    [line] = [line for line in done.stderr.splitlines() if not line.endswith("...")]
    return line


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "holds no question"),
        (["{"], "set.jsonl:1: Invalid JSON"),
        ([RECORD, RECORD], "set.jsonl:2: 'q1' is already used in "),
        ([RECORD | {"type": "hard"}], "set.jsonl:1: type: Input should be 'simple', 'synthesis' or 'unanswerable'"),
    ],
)
def test_a_set_that_cannot_be_asked(rag: Cli, tmp_path: Path, records: list[object], said: str) -> None:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in records)
    (tmp_path / "set.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert said in refused(rag, str(tmp_path / "set.jsonl"), "-o", str(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl: no such file or folder"),
        (("--sample", "--index", "other"), "name two indexes"),
        (("--profile", "v4"), "Unknown profile 'v4'"),
        (("--judge-url", "http://127.0.0.1:1/v1"), "A judge needs both --judge-url"),
        (("--judge-model", "m"), "A judge needs both --judge-url"),
        (("--judge-url", "ftp://host", "--judge-model", "m"), "--judge-url: it should be like http://HOST:PORT/v1"),
        (
            ("--judge-url", "http://h/v1", "--judge-model", "m", "--judge-key-env", "sk-abc"),
            "--judge-key-env: String should match pattern",
        ),
        (("--judge-url", "http://h/v1", "--judge-model", "m", "--report-only"), "--report-only asks nobody"),
        (("--report-only", "--output", "nowhere"), "No samples in nowhere/samples.jsonl"),
    ],
)
def test_what_is_refused_before_anything_is_opened(rag: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(rag, *arguments)


def test_a_set_over_an_index_that_is_not_there(rag: Cli, tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text(json.dumps(RECORD) + "\n")
    assert "No index named 'default' yet" in refused(rag, str(tmp_path / "set.jsonl"), code=1)


def test_a_report_of_samples_that_are_there(rag: Cli, tmp_path: Path) -> None:
    serving.write(tmp_path / "indexes")
    asyncio.run(take(tmp_path / "indexes", tmp_path / "results"))
    done = rag("eval", "--report-only", "--output", str(tmp_path / "results"))
    assert done.returncode == 0, done.stderr
    assert "abstention_recall               0.500 share" in done.stdout
    as_json = rag("eval", "run", "--report-only", "--output", str(tmp_path / "results"), "--json")
    assert {one["name"]: one["value"] for one in json.loads(as_json.stdout)}["abstention_recall"] == 0.5


def test_questions_that_failed_are_told_after_the_figures_and_by_the_exit_code(cli: Cli, tmp_path: Path) -> None:
    serving.write(tmp_path / "indexes")
    broken = Answering({**ANSWERS, SCURVY.question: EngineError("The server is busy.")})
    asyncio.run(take(tmp_path / "indexes", tmp_path / "results", broken))
    done = cli("eval", "--report-only", "--output", str(tmp_path / "results"), "--json")
    assert done.returncode == 1
    assert "recall_at_10" in {one["name"] for one in json.loads(done.stdout)}
    last = done.stderr.splitlines()[-1]
    assert last == "rag: 1 questions failed, 'q2' the first: The server is busy. The same command asks them again."


def test_answers_are_judged_by_the_server_that_was_named(
    rag: Cli, in_real_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del in_real_home
    monkeypatch.setenv("JUDGE_KEY", "a-key")
    asked = {**RECORD, "question": "What causes malaria?", "gold_doc_ids": ["malaria"], "key_facts": [["disease"]]}
    (tmp_path / "set.jsonl").write_text(json.dumps(asked) + "\n")
    with Play().running() as server, Play().running() as judge:
        judge.scripts = [judge.says(event("Yes."), event("", finish="stop"))]
        told = ("--judge-url", judge.url, "--judge-model", "served", "--judge-key-env", "JUDGE_KEY")
        generator = (f"base_url={server.url}", "model=other", "tokenizer=smollm2-grounded")
        settings = ("verify.model=null", "verify.action=mark", *(f"generator.{one}" for one in generator))
        command = ("eval", str(tmp_path / "set.jsonl"), "--sample", "-o", str(tmp_path / "results"), "--json", *told)
        done = rag(*command, *(f"--set={one}" for one in settings))
    assert done.returncode == 0, done.stderr
    figures = {one["name"]: one for one in json.loads(done.stdout)}
    assert (figures["judged_right"]["value"], figures["judged_right"]["n"]) == (1.0, 1)
    [(body, headers)] = judge.asked
    assert "Answer: Malaria is a disease." in body["messages"][-1]["content"]
    assert headers["authorization"] == "Bearer a-key"


def test_help_is_of_the_evaluation_and_names_the_comparison(rag: Cli) -> None:
    done = rag("eval", "--help")
    assert done.returncode == 0
    assert "QUESTIONS" in done.stdout
    assert "--one-by-one" in done.stdout
    assert "rag eval compare RUN RUN" in done.stdout
    assert {command.callback.__name__ for command in app.registered_commands if command.callback} == {"run", "compare"}
