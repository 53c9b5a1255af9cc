"""Hybrid search: dense and lexical lists, fused by rank, then reranked. A batch in, a batch out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rag.core import Hit, Hits, Query, Reranker, Trace
from rag.index import IndexReader
from rag.settings import Retrieve


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
            return [self._rerank(query, hits, self._reranker) for query, hits in zip(queries, found, strict=True)]

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
        settings = self._settings
        fused = fuse_ranks([(dense, 1.0), (list(lexical), settings.lexical_weight)], settings.rrf_k)
        best = sorted(fused, key=lambda row: (-fused[row], row))[: settings.candidates]
        cosines = self._index.dense.cosines(query.vector, best)
        return tuple(
            Hit(passage, float(cosine), lexical.get(row), fused[row], fused_rank=rank)
            for rank, (row, passage, cosine) in enumerate(
                zip(best, self._index.passages.get(best), cosines, strict=True), start=1
            )
        )

    @staticmethod
    def _rerank(query: Query, hits: Hits, reranker: Reranker) -> Hits:
        if not hits:
            return hits
        scores = reranker.score(query.text, hits)
        scored = [replace(hit, rerank=score) for hit, score in zip(hits, scores, strict=True)]
        return tuple(sorted(scored, key=lambda hit: -hit.score))


def fuse_ranks(rankings: Sequence[tuple[Sequence[int], float]], k: int) -> Mapping[int, float]:
    """Reciprocal rank fusion: the sum of `weight / (k + rank)` over the lists that hold a row, rank from 1.

    Cormack, Clarke and Buettcher, SIGIR 2009, with a weight for each list.
    """
    scores: dict[int, float] = {}
    for rows, weight in rankings:
        for rank, row in enumerate(rows, start=1):
            scores[row] = scores.get(row, 0.0) + weight / (k + rank)
    return scores
