"""rag/cache/file.py: what was written is read again to the last bit, and anything else is left aside with a reason."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.cache import Entry, EntryFile, Memory, load, save
from rag.cache import file as cache_file
from rag.core import Hit, Hits, Passage, Query
from rag.errors import StaleCache, StorageError
from rag.files import only_writer
from rag.settings import Eviction

DIMENSION = 4
SHAPED_BY: dict[str, Any] = {
    "version of the index": "notes/000001 0123",
    "embedding model": "fake@1",
    "reranker": None,
    "settings": {"retrieve": {"dense_n": 20, "lexical_weight": 0.25}, "rerank": {"model": None}},
}

MALARIA = Passage("malaria#0", "malaria", "Malaria", "Malaria is caused by parasites.", 0, 31, {"year": 1880})
GOUT = Passage("gout#1", "gout", "Gout", "Joints swell — “at night”.", 12, 38, {"dose": 0.5, "journal": "Łancet\n"})


def entry(question: str, *hits: Hit, where: str | None = None, axis: int = 0, added: float = 1.5e9) -> Entry[Hits]:
    return Entry(question, where, np.eye(DIMENSION, dtype=np.float32)[axis], hits, added)


ENTRIES = [
    entry("What causes malaria?", Hit(MALARIA, 0.75, 12.5, 0.9, 0.99, 1), Hit(GOUT, -0.1, None, 0.2, 0.01, 2)),
    entry("Was hilft gegen Gicht, β₂, 痛風?", Hit(GOUT, 1 / 3), where="year>2000 and journal~'Łancet'", axis=1),
    entry("And what finds nothing?", axis=3, added=1_764_191_929.123456),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of `ENTRIES`."""
    path = tmp_path / "queries.safetensors"
    save(path, ENTRIES, SHAPED_BY, DIMENSION)
    return path


def assert_same(found: Sequence[Entry[Hits]], expected: Sequence[Entry[Hits]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        plain = [(entry.question, entry.where, entry.value, entry.added, entry.turn) for entry in (one, other)]
        assert plain[0] == plain[1]
        assert one.vector.dtype == np.float32
        assert one.vector.tobytes() == other.vector.tobytes()
        for hit, before in zip(one.value, other.value, strict=True):
            assert [type(value) for value in hit.passage.metadata.values()] == [
                type(value) for value in before.passage.metadata.values()
            ]


def reason(path: Path, shaped_by: dict[str, Any] = SHAPED_BY, dimension: int = DIMENSION) -> str:
    """Why it is left aside."""
    with pytest.raises(StaleCache) as caught:
        load(path, shaped_by, dimension)
    said = str(caught.value)
    assert said
    assert "\n" not in said
    return said


# --- there and back ------------------------------------------------------------------------------


def test_what_was_written_is_read_again_in_its_order(path: Path) -> None:
    assert_same(load(path, SHAPED_BY, DIMENSION), ENTRIES)


def test_it_is_put_back_into_a_memory_and_found_there(path: Path) -> None:
    memory: Memory[Hits] = Memory(DIMENSION, 10)
    memory.add(load(path, SHAPED_BY, DIMENSION))
    repeat = memory.exact("what causes malaria")
    assert repeat is not None
    assert repeat.value == ENTRIES[0].value
    nearest = memory.nearest(Query("?", ENTRIES[1].vector, ENTRIES[1].where), 0.9)
    assert nearest is not None
    assert nearest[0].value == ENTRIES[1].value


scores = st.floats(allow_nan=False, width=64)
maybe = st.none() | scores
metadata = st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers() | scores, max_size=3)
passages = st.lists(
    st.builds(Passage, st.text(), st.text(), st.text(), st.text(), st.integers(0), st.integers(0), metadata),
    min_size=1,
    max_size=4,
    unique_by=lambda passage: passage.id,
)


@st.composite
def some_entries(draw: st.DrawFn) -> list[Entry[Hits]]:
    """Several may have found the same passage, as they do."""
    known = draw(passages)
    hits = st.builds(Hit, st.sampled_from(known), scores, maybe, maybe, maybe, st.none() | st.integers(1, 1000))
    vectors = st.lists(st.floats(-1, 1, width=32), min_size=DIMENSION, max_size=DIMENSION).map(
        lambda numbers: np.array(numbers, dtype=np.float32)
    )
    found = st.lists(hits, max_size=4).map(tuple)
    one = st.builds(Entry, st.text(), st.none() | st.text(), vectors, found, scores, scores)
    return draw(st.lists(one, max_size=5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=some_entries())
def test_every_field_comes_back_as_it_was(entries: list[Entry[Hits]], tmp_path: Path) -> None:
    save(tmp_path / "any", entries, SHAPED_BY, DIMENSION)
    assert_same(load(tmp_path / "any", SHAPED_BY, DIMENSION), entries)


def test_metadata_may_be_any_mapping(tmp_path: Path) -> None:
    passage = Passage("p", "d", "T", "Text.", 0, 5, MappingProxyType({"year": 1880}))
    save(tmp_path / "a", [entry("a", Hit(passage, 0.5))], SHAPED_BY, DIMENSION)
    [read] = load(tmp_path / "a", SHAPED_BY, DIMENSION)
    assert dict(read.value[0].passage.metadata) == {"year": 1880}


def test_half_a_character_in_a_condition_costs_no_other_entry(tmp_path: Path) -> None:
    """A terminal's arguments may hold one, UTF-8 can't, and an encoder never sees it."""
    try:
        save(tmp_path / "a", [ENTRIES[0], entry("gout?", where="journal~'\udcff'")], SHAPED_BY, DIMENSION)
    except UnicodeEncodeError:
        pytest.fail("nothing was written, and who saves isn't told of it as of a disk that is full")
    assert_same(load(tmp_path / "a", SHAPED_BY, DIMENSION)[:1], ENTRIES[:1])


def test_no_file_is_no_entry_and_no_reason(tmp_path: Path) -> None:
    assert load(tmp_path / "queries", SHAPED_BY, DIMENSION) == []
    assert load(tmp_path / "not" / "there", SHAPED_BY, DIMENSION) == []


def test_none_is_written_and_read_too(tmp_path: Path) -> None:
    save(tmp_path / "none", [], SHAPED_BY, DIMENSION)
    assert load(tmp_path / "none", SHAPED_BY, DIMENSION) == []


def test_what_is_written_later_takes_the_place_of_all_before(path: Path) -> None:
    save(path, ENTRIES[1:2], SHAPED_BY, DIMENSION)
    assert_same(load(path, SHAPED_BY, DIMENSION), ENTRIES[1:2])
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_shaped_it_may_be_told_in_another_order(path: Path) -> None:
    assert len(load(path, dict(reversed(SHAPED_BY.items())), DIMENSION)) == 3


def test_a_passage_that_many_questions_found_stands_there_once(tmp_path: Path) -> None:
    long = Passage("p", "d", "T", "x" * 10_000, 0, 10_000)
    save(tmp_path / "many", [entry(f"q{n}", Hit(long, 0.5)) for n in range(50)], SHAPED_BY, DIMENSION)
    assert (tmp_path / "many").stat().st_size < 30_000
    assert len(load(tmp_path / "many", SHAPED_BY, DIMENSION)) == 50


# --- shaped by something else --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version of the index": "notes/000002 4567"}, "version of the index"),
        ({"embedding model": "fake@2"}, "embedding model"),
        ({"reranker": "minilm@3"}, "reranker"),
        ({"settings": {**SHAPED_BY["settings"], "retrieve": {"dense_n": 21}}}, "settings"),
        ({"something": "that an older version didn't know"}, "something"),
        ({"embedding model": "fake@2", "reranker": "minilm@3"}, "embedding model, reranker"),
    ],
)
def test_what_was_shaped_otherwise_is_left_aside_and_the_reason_names_by_what(
    path: Path, change: dict[str, Any], named: str
) -> None:
    said = reason(path, SHAPED_BY | change)
    assert said == f"not the same as when it was written: {named}"
    assert not [name for name in SHAPED_BY if name in said and name not in change]
    assert len(load(path, SHAPED_BY, DIMENSION)) == 3, "for what shaped it, it is still there"


def test_what_an_older_version_was_shaped_by_beside_is_named_too(path: Path) -> None:
    assert "reranker" in reason(path, {name: value for name, value in SHAPED_BY.items() if name != "reranker"})


def test_another_format_is_left_aside_and_both_are_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.cache.file.FORMAT", "3")
    assert reason(path) == "it has format 2, this version of rag reads 3"
    save(path, ENTRIES, SHAPED_BY, DIMENSION)
    assert len(load(path, SHAPED_BY, DIMENSION)) == 3
    monkeypatch.setattr("rag.cache.file.FORMAT", "2")
    assert reason(path) == "it has format 3, this version of rag reads 2"


@pytest.mark.parametrize("dimension", [0, 3, 5, 384])
def test_vectors_of_another_dimension_are_left_aside(path: Path, dimension: int) -> None:
    assert f"not (entries, {dimension})" in reason(path, dimension=dimension)


# --- damaged, or another file --------------------------------------------------------------------


def test_a_file_that_was_cut_short_anywhere_is_left_aside(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        reason(path)


def test_a_file_that_goes_on_behind_its_end_is_left_aside(path: Path) -> None:
    whole = path.read_bytes()
    for more in (b"\0", b"\n", whole):
        path.write_bytes(whole + more)
        reason(path)


def test_one_byte_that_changed_anywhere_is_seen(path: Path) -> None:
    """Or it changed nothing that is read, as one of the spaces that fill up the header."""
    whole = path.read_bytes()
    chance = random.Random(0)
    aside = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= chance.choice([1, 2, 4, 8, 16, 32, 64, 128, chance.randrange(1, 256)])
        path.write_bytes(changed)
        try:
            assert_same(load(path, SHAPED_BY, DIMENSION), ENTRIES)
        except StaleCache:
            aside += 1
    assert aside >= len(whole) - 16


def test_blocks_that_a_disk_lost_are_seen(path: Path) -> None:
    whole = path.read_bytes()
    for start in range(0, len(whole), 64):
        path.write_bytes(whole[:start] + bytes(len(whole[start : start + 64])) + whole[start + 64 :])
        reason(path)


def test_entries_in_each_other_s_place_are_seen(path: Path) -> None:
    """Each is whole: only all of them together can tell."""
    whole = path.read_bytes()
    one, other = (ENTRIES[number].vector.tobytes() for number in (0, 1))
    assert whole.count(one + other) == 1
    path.write_bytes(whole.replace(one + other, other + one))
    assert "SHA-256" in reason(path)


def test_the_checksum_is_of_the_words_too(path: Path) -> None:
    whole = path.read_bytes()
    assert whole.count(b"caused by parasites") == 1
    path.write_bytes(whole.replace(b"caused by parasites", b"caused by parasitez"))
    assert "SHA-256" in reason(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"This is a text.\n" * 100,
        b'{"passages": [], "questions": []}',
        pickle.dumps(ENTRIES[0].question),
        b"\xff" * 4096,
        b"\0" * 4096,
    ],
    ids=["empty", "a line", "text", "json", "pickle", "ones", "zeros"],
)
def test_another_file_in_its_place_is_left_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "queries").write_bytes(content)
    assert reason(tmp_path / "queries").startswith("it can't be read (")


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        {"format": "pt"},
        {"format": "1"},
        {"format": "1", "shaped_by": "[]"},
        {"format": "1", "shaped_by": "{"},
    ],
)
def test_another_file_of_tensors_in_its_place_is_left_aside(tmp_path: Path, told: dict[str, str] | None) -> None:
    safetensors.numpy.save_file({"weight": np.zeros((2, 2), np.float32)}, tmp_path / "queries", told)
    reason(tmp_path / "queries")


def test_a_folder_in_its_place_is_left_aside(tmp_path: Path) -> None:
    """There it can't be written either, and who opens it should hear why."""
    (tmp_path / "queries").mkdir()
    reason(tmp_path / "queries")


# --- several processes ---------------------------------------------------------------------------


class Process:
    """A memory of at most three, and its file. Each question is found or used a second after the one before, whoever asks."""

    now = 0.0

    def __init__(self, path: Path, shaped_by: dict[str, Any] = SHAPED_BY, eviction: Eviction = "lru") -> None:
        self.memory: Memory[Hits] = Memory(DIMENSION, 3, eviction, clock=self.clock)
        self.file = EntryFile(path, shaped_by, DIMENSION)
        self.memory.join(self.file.load())

    @classmethod
    def clock(cls) -> float:
        Process.now += 1.0
        return Process.now

    def find(self, *questions: str) -> None:
        self.memory.add([entry(question, added=self.clock()) for question in questions])

    def use(self, question: str) -> None:
        found = self.memory.exact(question)
        assert found is not None
        self.memory.use(found, matched=False)

    def save(self) -> None:
        self.file.save(self.memory)


def kept(path: Path) -> list[str]:
    return [one.question for one in load(path, SHAPED_BY, DIMENSION)]


def test_what_two_processes_have_found_is_kept_of_both(tmp_path: Path) -> None:
    path = tmp_path / "queries"
    one, other = Process(path), Process(path)
    one.find("a")
    other.find("b")
    one.save()
    other.save()
    assert kept(path) == ["a", "b"], "in the order in which they were found"
    assert [found.question for found in other.memory.entries()] == ["a", "b"], "and serves in both"
    one.find("c")
    one.save()
    assert kept(path) == ["a", "b", "c"]


def test_what_one_process_uses_is_used_for_the_others_too(tmp_path: Path) -> None:
    path = tmp_path / "queries"
    one = Process(path)
    one.find("a", "b", "c")
    one.save()
    other = Process(path)
    one.use("a")
    one.save()
    assert kept(path) == ["b", "c", "a"]
    other.use("b")
    other.save()
    assert kept(path) == ["c", "a", "b"]
    one.find("d")
    one.save()
    assert kept(path) == ["a", "b", "d"], "c was used longest ago by either"
    assert [found.question for found in Process(path).memory.entries()] == ["a", "b", "d"]


def test_what_is_used_again_and_again_stays_whatever_another_process_adds(tmp_path: Path) -> None:
    path = tmp_path / "queries"
    one, other = Process(path), Process(path)
    one.find("a")
    one.save()
    other.find("b", "c")
    other.save()
    changes = one.memory.changes
    one.use("a")  # which is the last one here, and the first in the file
    assert one.memory.changes > changes
    one.save()
    other.find("d")
    other.save()
    assert kept(path) == ["c", "a", "d"]


def test_first_in_goes_first_whoever_found_it(tmp_path: Path) -> None:
    path = tmp_path / "queries"
    one, other = (Process(path, eviction="fifo") for _ in range(2))
    one.find("a")
    other.find("b")
    one.find("c")
    one.use("a")
    one.save()
    other.use("b")
    other.save()
    assert kept(path) == ["a", "b", "c"]
    other.find("d")
    other.save()
    assert kept(path) == ["b", "c", "d"]


def test_what_one_process_has_evicted_is_not_brought_back_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "queries"
    one, other = Process(path), Process(path)
    one.find("a", "b", "c")
    one.save()
    other.find("x")
    other.save()
    assert kept(path) == ["b", "c", "x"], "as far as there is room"
    assert other.memory.counts.evicted == 1
    one.find("d")
    one.save()
    assert kept(path) == ["c", "x", "d"], "a is gone for both"


def test_of_what_both_have_found_the_newer_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "queries"
    one, other = Process(path), Process(path)
    one.memory.add([entry("a", added=1.0), entry("b", added=9.0)])
    one.save()
    other.memory.add([entry("a", added=5.0), entry("b", added=5.0)])
    other.save()
    one.memory.add([entry("c", added=7.0)])
    one.save()
    assert {found.question: found.added for found in one.memory.entries()} == {"a": 5.0, "b": 9.0, "c": 7.0}
    assert {found.question: found.added for found in load(path, SHAPED_BY, DIMENSION)} == {"a": 5.0, "b": 9.0, "c": 7.0}


def test_a_file_that_nobody_else_wrote_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "queries"
    one = Process(path)
    one.find("a")
    one.save()
    with monkeypatch.context() as patch:
        patch.setattr(cache_file, "load", None)
        one.find("b")
        one.save()
    assert kept(path) == ["a", "b"]


def test_what_was_shaped_otherwise_meanwhile_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "queries"
    one, other = Process(path), Process(path, SHAPED_BY | {"reranker": "another"})
    one.find("a")
    other.find("b")
    other.save()
    one.save()
    assert kept(path) == ["a"]


def test_one_process_writes_at_a_time_and_one_that_does_not_stop_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_file, "PATIENCE", 0.1)
    path = tmp_path / "queries"
    one = Process(path)
    one.find("a")
    with only_writer(path), pytest.raises(StorageError, match="Another process is writing"):
        one.save()
    assert not path.exists()
    one.save()
    assert kept(path) == ["a"]


# --- writing -------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no `mount` here to make a full disk with")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mounting a tiny disk isn't permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_on_a_full_disk_the_old_file_stays_and_it_is_told_as_such(disk: Path) -> None:
    path = disk / "queries"
    save(path, ENTRIES, SHAPED_BY, DIMENSION)
    much = [entry(f"q{number}" * 500, axis=1) for number in range(200)]
    with pytest.raises(StorageError, match="No room on the disk while writing"):
        save(path, much, SHAPED_BY, DIMENSION)
    assert [one.name for one in disk.iterdir()] == ["queries"]
    assert_same(load(path, SHAPED_BY, DIMENSION), ENTRIES)


def test_a_save_that_fails_half_way_leaves_the_old_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(where: Path, content: bytes) -> int:
        real(where, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))

    whole, real = path.read_bytes(), Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StorageError, match="No room on the disk while writing"):
        save(path, ENTRIES[:1], SHAPED_BY, DIMENSION)
    assert path.read_bytes() == whole
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_until_all_is_written_a_reader_finds_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def watched(where: Path, content: bytes) -> int:
        size = real(where, content)
        assert_same(load(path, SHAPED_BY, DIMENSION), ENTRIES)
        written.append(where)
        return size

    real, written = Path.write_bytes, list[Path]()
    monkeypatch.setattr(Path, "write_bytes", watched)
    save(path, ENTRIES[:1], SHAPED_BY, DIMENSION)
    assert len(written) == 1
    assert_same(load(path, SHAPED_BY, DIMENSION), ENTRIES[:1])


def test_what_was_read_stays_when_the_file_is_replaced_or_removed(path: Path) -> None:
    """Nothing of it is still read from the disk later."""
    found = load(path, SHAPED_BY, DIMENSION)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    path.unlink()
    assert_same(found, ENTRIES)


def test_a_folder_in_its_place_is_told_as_what_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    with pytest.raises(StorageError):
        save(tmp_path / "queries", ENTRIES, SHAPED_BY, DIMENSION)
