"""A search: an encoder and a reranker over the current version of an index."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rag import index
from rag.build.caching import cache_path, shape
from rag.build.parts import fetch, made_by, open_encoder, open_matcher, open_reranker
from rag.cache import CachedEncoder, QueryCache, QuestionCache, QuestionCaches
from rag.core import Encoder, Hits, Query, Reranker, Searcher, Trace
from rag.errors import SearchIndexError
from rag.progress import Report, quiet
from rag.settings import Loaded


@dataclass(frozen=True, slots=True)
class Search:
    """Everything before the generator: what answers `rag search`."""

    encoder: Encoder
    searcher: Searcher
    index: index.IndexReader
    reranker: Reranker | None = None
    cache: QueryCache | None = None
    hits: QuestionCache[Hits] | None = None
    """The cache's, of this version of the index."""

    def close(self) -> None:
        """Its cache is kept for the next process."""
        if self.cache is not None:
            self.cache.save()

    def new_caches(self) -> QuestionCaches[Any]:
        """Of a pipeline over it, which has its finished answers to itself."""
        return self.cache.of_pipeline(self.hits) if self.cache is not None else QuestionCaches()

    def search(self, questions: Sequence[str], trace: Trace, where: str | None = None) -> list[Hits]:
        with trace.span("embed"):
            vectors = self.encoder.encode_queries(questions)
        queries = [Query(question, vector, where) for question, vector in zip(questions, vectors, strict=True)]
        return self.searcher.search(queries, trace)


def log(notice: str) -> None:
    """Where nobody waits for it."""
    logging.getLogger(__name__).warning(notice)


def open_search(loaded: Loaded, report: Report = quiet, notice: Report = log) -> Search:
    """Encoder, index and reranker, warm; the caller's to close. Raises what `check_index` raises."""
    checked = check_index(loaded, report)
    cache = loaded.settings.cache
    fetch([loaded.settings.rerank.model, cache.model if cache.enabled else None], report)
    return open_checked(loaded, checked, report, notice)


def check_index(loaded: Loaded, report: Report = quiet) -> index.CheckedVersion:
    """The current version of the index that the settings name, before anything heavy is loaded.

    Raises `IndexMissing` where there is none, `SearchIndexError` where it is damaged or was built with
    another encoder.
    """
    checked = index.check_current(index.versions_of(loaded.settings.index.name))
    encoder = made_by(loaded, report)
    if checked.manifest.model != encoder:
        raise SearchIndexError(
            f"Index {checked.name!r} was built with the embedding model {checked.manifest.model}, the settings name "
            f"{encoder}. Build it again (rag index PATH), or set embed.model and embed.passage_prefix to those it was built with."
        )
    return checked


def open_checked(loaded: Loaded, checked: index.CheckedVersion, report: Report, notice: Report) -> Search:
    """`notice` is told of a cache that can't be used."""
    settings = loaded.settings.cache
    encoder, reranker = open_encoder(loaded, report), open_reranker(loaded, report)
    reader = open_reader(loaded, checked)
    if not settings.enabled:
        return _over(reader, loaded, encoder, reranker, None)
    remembering = CachedEncoder(encoder, settings.max_entries)
    cache = QueryCache(settings, cache_path(loaded), remembering, open_matcher(loaded, report), notice)
    return _over(reader, loaded, remembering, reranker, cache)


def newer(loaded: Loaded, search: Search) -> Search | None:
    """The same encoder, reranker and cache over the index's current version, warm; None where `search` has that one.

    Raises what `check_index` raises.
    """
    if is_current(loaded, search.index):
        return None
    reader = open_reader(loaded, check_index(loaded))
    return _over(reader, loaded, search.encoder, search.reranker, search.cache)


def is_current(loaded: Loaded, reader: index.IndexReader) -> bool:
    """An index that was removed begins at its first number again. Raises `IndexMissing` and `SearchIndexError`."""
    version, folder = index.versions_of(loaded.settings.index.name).current()
    return version == reader.version and index.read_manifest(folder) == reader.manifest


def _over(
    reader: index.IndexReader, loaded: Loaded, encoder: Encoder, reranker: Reranker | None, cache: QueryCache | None
) -> Search:
    from rag.search import HybridSearcher

    bare = Search(encoder, HybridSearcher(reader, loaded.settings.retrieve, reranker), reader, reranker, cache)
    # Each library's first call pays for its set-up.
    bare.search(["What causes it, and how is it treated?"], Trace())
    if cache is None:
        return bare
    cached = cache.over(bare.searcher, shape(loaded, reader), lambda: is_current(loaded, reader))
    return replace(bare, searcher=cached, hits=cached.cache)


def open_reader(loaded: Loaded, checked: index.CheckedVersion) -> index.IndexReader:
    """The version that was checked; the newest one where that went meanwhile, as while an engine starts."""
    while True:
        try:
            return index.open_index(checked, loaded.settings.index, loaded.settings.retrieve, loaded.device)
        except (OSError, RuntimeError):  # FAISS raises the latter
            if checked.folder.is_dir():
                raise
            checked = check_index(loaded)
