"""Dense search: FAISS over unit vectors, so that the inner product is the cosine.

Exact (flat) for small corpora, HNSW above; on a GPU always flat, which is faster there than a graph
walk and exact. The vectors themselves are kept in `vectors.npy`, from which any index is rebuilt. FAISS can't take a node out
of a graph: those of passages that have gone stay as ways to others until they are many.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rag.index.store import ArrayWriter
from rag.settings import Device, Index

if TYPE_CHECKING:
    from rag.core import Matrix, Vector

VECTORS = "vectors.npy"
GRAPH, NODES = "dense.hnsw.faiss", "dense.nodes.npy"
"""The graph, and for each of its nodes the row of its passage, -1 where that has gone."""

MOST_GONE = 0.1
"""Share of a graph's nodes: with more of them it is built anew, which takes longer than all else of a small update."""

_BLOCK = 8192


def vector_writer(folder: Path) -> ArrayWriter:
    return ArrayWriter(folder / VECTORS, np.float32)


def read_vectors(folder: Path) -> Matrix:
    """In a memory map, shape (passages, dimension)."""
    vectors: Matrix = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    return vectors


@dataclass(frozen=True, slots=True)
class Grown:
    """Another version's folder. Its `kept` passages, by row, are the first of the new one, in their order."""

    folder: Path
    kept: NDArray[np.bool_]


def write_graph(folder: Path, settings: Index, grown: Grown | None = None) -> str:
    """An HNSW graph beside the vectors, where there are many. Returns the kind of index.

    The graph of the version that this one has `grown` from is added to, unless too much of it has gone.
    """
    import faiss

    vectors = read_vectors(folder)
    if len(vectors) <= settings.exact_up_to:
        return "flat"
    graph: Any = None
    nodes = _nodes_left(grown)
    if grown is not None and nodes is not None:
        graph = faiss.read_index(str(grown.folder / GRAPH))
        first = int(np.count_nonzero(grown.kept))
    if graph is None or graph.hnsw.nb_neighbors(1) != settings.hnsw_m:
        graph = faiss.IndexHNSWFlat(vectors.shape[1], settings.hnsw_m, faiss.METRIC_INNER_PRODUCT)
        nodes, first = np.zeros(0, dtype=np.int64), 0
    graph.hnsw.efConstruction = settings.hnsw_ef_construction
    for start in range(first, len(vectors), _BLOCK):
        graph.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
    _write(graph, folder / GRAPH)
    np.save(folder / NODES, np.concatenate([nodes, np.arange(first, len(vectors))]), allow_pickle=False)
    return "hnsw"


def _write(graph: Any, path: Path) -> None:
    """Through Python's own file: of FAISS's only a text tells that the disk is full."""
    import faiss

    with path.open("wb") as file:
        faiss.write_index(graph, faiss.PyCallbackIOWriter(file.write, 1 << 20))  # type: ignore[attr-defined]


def _nodes_left(grown: Grown | None) -> NDArray[np.int64] | None:
    """The new rows of another version's nodes; None where it has no graph, or one that is of no use."""
    if grown is None or not (grown.folder / GRAPH).is_file():
        return None
    rows = np.where(grown.kept, np.cumsum(grown.kept) - 1, -1)
    before: NDArray[np.int64] = np.load(grown.folder / NODES, allow_pickle=False)
    nodes = np.where(before >= 0, rows[before], -1)
    return nodes if np.count_nonzero(nodes < 0) <= MOST_GONE * len(nodes) else None


class DenseIndex:
    """Thread-safe: reads on a CPU are, and on a GPU they go through a lock since FAISS' aren't."""

    def __init__(self, folder: Path, kind: str, settings: Index, device: Device) -> None:
        import faiss

        self.vectors = read_vectors(folder)
        self._exact_up_to = settings.exact_up_to
        on_gpu = device == "cuda" and faiss.get_num_gpus() > 0
        self._lock = threading.Lock() if on_gpu else None
        self._parameters = None
        self._nodes: NDArray[np.int64] | None = None
        if on_gpu:
            self._index: Any = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._flat(faiss))
        elif kind == "hnsw":
            self._index = faiss.read_index(str(folder / GRAPH))
            self._parameters = faiss.SearchParametersHNSW(efSearch=settings.hnsw_ef_search)  # type: ignore[attr-defined]  # not in its stubs
            nodes = np.load(folder / NODES, allow_pickle=False)
            self._nodes = nodes if (nodes < 0).any() else None  # without any, nodes are rows
        else:
            self._index = self._flat(faiss)

    def search(
        self, vectors: Matrix, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and rows, best first, each of shape (queries, min(k, passages)); row -1 where fewer are found.

        `allowed`, by row, are those that may be found. Among few of them a graph would miss some, and FAISS on a GPU can't
        be told of them: those are compared one by one.
        """
        k = min(k, len(self.vectors))
        if allowed is not None and (self._lock is not None or self._is_sparse(allowed)):
            return self._exact(vectors, k, np.flatnonzero(allowed))
        if self._lock is not None:
            with self._lock:
                return self._index.search(vectors, k)  # type: ignore[no-any-return]
        scores, found = self._index.search(vectors, k, params=self._selecting(self._by_node(allowed)))
        return scores, found if self._nodes is None else np.where(found >= 0, self._nodes[found], -1)

    def _by_node(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Of rows or of all, those that the index numbers: its nodes."""
        if self._nodes is None:
            return allowed
        there = self._nodes >= 0
        return there if allowed is None else there & allowed[self._nodes]

    def _is_sparse(self, allowed: NDArray[np.bool_]) -> bool:
        """Too few for a walk on the graph?"""
        return self._parameters is not None and int(np.count_nonzero(allowed)) <= self._exact_up_to

    def _exact(self, vectors: Matrix, k: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        cosines = vectors @ self.vectors[rows].T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        rest = ((0, 0), (0, k - order.shape[1]))
        return (
            np.pad(np.take_along_axis(cosines, order, axis=1), rest, constant_values=-1.0),
            np.pad(rows[order], rest, constant_values=-1),
        )

    def _selecting(self, allowed: NDArray[np.bool_] | None) -> Any:
        import faiss

        if allowed is None:
            return self._parameters
        parts: Any = faiss  # its stubs know neither the selector's array nor the parameters' keywords
        selector = parts.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self._parameters is None:
            return parts.SearchParameters(sel=selector)
        return parts.SearchParametersHNSW(efSearch=self._parameters.efSearch, sel=selector)

    def cosines(self, vector: Vector, rows: Sequence[int]) -> NDArray[np.float32]:
        """Cosine of one query with the given rows, also of rows that a search didn't return."""
        return self.vectors[list(rows)] @ vector

    def _flat(self, faiss: Any) -> Any:
        index = faiss.IndexFlatIP(self.vectors.shape[1])
        index.add(np.ascontiguousarray(self.vectors))
        return index
