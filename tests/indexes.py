"""Indexes of documents that are at hand, with vectors that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rag.core import Document, Passage
from rag.index import Shape, Versions, updating
from rag.index.manifest import Manifest
from rag.settings import Index

Batch = tuple[Sequence[Document], Sequence[Passage], NDArray[np.float32]]


def write_index(
    versions: Versions,
    batches: Iterable[Batch],
    *,
    model: str,
    settings: Index,
    chunking: Mapping[str, int],
    report: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """A version of these documents alone."""
    with updating(versions, Shape(model, dict(chunking)), settings, rebuild=True) as update:
        for batch in batches:
            update.add(*batch)
        return update.finish(prune=True, report=report)[0]
