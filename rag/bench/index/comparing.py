"""Compares what is found by the product's vectors and index with what the reference's vectors are nearest to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rag.bench.index.encoding import Float32Encoder
from rag.core import Passage
from rag.index import dense
from rag.metrics import ranked, ranks
from rag.settings import Loaded
from rag.training.datasets import Abstract

if TYPE_CHECKING:
    from rag.core import Encoder, Matrix

K = 10
DEPTH = 50
"""Passages that are found for a question: the first `K` of their documents count for nDCG."""


def quality(
    loaded: Loaded,
    encoder: Encoder,
    reference: Float32Encoder,
    passages: Sequence[Passage],
    ours: Matrix,
    theirs: Matrix,
    asked: Sequence[Abstract],
) -> Iterator[dict[str, Any]]:
    """For each question, how much of the reference's first `K` ours finds, by the index that the product has over so many
    passages and exactly; and where the document stands that the question is about."""
    with tempfile.TemporaryDirectory() as scratch:
        index = _dense_index(Path(scratch), ours, loaded)
        for paper in asked:
            vector, exact = encoder.encode_queries([paper.question])[0], reference.encode_queries([paper.question])[0]
            found = {
                "ours": [int(row) for row in index.search(vector[None], DEPTH)[1][0] if row >= 0],
                "exact": nearest(ours, vector),
                "reference": nearest(theirs, exact),
            }
            yield {
                "id": paper.id,
                "overlap": _overlap(found["ours"], found["reference"]),
                "overlap_exact": _overlap(found["exact"], found["reference"]),
                "ranks": {name: ranks(_documents(found[name], passages), [paper.id]) for name in ("ours", "reference")},
            }


def nearest(vectors: Matrix, vector: NDArray[np.float32]) -> list[int]:
    """The `DEPTH` rows with the highest cosines, best first."""
    order: list[int] = np.argsort(-(vectors @ vector), kind="stable")[:DEPTH].tolist()
    return order


def _dense_index(folder: Path, vectors: Matrix, loaded: Loaded) -> dense.DenseIndex:
    with dense.vector_writer(folder) as writer:
        writer.add(vectors)
    kind = dense.write_graph(folder, loaded.settings.index)
    return dense.DenseIndex(folder, kind, loaded.settings.index, loaded.device)


def _overlap(found: Sequence[int], wanted: Sequence[int]) -> float:
    return ranked(map(str, found), dict.fromkeys(map(str, wanted[:K]), 1), f"R@{K}")


def _documents(rows: Sequence[int], passages: Sequence[Passage]) -> list[str]:
    return list(dict.fromkeys(passages[row].doc_id for row in rows))
