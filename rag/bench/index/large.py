"""Builds the one large index and searches it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rag import build
from rag.bench import commands
from rag.core import Document, Trace
from rag.index import versions_of
from rag.settings import Loaded
from rag.training import corpora
from rag.training.datasets import Abstract

LARGE = "bench-jats-all"
STAGES = ("embed", "retrieve", "rerank")


def build_large(loaded: Loaded, documents: Iterable[Document]) -> dict[str, Any]:
    """In a process of its own, so that its memory is its own too."""
    # What a killed build has left would save time.
    shutil.rmtree(versions_of(LARGE).root, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = corpora.write(Path(scratch, "articles.jsonl"), documents)
        ran = commands.run(commands.rag(loaded, "index", str(path), "--index", LARGE, "--json"))
    said = json.loads(ran.output)
    kept = {name: said[name] for name in ("seconds", "bytes", "documents", "passages", "dense")}
    return {"id": LARGE, "peak": ran.peak, "process_seconds": ran.seconds, **kept}


def open_large(loaded: Loaded) -> build.Search:
    return build.open_search(corpora.named(loaded, LARGE))


def searches(search: build.Search, asked: Sequence[Abstract]) -> Iterator[dict[str, Any]]:
    """Seconds of a search and of its stages, one question after the other."""
    for paper in asked:
        trace = Trace()
        search.search([paper.question], trace)
        times = trace.timings()
        yield {
            "id": paper.id,
            "total": times.total,
            "seconds": {name: getattr(times, name) for name in STAGES if getattr(times, name) is not None},
        }
