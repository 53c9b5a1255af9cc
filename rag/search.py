"""Hybrid search: dense and lexical lists, fused by score, then reranked. A batch in, a batch out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rag.core import Hit, Hits, Query, Reranker, Trace
from rag.index import IndexReader
from rag.settings import Retrieve
from rag.stats import of_best


class HybridSearcher:
    """Thread-safe as far as its index and its reranker are, and they are."""

    def __init__(self, index: IndexReader, settings: Retrieve, reranker: Reranker | None = None) -> None:
        self._index = index
        self._settings = settings
        self._reranker = reranker

    @property
    def index_version(self) -> str:
        return f"{self._index.name}/{self._index.version}"

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        with trace.span("retrieve"):
            found = self._retrieve(queries, trace)
        if self._reranker is None:
            return found
        with trace.span("rerank"):
            scores = self._reranker.scores([(query.text, hits) for query, hits in zip(queries, found, strict=True)])
            return [_by_score(hits, of_hits) for hits, of_hits in zip(found, scores, strict=True)]

    def _retrieve(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        """Its three steps have spans of their own inside "retrieve"."""
        dense: list[list[int]] = [[] for _ in queries]
        for where in dict.fromkeys(query.where for query in queries):
            positions = [number for number, query in enumerate(queries) if query.where == where]
            found = self._dense([queries[number] for number in positions], self._allowed(where), trace)
            for number, rows in zip(positions, found, strict=True):
                dense[number] = rows
        hits = []
        for query, rows in zip(queries, dense, strict=True):
            lexical = self._lexical(query, trace)
            with trace.span("fuse"):
                hits.append(self._fuse(query, rows, lexical))
        return hits

    def _allowed(self, where: str | None) -> NDArray[np.bool_] | None:
        return self._index.passages.where(where) if where is not None else None

    def _dense(self, queries: Sequence[Query], allowed: NDArray[np.bool_] | None, trace: Trace) -> list[list[int]]:
        if self._settings.dense_n == 0:
            return [[] for _ in queries]
        with trace.span("dense"):
            vectors = np.stack([query.vector for query in queries])
            _, rows = self._index.dense.search(vectors, self._settings.dense_n, allowed)
            return [[int(row) for row in line if row >= 0] for line in rows]

    def _lexical(self, query: Query, trace: Trace) -> dict[int, float]:
        """Scores by row, best first."""
        if self._settings.lexical_n == 0:
            return {}
        with trace.span("lexical"):
            tokens = self._index.tokenizer(query.text)
            scores, rows = self._index.lexical.search(tokens, self._settings.lexical_n, self._allowed(query.where))
            return {int(row): float(score) for row, score in zip(rows, scores, strict=True)}

    def _fuse(self, query: Query, dense: Sequence[int], lexical: Mapping[int, float]) -> Hits:
        rows = list(dict.fromkeys([*dense, *lexical]))
        cosines = self._index.dense.cosines(query.vector, rows)
        weight = self._settings.lexical_weight if dense else 1.0
        fused = fuse_scores(cosines, [lexical.get(row, 0.0) for row in rows], weight if lexical else 0.0)
        best = np.argsort(-fused, kind="stable")[: self._settings.candidates]
        passages = self._index.passages.get([rows[place] for place in best])
        return tuple(
            Hit(passage, float(cosines[place]), lexical.get(rows[place]), float(fused[place]), fused_rank=rank)
            for rank, (place, passage) in enumerate(zip(best, passages, strict=True), start=1)
        )


def _by_score(hits: Hits, scores: Sequence[float]) -> Hits:
    scored = [replace(hit, rerank=score) for hit, score in zip(hits, scores, strict=True)]
    return tuple(sorted(scored, key=lambda hit: -hit.score))


def fuse_scores(cosines: ArrayLike, lexical: ArrayLike, lexical_weight: float) -> NDArray[np.float64]:
    """Convex combination (Bruch, Gai and Ingber, TOIS 42, 2023): `lexical_weight` times the BM25 score, as a share of the
    best one, and the rest times the cosine, on a scale from the lowest to the highest. Both of shape (candidates,).

    BM25's lowest is 0, and a passage that the lexical search didn't find counts as that. Fusing ranks instead (Cormack et
    al., SIGIR 2009) throws away by how much a passage is better: where one search is far the worse, the fused list was
    worse than the better search alone (`rag bench reranker`: `fusion_over_best`).
    """
    dense, words = np.asarray(cosines, dtype=np.float64), np.asarray(lexical, dtype=np.float64)
    return (1 - lexical_weight) * of_best(dense - dense.min(initial=np.inf)) + lexical_weight * of_best(words)
