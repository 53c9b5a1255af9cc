"""What searches are measured on at size: passages of the open articles, and PubMedQA's questions."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from rag.bench import SEED
from rag.core import Document, Passage
from rag.ingest import chunk
from rag.progress import Progress
from rag.settings import Loaded
from rag.training import corpora, datasets
from rag.training.datasets import Abstract


def documents(root: Path, count: int | None) -> list[Document]:
    """The first `count` of them, each a document; all where that is None."""
    return list(islice(corpora.jats(root), count))


def questions(root: Path, count: int) -> list[Abstract]:
    """Drawn with a fixed seed: those of a smaller count come first."""
    every = [paper for part in datasets.pubmedqa(root) for paper in part]
    return random.Random(SEED).sample(every, len(every))[:count]


def split(documents: Iterable[Document], loaded: Loaded) -> list[Passage]:
    """As an index with these settings does."""
    settings = loaded.settings.chunk
    return [
        passage
        for document in documents
        for passage in chunk.split(document, settings.max_chars, settings.overlap_sentences)
    ]


def index(loaded: Loaded, root: Path, count: int, progress: Progress) -> Loaded:
    """The settings with an index of the first `count` documents; `bench-jats-COUNT` is built where it isn't there."""
    return corpora.index_of(loaded, documents(root, count), f"bench-jats-{count}", progress)
