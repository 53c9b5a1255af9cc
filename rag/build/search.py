"""A search: an encoder and a reranker over the current version of an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag import index, paths
from rag.build.parts import Report, fetch, open_encoder, open_reranker, quiet, resolve
from rag.core import Encoder, Hits, Query, Reranker, Searcher, Trace
from rag.errors import SearchIndexError
from rag.settings import Loaded


@dataclass(frozen=True, slots=True)
class Search:
    """Everything before the generator: what answers `rag search`."""

    encoder: Encoder
    searcher: Searcher
    index: index.IndexReader
    reranker: Reranker | None = None

    def search(self, questions: Sequence[str], trace: Trace, where: str | None = None) -> list[Hits]:
        with trace.span("embed"):
            vectors = self.encoder.encode_queries(questions)
        queries = [Query(question, vector, where) for question, vector in zip(questions, vectors, strict=True)]
        return self.searcher.search(queries, trace)


def open_search(loaded: Loaded, report: Report = quiet) -> Search:
    """Encoder, index and reranker, warm. Raises what `check_index` raises."""
    checked = check_index(loaded, report)
    fetch([loaded.settings.rerank.model], report)
    return open_checked(loaded, checked, report)


def check_index(loaded: Loaded, report: Report = quiet) -> index.CheckedVersion:
    """The current version of the index that the settings name, before anything heavy is loaded.

    Raises `IndexMissing` where there is none, `SearchIndexError` where it is damaged or was built with
    another encoder.
    """
    checked = index.check_current(index_versions(loaded))
    encoder = resolve(loaded.settings.embed.model, report)
    if checked.manifest.model != encoder.fingerprint:
        raise SearchIndexError(
            f"Index {checked.name!r} was built with the embedding model {checked.manifest.model}, the settings name "
            f"{encoder.fingerprint}. Build it again (rag index PATH), or set embed.model to the one it was built with."
        )
    return checked


def open_checked(loaded: Loaded, checked: index.CheckedVersion, report: Report) -> Search:
    from rag.search import HybridSearcher

    settings = loaded.settings
    reader = open_reader(loaded, checked)
    encoder, reranker = open_encoder(loaded, report), open_reranker(loaded, report)
    search = Search(encoder, HybridSearcher(reader, settings.retrieve, reranker), reader, reranker)
    _warm_up(search)
    return search


def newer(loaded: Loaded, search: Search) -> Search | None:
    """The same encoder and reranker over the index's current version, warm; None where `search` has that one.

    Raises what `check_index` raises.
    """
    from rag.search import HybridSearcher

    version, _ = index_versions(loaded).current()
    if version == search.index.version:
        return None
    reader = open_reader(loaded, check_index(loaded))
    opened = replace(search, searcher=HybridSearcher(reader, loaded.settings.retrieve, search.reranker), index=reader)
    _warm_up(opened)
    return opened


def _warm_up(search: Search) -> None:
    """Each library's first call pays for its set-up."""
    search.search(["What causes it, and how is it treated?"], Trace())


def open_reader(loaded: Loaded, checked: index.CheckedVersion) -> index.IndexReader:
    """The version that was checked; the newest one where that went meanwhile, as while an engine starts."""
    while True:
        try:
            return index.open_index(checked, loaded.settings.index, loaded.settings.retrieve, loaded.device)
        except (OSError, RuntimeError):  # FAISS raises the latter
            if checked.folder.is_dir():
                raise
            checked = check_index(loaded)


def index_versions(loaded: Loaded) -> index.Versions:
    return index.Versions(paths.indexes_dir(), loaded.settings.index.name)
