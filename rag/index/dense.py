"""Dense search: FAISS over unit vectors, so that the inner product is the cosine.

Exact (flat) for small corpora, HNSW above; on a GPU always flat, which is faster there than a graph
walk and exact. The vectors themselves are kept in `vectors.npy`, from which any index is rebuilt.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rag.settings import Device, Index

if TYPE_CHECKING:
    from rag.core import Matrix, Vector

VECTORS = "vectors.npy"
GRAPH = "dense.hnsw.faiss"
_BLOCK = 8192


class VectorWriter:
    """Writes `vectors.npy` row by row, however many there will be."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / VECTORS).open("wb")
        self._shape = (0, 0)

    @property
    def dimension(self) -> int:
        return self._shape[1]

    def add(self, vectors: Matrix) -> None:
        """Shape (rows, dimension)."""
        if self._shape == (0, 0):
            self._file.write(_header((0, vectors.shape[1])))
        self._shape = (self._shape[0] + len(vectors), vectors.shape[1])
        self._file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._file.write(_header(self._shape))
        self._file.close()


def _header(shape: tuple[int, int]) -> bytes:
    """Of any number of rows as long as of none: NumPy pads it for files that grow."""
    header = BytesIO()
    kind = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, kind)  # type: ignore[no-untyped-call]
    return header.getvalue()


def read_vectors(folder: Path) -> Matrix:
    """In a memory map, shape (passages, dimension)."""
    vectors: Matrix = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    return vectors


def write_graph(folder: Path, settings: Index, grown: Path | None = None) -> str:
    """An HNSW graph beside the vectors, where there are many. Returns the kind of index.

    `grown` is another version's folder whose vectors are the first of these: its graph is added to.
    """
    import faiss

    vectors = read_vectors(folder)
    if len(vectors) <= settings.exact_up_to:
        return "flat"
    if grown is not None and (grown / GRAPH).is_file():
        graph: Any = faiss.read_index(str(grown / GRAPH))
    else:
        graph = faiss.IndexHNSWFlat(vectors.shape[1], settings.hnsw_m, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = settings.hnsw_ef_construction
    for start in range(graph.ntotal, len(vectors), _BLOCK):
        graph.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
    faiss.write_index(graph, str(folder / GRAPH))
    return "hnsw"


class DenseIndex:
    """Thread-safe: reads on a CPU are, and on a GPU they go through a lock since FAISS' aren't."""

    def __init__(self, folder: Path, kind: str, settings: Index, device: Device) -> None:
        import faiss

        self.vectors = read_vectors(folder)
        self._exact_up_to = settings.exact_up_to
        self._lock = threading.Lock() if device == "cuda" else None
        self._parameters = None
        if device == "cuda" and faiss.get_num_gpus() > 0:
            self._index: Any = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._flat(faiss))
        elif kind == "hnsw":
            self._index = faiss.read_index(str(folder / GRAPH))
            self._parameters = faiss.SearchParametersHNSW(efSearch=settings.hnsw_ef_search)  # type: ignore[attr-defined]  # not in its stubs
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
        return self._index.search(vectors, k, params=self._selecting(allowed))  # type: ignore[no-any-return]

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
