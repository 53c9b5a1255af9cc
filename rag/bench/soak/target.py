"""The index under attack, in a home of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag import build, paths, settings
from rag.bench import commands
from rag.bench.soak.corpus import Corpus
from rag.core import Query, Trace
from rag.errors import IndexMissing
from rag.search import HybridSearcher
from rag.settings import Loaded
from rag.training import corpora

if TYPE_CHECKING:
    from rag.core import Encoder

INDEX = "soak"
QUESTIONS = ("Which samples lie in drawer 3?", "When was sample 5 revised?", "What was revised in round 1?")


@dataclass(frozen=True, slots=True)
class Soaked:
    """The index under attack: `loaded` names it, `file` is the corpus that its writers read."""

    loaded: Loaded
    corpus: Corpus
    file: Path
    queries: Sequence[Query]

    def write(self, revision: int) -> list[str]:
        """The corpus of a revision; the command that indexes it."""
        corpora.write(self.file, self.corpus.revision(revision))
        return commands.rag(self.loaded, "index", str(self.file), "--json")

    def open(self) -> tuple[int, HybridSearcher]:
        """As `rag search` opens it; its revision, all of which it holds. Raises `Mixed` or `SearchIndexError`."""
        reader = build.open_reader(self.loaded, build.check_index(self.loaded))
        return self.corpus.revision_of(reader), HybridSearcher(reader, self.loaded.settings.retrieve)

    def search(self, searcher: HybridSearcher, revision: int) -> None:
        for hits in searcher.search(self.queries, Trace()):
            self.corpus.require([(hit.passage.doc_id, hit.passage.text) for hit in hits], revision)

    def search_by_command(self, revision: int) -> None:
        """As a user does. Raises `Mixed`, or `RagError` where the command fails."""
        ran = commands.run(commands.rag(self.loaded, "search", "--json", self.queries[0].text))
        passages = [hit["passage"] for hit in json.loads(ran.output)["hits"]]
        self.corpus.require([(one["doc_id"], one["text"]) for one in passages], revision)

    def check(self) -> int:
        """The revision of a fresh open, which answers from it."""
        revision, searcher = self.open()
        self.search(searcher, revision)
        return revision

    def parts(self) -> int:
        """How many files of what it has encoded a writer has left for the next one."""
        return len(list((paths.indexes_dir() / INDEX / "unfinished").glob("*.npz")))

    def newest(self) -> int:
        """As `check`; 0 where there is no index yet."""
        try:
            return self.check()
        except IndexMissing:
            return 0


def prepare(folder: Path, size: int, encoder: Encoder | None = None) -> Soaked:
    """What to attack in `folder`, which is `RAG_HOME` by now."""
    loaded = settings.load(assignments=[f"index.name={INDEX}", "index.exact_up_to=100", "rerank.model=null"])
    encoder = encoder if encoder is not None else build.open_encoder(loaded)
    vectors = encoder.encode_queries(QUESTIONS)
    queries = [Query(text, vector) for text, vector in zip(QUESTIONS, vectors, strict=True)]
    return Soaked(loaded, Corpus(size), folder / "corpus.jsonl", queries)


@contextmanager
def home(folder: Path) -> Iterator[None]:
    """State of its own, with the models that are there already."""
    build.resolve(settings.load().settings.embed.model)
    here = folder / "cache" / "models"
    here.parent.mkdir(parents=True, exist_ok=True)
    if not here.is_symlink():
        here.symlink_to(paths.models_dir().absolute())
    before = os.environ.get("RAG_HOME")
    os.environ["RAG_HOME"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAG_HOME"]
        else:
            os.environ["RAG_HOME"] = before
