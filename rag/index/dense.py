"""Dense search: FAISS over unit vectors, so that the inner product is the cosine.

Exact (flat) for small corpora, HNSW above; on a GPU always flat, which is faster there than a graph
walk and exact. The vectors themselves are kept in `vectors.npy`, from which any index is rebuilt.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rag.settings import Device, Index

if TYPE_CHECKING:
    from rag.core import Matrix, Vector

VECTORS = "vectors.npy"
GRAPH = "dense.hnsw.faiss"


def write(folder: Path, vectors: Matrix, settings: Index) -> str:
    """Vectors, shape (passages, dimension), and an HNSW graph where there are many. Returns the kind."""
    import faiss

    np.save(folder / VECTORS, vectors, allow_pickle=False)
    if len(vectors) <= settings.exact_up_to:
        return "flat"
    graph = faiss.IndexHNSWFlat(vectors.shape[1], settings.hnsw_m, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = settings.hnsw_ef_construction
    graph.add(vectors)
    faiss.write_index(graph, str(folder / GRAPH))
    return "hnsw"


class DenseIndex:
    """Thread-safe: reads on a CPU are, and on a GPU they go through a lock since FAISS' aren't."""

    def __init__(self, folder: Path, kind: str, settings: Index, device: Device) -> None:
        import faiss

        self.vectors: Matrix = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        self._lock = threading.Lock() if device == "cuda" else None
        self._parameters = None
        if device == "cuda" and faiss.get_num_gpus() > 0:
            self._index: Any = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._flat(faiss))
        elif kind == "hnsw":
            self._index = faiss.read_index(str(folder / GRAPH))
            self._parameters = faiss.SearchParametersHNSW(efSearch=settings.hnsw_ef_search)  # type: ignore[attr-defined]  # not in its stubs
        else:
            self._index = self._flat(faiss)

    def search(self, vectors: Matrix, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and rows, best first, each of shape (queries, min(k, passages)); row -1 where fewer are found."""
        k = min(k, len(self.vectors))
        if self._lock is not None:
            with self._lock:
                return self._index.search(vectors, k)  # type: ignore[no-any-return]
        return self._index.search(vectors, k, params=self._parameters)  # type: ignore[no-any-return]

    def cosines(self, vector: Vector, rows: Sequence[int]) -> NDArray[np.float32]:
        """Cosine of one query with the given rows, also of rows that a search didn't return."""
        return self.vectors[list(rows)] @ vector

    def _flat(self, faiss: Any) -> Any:
        index = faiss.IndexFlatIP(self.vectors.shape[1])
        index.add(np.ascontiguousarray(self.vectors))
        return index
