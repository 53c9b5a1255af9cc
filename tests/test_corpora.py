"""Indexes of datasets: built once, taken as they are where named, never written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag import build, settings
from rag.errors import UsageError
from rag.index import Versions
from rag.paths import indexes_dir
from rag.progress import quiet
from rag.training import corpora, datasets


@pytest.fixture
def with_models(real_home: Path, home: Path) -> None:
    home.mkdir()
    (home / "cache").symlink_to(real_home / "cache")


def versions(name: str) -> list[str]:
    return Versions(indexes_dir(), name).all()


def test_documents_hold_what_is_searched_and_never_the_question(datasets_folder: Path) -> None:
    record = datasets.medquad(datasets_folder)[0]
    first = next(corpora.medquad(datasets_folder))
    assert (first.id, first.title, first.text) == (record.id, record.focus, record.answer)
    papers = {paper.id: paper for part in datasets.pubmedqa(datasets_folder) for paper in part}
    found = list(corpora.pubmedqa(datasets_folder))
    assert len(found) == len(papers) == 24
    for document in found:
        paper = papers[document.id]
        assert (document.title, document.text) == ("", " ".join(paper.contexts))
        assert paper.question not in document.text
        assert paper.conclusion not in document.text
    passages = {p.id: (p.title, p.text) for p in datasets.searched_passages(datasets_folder)}
    assert {d.id: (d.title, d.text) for d in corpora.jats(datasets_folder)} == passages
    _, _, abstracts = datasets.scifact(datasets_folder)
    assert {d.id: (d.title, d.text) for d in corpora.scifact(datasets_folder)} == {
        name: (title, " ".join(text)) for name, (title, text) in abstracts.items()
    }


@pytest.mark.usefixtures("with_models")
def test_an_index_is_built_once_and_again_only_for_other_settings(datasets_folder: Path) -> None:
    loaded = settings.load(assignments=["index.name=mine", "retrieve.candidates=7"])
    found = corpora.index(loaded, datasets_folder, "pubmedqa", None, quiet)
    assert (found.settings.index.name, found.settings.retrieve.candidates) == ("bench-pubmedqa", 7)
    assert build.open_search(found).index.manifest.documents == 24
    assert corpora.index(loaded, datasets_folder, "pubmedqa", None, quiet) == found
    assert (versions("bench-pubmedqa"), versions("mine")) == (["000001"], [])
    finer = settings.load(assignments=["chunk.max_chars=100"])
    corpora.index(finer, datasets_folder, "pubmedqa", None, quiet)
    assert versions("bench-pubmedqa") == ["000001", "000002"]


@pytest.mark.usefixtures("with_models")
def test_an_index_that_is_named_is_taken_as_it_is_or_refused(datasets_folder: Path) -> None:
    loaded = settings.load()
    corpora.index(loaded, datasets_folder, "pubmedqa", None, quiet)
    named = corpora.index(loaded, datasets_folder, "pubmedqa", "bench-pubmedqa", quiet)
    assert named.settings.index.name == "bench-pubmedqa"
    for corpus, name in (("medquad", "bench-pubmedqa"), ("medquad", "absent")):
        with pytest.raises(UsageError, match=f"Index '{name}' isn't there, or isn't of medquad"):
            corpora.index(loaded, datasets_folder, corpus, name, quiet)
    assert (versions("bench-pubmedqa"), versions("absent")) == (["000001"], [])
