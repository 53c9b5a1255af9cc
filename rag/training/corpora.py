"""Indexes of whole datasets: what negatives are mined in, and what the reranker is measured on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rag import build, settings
from rag.core import Document
from rag.errors import UsageError
from rag.settings import Loaded
from rag.training import datasets


def medquad(root: Path) -> Iterator[Document]:
    """An answer under its focus: the question isn't indexed."""
    for record in datasets.medquad(root):
        yield Document(record.id, record.focus, record.answer)


def scifact(root: Path) -> Iterator[Document]:
    _, _, abstracts = datasets.scifact(root)
    for name, (title, text) in abstracts.items():
        yield Document(name, title, " ".join(text))


def pubmedqa(root: Path) -> Iterator[Document]:
    """Without titles and conclusions: those are the questions and their answers."""
    for part in datasets.pubmedqa(root):
        for abstract in part:
            yield Document(abstract.id, "", " ".join(abstract.contexts))


CORPORA: Mapping[str, Callable[[Path], Iterator[Document]]] = {
    "medquad": medquad,
    "scifact": scifact,
    "pubmedqa": pubmedqa,
}


def embedded(assignments: Sequence[str]) -> Loaded:
    """The settings that the embedded models are trained and calibrated with, on every device and in every environment:
    they belong to the embedded encoder."""
    return settings.load("auto-cpu", "embedded", list(assignments), environ={})


def index(
    loaded: Loaded,
    root: Path,
    corpus: str,
    name: str | None,
    progress: build.Progress,
) -> Loaded:
    """The settings with an index of a dataset's documents, all of them. `bench-CORPUS` is built where it isn't there,
    which takes some minutes for MedQuAD.

    Another one that `name` names is taken as it is: raises `UsageError` where it isn't of these documents and settings.
    """
    settings = loaded.settings
    named = settings.index.model_copy(update={"name": name if name is not None else f"bench-{corpus}"})
    found = replace(loaded, settings=settings.model_copy(update={"index": named}))
    progress.step(f"checking the index {named.name}")
    documents = list(CORPORA[corpus](root))
    if build.index_holds(found, documents, progress.step):
        return found
    if name is not None:
        raise UsageError(
            f"Index {name!r} isn't there, or isn't of {corpus} and these settings (chunk, embed). "
            f"Leave out --index: bench-{corpus} is built then."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{corpus}.jsonl")
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": d.id, "title": d.title, "text": d.text}) + "\n" for d in documents)
        build.build_index(found, [path], progress, rebuild=True)
    return found
