"""A new version from the one before it: what is kept, replaced, dropped, and what a killed run leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.core import Document
from rag.errors import CorpusError, SearchIndexError
from rag.index import Changes, IndexReader, Shape, Versions, check_current, corpus_sha256, open_index, updating
from rag.index.manifest import Manifest
from rag.ingest import chunk
from rag.settings import Index, Retrieve
from rag.testing import FakeEncoder

SHAPE = Shape("fake@1", {"max_chars": 40})
MALARIA = Document("malaria", "Malaria", "Malaria is caused by Plasmodium. A mosquito carries it.", {"year": 1880})
SCURVY = Document("scurvy", "Scurvy", "Scurvy is cured by lemons. James Lind showed it.")
GOUT = Document("gout", "Gout", "Gout is caused by crystals of urate. Joints swell at night.")
GOUT_AGAIN = Document("gout", "Gout", "Gout is due to urate. Colchicine helps.")


class CountingEncoder(FakeEncoder):
    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_passages(self, texts: Sequence[str]) -> Any:
        self.encoded += texts
        return super().encode_passages(texts)


def index(
    versions: Versions,
    documents: Iterable[Document],
    *,
    encoder: FakeEncoder | None = None,
    prune: bool = False,
    exact_up_to: int = 1000,
    deleted: Sequence[str] = (),
    die_after: int | None = None,
    **options: Any,
) -> tuple[Manifest, Changes]:
    """As `rag index` does it, a document a batch."""
    encoder = encoder if encoder is not None else FakeEncoder()
    with updating(versions, SHAPE, Index(exact_up_to=exact_up_to), **options) as update:
        for number, document in enumerate(documents):
            if number == die_after:
                raise KeyboardInterrupt
            if update.holds(document):
                continue
            passages = chunk.split(document, 40)
            update.add([document], passages, encoder.encode_passages([passage.titled for passage in passages]))
        for identity in deleted:
            update.delete(identity)
        return update.finish(prune)


def opened(versions: Versions, lexical: str = "bm25s") -> IndexReader:
    return open_index(check_current(versions), Index(), Retrieve.model_validate({"lexical": lexical}), "cpu")


def texts(versions: Versions) -> set[tuple[str, str]]:
    reader = opened(versions)
    return {(p.doc_id, p.text) for p in reader.passages.get(range(len(reader.passages)))}


def expected(documents: Iterable[Document]) -> set[tuple[str, str]]:
    return {(document.id, passage.text) for document in documents for passage in chunk.split(document, 40)}


def found(reader: IndexReader, question: str) -> tuple[str, str]:
    """The best passage of either search."""
    _, dense = reader.dense.search(FakeEncoder().encode_queries([question]), 1)
    _, lexical = reader.lexical.search(reader.tokenizer(question), 1)
    one, other = reader.passages.get([int(dense[0][0]), int(lexical[0])])
    return one.text, other.text


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path, "notes")


def test_what_is_there_as_it_is_is_not_encoded_again(versions: Versions) -> None:
    index(versions, [MALARIA, SCURVY])
    encoder = CountingEncoder()
    _, changes = index(versions, [MALARIA, SCURVY, GOUT], encoder=encoder)
    assert changes == Changes(added=1, unchanged=2)
    assert [text.partition("\n")[0] for text in encoder.encoded] == ["Gout", "Gout"]
    assert texts(versions) == expected([MALARIA, SCURVY, GOUT])


def test_nothing_new_writes_no_version(versions: Versions) -> None:
    first, _ = index(versions, [MALARIA, SCURVY])
    again, changes = index(versions, [SCURVY])
    assert (again, changes) == (first, Changes(unchanged=1))
    assert versions.all() == ["000001"]


def test_a_changed_document_takes_the_place_of_the_old_one(versions: Versions) -> None:
    index(versions, [MALARIA, GOUT])
    _, changes = index(versions, [GOUT_AGAIN])
    assert changes == Changes(changed=1)
    assert texts(versions) == expected([MALARIA, GOUT_AGAIN])


def test_what_no_source_has_stays_unless_pruned(versions: Versions) -> None:
    index(versions, [MALARIA, SCURVY, GOUT])
    assert index(versions, [MALARIA])[1] == Changes(unchanged=1)
    assert texts(versions) == expected([MALARIA, SCURVY, GOUT])
    assert index(versions, [MALARIA], prune=True)[1] == Changes(unchanged=1, removed=2)
    assert texts(versions) == expected([MALARIA])


def test_a_deleted_document_goes_wherever_it_came_from(versions: Versions) -> None:
    index(versions, [MALARIA, SCURVY])
    _, changes = index(versions, [SCURVY, GOUT], deleted=["malaria", "gout", "unknown"])
    assert changes == Changes(unchanged=1, removed=1)
    assert texts(versions) == expected([SCURVY])


def test_deleting_all_is_refused(versions: Versions) -> None:
    index(versions, [MALARIA])
    with pytest.raises(CorpusError, match="no text"):
        index(versions, [], deleted=["malaria"])
    assert texts(versions) == expected([MALARIA])


def test_of_a_document_that_comes_twice_the_later_one_counts(versions: Versions) -> None:
    _, changes = index(versions, [GOUT, MALARIA, GOUT_AGAIN])
    assert changes == Changes(added=2)
    assert texts(versions) == expected([MALARIA, GOUT_AGAIN])
    # And where the later one is what is there already.
    _, changes = index(versions, [GOUT, GOUT_AGAIN])
    assert changes == Changes(unchanged=1)
    assert texts(versions) == expected([MALARIA, GOUT_AGAIN])


def test_what_a_killed_run_encoded_is_not_encoded_again(versions: Versions) -> None:
    with pytest.raises(KeyboardInterrupt):
        index(versions, [MALARIA, SCURVY, GOUT], die_after=2)
    assert versions.all() == []
    encoder = CountingEncoder()
    _, changes = index(versions, [MALARIA, SCURVY, GOUT], encoder=encoder)
    assert changes == Changes(added=3)
    assert {text.partition("\n")[0] for text in encoder.encoded} == {"Gout"}
    assert texts(versions) == expected([MALARIA, SCURVY, GOUT])
    assert not (versions.root / "unfinished").exists()


def test_what_a_killed_run_encoded_is_dropped_where_no_source_has_it_now(versions: Versions) -> None:
    with pytest.raises(KeyboardInterrupt):
        index(versions, [MALARIA, GOUT, SCURVY], die_after=2)
    index(versions, [MALARIA, GOUT_AGAIN])
    assert texts(versions) == expected([MALARIA, GOUT_AGAIN])


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "flags"])
def test_a_damaged_leftover_is_encoded_again(versions: Versions, damage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        index(versions, [MALARIA, SCURVY], die_after=1)
    (left,) = (versions.root / "unfinished").iterdir()
    data = bytearray(left.read_bytes())
    data[len(data) // 2] ^= 1
    flags = data.rindex(b"PK\x01\x02") + 8
    encrypted = data[:flags] + bytes([data[flags] | 1]) + data[flags + 1 :]
    left.write_bytes({"cut": bytes(data[:-30]), "flip": bytes(data), "empty": b"", "flags": bytes(encrypted)}[damage])
    index(versions, [MALARIA, SCURVY])
    assert texts(versions) == expected([MALARIA, SCURVY])
    reader = opened(versions)
    vectors = FakeEncoder().encode_passages([p.titled for p in reader.passages.get(range(len(reader.passages)))])
    np.testing.assert_array_equal(reader.dense.vectors, vectors)


def test_leftovers_of_another_encoder_are_of_no_use(versions: Versions) -> None:
    with pytest.raises(KeyboardInterrupt):
        index(versions, [MALARIA, SCURVY], die_after=1)
    with updating(versions, Shape("other@1", SHAPE.chunking), Index()) as update:
        assert not update.holds(MALARIA)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Shape("other@1", {"max_chars": 40}), "built with fake@1 and chunk.max_chars=40, the settings say other@1 and"),
        (Shape("fake@1", {"max_chars": 50}), "the settings say fake@1 and chunk.max_chars=50"),
    ],
)
def test_an_index_of_another_shape_is_refused_unless_rebuilt(versions: Versions, shape: Shape, said: str) -> None:
    index(versions, [MALARIA])
    with pytest.raises(SearchIndexError, match=said) as caught, updating(versions, shape, Index()):
        pass
    assert "--rebuild" in str(caught.value)
    with updating(versions, shape, Index(), rebuild=True) as update:
        assert not update.holds(MALARIA)


def test_both_searches_find_old_and_new_passages_after_an_update(versions: Versions) -> None:
    index(versions, [MALARIA, SCURVY])
    index(versions, [GOUT])
    for lexical in ("bm25s", "rank_bm25"):
        reader = opened(versions, lexical)
        assert found(reader, "crystals of urate") == ("Gout is caused by crystals of urate.",) * 2
        assert found(reader, "cured by lemons") == ("Scurvy is cured by lemons.",) * 2


@pytest.mark.parametrize(
    ("removed", "nodes"), [([], 180), (["d3"], 180), ([f"d{n}" for n in range(7)], 166)], ids=["none", "few", "many"]
)
def test_a_graph_is_added_to_or_built_anew(versions: Versions, removed: list[str], nodes: int) -> None:
    many = [
        Document(f"d{n}", f"Title {n}", f"Sentence {n} is about w{n % 7}. And w{n % 5} is another.") for n in range(90)
    ]
    assert index(versions, many[:60], exact_up_to=10)[0].dense == "hnsw"
    contents, _ = index(versions, many[60:], deleted=removed, exact_up_to=10)
    assert contents.dense == "hnsw"
    reader = opened(versions)
    passages = reader.passages.get(range(len(reader.passages)))
    assert len(passages) == 180 - 2 * len(removed)
    assert reader.dense._index.ntotal == nodes
    for row in range(len(passages)):
        vector = FakeEncoder().encode_passages([passages[row].titled])
        cosines, rows = reader.dense.search(vector, 3)
        assert cosines[0][0] == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(reader.dense.vectors[rows[0][0]], vector[0], atol=1e-6)
        np.testing.assert_allclose(reader.dense.vectors[rows[0]] @ vector[0], cosines[0], atol=1e-5)


def test_a_graph_that_grows_again_and_again_forgets_no_passage_and_finds_none_that_has_gone(versions: Versions) -> None:
    def document(number: int, revision: int) -> Document:
        return Document(f"d{number}", f"Title {number}", f"Sentence {number} is w{number % 7} and v{revision}.")

    index(versions, [document(n, 0) for n in range(60)], exact_up_to=10)
    held = {f"d{n}": 0 for n in range(60)}
    nodes = []
    for revision in range(1, 10):
        index(versions, [document(revision * 5, revision)], exact_up_to=10)
        held[f"d{revision * 5}"] = revision
        reader = open_index(check_current(versions), Index(exact_up_to=10), Retrieve(), "cpu")
        nodes.append(reader.dense._index.ntotal)
        passages = reader.passages.get(range(60))
        vectors = FakeEncoder().encode_passages([passage.titled for passage in passages])
        np.testing.assert_array_equal(reader.dense.vectors, vectors)
        assert {passage.doc_id: int(passage.text[-2]) for passage in passages} == held
        for allowed in (None, np.arange(60) % 3 > 0):
            cosines, rows = reader.dense.search(vectors, 5, allowed)
            exact = vectors @ vectors.T if allowed is None else np.where(allowed, vectors @ vectors.T, -2)
            np.testing.assert_allclose(cosines, -np.sort(-exact, axis=1)[:, :5], atol=1e-5)
            np.testing.assert_allclose(np.take_along_axis(exact, rows, axis=1), cosines, atol=1e-5)
    assert nodes == [61, 62, 63, 64, 65, 66, 60, 61, 62], "a tenth of it may have gone"


DOCUMENTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), max_size=6)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(st.tuples(DOCUMENTS, st.booleans()), min_size=1, max_size=5))
def test_after_any_updates_it_holds_what_a_build_from_nothing_would(
    runs: list[tuple[dict[str, int], bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    versions = Versions(tmp_path_factory.mktemp("any"), "notes")
    held: dict[str, Document] = {}
    for contents, prune in runs:
        documents = {
            name: Document(name, name, f"Text {name} of w{version}. More.") for name, version in contents.items()
        }
        wanted = documents if prune else held | documents
        if not wanted:
            continue
        manifest, changes = index(versions, documents.values(), prune=prune)
        assert changes.added == len(documents.keys() - held.keys())
        assert changes.removed == len(held.keys() - wanted.keys())
        assert changes.unchanged == sum(held.get(name) == document for name, document in documents.items())
        held = wanted
        assert manifest.documents_sha256 == corpus_sha256(held.values())
        assert texts(versions) == expected(held.values())
