"""The index under attack: the attacks find what is planted for them, and the real index withstands a few of each."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from indexes import write_index

from rag import build, paths
from rag.bench import results, soak
from rag.bench.soak import Corpus, Soaked, changes, killing, kills, read_during, run, summarise
from rag.core import Document
from rag.errors import Mixed, UsageError
from rag.index import CheckedVersion, Versions, check_current
from rag.ingest import chunk
from rag.settings import Index, Loaded
from rag.testing import FakeEncoder

SCRIPT = Path(__file__).parent.parent / "scripts" / "soak_index.py"
CORPUS = Corpus(12)


def write(documents: Sequence[Document]) -> None:
    encoder = FakeEncoder()
    passages = [passage for document in documents for passage in chunk.split(document, 1000)]
    vectors = encoder.encode_passages([passage.titled for passage in passages])
    versions = Versions(paths.indexes_dir(), soak.INDEX)
    write_index(versions, [(documents, passages, vectors)], model="fake@1", settings=Index(exact_up_to=5), chunking={})


@pytest.fixture
def soaked(home: Path, monkeypatch: pytest.MonkeyPatch) -> Soaked:
    """Revision 4 of a small corpus, by fake vectors, whose model nobody looks up."""

    def check_index(loaded: Loaded) -> CheckedVersion:
        return check_current(Versions(paths.indexes_dir(), loaded.settings.index.name))

    monkeypatch.setattr(build, "check_index", check_index)
    write(CORPUS.revision(4))
    return soak.prepare(home, CORPUS.size, FakeEncoder())


# --- revisions ---------------------------------------------------------------------------------


def test_each_revision_changes_a_third_of_the_documents() -> None:
    for number in range(1, 8):
        pairs = zip(CORPUS.revision(number - 1), CORPUS.revision(number), strict=True)
        assert sum(before != after for before, after in pairs) == 4


def test_a_whole_version_tells_its_revision(soaked: Soaked) -> None:
    assert soaked.check() == soaked.newest() == 4


def test_where_there_is_no_index_yet_the_newest_is_none(soaked: Soaked) -> None:
    Versions(paths.indexes_dir(), soak.INDEX).remove()
    assert soaked.newest() == 0


@pytest.mark.parametrize(
    "documents",
    [
        [*CORPUS.revision(5)[:6], *CORPUS.revision(4)[6:]],
        CORPUS.revision(4)[:-1],
        [*CORPUS.revision(4), Document("more", "More", "One more. It was revised in round 4.")],
    ],
    ids=["of two revisions", "one is missing", "one more"],
)
def test_a_mixture_is_noticed(soaked: Soaked, documents: list[Document]) -> None:
    write(documents)
    with pytest.raises(Mixed):
        soaked.check()


def test_an_answer_of_another_revision_is_noticed(soaked: Soaked) -> None:
    _, searcher = soaked.open()
    soaked.search(searcher, 4)
    with pytest.raises(Mixed, match="aren't all of revision 5"):
        soaked.search(searcher, 5)
    with pytest.raises(Mixed, match="0 hits"):
        CORPUS.require((), 4)


# --- kill -9 -----------------------------------------------------------------------------------

TOLD = """
import sys, time
for step in ("reading and encoding", "passages and vectors", "building something", "checksums"):
    time.sleep(0.2)
    print(step, "...", file=sys.stderr, flush=True)
time.sleep(float(sys.argv[1]))
sys.exit("failed" if len(sys.argv) > 2 else 0)
"""


@pytest.mark.parametrize("phase", ["starting", "reading and encoding", "checksums"])
def test_a_process_is_killed_in_the_phase_that_was_asked_for(phase: str) -> None:
    ended = run([sys.executable, "-c", TOLD, "60"], phase, 0.0)
    assert (ended.code, ended.phase) == (-9, phase)


def test_a_process_that_is_not_killed_tells_how_long_its_phases_take() -> None:
    ended = run([sys.executable, "-c", TOLD, "0.5"])
    assert (ended.code, ended.phase) == (0, "checksums")
    lengths = ended.lengths()
    assert list(lengths) == ["starting", "reading and encoding", "passages and vectors", "checksums"]
    assert lengths["passages and vectors"] > 0.39, "what isn't a phase belongs to the one before"
    assert sum(lengths.values()) == pytest.approx(ended.seconds)


def test_a_process_that_ends_before_it_would_be_killed_is_not_counted() -> None:
    assert run([sys.executable, "-c", TOLD, "0"], "dense index", 0.0).code == 0
    assert run([sys.executable, "-c", TOLD, "0"], "checksums", 2.0).code == 0


class Writers:
    """In place of processes: each is killed, and leaves what the test says for its number."""

    def __init__(self, left: Sequence[int | Sequence[Document]], code: int = -9) -> None:
        self.left, self.code = iter(left), code
        self.asked: list[str | None] = []

    def __call__(self, command: Sequence[str], kill_in: str | None = None, after: float = 0.0) -> soak.Run:
        del command, after
        self.asked.append(kill_in)
        left = next(self.left)
        write(CORPUS.revision(left) if isinstance(left, int) else left)
        steps = dict.fromkeys(soak.REPORTED[:2], 0.1)
        return soak.Run(steps, 1.0, self.code if kill_in is not None else 0, "said\n")


def test_the_phases_take_turns_and_each_writer_has_something_to_write(
    soaked: Soaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "EACH", 99)  # what the writers leave is by fake vectors, which `rag search` refuses
    writers = Writers([5] * 20)
    monkeypatch.setattr(killing, "run", writers)
    samples = list(kills(soaked, 16, []))
    assert [sample["wanted"] for sample in samples] == [*soak.PHASES] * 2
    assert writers.asked == [None, *["starting", *soak.REPORTED, "switching"] * 2]
    assert all(sample["goal"] > sample["before"] == sample["found"] == 5 for sample in samples)
    assert {sample["problem"] for sample in samples} == {None}
    assert {sample["phase"] for sample in samples} == {"passages and vectors"}


def test_a_writer_that_was_killed_after_the_switch_is_told_from_others(
    soaked: Soaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "run", Writers([5, 6]))
    (sample,) = kills(soaked, 1, [])
    assert (sample["found"], sample["phase"], sample["problem"]) == (6, "switched", None)


@pytest.mark.parametrize(
    ("left", "code", "said"),
    [
        (4, -9, "revision 4, expected one of 5, 6"),
        ([*CORPUS.revision(6)[:6], *CORPUS.revision(5)[6:]], -9, "Mixed: "),
        (5, 0, "revision 5 after revision 6 was written"),
        (6, 1, "the writer failed: said"),
    ],
)
def test_what_is_wrong_after_a_kill_is_said(
    soaked: Soaked, monkeypatch: pytest.MonkeyPatch, left: Any, code: int, said: str
) -> None:
    monkeypatch.setattr(killing, "run", Writers([5, left], code))
    sample = next(kills(soaked, 1, []))
    assert said in sample["problem"]
    assert sample["killed"] == (code == -9)


# --- bytes that change -------------------------------------------------------------------------


def test_every_changed_byte_is_caught_and_changed_back(soaked: Soaked) -> None:
    folder = build.check_index(soaked.loaded).folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert changes(soaked.loaded, 60, random.Random(0)) == []
    assert {path: path.read_bytes() for path in before} == before


def test_a_change_that_goes_unnoticed_is_told(soaked: Soaked) -> None:
    folder = build.check_index(soaked.loaded).folder
    (folder / "unknown").write_bytes(b"nobody knows of it " * 100)
    missed = changes(soaked.loaded, 60, random.Random(0))
    assert missed
    assert {place.partition(":")[0] for place in missed} == {"versions/000001/unknown"}


# --- readers -----------------------------------------------------------------------------------


def test_readers_see_whole_versions_alone_while_it_is_updated(soaked: Soaked) -> None:
    before = threading.active_count()
    seen = read_during(soaked, range(5, 15), 4, lambda revision: write(CORPUS.revision(revision)))
    assert seen["problems"] == []
    assert seen["updates"] == 10
    assert seen["opened"] >= 4
    assert seen["answers"] >= seen["opened"]
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([*CORPUS.revision(5)[:6], *CORPUS.revision(4)[6:]], "Mixed: "),
        (CORPUS.revision(3), "Mixed: revision 3 after 4"),
    ],
    ids=["mixed", "backwards"],
)
def test_readers_tell_what_is_wrong(soaked: Soaked, documents: list[Document], said: str) -> None:
    reading = soak.Reading(soaked)
    thread = threading.Thread(target=reading.read, args=("seed",))
    thread.start()
    try:
        wait_for(lambda: reading.answers > 0)
        write(documents)
        wait_for(lambda: bool(reading.problems))
    finally:
        reading.stop.set()
        thread.join()
    assert reading.problems[0].startswith(said)


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


# --- counts ------------------------------------------------------------------------------------


def test_counts_are_those_of_the_samples(tmp_path: Path) -> None:
    samples = results.Samples(tmp_path, soak.SAMPLES)
    samples.start(results.header("index", "soak"))
    with pytest.raises(UsageError, match="No samples in"):
        summarise(tmp_path)
    killed = {"kind": "kill", "killed": True, "parts": 1, "problem": None}
    for row in (
        {**killed, "phase": "starting", "by_command": True},
        {**killed, "phase": "switching", "problem": "gone"},
        {**killed, "phase": "switching", "killed": False},
        {"kind": "bytes", "changes": 100, "missed": ["vectors.npy:3"]},
        {"kind": "bytes", "changes": 50, "missed": []},
        {"kind": "read", "updates": 10, "answers": 70, "problems": []},
    ):
        samples.add(row)
    figures = {figure.name: (figure.value, figure.met) for figure in summarise(tmp_path)}
    assert {name: value for name, value in figures.items() if not name.startswith("kills_")} == {
        "kills": (2, False),
        "byte_changes": (150, False),
        "byte_changes_missed": (1, False),
        "updates": (10, False),
        "answers": (70, None),
        "answers_failed": (0, True),
    }
    assert (figures["kills_failed"], figures["kills_then_rag_search"]) == ((1, False), (1, True))
    assert (figures["kills_switching"], figures["kills_dense_index"]) == ((1, True), (0, False))
    assert json.loads((tmp_path / "soak.json").read_text())["figures"][0]["name"] == "kills"


# --- the whole of it, on real processes --------------------------------------------------------


@pytest.fixture
def with_models(home: Path, real_home: Path) -> Iterator[None]:
    home.mkdir()
    (home / "cache").symlink_to(real_home / "cache")
    yield
    assert not (home / "data").exists(), "the user's own indexes are left alone"


@pytest.mark.usefixtures("with_models")
def test_the_real_index_withstands_a_few_of_each(tmp_path: Path) -> None:
    left = tmp_path / "soak" / "data" / "indexes" / "soak"
    left.mkdir(parents=True)
    (left / "CURRENT").write_text("by other code\n")
    command = [sys.executable, str(SCRIPT), "--changes=40", "--updates=2", "--readers=2", "--documents=120"]
    command += ["--output", str(tmp_path), "--json"]
    done = subprocess.run([*command, "--kills=8"], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure["value"] for figure in json.loads(done.stdout)}
    assert (figures["kills"], figures["byte_changes"], figures["updates"]) == (8, 40, 2)
    assert figures["answers"] > 0
    assert figures["kills_failed"] == figures["byte_changes_missed"] == figures["answers_failed"] == 0
    assert figures["kills_starting"] > 0
    assert figures["kills_reading_and_encoding"] > 0
    assert (tmp_path / "soak" / ".gitignore").read_text() == "*\n"

    lines = (tmp_path / "soak.jsonl").read_text().splitlines()
    again = subprocess.run([*command, "--kills=10"], capture_output=True, text=True, timeout=900, check=False)
    assert again.returncode == 0, again.stderr
    now = (tmp_path / "soak.jsonl").read_text().splitlines()
    assert now[: len(lines)] == lines, "it goes on"
    assert sum('"kill"' in line and '"killed": true' in line for line in now) == 10
    assert sum('"by_command": true' in line for line in now) == 1
    assert sum('"problem": null' in line for line in now) == sum('"kill"' in line for line in now)
