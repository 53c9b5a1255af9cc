"""An evaluation as it runs: what is asked and kept, interruptions, failures, and what it refuses to mix. On fakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import serving
from evaluating import ANSWERS, BOTH, MALARIA, MUMPS, SCURVY, SET, Answering, Opened, plan_of, take

from rag import evaluate, settings
from rag.bench import results
from rag.core import Hit, Passage, Trace
from rag.errors import EngineDied, EngineError, StorageError, UsageError
from rag.evaluate import QuestionSet, runner, samples
from rag.progress import quiet
from rag.questions import Question

IDS = ["q1", "q2", "q3", "q4", "q5"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Holds the index."""
    serving.write(tmp_path / "indexes")
    return tmp_path / "indexes"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


def lines(folder: Path) -> list[str]:
    """Of the samples, without the header."""
    path = folder / "samples.jsonl"
    return path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else []


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in lines(folder)]
    assert len({row["id"] for row in found}) == len(found), "an id stands there twice"
    return {row["id"]: row for row in found}


# --- what is asked and kept --------------------------------------------------------------------------


async def test_a_sample_holds_all_that_was_found_answered_and_timed(root: Path, folder: Path) -> None:
    await take(root, folder)
    row = rows(folder)["q3"]
    assert row["question"] == {
        "id": "q3",
        "question": BOTH.question,
        "type": "synthesis",
        "answer": BOTH.answer,
        "gold": {"gout": 1, "scurvy": 1},
        "key_facts": [["urate"], ["vitamin C"]],
    }
    assert sorted(row["found"]["fused"]) == sorted(row["found"]["reranked"]) == ["gout", "malaria", "scurvy"]
    answer = row["answer"]
    assert answer["answer"] == "Gout is caused by crystals of urate [1]. Joints swell."
    assert [one["support"] for one in answer["sentences"]] == ["supported", "supported"]
    assert [(one["doc_id"], one["origin"]) for one in answer["citations"]] == [("gout", "model")]
    assert 0 < answer["confidence"] < 1
    assert answer["timings"]["total"] > 0
    assert answer["tokens"]["output"] == 1
    assert answer["engine"]["techniques"] == {}
    assert (row["error"], row["run"], row["at"] > 0) == (None, 1, True)
    assert "verdict" not in row


async def test_the_fused_order_is_that_of_a_search_without_a_reranker(root: Path, folder: Path) -> None:
    await take(root, folder)
    for question in SET.questions:
        [fused] = serving.search(root).search([question.question], Trace())
        assert rows(folder)[question.id]["found"]["fused"] == [hit.passage.doc_id for hit in fused]


def test_both_orders_are_taken_from_the_hits_of_one_search() -> None:
    def hit(document: str, fused_rank: int | None, rerank: float | None) -> Hit:
        return Hit(Passage(f"{document}#0", document, "", "", 0, 0), 0.5, rerank=rerank, fused_rank=fused_rank)

    reranked = (hit("b", 3, 0.9), hit("a", 1, 0.5), hit("b", 2, 0.1))
    assert samples.found(reranked) == samples.Found(("a", "b", "b"), ("b", "a", "b"))
    fused = (hit("a", 1, None), hit("b", 2, None))
    assert samples.found(fused) == samples.Found(("a", "b"), None)
    assert samples.found(fused).order == ("a", "b")
    assert samples.found(()) == samples.Found((), None)


async def test_samples_come_back_as_they_were_taken(root: Path, folder: Path) -> None:
    await take(root, folder)
    head, taken = samples.read(folder)
    assert head["bench"] == "eval"
    assert [sample.id for sample in taken] == IDS
    assert taken[0].question == MALARIA
    assert {sample.id: json.loads(json.dumps(samples.row(sample))) for sample in taken} == rows(folder)


@pytest.mark.parametrize("at_once", [1, 3])
async def test_as_many_at_a_time_as_planned(root: Path, folder: Path, at_once: int) -> None:
    generator = Answering(pause=0.01)
    await take(root, folder, generator, at_once=at_once)
    assert generator.most_open == at_once
    assert sorted(rows(folder)) == IDS


async def test_several_at_a_time_find_and_answer_the_same_as_one_by_one_which_are_timed_stage_by_stage(
    root: Path, folder: Path, tmp_path: Path
) -> None:
    """Several are searched before they are asked. One by one they aren't: its time would say less than the question took."""
    await take(root, folder, at_once=1)
    await take(root, tmp_path / "several", at_once=3)
    single, several = rows(folder), rows(tmp_path / "several")
    for name in IDS:
        assert several[name]["found"] == single[name]["found"]
        for part in ("answer", "citations", "sentences", "confidence", "abstained"):
            assert several[name]["answer"][part] == single[name]["answer"][part]
        assert single[name]["answer"]["timings"]["retrieve"] > 0
        assert single[name]["answer"]["timings"]["rerank"] > 0


async def test_the_limit_takes_of_each_type_its_share_and_a_higher_one_goes_on(root: Path, folder: Path) -> None:
    await take(root, folder, limit=3)
    first = lines(folder)
    kinds = [row["question"]["type"] for row in rows(folder).values()]
    assert sorted(kinds) == ["simple", "synthesis", "unanswerable"]
    opened = await take(root, folder)
    assert lines(folder)[:3] == first
    assert len(opened.generators[0].asked) == 2
    assert sorted(rows(folder)) == IDS


async def test_a_whole_run_opens_no_pipeline_again(root: Path, folder: Path) -> None:
    await take(root, folder)
    before = (folder / "samples.jsonl").read_bytes()
    assert (await take(root, folder)).count == 0
    assert (folder / "samples.jsonl").read_bytes() == before


# --- interrupted -------------------------------------------------------------------------------------


def test_killed_twice_it_ends_as_if_it_had_not_been(root: Path, folder: Path, tmp_path: Path) -> None:
    def run(pause: float, kill_at: int | None, target: Path) -> None:
        """To the end, or until `kill_at` samples are there."""
        process = subprocess.Popen([sys.executable, evaluating_script(), str(root), str(target), str(pause)])
        end = time.monotonic() + 240
        while process.poll() is None and (kill_at is None or len(lines(target)) < kill_at):
            assert time.monotonic() < end, "it took too long"
            time.sleep(0.01)
        killed = process.poll() is None
        process.kill()
        process.wait()
        assert killed == (kill_at is not None)

    run(1.0, 1, folder)
    first = lines(folder)
    assert 0 < len(first) < 5
    run(1.0, len(first) + 1, folder)
    second = lines(folder)
    assert second[: len(first)] == first
    assert len(first) < len(second) < 5
    run(0.0, None, folder)
    assert lines(folder)[: len(second)] == second
    assert sorted(rows(folder)) == IDS
    assert {row["run"] for row in rows(folder).values()} == {1, 2, 3}

    run(0.0, None, tmp_path / "whole")
    of_time = ("total_", "ttft_", "minutes")
    whole, pieces = (
        [one for one in evaluate.summarise(target) if not one.name.startswith(of_time)]
        for target in (tmp_path / "whole", folder)
    )
    assert pieces == whole
    assert len(whole) > 40


def evaluating_script() -> str:
    return os.path.join(os.path.dirname(__file__), "evaluating.py")  # noqa: PTH118, PTH120


async def test_a_last_line_that_was_cut_off_is_asked_again_and_the_others_stay(root: Path, folder: Path) -> None:
    await take(root, folder)
    path = folder / "samples.jsonl"
    whole = lines(folder)
    path.write_bytes(path.read_bytes()[:-40])
    opened = await take(root, folder)
    assert lines(folder)[:4] == whole[:4]
    assert len(opened.generators[0].asked) == 1
    assert sorted(rows(folder)) == IDS


async def test_an_engine_that_dies_ends_the_run_and_what_is_done_stays(root: Path, folder: Path) -> None:
    order = [question.question for question in SET.first(None)]
    with pytest.raises(EngineDied, match="The engine died"):
        await take(root, folder, Answering(dies_at=order[3]))
    assert len(rows(folder)) == 3
    before = lines(folder)
    opened = await take(root, folder)
    assert [messages[-1]["content"].rpartition("Question: ")[2] for messages, _ in opened.generators[0].asked] == order[
        3:
    ]
    assert lines(folder)[:3] == before


async def test_an_engine_that_is_lost_ends_the_run_whatever_error_tells_it(root: Path, folder: Path) -> None:
    generator = Answering({**ANSWERS, SCURVY.question: ConnectionResetError("gone")})
    generator.alive = False
    with pytest.raises(ConnectionResetError):
        await take(root, folder, generator)
    assert "q2" not in rows(folder)


# --- failures ----------------------------------------------------------------------------------------


async def test_a_question_that_fails_is_kept_with_its_error_and_asked_again_by_the_next_run(
    root: Path, folder: Path
) -> None:
    broken = {SCURVY.question: EngineError("The server is busy."), MUMPS.question: ZeroDivisionError("oh")}
    await take(root, folder, Answering({**ANSWERS, **broken}))
    found = rows(folder)
    assert sorted(found) == IDS
    assert (found["q2"]["error"], found["q2"]["answer"]) == ("The server is busy.", None)
    assert found["q2"]["found"]["fused"][0] == "scurvy"
    assert found["q4"]["error"] == "A defect of rag's: ZeroDivisionError('oh')"
    assert [sample.id for sample in evaluate.failures(folder)] == ["q2", "q4"]
    whole = [line for line in lines(folder) if json.loads(line)["error"] is None]
    opened = await take(root, folder)
    assert len(opened.generators[0].asked) == 2
    assert lines(folder)[:3] == whole
    assert evaluate.failures(folder) == []


async def test_a_question_longer_than_is_read_fails_alone(root: Path, folder: Path) -> None:
    long = Question("long", "why " * 1000, "simple", "So.", {"gout": 1}, (("so",),))
    await take(root, folder, questions=QuestionSet("with", (*SET.questions, long)))
    assert "at most 2,000" in rows(folder)["long"]["error"]
    assert rows(folder)["long"]["found"] is None
    assert len(rows(folder)) == 6


async def test_a_full_disk_is_one_clear_line_and_leaves_whole_samples(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for half of the third sample."""
    written = 0
    opened = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def tell(self) -> int:
            return int(self.file.tell())

        def truncate(self, size: int) -> None:
            self.file.truncate(size)

        def write(self, data: bytes) -> int:
            nonlocal written
            written += 1
            if written == 4:
                raise OSError(28, "No space left on device")
            return int(self.file.write(data[: len(data) // 2] if written == 3 else data))

    def open_full(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = opened(path, mode, *rest, **more)
        return Full(file) if mode == "ab" and path.name == "samples.jsonl" else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(StorageError, match="No room on the disk while writing"):
        await take(root, folder)
    monkeypatch.undo()
    assert len(rows(folder)) == 2
    await take(root, folder)
    assert sorted(rows(folder)) == IDS


# --- other runs' samples -----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["settings", "questions", "version"])
async def test_samples_of_another_run_are_set_aside_and_come_back(root: Path, folder: Path, change: str) -> None:
    path = folder / "samples.jsonl"
    first: dict[str, Any] = {"settings": {"pipeline": {"context": {"passages": 2}}}}.get(change, {})
    second: dict[str, Any] = {
        "settings": {"pipeline": {"context": {"passages": 3}}},
        "questions": {"questions": QuestionSet("five", SET.questions[:4])},
    }.get(change, {})
    await take(root, folder, **first)
    if change == "version":
        path.write_text(path.read_text().replace('"rag": "', '"rag": "9.', 1))
    before = path.read_bytes()
    await take(root, folder, **second)
    (aside,) = results.Samples(folder).aside()
    assert aside.read_bytes() == before
    assert path.read_bytes() != before
    if change != "version":
        await take(root, folder, **first)
        assert path.read_bytes() == before


async def test_samples_of_another_benchmark_are_refused(root: Path, folder: Path) -> None:
    await take(root, folder)
    path = folder / "samples.jsonl"
    path.write_text(path.read_text().replace('"bench": "eval"', '"bench": "start"', 1))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is of 'start', not of 'eval'"):
        await take(root, folder)
    with pytest.raises(UsageError, match="isn't of `rag eval`, but of 'start'"):
        samples.read(folder)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [*lines, lines[1]], "appears twice"),
        (lambda lines: [*lines, json.dumps({"id": "q9"})], "no sample of this version of rag"),
        (lambda lines: [lines[0], "{", *lines[2:]], r"samples\.jsonl:2: no JSON object"),
        (lambda lines: [lines[0], "[]", *lines[2:]], r"samples\.jsonl:2: no JSON object"),
    ],
)
async def test_damaged_samples_are_refused_with_their_line(root: Path, folder: Path, damage: Any, said: str) -> None:
    await take(root, folder)
    path = folder / "samples.jsonl"
    damaged = "".join(f"{line}\n" for line in damage(path.read_text().splitlines()))
    path.write_text(damaged)
    with pytest.raises(UsageError, match=said):
        await take(root, folder)
    with pytest.raises(UsageError, match=said):
        samples.read(folder)
    assert path.read_text() == damaged


async def test_a_folder_that_holds_no_answer_yet_begins_anew(root: Path, folder: Path) -> None:
    results.Samples(folder).start(plan_of(at_once=7).head)
    await take(root, folder, at_once=2)
    assert samples.read(folder)[0]["settings"]["at_once"] == 2


async def test_a_folder_that_cannot_be_made_is_one_clear_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Can't use"):
        await take(root, tmp_path / "file" / "results")


async def test_progress_is_told_of_each_question(root: Path, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(what: str, done: int = 0, total: int = 0) -> None:
        told.append((what, done, total))

    await evaluate.measure(plan_of(), folder, None, progress, Opened(root, Answering()))
    assert told == [("starting the engine", 0, 0), *(("questions", done, 5) for done in range(6))]


# --- the engine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one_by_one", "cores", "at_once"), [(True, "auto", 1), (False, "0-1", 4)])
def test_a_batch_has_the_cores_of_a_batch(
    monkeypatch: pytest.MonkeyPatch, one_by_one: bool, cores: str, at_once: int
) -> None:
    monkeypatch.setattr(runner, "depends_on", lambda loaded, *_: {"cores": loaded.settings.generator.cores})
    loaded = settings.load(assignments=["batch.cores=0-1", "batch.at_once=4"], environ={}, device="cpu")
    planned = runner.plan(loaded, SET, one_by_one, "rag eval", quiet)
    assert (planned.loaded.settings.generator.cores, planned.at_once) == (cores, at_once)
    assert planned.head["settings"]["cores"] == cores
