"""An index from documents to hits and back: written, checked, opened, replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexes import write_index
from numpy.typing import NDArray

from rag.core import Document, Passage
from rag.errors import CorpusError, IndexMissing, SearchIndexError, UsageError
from rag.index import (
    IndexReader,
    Versions,
    check_current,
    content_sha256,
    corpus_sha256,
    document_ids,
    folder_size,
    open_index,
    store,
)
from rag.index.manifest import Manifest
from rag.ingest import chunk
from rag.settings import Index, Retrieve
from rag.testing import FakeEncoder

Batch = tuple[list[Document], list[Passage], NDArray[np.float32]]

DOCUMENTS = (
    Document("malaria", "Malaria", "Malaria is caused by Plasmodium. A mosquito carries it.", {"year": 1880}),
    Document("scurvy", "Scurvy", "Scurvy is cured by lemons. James Lind showed it.", {"journal": "Lancet"}),
    Document("gout", "Gout", "Gout is caused by crystals of urate. Joints swell at night."),
    Document("größe", "Größe", "Ein Maß der Körpergröße 😀."),
)


def batch(documents: Sequence[Document], max_chars: int = 40) -> Batch:
    passages = [passage for document in documents for passage in chunk.split(document, max_chars)]
    vectors = np.zeros((0, FakeEncoder.dimension), dtype=np.float32)
    if passages:
        vectors = FakeEncoder().encode_passages([f"{passage.title}\n{passage.text}" for passage in passages])
    return list(documents), passages, vectors


def write(versions: Versions, *batches: Batch, settings: Index | None = None, **more: Any) -> Manifest:
    return write_index(
        versions,
        batches,
        model="fake@1",
        settings=settings if settings is not None else Index(),
        chunking={"max_chars": 40},
        **more,
    )


def reader_of(versions: Versions, **retrieve: Any) -> IndexReader:
    return open_index(check_current(versions), Index(), Retrieve(**retrieve), "cpu")


def dense_rows(index: IndexReader, question: str, k: int) -> list[int]:
    rows: list[int] = index.dense.search(FakeEncoder().encode_queries([question]), k)[1][0].tolist()
    return rows


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path, "notes")


# --- writing and opening -----------------------------------------------------------------------


def test_a_written_index_opens_with_every_passage_in_its_row(versions: Versions) -> None:
    batches = [batch(DOCUMENTS[:1]), batch(DOCUMENTS[1:])]
    metadata = {document.id: document.metadata for document in DOCUMENTS}
    expected = [replace(passage, metadata=metadata[passage.doc_id]) for _, some, _ in batches for passage in some]
    write(versions, *batches)
    index = reader_of(versions)
    assert (index.name, index.version) == ("notes", "000001")
    assert len(index.passages) == len(expected) == 7
    assert index.passages.get(range(7)) == expected
    assert index.passages.get([6, 0, 6]) == [expected[6], expected[0], expected[6]]
    assert index.passages.get([]) == []


def test_the_ids_of_all_documents_are_told_without_opening_it(versions: Versions) -> None:
    write(versions, batch(DOCUMENTS[:1]), batch(DOCUMENTS[1:]))
    assert list(document_ids(check_current(versions).folder)) == [document.id for document in DOCUMENTS]


def test_the_manifest_tells_what_was_written(versions: Versions) -> None:
    manifest = write(versions, batch(DOCUMENTS[:2]), batch(DOCUMENTS[2:]))
    assert check_current(versions).manifest == manifest
    assert (manifest.model, manifest.dimension, manifest.dense) == ("fake@1", 64, "flat")
    assert (manifest.documents, manifest.passages, manifest.chunking) == (4, 7, {"max_chars": 40})
    assert manifest.documents_sha256 == corpus_sha256(DOCUMENTS)


@pytest.mark.parametrize("exact_up_to", [100, 0])
@pytest.mark.parametrize("implementation", ["bm25s", "rank_bm25"])
def test_both_searches_lead_to_the_same_passage(versions: Versions, exact_up_to: int, implementation: str) -> None:
    manifest = write(versions, batch(DOCUMENTS), settings=Index(exact_up_to=exact_up_to))
    assert manifest.dense == ("flat" if exact_up_to else "hnsw")
    index = reader_of(versions, lexical=implementation)
    question = "Which crystals of urate are in it?"
    _, lexical_rows = index.lexical.search(index.tokenizer(question), 1)
    (lexical,) = index.passages.get(lexical_rows.tolist())
    (dense,) = index.passages.get(dense_rows(index, question, 1))
    assert lexical == dense
    assert (dense.doc_id, dense.text) == ("gout", "Gout is caused by crystals of urate.")


def test_a_passage_is_found_by_its_title(versions: Versions) -> None:
    write(versions, batch(DOCUMENTS))
    index = reader_of(versions)
    _, rows = index.lexical.search(index.tokenizer("scurvy"), 10)
    assert {passage.text for passage in index.passages.get(rows.tolist())} == {
        "Scurvy is cured by lemons.",
        "James Lind showed it.",
    }


def test_documents_are_kept_without_their_text_and_with_their_checksum(versions: Versions) -> None:
    write(versions, batch(DOCUMENTS))
    lines = (versions.current()[1] / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "id": document.id,
            "title": document.title,
            "sha256": content_sha256(document),
            "passages": len(chunk.split(document, 40)),
            "metadata": dict(document.metadata),
        }
        for document in DOCUMENTS
    ]


def test_a_document_without_passages_counts_as_a_document(versions: Versions) -> None:
    manifest = write(versions, batch([Document("empty", "", " "), *DOCUMENTS]), batch([Document("last", "", "")]))
    assert (manifest.documents, manifest.passages) == (6, 7)
    assert reader_of(versions).passages.get([0])[0].doc_id == "malaria"


def test_the_steps_after_the_last_batch_are_reported_in_order(versions: Versions) -> None:
    steps: list[str] = []

    def batches() -> Iterator[Batch]:
        yield batch(DOCUMENTS[:1])
        steps.append("read")
        yield batch(DOCUMENTS[1:])
        steps.append("read")

    write_index(versions, batches(), model="fake@1", settings=Index(), chunking={"max_chars": 40}, report=steps.append)
    assert steps == ["read", "read", "passages and vectors", "lexical index", "dense index", "checksums", "switching"]


def test_passages_of_more_than_half_the_words_in_common_are_still_found_by_the_dense_search(
    versions: Versions,
) -> None:
    write(versions, batch([Document("only", "Gout", "Joints swell.")]))
    index = reader_of(versions)
    assert index.lexical.search(index.tokenizer("gout"), 10)[1].tolist() == []
    assert dense_rows(index, "gout", 10) == [0]


def test_text_of_nothing_but_function_words_can_be_indexed(versions: Versions) -> None:
    write(versions, batch([Document("hamlet", "", "To be or not to be.")]))
    index = reader_of(versions)
    assert dense_rows(index, "to be", 10) == [0]
    assert index.lexical.search(index.tokenizer("to be"), 10)[1].tolist() == []


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "sub/b").write_bytes(b"345")
    assert folder_size(tmp_path) == 5


# --- replacing ---------------------------------------------------------------------------------


def test_a_new_version_replaces_the_old_one_and_a_reader_of_the_old_one_goes_on(versions: Versions) -> None:
    write(versions, batch(DOCUMENTS[:1]))
    old = reader_of(versions)
    write(versions, batch(DOCUMENTS[1:]))
    new = reader_of(versions)
    assert [index.version for index in (old, new)] == ["000001", "000002"]
    assert [index.passages.get([0])[0].doc_id for index in (old, new)] == ["malaria", "scurvy"]
    assert dense_rows(old, "mosquito", 10) != dense_rows(new, "mosquito", 10)


def test_a_version_that_was_checked_opens_after_a_newer_one_was_written(versions: Versions) -> None:
    write(versions, batch(DOCUMENTS[:1]))
    checked = check_current(versions)
    write(versions, batch(DOCUMENTS[1:]))
    index = open_index(checked, Index(), Retrieve(), "cpu")
    assert (index.version, index.passages.get([0])[0].doc_id) == ("000001", "malaria")


def test_threads_that_ask_for_more_conditions_than_are_remembered_get_what_meets_each(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "REMEMBERED", 2)
    years = range(1800, 1807)
    write(versions, batch([Document(f"of-{year}", "Note", "Lemons cure it.", {"year": year}) for year in years]))
    passages = store.PassageStore(versions.current()[1])
    assert [one.metadata["year"] for one in passages.get(list(range(7)))] == list(years)

    def ask(number: int) -> bool:
        since = years[number % 7]
        found: list[bool] = passages.where(f"year>={since}").tolist()
        return found == [year >= since for year in years]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(2000)))
    assert len(passages._met) == 2


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("year=lately", "year with 'lately'"),
        ('not pages>"many"', "pages with 'many'"),
        ("journal=Heart or year<x", "year with 'x'"),
    ],
)
def test_a_word_is_not_compared_with_what_holds_numbers_alone(versions: Versions, condition: str, told: str) -> None:
    facts: list[dict[str, str | int]] = [
        {"year": 1747, "journal": "2000"},
        {"year": 1990, "pages": "12", "journal": "Heart"},
    ]
    write(versions, batch([Document(str(number), "Note", "Lemons.", some) for number, some in enumerate(facts)]))
    passages = store.PassageStore(versions.current()[1])
    with pytest.raises(UsageError, match=f"compares {told}. Every .* of this index is a number"):
        passages.where(condition)
    assert passages.where('journal=heart or year~"17" or retracted=x').tolist() == [True, True]


def test_a_corpus_that_fails_half_way_leaves_the_old_version_and_what_was_encoded(versions: Versions) -> None:
    write(versions, batch(DOCUMENTS))
    before = sorted(path for path in versions.root.rglob("*"))

    def failing() -> Iterator[Batch]:
        yield batch(DOCUMENTS[:2])
        raise CorpusError("notes.jsonl:3: not valid JSON")

    with pytest.raises(CorpusError, match=r"notes\.jsonl:3"):
        write_index(versions, failing(), model="fake@1", settings=Index(), chunking={})
    unfinished = versions.root / "unfinished"
    assert sorted(path for path in versions.root.rglob("*") if unfinished not in (path, *path.parents)) == before
    assert [path.name for path in unfinished.iterdir()] == ["000001.npz"]
    assert reader_of(versions).version == "000001"


def test_a_corpus_that_fails_half_way_leaves_no_file_open(versions: Versions) -> None:
    def failing() -> Iterator[Batch]:
        yield batch(DOCUMENTS[:2])
        raise CorpusError("broken")

    with pytest.raises(CorpusError, match="broken") as held:
        write_index(versions, failing(), model="fake@1", settings=Index(), chunking={})
    opened = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert [name for name in opened if name.startswith(str(versions.root))] == []
    assert held.value.args == ("broken",)


@pytest.mark.parametrize("batches", [(), (batch([Document("empty", "Title", "")]),)], ids=["nothing", "no text"])
def test_a_corpus_without_text_is_refused_and_leaves_nothing(versions: Versions, batches: tuple[Batch, ...]) -> None:
    with pytest.raises(CorpusError) as caught:
        write(versions, *batches)
    assert str(caught.value) == "The corpus holds no text to index."
    assert versions.all() == []
    with pytest.raises(IndexMissing):
        check_current(versions)


def test_a_damaged_version_is_refused_before_it_is_opened(versions: Versions) -> None:
    write(versions, batch(DOCUMENTS))
    path = versions.current()[1] / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SearchIndexError, match=r"vectors\.npy"):
        check_current(versions)


# --- checksums of content ----------------------------------------------------------------------

ONE = Document("id", "Title", "Text.", {"year": 1998, "journal": "Lancet"})


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"title": "title"},
        {"text": "Text"},
        {"metadata": {"year": 1999, "journal": "Lancet"}},
        {"metadata": {"year": "1998", "journal": "Lancet"}},
        {"metadata": {"year": 1998}},
        {"metadata": {"year": 1998, "journal": "Lancet", "volume": 3}},
        {"metadata": {}},
        {"title": "Text.", "text": "Title"},
    ],
)
def test_a_change_of_any_field_changes_the_checksum(change: dict[str, Any]) -> None:
    assert content_sha256(replace(ONE, **change)) != content_sha256(ONE)


def test_the_order_of_metadata_does_not_change_the_checksum() -> None:
    turned = replace(ONE, metadata={"journal": "Lancet", "year": 1998})
    assert content_sha256(turned) == content_sha256(ONE)


def test_the_checksum_of_a_document_is_the_same_in_every_version_of_rag() -> None:
    # A change makes every user's index look out of date: bump the index format with it.
    assert content_sha256(ONE) == "22e93c137405d8748d2b520e410f1212ce8d3ea2ef841f1c79f3761c49fdaf82"


def test_the_checksum_of_a_corpus_changes_with_its_documents_and_not_with_their_order() -> None:
    one, two = DOCUMENTS[:2]
    assert len({corpus_sha256(some) for some in ([], [one], [two], [one, two], [one, one])}) == 5
    assert corpus_sha256([two, one]) == corpus_sha256([one, two])
    assert corpus_sha256(iter([one, two])) == corpus_sha256([one, two])
