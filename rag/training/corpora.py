"""Indexes of whole datasets: what negatives are mined in, and what the reranker is measured on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rag import build, settings
from rag.core import Document
from rag.errors import UsageError
from rag.progress import Progress
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


def jats(root: Path) -> Iterator[Document]:
    """A document a passage: that many of them need few files."""
    for passage in datasets.searched_passages(root):
        yield Document(passage.id, passage.title, passage.text)


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
    progress: Progress,
) -> Loaded:
    """The settings with an index of a dataset's documents, all of them. `bench-CORPUS` is built where it isn't there,
    which takes some minutes for MedQuAD.

    Another one that `name` names is taken as it is: raises `UsageError` where it isn't of these documents and settings.
    """
    documents = list(CORPORA[corpus](root))
    if name is None:
        return index_of(loaded, documents, f"bench-{corpus}", progress)
    found = named(loaded, name)
    progress(f"checking the index {name}")
    if not build.index_holds(found, documents, progress):
        raise UsageError(
            f"Index {name!r} isn't there, or isn't of {corpus} and these settings (chunk, embed). "
            f"Leave out --index: bench-{corpus} is built then."
        )
    return found


def index_of(loaded: Loaded, documents: Sequence[Document], name: str, progress: Progress) -> Loaded:
    """The settings with an index of these documents, which have no metadata; built where it isn't there."""
    found = named(loaded, name)
    progress(f"checking the index {name}")
    if not build.index_holds(found, documents, progress):
        with tempfile.TemporaryDirectory() as folder:
            build.build_index(found, [write(Path(folder, f"{name}.jsonl"), documents)], progress, rebuild=True)
    return found


def named(loaded: Loaded, name: str) -> Loaded:
    """The settings with another index."""
    return loaded.having("index", name=name)


def write(path: Path, documents: Iterable[Document]) -> Path:
    """Documents without their metadata, as a file that `rag index` reads."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": d.id, "title": d.title, "text": d.text}) + "\n" for d in documents)
    return path
