"""rag/build/corpus.py: files become a version of an index, on the real encoder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag import build, paths, settings
from rag.errors import StorageError
from rag.index import Versions
from rag.ingest import READERS

NAME = "corpus-tests"
TEXT = "Gout is caused by crystals of urate. Joints swell at night."


@pytest.fixture
def versions(in_real_home: Path) -> Iterator[Versions]:
    del in_real_home
    versions = Versions(paths.indexes_dir(), NAME)
    yield versions
    if versions.root.is_dir():
        versions.remove()


def index(folder: Path) -> build.Built:
    return build.build_index(settings.load(assignments=[f"index.name={NAME}"], environ={}), [folder])


def disk_of(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    whole = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: whole)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "gout.jsonl").write_text(json.dumps({"id": "gout", "text": TEXT}), encoding="utf-8")
    return folder


def test_where_the_disk_is_too_small_for_what_has_to_be_encoded_it_is_said_before_that(
    versions: Versions, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (corpus / "gout.jsonl").stat().st_size
    disk_of(monkeypatch, 4 * size - 1)
    with pytest.raises(StorageError, match="No room on the disk"):
        index(corpus)
    assert versions.all() == []
    disk_of(monkeypatch, 4 * size)
    assert index(corpus).manifest.passages == 1
    disk_of(monkeypatch, 0)
    assert index(corpus).changes.unchanged == 1, "nothing has changed, so nothing is written"


def test_the_size_of_what_is_mostly_no_text_refuses_nothing(
    versions: Versions, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (corpus / "scan.pdf").open("wb") as scan:
        os.truncate(scan.fileno(), 300_000_000_000)
    disk_of(monkeypatch, 1_000_000)
    built = index(corpus)
    assert built.version == versions.current()[0]
    assert [one.where.rpartition("/")[2] for one in built.left_out.skipped] == ["scan.pdf"]


def test_every_suffix_with_a_size_has_a_reader() -> None:
    assert build.corpus.INDEX_PER_SOURCE.keys() <= READERS.keys()
