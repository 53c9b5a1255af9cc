"""Hybrid search: the fusion by hand, and what each hit carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexes import write_index

from rag.core import Document, Hit, Hits, Query, Reranker, Trace
from rag.errors import UsageError
from rag.index import IndexReader, Versions, check_current, open_index
from rag.ingest import chunk
from rag.search import HybridSearcher, fuse_scores
from rag.settings import Index, Retrieve
from rag.testing import FakeEncoder, FakeReranker
from rag.where import parse

NAMES = ("fever", "cough", "rash", "pain", "urate", "insulin", "thyroid", "mosquito", "lemons", "anaemia", "virus")
WORDS = (*NAMES, *(f"sign{number}" for number in range(12)))


def corpus(count: int = 80) -> list[Document]:
    """Titles and texts drawn from a few words, so that passages differ in how many they share with a question."""
    random = np.random.default_rng(0)
    return [
        Document(
            f"d{number}",
            f"{random.choice(WORDS).capitalize()} {number}",
            " ".join(random.choice(WORDS, size=random.integers(3, 12))).capitalize() + ".",
            {"year": 2000 + number % 10, **({"retracted": "yes"} if number % 7 == 0 else {})},
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> IndexReader:
    return make_index(tmp_path_factory.mktemp("indexes"), corpus())


def make_index(
    root: Path, documents: Sequence[Document], settings: Index | None = None, lexical: str = "bm25s"
) -> IndexReader:
    settings = settings if settings is not None else Index()
    encoder, versions = FakeEncoder(), Versions(root, "notes")
    passages = [passage for document in documents for passage in chunk.split(document, 1000)]
    vectors = encoder.encode_passages([f"{passage.title}\n{passage.text}" for passage in passages])
    write_index(versions, [(documents, passages, vectors)], model=encoder.model, settings=settings, chunking={})
    retrieve = Retrieve.model_validate({"lexical": lexical})
    return open_index(check_current(versions), settings, retrieve, "cpu")


def query(text: str) -> Query:
    return Query(text, FakeEncoder().encode_queries([text])[0])


def search(index: IndexReader, text: str, reranker: Reranker | None = None, **retrieve: Any) -> Hits:
    (hits,) = HybridSearcher(index, Retrieve(**retrieve), reranker).search([query(text)], Trace())
    return hits


def ids(hits: Hits) -> list[str]:
    return [hit.passage.id for hit in hits]


def dense_ids(index: IndexReader, text: str, n: int) -> list[str]:
    rows = index.dense.search(FakeEncoder().encode_queries([text]), n)[1][0].tolist()
    return [passage.id for passage in index.passages.get(rows)]


def lexical_ids(index: IndexReader, text: str, n: int) -> list[str]:
    rows = index.lexical.search(index.tokenizer(text), n)[1].tolist()
    return [passage.id for passage in index.passages.get(rows)]


# --- fusion ------------------------------------------------------------------------------------


def test_fusion_weighs_the_shares_of_the_best() -> None:
    fused = fuse_scores([0.2, 0.4, 0.6], [0.0, 3.0, 12.0], 0.25)
    np.testing.assert_allclose(fused, [0.0, 0.75 * 0.5 + 0.25 * 0.25, 1.0], rtol=1e-12)


def test_fusion_of_nothing_is_empty() -> None:
    assert fuse_scores([], [], 0.2).shape == (0,)


scores = st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 60)), min_size=1, max_size=20)


@settings(deadline=None)
@given(scores, st.floats(0, 1))
def test_fused_scores_lie_between_0_and_1_and_keep_an_order_that_both_have(
    pairs: list[tuple[float, float]], weight: float
) -> None:
    cosines, lexical = zip(*pairs, strict=True)
    fused = fuse_scores(cosines, lexical, weight)
    assert ((fused >= 0) & (fused <= 1 + 1e-9)).all()
    for one, (cosine, words) in zip(fused, pairs, strict=True):
        for other, (lower, fewer) in zip(fused, pairs, strict=True):
            assert not (cosine >= lower and words >= fewer) or one >= other - 1e-9


def test_where_all_are_alike_none_is_better() -> None:
    assert fuse_scores([0.3, 0.3], [0.0, 0.0], 0.2).tolist() == [0.0, 0.0]


# --- which hits --------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_hits_are_the_two_lists_fused(index: IndexReader, weight: float) -> None:
    text = "Does a mosquito bite give fever and a rash?"
    dense, lexical = dense_ids(index, text, 12), lexical_ids(index, text, 9)
    assert set(dense) != set(lexical)
    hits = search(index, text, dense_n=12, lexical_n=9, lexical_weight=weight, candidates=100)
    assert set(ids(hits)) == {*dense, *lexical}
    words = [hit.lexical if hit.lexical is not None else 0.0 for hit in hits]
    assert [hit.fused for hit in hits] == pytest.approx(
        fuse_scores([hit.dense for hit in hits], words, weight).tolist()
    )
    assert [hit.fused for hit in hits] == sorted((hit.fused or 0.0 for hit in hits), reverse=True)
    assert [hit.fused_rank for hit in hits] == list(range(1, len(hits) + 1))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_search_that_is_off_or_finds_nothing_has_no_weight(index: IndexReader, weight: float) -> None:
    text = "insulin and thyroid"
    settings = {"lexical_weight": weight, "candidates": 5}
    assert ids(search(index, text, dense_n=30, lexical_n=0, **settings)) == dense_ids(index, text, 30)[:5]
    assert ids(search(index, text, dense_n=0, lexical_n=30, **settings)) == lexical_ids(index, text, 30)[:5]
    # No passage has the word, and most cosines differ in their last bits alone: an order of scores, not of passages.
    unknown = search(index, "zebra", dense_n=30, lexical_n=30, **settings)
    cosines = index.dense.search(FakeEncoder().encode_queries(["zebra"]), 30)[0][0]
    assert [hit.dense for hit in unknown] == pytest.approx(cosines[:5].tolist(), abs=1e-6)
    assert unknown[0].fused == 1.0


def test_bm25_alone_decides_at_a_weight_of_1_and_the_dense_search_where_it_ties(index: IndexReader) -> None:
    hits = search(index, "insulin", dense_n=80, lexical_n=80, lexical_weight=1.0, candidates=80)
    words = [hit.lexical or 0.0 for hit in hits]
    assert words == sorted(words, reverse=True)
    unknown = [name for name, found in zip(ids(hits), words, strict=True) if not found]
    assert len(unknown) > 1
    assert unknown == [name for name in dense_ids(index, "insulin", 80) if name in unknown]


def test_only_the_best_candidates_are_kept(index: IndexReader) -> None:
    text = "urate pain"
    everything = search(index, text, dense_n=30, lexical_n=30, candidates=1000)
    assert len(everything) > 30
    best = search(index, text, dense_n=30, lexical_n=30, candidates=7)
    assert [(hit.passage, hit.fused) for hit in best] == [(hit.passage, hit.fused) for hit in everything[:7]]


def test_dense_search_alone(index: IndexReader) -> None:
    text = "insulin and thyroid"
    hits = search(index, text, dense_n=10, lexical_n=0)
    assert ids(hits) == dense_ids(index, text, 10)
    assert [hit.lexical for hit in hits] == [None] * 10
    assert [hit.dense for hit in hits] == sorted((hit.dense for hit in hits), reverse=True)


def test_lexical_search_alone_still_knows_every_cosine(index: IndexReader) -> None:
    text = "insulin and thyroid"
    hits = search(index, text, dense_n=0, lexical_n=10)
    assert ids(hits) == lexical_ids(index, text, 10)
    scores = [hit.lexical for hit in hits if hit.lexical is not None]
    assert len(scores) == 10
    assert scores == sorted(scores, reverse=True)
    assert_cosines(text, hits)


def assert_cosines(text: str, hits: Hits) -> None:
    encoder = FakeEncoder()
    (vector,) = encoder.encode_queries([text])
    passages = encoder.encode_passages([f"{hit.passage.title}\n{hit.passage.text}" for hit in hits])
    np.testing.assert_allclose([hit.dense for hit in hits], passages @ vector, atol=1e-6)


@pytest.mark.parametrize("text", ["lemons against a virus of the lung", "fever", "nothing of the sort"])
def test_every_hit_has_its_cosine(index: IndexReader, text: str) -> None:
    hits = search(index, text, dense_n=3, lexical_n=20)
    assert len(hits) >= 3
    assert_cosines(text, hits)


def test_a_hit_that_only_the_dense_search_found_has_no_lexical_score(index: IndexReader) -> None:
    text = "lemons"
    hits = search(index, text, dense_n=80, lexical_n=80, candidates=80)
    found = set(lexical_ids(index, text, 80))
    assert 0 < len(found) < 80
    assert {hit.passage.id for hit in hits if hit.lexical is not None} == found


def test_lexical_search_alone_finds_nothing_without_a_known_word(index: IndexReader) -> None:
    assert search(index, "What is it?", FakeReranker(), dense_n=0, lexical_n=10) == ()


def test_dense_search_answers_where_no_word_is_known(index: IndexReader) -> None:
    assert ids(search(index, "zebra", dense_n=5, lexical_n=5)) == dense_ids(index, "zebra", 5)


def test_more_than_there_is_finds_all_there_is(index: IndexReader) -> None:
    hits = search(index, "fever", dense_n=1000, lexical_n=1000, candidates=1000)
    assert sorted(ids(hits)) == sorted(f"d{number}#0" for number in range(80))


def test_passages_that_tie_come_in_the_order_of_their_rows(tmp_path: Path) -> None:
    documents = [Document(f"d{n}", "Gout", "Joints swell.") for n in range(9)]
    documents += [Document(f"other{n}", "Scurvy", f"Lemons cure it {n}.") for n in range(20)]
    hits = search(make_index(tmp_path, documents), "gout", dense_n=0, lexical_n=9)
    assert ids(hits) == [f"d{n}#0" for n in range(9)]


# --- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reranker", [None, FakeReranker()])
@pytest.mark.parametrize("dense_n", [0, 20])
def test_a_batch_finds_what_its_questions_find_one_by_one(
    index: IndexReader, dense_n: int, reranker: Reranker | None
) -> None:
    random = np.random.default_rng(1)
    questions = [query(" ".join(random.choice(WORDS, size=4))) for _ in range(30)] + [query("zebra")]
    searcher = HybridSearcher(index, Retrieve(dense_n=dense_n), reranker)
    together = searcher.search(questions, Trace())
    assert together == [searcher.search([one], Trace())[0] for one in questions]
    assert len({tuple(ids(hits)) for hits in together}) > 20


def test_reranked_hits_keep_their_place_in_the_fusion(index: IndexReader) -> None:
    class Reversing:
        def scores(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[list[float]]:
            return [[number / len(hits) for number in range(len(hits))] for _, hits in found]

    fused, reranked = search(index, "fever and rash"), search(index, "fever and rash", Reversing())
    assert [hit.fused_rank for hit in fused] == list(range(1, len(fused) + 1))
    assert ids(reranked) == ids(fused)[::-1]
    assert [hit.fused_rank for hit in reranked] == list(range(len(fused), 0, -1))


def test_a_batch_is_reranked_at_once(index: IndexReader) -> None:
    """Many pairs fill every core, where those of one question would wait for one another."""

    class Counting(FakeReranker):
        asked: ClassVar[list[int]] = []

        def scores(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[list[float]]:
            self.asked.append(len(found))
            return super().scores(found)

    HybridSearcher(index, Retrieve(), Counting()).search([query("fever"), query("rash")], Trace())
    assert Counting.asked == [2]


@pytest.mark.parametrize("reranker", [None, FakeReranker()])
def test_an_empty_batch_finds_nothing(index: IndexReader, reranker: Reranker | None) -> None:
    assert HybridSearcher(index, Retrieve(), reranker).search([], Trace()) == []


# --- reranking ---------------------------------------------------------------------------------


def test_the_reranker_sets_the_order_and_loses_no_hit(index: IndexReader) -> None:
    text = "urate pain thyroid"
    before, after = search(index, text), search(index, text, FakeReranker())
    assert sorted(ids(after)) == sorted(ids(before))
    assert ids(after) != ids(before)
    [scores] = FakeReranker().scores([(text, after)])
    assert [hit.rerank for hit in after] == [hit.score for hit in after] == scores
    assert scores == sorted(scores, reverse=True)


def test_hits_of_equal_probability_keep_the_order_of_the_fusion(index: IndexReader) -> None:
    text = "urate pain thyroid"
    places = {name: place for place, name in enumerate(ids(search(index, text)))}
    keys = [(-hit.score, places[hit.passage.id]) for hit in search(index, text, FakeReranker())]
    assert len({score for score, _ in keys}) < len(keys)
    assert keys == sorted(keys)


def test_reranking_keeps_the_scores_of_the_search(index: IndexReader) -> None:
    text = "urate pain thyroid"
    before = {hit.passage.id: (hit.dense, hit.lexical, hit.fused) for hit in search(index, text)}
    after = {hit.passage.id: (hit.dense, hit.lexical, hit.fused) for hit in search(index, text, FakeReranker())}
    assert after == before


def test_without_a_reranker_a_hit_has_no_probability_and_its_score_is_the_cosine(index: IndexReader) -> None:
    hits = search(index, "fever")
    assert {hit.rerank for hit in hits} == {None}
    assert [hit.score for hit in hits] == [hit.dense for hit in hits]


# --- what it tells -----------------------------------------------------------------------------


def test_spans_tell_which_stages_ran(index: IndexReader) -> None:
    stages = []
    for reranker in (None, FakeReranker()):
        trace = Trace()
        HybridSearcher(index, Retrieve(), reranker).search([query("fever"), query("rash")], trace)
        stages.append([stage for stage, _, _ in trace.spans])
    steps = ["retrieve", "dense", "lexical", "fuse", "lexical", "fuse"]
    assert stages == [steps, [*steps, "rerank"]]


def test_a_search_that_is_switched_off_has_no_span(index: IndexReader) -> None:
    stages = []
    for off in ({"dense_n": 0}, {"lexical_n": 0}):
        trace = Trace()
        HybridSearcher(index, Retrieve.model_validate(off)).search([query("fever")], trace)
        stages.append([stage for stage, _, _ in trace.spans])
    assert stages == [["retrieve", "lexical", "fuse"], ["retrieve", "dense", "fuse"]]


def test_the_version_names_index_and_number(tmp_path: Path) -> None:
    first, second = (HybridSearcher(make_index(tmp_path, corpus(3)), Retrieve()) for _ in range(2))
    assert (first.index_version, second.index_version) == ("notes/000001", "notes/000002")


# --- conditions --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["year>=2004 and not retracted", "retracted", "year=2003"])
@pytest.mark.parametrize("exact_up_to", [1000, 5, 0])
@pytest.mark.parametrize("lexical", ["bm25s", "rank_bm25"])
def test_under_a_condition_only_what_meets_it_is_found_and_nothing_of_it_is_lost(
    tmp_path: Path, where: str, exact_up_to: int, lexical: str
) -> None:
    documents = corpus()
    chosen = Index(exact_up_to=exact_up_to, hnsw_ef_search=200)
    index = make_index(tmp_path, documents, chosen, lexical)
    met = {document.id for document in documents if parse(where).meets(document.metadata)}
    assert 0 < len(met) < len(documents)
    asked = [replace(query("fever and urate"), where=where), query("fever and urate")]
    searcher = HybridSearcher(index, Retrieve(dense_n=100, lexical_n=100, candidates=100))
    hits, unfiltered = searcher.search(asked, Trace())
    assert {hit.passage.doc_id for hit in hits} == met
    assert {hit.passage.doc_id for hit in unfiltered} == {document.id for document in documents}
    by_words = HybridSearcher(index, Retrieve(dense_n=0, lexical_n=100, candidates=100)).search(asked, Trace())
    assert ids(by_words[0]) == [hit.passage.id for hit in by_words[1] if hit.passage.doc_id in met]
    of_all = {hit.passage.id: (hit.dense, hit.lexical) for hit in unfiltered}
    assert {hit.passage.id: (hit.dense, hit.lexical) for hit in hits}.items() <= of_all.items()
    assert all(hit.passage.metadata == documents[int(hit.passage.doc_id[1:])].metadata for hit in hits)


def test_a_condition_that_nothing_meets_finds_nothing(index: IndexReader) -> None:
    searcher = HybridSearcher(index, Retrieve())
    assert searcher.search([replace(query("fever"), where="year>3000")], Trace()) == [()]


def test_a_name_that_no_document_has_is_refused_with_those_that_are_there(index: IndexReader) -> None:
    with pytest.raises(UsageError, match=r"'journal', which 'journal=Lancet' asks for\. There is retracted, year"):
        HybridSearcher(index, Retrieve()).search([replace(query("fever"), where="journal=Lancet")], Trace())
