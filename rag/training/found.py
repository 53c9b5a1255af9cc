"""What stands near a question: the passages that go beside the one that answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rag import build
from rag.core import Encoder, Passage, Query, Searcher, Trace
from rag.progress import Progress, quiet
from rag.training import corpora

Found = Callable[[str], Sequence[Passage]]
"""Passages that the real search finds for a question, best first."""


def medquad(root: Path, index: str | None, depth: int, progress: Progress = quiet) -> Found:
    """The product's search over all of MedQuAD, `depth` passages deep; its index is built where `index` is None.

    Without a reranker, also once the shipped settings name one: examples mustn't change with what learns from them.
    """
    deep = [f"retrieve.{name}={depth}" for name in ("dense_n", "lexical_n", "candidates")]
    loaded = corpora.embedded([*deep, "rerank.model=null"])
    loaded = corpora.index(loaded, root, "medquad", index, progress)
    search = build.open_search(loaded, progress)
    return searching(search.encoder, search.searcher)


def searching(encoder: Encoder, searcher: Searcher) -> Found:
    """Answers are kept: each question is asked in several rounds."""
    known: dict[str, Sequence[Passage]] = {}

    def found(question: str) -> Sequence[Passage]:
        if question not in known:
            hits = searcher.search([Query(question, encoder.encode_queries([question])[0])], Trace())[0]
            known[question] = [hit.passage for hit in hits]
        return known[question]

    return found


def nearest(texts: Mapping[str, str], count: int = 12) -> Callable[[str], list[str]]:
    """BM25 over a few texts: the names of the nearest ones, best first."""
    import bm25s

    names = list(texts)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts.values()), show_progress=False), show_progress=False)

    def search(text: str) -> list[str]:
        rows, _ = index.retrieve(
            bm25s.tokenize([text], show_progress=False), k=min(count, len(names)), show_progress=False
        )
        return [names[int(row)] for row in rows[0]]

    return search
