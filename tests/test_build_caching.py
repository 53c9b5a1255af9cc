"""rag/build/caching.py on the real models: what one process found serves the next one, and nothing that isn't so any more does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag import build, paths, settings
from rag.cache import file as cache_file
from rag.cache import query
from rag.core import Hits, Trace
from rag.errors import StorageError
from rag.index import Versions

NAME = "query-cache"
MALARIA, SCURVY, GOUT = "What causes malaria?", "What cures scurvy?", "Why do joints swell in gout?"
DOCUMENTS = {
    "malaria": ("Malaria", "Malaria is caused by Plasmodium parasites. A mosquito carries them.", 1880),
    "scurvy": ("Scurvy", "Scurvy is caused by a lack of vitamin C. Lemons cure it.", 1747),
    "gout": ("Gout", "Gout is caused by crystals of urate. Joints swell at night.", 2001),
    "rabies": ("Rabies", "Rabies is caused by a virus. The bite of a dog carries it.", 2010),
}


class Home:
    """An index of four documents on the real models, and the query cache beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notices: list[str] = []
        self.documents: dict[str, tuple[str, str, int]] = dict(DOCUMENTS)
        self.index()

    @property
    def path(self) -> Path:
        return build.cache_path(load("cache.enabled=true"))

    def index(self, **changed: str) -> str:
        """The number of the version that has these texts."""
        for name, text in changed.items():
            title, _, year = self.documents.get(name, (name.capitalize(), "", 2020))
            self.documents[name] = (title, text, year)
        lines = [
            json.dumps({"id": name, "title": title, "text": text, "year": year})
            for name, (title, text, year) in self.documents.items()
        ]
        (self.folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return build.build_index(load(), [self.folder / "corpus.jsonl"]).version

    def open(self, *assignments: str) -> Opened:
        self.notices.clear()
        return Opened(build.open_search(load("cache.enabled=true", *assignments), notice=self.notices.append))

    @property
    def left_aside(self) -> list[str]:
        return [notice for notice in self.notices if "query cache" in notice]


class Opened:
    """A search as a process has it."""

    def __init__(self, search: build.Search) -> None:
        self.search = search

    def ask(self, question: str, where: str | None = None) -> tuple[Hits, float | None]:
        """The hits, and how similar the earlier question is that they are from; None where they were searched."""
        trace = Trace()
        [hits] = self.search.search([question], trace, where)
        info = trace.cache_info(question, self.search.searcher.index_version, where)
        assert info.hit == (trace.seconds("retrieve") is None)
        assert info.hit == (trace.seconds("rerank") is None)
        return hits, info.similarity

    def close(self) -> None:
        self.search.close()


def load(*assignments: str) -> settings.Loaded:
    return settings.load(assignments=[f"index.name={NAME}", *assignments])


def saved() -> None:
    """Once no cache is being written any more."""
    for thread in threading.enumerate():
        if thread.name == "rag-cache":
            thread.join()


def best(hits: Hits) -> tuple[str, str]:
    return hits[0].passage.doc_id, hits[0].passage.text


@pytest.fixture
def home(in_real_home: Path, tmp_path: Path) -> Iterator[Home]:
    del in_real_home
    yield Home(tmp_path)
    versions = Versions(paths.indexes_dir(), NAME)
    if versions.root.is_dir():
        versions.remove()


# --- from one process to the next ----------------------------------------------------------------


def test_what_one_process_found_is_given_again_by_the_next_without_search_or_encoder(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = home.open()
    found = [first.ask(question) for question in (MALARIA, SCURVY)]
    assert [similarity for _, similarity in found] == [None, None]
    assert [best(hits)[0] for hits, _ in found] == ["malaria", "scurvy"]
    assert not home.path.exists(), "nothing is written before there is enough of it"
    first.close()

    second = home.open()
    assert home.left_aside == []
    with monkeypatch.context() as patch:
        patch.setattr(second.search.encoder, "_encoder", None)  # one that can't be asked
        assert second.ask(MALARIA) == (found[0][0], 1.0)
        assert second.ask(SCURVY) == (found[1][0], 1.0)
    assert all(hit.rerank is not None for hit in found[0][0]), "what is kept has been reranked"
    new, similarity = second.ask(GOUT)
    assert (best(new)[0], similarity) == ("gout", None)
    second.close()

    third = home.open()
    assert [third.ask(question)[1] for question in (GOUT, MALARIA, SCURVY)] == [1.0] * 3


def test_what_two_processes_find_at_the_same_time_is_kept_of_both(home: Home) -> None:
    server, beside = home.open(), home.open()
    server.ask(MALARIA)
    beside.ask(SCURVY)
    server.close()
    beside.close()
    assert [home.open().ask(question)[1] for question in (MALARIA, SCURVY)] == [1.0, 1.0]


def test_of_a_batch_what_the_last_process_found_is_given_and_the_rest_is_searched(home: Home) -> None:
    first = home.open()
    first.ask(SCURVY)
    first.close()
    hits = home.open().search.search([MALARIA, SCURVY, GOUT], Trace())
    assert [best(one)[0] for one in hits] == ["malaria", "scurvy", "gout"]


def test_under_a_condition_it_is_another_question_in_the_next_process_too(home: Home) -> None:
    first = home.open()
    first.ask(MALARIA)
    since, _ = first.ask(MALARIA, "year>2000")
    assert {hit.passage.doc_id for hit in since} == {"gout", "rabies"}
    first.close()
    second = home.open()
    assert second.ask(MALARIA, "year>2000") == (since, 1.0)
    assert best(second.ask(MALARIA)[0])[0] == "malaria"
    assert second.ask(MALARIA, "year>2005")[1] is None
    assert [hit.passage.metadata for hit in second.ask(MALARIA, "year>2005")[0]] == [{"year": 2010}]


def test_nothing_new_writes_nothing(home: Home) -> None:
    first = home.open()
    first.close()
    assert not home.path.exists()
    first.ask(MALARIA)
    first.close()
    written = home.path.stat().st_mtime_ns
    second = home.open()
    second.close()
    assert home.path.stat().st_mtime_ns == written


def test_a_session_of_hits_alone_keeps_their_order(home: Home) -> None:
    first = home.open()
    for question in (MALARIA, SCURVY, GOUT):
        first.ask(question)
    first.close()
    second = home.open()
    assert second.ask(MALARIA)[1] == 1.0
    second.close()
    third = home.open("cache.max_entries=2")
    assert [third.ask(question)[1] for question in (MALARIA, GOUT, SCURVY)] == [1.0, 1.0, None]


@pytest.mark.parametrize("batches", [[[MALARIA], [SCURVY], [GOUT]], [[MALARIA, SCURVY, GOUT]]], ids=["one by one", "3"])
def test_a_process_that_is_killed_loses_no_more_than_the_last_few(
    home: Home, monkeypatch: pytest.MonkeyPatch, batches: Sequence[Sequence[str]]
) -> None:
    monkeypatch.setattr(query, "EVERY", 3)
    killed = home.open()
    for batch in batches:
        assert not home.path.exists()
        killed.search.search(batch, Trace())
        saved()
    assert home.path.exists()
    second = home.open()
    assert [second.ask(question)[1] for question in (MALARIA, SCURVY, GOUT)] == [1.0] * 3


def test_what_shapes_no_hit_may_be_set_otherwise(home: Home) -> None:
    first = home.open()
    for question in (MALARIA, SCURVY, GOUT):
        first.ask(question)
    first.close()
    second = home.open("cache.max_entries=2", "cache.min_cosine=0.9", "context.passages=1", "generator.max_tokens=9")
    assert home.left_aside == []
    assert [second.ask(question)[1] for question in (SCURVY, GOUT, MALARIA)] == [1.0, 1.0, None]


def test_an_entry_is_as_old_in_the_next_process_as_it_was(home: Home) -> None:
    first = home.open("cache.ttl_s=600")
    first.ask(MALARIA)
    first.close()
    assert home.open("cache.ttl_s=600").ask(MALARIA)[1] == 1.0
    time.sleep(0.1)
    assert home.open("cache.ttl_s=0.1").ask(MALARIA)[1] is None


# --- what isn't so any more ----------------------------------------------------------------------


def test_after_an_update_of_the_index_nothing_of_before_is_given_again(home: Home) -> None:
    first = home.open()
    before = {question: first.ask(question)[0] for question in (MALARIA, SCURVY)}
    first.close()
    assert home.index(malaria="Malaria is caused by bad air, some said. A mosquito carries it.") == "000002"

    second = home.open()
    assert home.left_aside == [], "another version is in the order of things"
    for question in (MALARIA, SCURVY):
        hits, similarity = second.ask(question)
        assert similarity is None
        assert hits != before[question]
        assert not {hit.passage.text for hit in hits} & {DOCUMENTS["malaria"][1]}
    assert best(second.ask(MALARIA)[0]) == ("malaria", home.documents["malaria"][1])
    second.close()

    third = home.open()
    assert home.left_aside == []
    hits, similarity = third.ask(MALARIA)
    assert (best(hits), similarity) == (("malaria", home.documents["malaria"][1]), 1.0)


def test_a_document_that_is_new_is_found_for_a_question_that_was_asked_before(home: Home) -> None:
    """No entry names it, so none could be dropped for it alone."""
    first = home.open()
    first.ask("What causes scabies?")
    first.close()
    home.index(scabies="Scabies is caused by a mite. It digs into the skin.")
    assert best(home.open().ask("What causes scabies?")[0])[0] == "scabies"


def test_a_process_that_goes_over_to_a_newer_version_mixes_nothing_of_both(home: Home) -> None:
    loaded = load("cache.enabled=true")
    old = home.open()
    old.ask(MALARIA)
    assert build.newer(loaded, old.search) is None
    home.index(malaria="Malaria is caused by bad air, some said. A mosquito carries it.")
    found = build.newer(loaded, old.search)
    assert found is not None
    new = Opened(found)

    hits, similarity = new.ask(MALARIA)
    assert (best(hits), similarity) == (("malaria", home.documents["malaria"][1]), None)
    # What is under way in the old one goes on there, and is none of the new one's.
    late, similarity = old.ask(MALARIA)
    assert (best(late), similarity) == (("malaria", DOCUMENTS["malaria"][1]), 1.0)
    old.ask(GOUT)
    assert new.ask(GOUT)[1] is None
    new.ask(SCURVY)
    old.close()

    last = home.open()
    assert home.left_aside == []
    for question in (MALARIA, SCURVY, GOUT):
        hits, similarity = last.ask(question)
        assert similarity == 1.0
        assert not {hit.passage.text for hit in hits} & {DOCUMENTS["malaria"][1]}


def test_an_index_that_was_removed_and_begun_again_is_a_newer_one_of_the_same_number(home: Home) -> None:
    loaded = load("cache.enabled=true")
    old = home.open()
    number = old.search.index.version
    Versions(paths.indexes_dir(), NAME).remove()
    assert home.index(malaria="Malaria is caused by bad air, some said. A mosquito carries it.") == number
    found = build.newer(loaded, old.search)
    assert found is not None
    assert best(Opened(found).ask(MALARIA)[0]) == ("malaria", home.documents["malaria"][1])
    assert build.newer(loaded, found) is None


def test_who_has_an_index_that_was_begun_again_does_not_replace_what_is_kept_for_the_new_one(home: Home) -> None:
    old = home.open()
    old.ask(GOUT)
    Versions(paths.indexes_dir(), NAME).remove()
    home.index(malaria="Malaria is caused by bad air, some said. A mosquito carries it.")
    new = home.open()
    new.ask(SCURVY)
    new.close()
    old.close()
    assert home.open().ask(SCURVY)[1] == 1.0
    assert home.left_aside == []


def test_after_a_roll_back_nothing_of_the_later_version_is_given(home: Home) -> None:
    home.index(malaria="Malaria is caused by bad air, some said. A mosquito carries it.")
    later = home.open()
    later.ask(MALARIA)
    later.close()
    assert Versions(paths.indexes_dir(), NAME).roll_back() == "000001"
    hits, similarity = home.open().ask(MALARIA)
    assert (best(hits), similarity) == (("malaria", DOCUMENTS["malaria"][1]), None)


@pytest.mark.parametrize("assignment", ["retrieve.lexical_weight=0.9", "rerank.model=null"])
def test_other_settings_of_the_search_have_a_cache_of_their_own(home: Home, assignment: str) -> None:
    """Else `rag search -n 50`, which searches deeper, would throw away what the others found, and the other way round."""
    first = home.open()
    first.ask(MALARIA)
    first.close()
    other = build.open_search(load("cache.enabled=true", assignment), notice=home.notices.append)
    trace = Trace()
    other.search([MALARIA], trace)
    other.close()
    assert not trace.cache_info(MALARIA, "v").hit
    assert home.left_aside == []
    assert home.open().ask(MALARIA)[1] == 1.0


def test_a_damaged_file_is_left_aside_with_a_notice_and_replaced_at_the_next_close(home: Home) -> None:
    first = home.open()
    found, _ = first.ask(MALARIA)
    first.close()
    whole = home.path.read_bytes()
    flipped = bytearray(whole)
    flipped[-20] ^= 1
    for damaged in (whole[:-30], bytes(flipped)):  # all other kinds: test_cache_file
        home.path.write_bytes(damaged)
        opened = home.open()
        [notice] = home.left_aside
        assert f"{home.path} is left aside and begun anew: it " in notice
        assert opened.ask(MALARIA) == (found, None)
        assert home.path.read_bytes() == damaged
        opened.close()
        again = home.open()
        assert (home.left_aside, again.ask(MALARIA)) == ([], (found, 1.0))


# --- switched off, or can't be kept --------------------------------------------------------------


def test_switched_off_it_keeps_nothing_and_leaves_what_is_there(home: Home) -> None:
    def off(*assignments: str) -> Opened:
        return Opened(build.open_search(load("cache.enabled=false", *assignments), home.notices.append))

    for _ in range(2):
        opened = off()
        assert opened.search.cache is None
        assert [opened.ask(MALARIA)[1] for _ in range(2)] == [None, None]
        opened.close()
    assert not home.path.exists()

    first = home.open()
    found = first.ask(SCURVY)[0]
    first.close()
    before = home.path.read_bytes()
    assert off().ask(SCURVY) == (found, None)
    assert home.path.read_bytes() == before


def test_switched_off_it_asks_for_no_model(home: Home) -> None:
    off = ("cache.enabled=false", "cache.model=not-on-this-machine")
    assert best(Opened(build.open_search(load(*off))).ask(MALARIA)[0])[0] == "malaria"
    del home


def test_where_it_can_not_be_written_the_answer_is_given_and_the_reason_told(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("No room on the disk.")

    opened = home.open()
    assert opened.ask(MALARIA)[1] is None
    with monkeypatch.context() as patch:
        patch.setattr(cache_file, "save", full)
        patch.setattr(query, "EVERY", 1)
        assert best(opened.ask(GOUT)[0])[0] == "gout"
        saved()
        opened.close()
    assert set(home.left_aside) == {"the query cache isn't kept: No room on the disk."}
    opened.ask(SCURVY)
    opened.close()
    second = home.open()
    assert [second.ask(question)[1] for question in (MALARIA, GOUT, SCURVY)] == [1.0] * 3


def test_what_can_not_be_written_for_now_is_written_at_the_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for a minute costs nothing."""

    def full(*_: Any) -> None:
        raise StorageError("No room on the disk.")

    opened = home.open()
    with monkeypatch.context() as patch:
        patch.setattr(cache_file, "save", full)
        patch.setattr(query, "EVERY", 1)
        opened.ask(MALARIA)
        saved()
    opened.close()
    assert home.open().ask(MALARIA)[1] == 1.0


def test_an_index_that_was_removed_meanwhile_is_not_begun_again_by_its_cache(home: Home) -> None:
    opened = home.open()
    opened.ask(MALARIA)
    Versions(paths.indexes_dir(), NAME).remove()
    opened.close()
    assert not home.path.parent.exists()
    assert home.left_aside == []
