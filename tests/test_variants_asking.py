"""Variants as they are asked: the state of the caches, what is kept, interruptions, and what is refused. On fakes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import serving
from beside import WARM_UP, Engine, Opened, plan_of, take
from evaluating import ANSWERS, MALARIA, SCURVY, SET

from rag.bench import results
from rag.errors import EngineDied, EngineError, StorageError, UsageError
from rag.variants import asking, breakdown, samples


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    monkeypatch.setattr(asking, "LOOK", 0.0)


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


def keys(folder: Path) -> set[tuple[str, str, bool]]:
    found = [json.loads(line) for line in lines(folder)]
    each = [(one["variant"], one["sample"]["id"], one["cold"]) for one in found]
    assert len(set(each)) == len(each), "one stands there twice"
    return set(each)


VARIANTS = ("v3", "v3_again", "v3_1")
WHOLE = {(name, question.id, False) for name in VARIANTS for question in SET.questions} | {
    (name, question, True) for name in ("v3", "v3_1") for question in ("q1", "q5")
}


# --- what is asked, and kept -------------------------------------------------------------------------


async def test_every_variant_answers_every_question_once_and_the_first_of_each_block_cold(
    root: Path, folder: Path
) -> None:
    await take(root, folder)
    first = [question.id for question in SET.first(None)]
    assert {question for _, question, cold in keys(folder) if cold} == {first[0], first[4]}
    assert {one for one in keys(folder) if not one[2]} == {one for one in WHOLE if not one[2]}
    assert {name for name, _, cold in keys(folder) if cold} == {"v3", "v3_1"}


async def test_before_each_question_the_cache_is_emptied_and_holds_the_instruction_unless_it_is_asked_cold(
    root: Path, folder: Path
) -> None:
    engine = Engine()
    await take(root, folder, engine)
    asked = [one for one in engine.did if one not in ("forget", WARM_UP)]
    cold = [json.loads(line)["cold"] for line in lines(folder)]
    expected = [
        step
        for question, is_cold in zip(asked, cold, strict=True)
        for step in (["forget", question] if is_cold else ["forget", WARM_UP, question])
    ]
    assert engine.did == expected
    assert True in cold


async def test_an_engine_that_still_holds_a_request_is_asked_again_to_empty_its_cache(root: Path, folder: Path) -> None:
    engine = Engine()
    engine.busy = 3
    await take(root, folder, engine, count=1)
    assert engine.did[:4] == ["forget"] * 4
    stuck = Engine()
    stuck.busy = 10**6
    with pytest.raises(EngineError, match="didn't empty its prefix cache"):
        await take(root, folder, stuck, count=2)


async def test_a_sample_holds_the_whole_answer_with_its_techniques(root: Path, folder: Path) -> None:
    await take(root, folder)
    one = next(json.loads(line) for line in lines(folder) if '"q1"' in line)
    assert (one["kind"], one["variant"] in VARIANTS, one["block"]) == ("answer", True, 0)
    sample = one["sample"]
    assert sample["question"]["question"] == MALARIA.question
    assert sample["answer"]["answer"] == "Malaria is caused by Plasmodium parasites [1]."
    assert sample["answer"]["engine"]["techniques"] == {}
    assert sample["answer"]["timings"]["total"] > 0
    assert (sample["error"], sample["run"], sample["at"] > 0) == (None, 1, True)
    [back] = samples.answers(folder, [one])
    assert back.sample.question == MALARIA
    assert json.loads(json.dumps(samples.row(back))) == one


async def test_a_whole_run_opens_nothing_again(root: Path, folder: Path) -> None:
    await take(root, folder)
    before = (folder / "samples.jsonl").read_bytes()
    assert (await take(root, folder)).variants == []
    assert (folder / "samples.jsonl").read_bytes() == before


async def test_more_questions_go_on_after_fewer(root: Path, folder: Path) -> None:
    await take(root, folder, count=2)
    first = lines(folder)
    assert len(first) == 2 * 3 + 2
    await take(root, folder)
    assert lines(folder)[: len(first)] == first
    assert len(keys(folder)) == len(WHOLE)


async def test_of_what_is_left_only_the_variants_that_it_needs_are_opened(root: Path, folder: Path) -> None:
    await take(root, folder)
    path = folder / "samples.jsonl"
    kept = [line for line in path.read_text().splitlines() if '"v3_1", "block": 1' not in line]
    path.write_text("".join(f"{line}\n" for line in kept))
    opened = await take(root, folder)
    assert opened.variants == [["v3_1"]]
    assert len(keys(folder)) == len(WHOLE)


# --- interrupted -------------------------------------------------------------------------------------


def test_killed_twice_each_turn_is_there_once(root: Path, folder: Path) -> None:
    script = os.path.join(os.path.dirname(__file__), "beside.py")  # noqa: PTH118, PTH120

    def run(pause: float, kill_at: int | None) -> None:
        """To the end, or until so many samples are there."""
        process = subprocess.Popen([sys.executable, script, str(root), str(folder), str(pause)])
        end = time.monotonic() + 240
        while process.poll() is None and (kill_at is None or len(lines(folder)) < kill_at):
            assert time.monotonic() < end, "it took too long"
            time.sleep(0.01)
        killed = process.poll() is None
        process.kill()
        process.wait()
        assert killed == (kill_at is not None)

    run(0.5, 2)
    first = lines(folder)
    run(0.5, len(first) + 2)
    second = lines(folder)
    assert second[: len(first)] == first
    run(0.0, None)
    assert lines(folder)[: len(second)] == second
    assert len(keys(folder)) == len(WHOLE)
    assert {json.loads(line)["sample"]["run"] for line in lines(folder)} == {1, 2, 3}


async def test_an_engine_that_dies_is_started_again_and_its_question_asked_again(root: Path, folder: Path) -> None:
    dying, next_one = Engine(dies_at=SCURVY.question), Engine()
    opened = await take(root, folder, dying, next_one)
    assert len(opened.variants) == 2
    assert opened.closed == 2
    assert len(keys(folder)) == len(WHOLE)
    assert next_one.did[2] == SCURVY.question


async def test_a_question_that_kills_every_engine_ends_the_run_and_what_is_done_stays(root: Path, folder: Path) -> None:
    with pytest.raises(EngineDied, match="The engine died"):
        await take(root, folder, *(Engine(dies_at=SCURVY.question) for _ in range(9)))
    before = lines(folder)
    assert before
    await take(root, folder)
    assert lines(folder)[: len(before)] == before
    assert len(keys(folder)) == len(WHOLE)


async def test_a_question_that_fails_is_kept_with_its_error_and_asked_again_by_the_next_run(
    root: Path, folder: Path
) -> None:
    await take(root, folder, Engine({**ANSWERS, SCURVY.question: EngineError("The engine is busy.")}))
    assert len(keys(folder)) == len(WHOLE)
    failed = [one for line in lines(folder) if (one := json.loads(line))["sample"]["error"] is not None]
    assert {one["sample"]["id"] for one in failed} == {"q2"}
    engine = Engine()
    await take(root, folder, engine)
    assert [one for one in engine.did if one not in ("forget", WARM_UP)] == [SCURVY.question] * len(failed)
    assert len(keys(folder)) == len(WHOLE)
    assert '"error": "' not in (folder / "samples.jsonl").read_text()


async def test_a_full_disk_is_one_clear_line_and_earlier_samples_stay(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await take(root, folder, count=1)
    before = lines(folder)
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
            self.file.write(data[:100])
            raise OSError(28, "No space left on device")

    def open_full(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = opened(path, mode, *rest, **more)
        return Full(file) if mode == "ab" and path.name == "samples.jsonl" else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(StorageError, match="No room on the disk while writing"):
        await take(root, folder)
    monkeypatch.undo()
    assert lines(folder) == before
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    await take(root, folder)
    assert len(keys(folder)) == len(WHOLE)


# --- other runs' samples -----------------------------------------------------------------------------


async def test_samples_of_another_run_are_set_aside_and_come_back(root: Path, folder: Path) -> None:
    await take(root, folder, plan=plan_of("v3", "v3_again", "v3_1", block=4))
    before = (folder / "samples.jsonl").read_bytes()
    await take(root, folder, plan=plan_of("v3", "v3_again", "v3_1", block=5))
    (aside,) = results.Samples(folder).aside()
    assert aside.read_bytes() == before
    await take(root, folder, plan=plan_of("v3", "v3_again", "v3_1", block=4))
    assert (folder / "samples.jsonl").read_bytes() == before
    assert results.Samples(folder).aside() != [aside]


async def test_samples_of_another_benchmark_are_refused(root: Path, folder: Path) -> None:
    await take(root, folder)
    path = folder / "samples.jsonl"
    path.write_text(path.read_text().replace('"bench": "breakdown"', '"bench": "sweep"', 1))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is of 'sweep', not of 'breakdown'"):
        await take(root, folder)
    with pytest.raises(UsageError, match="isn't of `rag bench breakdown`, but of 'sweep'"):
        breakdown.summarise(folder)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [*lines, lines[1]], "appears twice"),
        (lambda lines: [*lines, json.dumps({"kind": "answer", "variant": "v3"})], "no sample of this version of rag"),
        (lambda lines: [*lines, json.dumps({"id": "q9"})], r"no sample of this version of rag \(kind None\)"),
        (lambda lines: [*lines, json.dumps({"kind": "length", "variant": "v3"})], r"no sample of this version.*shape"),
        (lambda lines: [lines[0], "{", *lines[2:]], r"samples\.jsonl:2: no JSON object"),
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
        breakdown.summarise(folder)
    assert path.read_text() == damaged


async def test_a_folder_that_cannot_be_made_is_one_clear_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Can't use"):
        await take(root, tmp_path / "file" / "results")


async def test_cancelling_closes_the_engines(root: Path, folder: Path) -> None:
    opened = Opened(root, Engine(pause=60))
    task = asyncio.create_task(
        breakdown.measure(replace(plan_of("v3", "v3_again")), folder, None, 0, lambda *_: None, opened)
    )
    while not opened.engines[0].did[2:]:  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opened.closed == 1
