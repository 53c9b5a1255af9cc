"""The query cache of a process: what each version of the index, and each pipeline over it, has to itself."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from lookahead import Finding

from rag.cache import CachedEncoder, EntryFile, Memory, QueryCache, QuestionCaches, load, query
from rag.core import Hits, Query, Trace
from rag.settings import Cache
from rag.testing import FakeEncoder

CAUSE = Query("What causes gout?", FakeEncoder().encode_queries(["What causes gout?"])[0])


def cache_of(folder: Path, **settings: bool) -> QueryCache:
    return QueryCache(Cache(enabled=True, **settings), folder / "queries", CachedEncoder(FakeEncoder(), 9), None, print)  # type: ignore[arg-type]


def test_each_pipeline_has_its_finished_answers_to_itself(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, answers=True)
    hits = cache.over(Finding(), {}, lambda: True).cache
    one, other = cache.of_pipeline(hits), cache.of_pipeline(hits)
    assert one.answers is not None
    assert other.answers is not None
    one.answers.memory.put(CAUSE, "crystals")
    assert (one.hits, other.answers.find(CAUSE)) == (other.hits, None)


def test_finished_answers_are_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    assert cache_of(tmp_path).of_pipeline(None).answers is None


def test_what_another_version_found_does_not_serve_this_one(tmp_path: Path) -> None:
    cache, current = cache_of(tmp_path), 1
    first = cache.over(Finding(), {"version": 1}, lambda: current == 1)
    first.search([CAUSE], Trace())
    current = 2
    cache.save()
    assert not (tmp_path / "queries").exists(), "it isn't the current one any more"
    assert len(cache.over(Finding(), {"version": 2}, lambda: True).cache.memory) == 0


def test_all_that_is_kept_of_questions_is_counted_found_and_cleared(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, answers=True)
    cached = cache.over(Finding(), {}, lambda: True)
    caches = cache.of_pipeline(cached.cache)
    assert caches.vectors is not None
    assert caches.answers is not None
    caches.vectors.encode_queries([CAUSE.text])
    assert caches.vector(CAUSE.text, None) is None
    cached.search([CAUSE], Trace())
    assert (caches.vector(CAUSE.text, None) == CAUSE.vector).all()
    assert {name: counts.missed for name, counts in caches.counts.items()} == {"hits": 1, "answers": 0}
    caches.answers.memory.put(CAUSE, "crystals")
    caches.clear()
    assert (caches.vector(CAUSE.text, None), len(cached.cache.memory), len(caches.answers.memory)) == (None, 0, 0)
    assert (QuestionCaches().counts, QuestionCaches().vector(CAUSE.text, None)) == ({}, None)


def test_no_answer_waits_for_the_file_and_one_thread_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = threading.Event()
    real = EntryFile.save

    def slow(self: EntryFile, memory: Memory[Hits]) -> None:
        assert written.wait(30)
        real(self, memory)

    monkeypatch.setattr(query, "EVERY", 1)
    monkeypatch.setattr(EntryFile, "save", slow)
    cache = cache_of(tmp_path)
    cached = cache.over(Finding(), {}, lambda: True)
    for number in range(5):
        cached.search([replace(CAUSE, text=f"What causes gout {number}?")], Trace())
    writing = [thread for thread in threading.enumerate() if thread.name == "rag-cache"]
    assert (len(writing), (tmp_path / "queries").exists()) == (1, False)
    written.set()
    cache.save()
    assert len(load(tmp_path / "queries", {}, FakeEncoder().dimension)) == 5
    assert not writing[0].is_alive()


def test_without_room_for_a_thread_the_answer_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(query, "EVERY", 1)
    cache = cache_of(tmp_path)
    cached = cache.over(Finding(), {}, lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_room)
        assert cached.search([CAUSE], Trace())
    cache.save()
    assert len(load(tmp_path / "queries", {}, FakeEncoder().dimension)) == 1
