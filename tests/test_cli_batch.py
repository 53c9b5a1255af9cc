"""`rag batch` without an engine: what it refuses, what it says and leaves, and how it goes on. On a pipeline of fakes."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import serving
from conftest import Cli
from evaluating import ANSWERS, MALARIA, SCURVY, Answering

from rag import build, files
from rag.cli import commands
from rag.errors import EngineError, SettingsError
from rag.index import Versions, check_current
from rag.pipeline import Pipeline
from rag.progress import Report
from rag.search import HybridSearcher
from rag.settings import Loaded
from rag.testing import FakeEncoder, FakeGenerator

pytestmark = pytest.mark.usefixtures("home")

QUESTIONS = [{"id": f"q{number}", "question": question} for number, question in enumerate(ANSWERS, start=1)]


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line that says more than what is being done."""
        return [line for line in self.err.splitlines() if line.strip() and not line.endswith("...")][-1]


class Command:
    """`rag batch` in this process, over an index of three documents, with one generator after the other."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.root, self._patch, self._captured = root, monkeypatch, capfd
        self.generators: list[FakeGenerator | Exception] = [Answering()]
        self.loaded: list[Loaded] = []
        """The settings that a pipeline was opened with, each time."""
        monkeypatch.setattr(build, "check_index", lambda *_: check_current(Versions(root, "test")))
        monkeypatch.setattr(build, "open_pipeline", self._open)
        monkeypatch.setattr("rag.evaluate.runner.weights", lambda *_: {})  # else they are built

    @asynccontextmanager
    async def _open(self, loaded: Loaded, report: Report) -> AsyncIterator[Pipeline]:
        report("starting the engine")
        generator = self.generators[min(len(self.loaded), len(self.generators) - 1)]
        self.loaded.append(loaded)
        if isinstance(generator, Exception):
            raise generator
        searcher = HybridSearcher(serving.search(self.root).index, loaded.settings.retrieve)
        pipeline = Pipeline(loaded.settings, loaded.profile, FakeEncoder(), searcher, generator)
        try:
            yield pipeline
        finally:
            pipeline.close()

    def __call__(self, *arguments: str | Path) -> Done:
        self._patch.setattr(sys, "argv", ["rag", "batch", *map(str, arguments)])
        self._captured.readouterr()
        with pytest.raises(SystemExit) as ended:
            commands.main()
        out, err = self._captured.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    serving.write(tmp_path / "indexes")
    return Command(tmp_path / "indexes", monkeypatch, capfd)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return written(tmp_path / "questions.jsonl", QUESTIONS)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "answers.jsonl"


def written(path: Path, lines: Sequence[Mapping[str, Any] | str]) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def asked(generator: FakeGenerator | Exception) -> list[str]:
    assert isinstance(generator, Answering)
    return sorted(generator.questions)


# --- without anything to ask -----------------------------------------------------------------------


def test_help_says_what_is_read_and_written(rag: Cli) -> None:
    done = rag("batch", "--help")
    assert done.returncode == 0
    for part in ("QUESTIONS", "ANSWERS", "--output", "--overwrite", "--sample", "--json", "Goes on where a run"):
        assert part in done.stdout
    assert " batch " in rag("--help").stdout


def test_no_index_yet_is_one_line_and_writes_nothing(rag: Cli, tmp_path: Path) -> None:
    path = written(tmp_path / "questions.jsonl", QUESTIONS)
    done = rag("batch", str(path), "-o", str(tmp_path / "out" / "answers.jsonl"))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = [line for line in done.stderr.splitlines() if not line.endswith("...")]
    assert "No index named 'default' yet" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "holds no question."),
        (["{"], "questions.jsonl:1: no JSON ("),
        ([QUESTIONS[0], {"id": "q2"}], "questions.jsonl:2: question: Field required"),
        ([QUESTIONS[0], QUESTIONS[0]], "questions.jsonl:2: 'q1' is already used on line 1."),
        ([{"question": "Why?", "where": "year >"}], "questions.jsonl:1: The condition 'year >' has the end"),
    ],
)
def test_questions_that_cannot_be_asked_are_one_line_and_write_nothing(
    command: Command, tmp_path: Path, output: Path, lines: list[Any], said: str
) -> None:
    done = command(written(tmp_path / "questions.jsonl", lines), "-o", output)
    assert (done.code, done.out) == (2, "")
    [line] = done.err.splitlines()
    assert line.startswith("rag: ")
    assert said in line
    assert not output.parent.exists()
    assert command.loaded == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "v4"), "Unknown profile 'v4'"),
        (("--set", "batch.lookahaed=3"), "Did you mean 'batch.lookahead'?"),
        (("--set", "batch.lookahead=3"), "lookahead (3) is below search_batch (8)"),
        (("--set", "batch.order=prefix", "--set", "batch.lookahead=0"), "order is prefix, and lookahead is 0"),
        (("--sample", "--index", "other"), "name two indexes"),
    ],
)
def test_settings_that_are_wrong_are_one_line_and_write_nothing(
    command: Command, questions: Path, output: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = command(questions, "-o", output, *arguments)
    assert (done.code, done.out) == (2, "")
    [line] = done.err.splitlines()
    assert said in line
    assert not output.parent.exists()


def test_questions_that_are_not_there_and_a_command_without_an_output(
    command: Command, questions: Path, tmp_path: Path
) -> None:
    done = command(tmp_path / "none.jsonl", "-o", tmp_path / "answers.jsonl")
    assert (done.code, done.last.startswith("rag: Can't read")) == (2, True)
    assert command(questions).code == 2
    assert command.loaded == []


def test_an_engine_that_cannot_be_had_leaves_nothing_behind(command: Command, questions: Path, output: Path) -> None:
    """As of everything else that is found before the first question."""
    command.generators = [SettingsError("generator.quantization=fp8 can't be had.")]
    done = command(questions, "-o", output)
    assert (done.code, done.last) == (2, "rag: generator.quantization=fp8 can't be had.")
    assert list(output.parent.glob("*")) == []


# --- answers ---------------------------------------------------------------------------------------


def test_answers_are_written_in_the_order_of_the_questions_and_a_line_says_where(
    command: Command, questions: Path, output: Path
) -> None:
    done = command(questions, "-o", output)
    assert (done.code, done.out) == (0, "")
    assert done.last.startswith("5 questions in ")
    assert done.last.endswith(f" s: {output}")
    assert "preparing" not in done.last
    assert [(row["id"], row["question"]) for row in rows(output)] == [(one["id"], one["question"]) for one in QUESTIONS]
    first = rows(output)[0]
    assert first["answer"] == ANSWERS[MALARIA.question]
    assert [citation["doc_id"] for citation in first["citations"]] == ["malaria"]
    assert first["timings"]["total"] > 0
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_of_a_text_file_each_line_is_asked(command: Command, tmp_path: Path, output: Path) -> None:
    path = written(tmp_path / "questions.txt", [MALARIA.question, "", f"  {SCURVY.question}"])
    assert command(path, "-o", output).code == 0
    assert [(row["id"], row["answer"]) for row in rows(output)] == [
        ("1", ANSWERS[MALARIA.question]),
        ("3", ANSWERS[SCURVY.question]),
    ]


def test_json_is_one_object_and_nothing_else_on_standard_output(
    command: Command, questions: Path, output: Path
) -> None:
    done = command(questions, "-o", output, "--json")
    assert done.code == 0
    summary = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert summary.pop("seconds") > 0
    assert summary == {"questions": 5, "answered_before": 0, "failed": [], "output": str(output)}
    again = json.loads(command(questions, "-o", output, "--json").out)
    assert again == {"questions": 5, "answered_before": 5, "failed": [], "seconds": 0.0, "output": str(output)}


def test_the_engine_runs_on_the_cores_of_a_batch(command: Command, questions: Path, output: Path) -> None:
    assert command(questions, "-o", output, "--set", "batch.cores=0-1").code == 0
    assert command.loaded[0].settings.generator.cores == "0-1"


@pytest.mark.parametrize(
    ("assignments", "most"),
    [
        (["batch.at_once=2"], 2),
        (["generator.max_num_seqs=3", "batch.at_once=null", "batch.together=1"], 3),
        (["generator.max_num_seqs=1", "batch.at_once=null", "batch.together=2"], 3),
    ],
)
def test_as_many_at_once_as_the_settings_say(
    command: Command, questions: Path, output: Path, assignments: list[str], most: int
) -> None:
    generator = Answering(pause=0.02)
    command.generators = [generator]
    assert command(questions, "-o", output, *(part for one in assignments for part in ("--set", one))).code == 0
    assert generator.most_open == most


# --- once more -------------------------------------------------------------------------------------


def test_a_second_run_answers_nothing_anew(command: Command, questions: Path, output: Path) -> None:
    command(questions, "-o", output)
    before = output.read_bytes()
    done = command(questions, "-o", output)
    assert done.code == 0
    assert done.last == f"0 questions in 0.0 s, 5 were answered before: {output}"
    assert len(command.loaded) == 1, "no pipeline is opened for nothing"
    assert output.read_bytes() == before


def test_questions_that_failed_are_told_by_the_exit_code_and_asked_again(
    command: Command, questions: Path, output: Path
) -> None:
    broken = Answering({**ANSWERS, SCURVY.question: EngineError("The server is busy.")})
    command.generators = [broken, Answering()]
    done = command(questions, "-o", output, "--json")
    assert done.code == 1
    assert json.loads(done.out)["failed"] == [{"id": "q2", "error": "The server is busy."}]
    said = "rag: 1 questions failed, 'q2' the first: The server is busy. The same command asks them again."
    assert done.last == said
    assert [row["id"] for row in rows(output) if "error" in row] == ["q2"]
    assert len(rows(output)) == 5

    again = command(questions, "-o", output)
    assert again.code == 0
    assert again.last.startswith("1 questions in ")
    assert ", 4 were answered before: " in again.last
    assert asked(command.generators[1]) == [SCURVY.question]
    assert ["error" in row for row in rows(output)] == [False] * 5


def test_an_empty_and_an_overlong_question_fail_alone(command: Command, tmp_path: Path, output: Path) -> None:
    lines = [{"question": ""}, *QUESTIONS, {"question": "why " * 1000}]
    done = command(written(tmp_path / "questions.jsonl", lines), "-o", output, "--json")
    assert (done.code, [one["id"] for one in json.loads(done.out)["failed"]]) == (1, ["1", "7"])
    assert "2 questions failed, '1' the first: The question is empty." in done.last
    assert [row["id"] for row in rows(output) if "error" not in row] == ["q1", "q2", "q3", "q4", "q5"]


def test_an_engine_that_dies_ends_the_run_and_the_next_one_goes_on(
    command: Command, questions: Path, output: Path
) -> None:
    order = [one["question"] for one in QUESTIONS]
    command.generators = [Answering(dies_at=order[3]), Answering()]
    done = command(questions, "-o", output, "--set", "batch.at_once=1")
    assert done.code == 1
    assert done.last.startswith("rag: The engine died.")
    assert "vLLM's log:" in done.last
    assert not output.exists()
    assert command(questions, "-o", output, "--set", "batch.at_once=1").code == 0
    assert asked(command.generators[1]) == sorted(order[3:])
    assert [row["id"] for row in rows(output)] == ["q1", "q2", "q3", "q4", "q5"]


@pytest.mark.parametrize("argument", ["context.passages=1", "generator.max_tokens=9"])
def test_answers_by_other_settings_are_refused_unless_they_may_be_overwritten(
    command: Command, questions: Path, output: Path, argument: str
) -> None:
    command(questions, "-o", output)
    before = output.read_bytes()
    done = command(questions, "-o", output, "--set", argument)
    assert (done.code, done.out) == (2, "")
    assert done.last.startswith(f"rag: {output}:1 holds something else than an answer")
    assert "--overwrite" in done.last
    assert output.read_bytes() == before
    assert command(questions, "-o", output, "--set", argument, "--overwrite").code == 0
    assert len(rows(output)) == 5
    assert output.read_bytes() != before


@pytest.mark.parametrize(
    "argument",
    [
        "batch.at_once=1",
        "batch.lookahead=0",
        "batch.lookahead=8",
        "batch.lookahead=8 batch.order=prefix",
        "chat.turns=2",
        "generator.kv_cache_mb=128",
        "generator.max_num_seqs=4",
        "generator.read_timeout_s=300",
    ],
)
def test_how_they_are_asked_makes_no_other_answers_of_them(
    command: Command, questions: Path, output: Path, argument: str
) -> None:
    """Who goes on more slowly, since the memory was short, keeps what there is."""
    command(questions, "-o", output)
    assignments = [part for one in argument.split() for part in ("--set", one)]
    assert command(questions, "-o", output, *assignments).code == 0
    assert len(command.loaded) == 1


# --- where the answers go --------------------------------------------------------------------------


def the_questions(questions: Path) -> Path:
    return questions


def the_same_by_another_name(questions: Path) -> Path:
    (questions.parent / "link.jsonl").symlink_to(questions)
    return questions.parent / "link.jsonl"


def test_nor_by_the_file_that_answers_are_added_to(command: Command, tmp_path: Path) -> None:
    questions = tmp_path / "answers.jsonl.part"
    questions.write_text("What causes gout?")
    done = command(questions, "-o", tmp_path / "answers.jsonl", "--overwrite")
    assert (done.code, questions.read_text(), command.loaded) == (2, "What causes gout?", [])
    assert done.last == (
        f"rag: --output {tmp_path / 'answers.jsonl'} would replace the file of the questions: name another one."
    )


def test_a_name_that_no_disk_takes_is_one_line(command: Command, questions: Path, tmp_path: Path) -> None:
    done = command(questions, "-o", tmp_path / ("a" * 300))
    assert (done.code, "File name too long" in done.last, command.loaded) == (1, True, [])


def test_an_index_of_the_same_documents_in_other_passages_is_another_one(
    command: Command, questions: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version may have the same number, where the first one was removed."""
    assert command(questions, "-o", output).code == 0
    checked = build.check_index(serving.LOADED)
    assert "max_chars" in checked.manifest.chunking
    manifest = replace(checked.manifest, chunking={**checked.manifest.chunking, "max_chars": 77})
    monkeypatch.setattr(build, "check_index", lambda *_: replace(checked, manifest=manifest))
    done = command(questions, "-o", output)
    assert (done.code, "another file" in done.last) == (2, True)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["", "overwrite"])
@pytest.mark.parametrize("place", [the_questions, the_same_by_another_name])
def test_the_questions_are_never_overwritten_by_their_answers(
    command: Command, tmp_path: Path, place: Callable[[Path], Path], overwrite: list[str]
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps(QUESTIONS[0]))
    output = place(questions)
    done = command(questions, "-o", output, *overwrite)
    assert questions.read_text() == json.dumps(QUESTIONS[0])
    assert output.samefile(questions)
    assert (done.code, done.last.startswith("rag: ")) == (2, True)
    assert command.loaded == []


def test_a_folder_in_the_place_of_a_file_is_one_line_before_anything_is_asked(
    command: Command, questions: Path, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    done = command(questions, "-o", tmp_path / "results")
    assert done.code in (1, 2)
    assert done.last.startswith("rag: ")
    assert command.loaded == []
    assert not (tmp_path / "results.part").exists()


def test_of_two_runs_into_one_file_the_second_is_one_line_and_loses_nothing(
    command: Command, questions: Path, output: Path
) -> None:
    with files.only_writer(output):
        done = command(questions, "-o", output)
    assert done.code == 1
    assert done.last == f"rag: Another process is writing {output}. Wait until it ends, or name another one."
    assert command.loaded == []
    assert command(questions, "-o", output).code == 0
    assert [path.name for path in output.parent.iterdir()] == [output.name]
