"""A damaged index is named, file by file, before native code reads any of it."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from indexes import write_index

from rag.core import Document
from rag.errors import SearchIndexError
from rag.index import Versions, check_current, manifest
from rag.index.checks import check
from rag.index.manifest import FileEntry, Manifest
from rag.ingest import chunk
from rag.settings import Index
from rag.testing import FakeEncoder

FILES = (
    "bm25s/data.csc.index.npy",
    "bm25s/indices.csc.index.npy",
    "bm25s/indptr.csc.index.npy",
    "bm25s/params.index.json",
    "bm25s/vocab.index.json",
    "dense.hnsw.faiss",
    "dense.nodes.npy",
    "documents.jsonl",
    "documents.offsets.npy",
    "passage_documents.npy",
    "passages.jsonl",
    "passages.offsets.npy",
    "token_offsets.npy",
    "tokens.npy",
    "vectors.npy",
)


AGAIN = "Build it again: rag index PATH --index notes --rebuild."


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of indexes with one, "notes", that holds a file of every kind."""
    root = tmp_path_factory.mktemp("indexes")
    documents = [Document(f"d{n}", f"Title {n}", f"Passage number {n} tells of gout.") for n in range(20)]
    passages = [passage for document in documents for passage in chunk.split(document, 1000)]
    encoder = FakeEncoder()
    write_index(
        Versions(root, "notes"),
        [(documents, passages, encoder.encode_passages([passage.text for passage in passages]))],
        model=encoder.model,
        settings=Index(exact_up_to=10),
        chunking={"max_chars": 1000},
    )
    return root


@pytest.fixture
def versions(pristine: Path, tmp_path: Path) -> Versions:
    return Versions(Path(shutil.copytree(pristine, tmp_path / "indexes")), "notes")


def refusal(versions: Versions) -> str:
    with pytest.raises(SearchIndexError) as caught:
        check_current(versions)
    return str(caught.value)


def rewrite(versions: Versions, **changes: Any) -> None:
    """Change keys of the manifest; None takes one out."""
    path = versions.current()[1] / manifest.NAME
    raw = json.loads(path.read_text()) | changes
    content = json.dumps({key: value for key, value in raw.items() if value is not None}).encode()
    path.write_bytes(content)
    path.with_name(manifest.CHECKSUM).write_bytes(manifest._checksum(content))


# --- files -------------------------------------------------------------------------------------


def test_the_manifest_knows_every_file_but_itself(versions: Versions) -> None:
    checked = check_current(versions)
    assert tuple(checked.manifest.files) == FILES
    on_disk = {path.relative_to(checked.folder).as_posix() for path in checked.folder.rglob("*") if path.is_file()}
    assert on_disk == {*FILES, "manifest.json", "manifest.sha256"}


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(versions: Versions, name: str) -> None:
    path = versions.current()[1] / name
    path.unlink()
    assert refusal(versions) == f"The index file {path} is missing. {AGAIN}"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_short_is_named_with_both_sizes(versions: Versions, name: str) -> None:
    path = versions.current()[1] / name
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)
    assert refusal(versions) == (f"The index file {path} has {size - 1:,} bytes instead of {size:,}. {AGAIN}")


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_which_one_bit_has_changed_is_named(versions: Versions, name: str) -> None:
    path = versions.current()[1] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert refusal(versions) == (
        f"The index file {path} has changed since it was written (SHA-256 differs). "
        "Build it again: rag index PATH --index notes --rebuild."
    )


def test_a_folder_in_place_of_a_file_is_named(versions: Versions) -> None:
    path = versions.current()[1] / "vectors.npy"
    path.unlink()
    path.mkdir()
    assert f"{path} is missing" in refusal(versions)


def test_a_file_that_cannot_be_read_is_named(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, and tests may be root's."""

    def failing(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(manifest, "sha256", failing)
    path = versions.current()[1] / FILES[0]
    assert f"The index file {path} can't be read (Input/output error). Build" in refusal(versions)


# --- the manifest itself -----------------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = Manifest(
        created="2026-01-31T12:00:00+00:00",
        model="fake@1",
        dimension=64,
        documents=3,
        passages=7,
        dense="flat",
        chunking={"max_chars": 1000, "overlap_sentences": 1},
        documents_sha256="0" * 64,
        files={"a/b.npy": FileEntry(12, "1" * 64)},
    )
    written.write(tmp_path)
    assert manifest.read(tmp_path) == written


def test_a_missing_manifest_is_said_to_be_missing(versions: Versions) -> None:
    folder = versions.current()[1]
    (folder / manifest.NAME).unlink()
    assert refusal(versions) == f"The index in {folder} has no manifest. {AGAIN}"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe{\x00", b"{}", b'{"files": []}', b'{"files": {"a": 3}}', b"[" * 10**5],
    ids=["empty", "cut", "list", "null", "string", "utf-16", "no keys", "no table", "no entry", "deep"],
)  # fmt: skip
def test_a_damaged_manifest_is_said_to_be_damaged(versions: Versions, content: bytes) -> None:
    folder = versions.current()[1]
    (folder / manifest.NAME).write_bytes(content)
    assert refusal(versions) == f"The manifest in {folder} is damaged. {AGAIN}"


@pytest.mark.parametrize("key", ["model", "dimension", "dense", "chunking", "documents_sha256", "files"])
def test_a_manifest_that_lacks_a_key_is_damaged(versions: Versions, key: str) -> None:
    rewrite(versions, **{key: None})
    assert "is damaged" in refusal(versions)


@pytest.mark.parametrize("name", [manifest.NAME, manifest.CHECKSUM])
def test_any_byte_that_has_changed_in_a_manifest_or_its_checksum_is_noticed(versions: Versions, name: str) -> None:
    path = versions.current()[1] / name
    whole = path.read_bytes()
    for position in range(0, len(whole), 5):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(SearchIndexError):
            manifest.read(path.parent)
    path.write_bytes(whole)
    check_current(versions)


def test_a_manifest_without_its_checksum_is_damaged(versions: Versions) -> None:
    (versions.current()[1] / manifest.CHECKSUM).unlink()
    assert "is damaged" in refusal(versions)


def test_the_checksum_is_one_that_sha256sum_reads(versions: Versions) -> None:
    folder = versions.current()[1]
    subprocess.run(["sha256sum", "--check", "--strict", manifest.CHECKSUM], cwd=folder, check=True, capture_output=True)


def test_a_manifest_cut_at_any_length_is_refused(versions: Versions) -> None:
    path = versions.current()[1] / manifest.NAME
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "is damaged" in refusal(versions)


def test_a_manifest_of_another_format_names_both(versions: Versions) -> None:
    folder = versions.current()[1]
    rewrite(versions, format=2)
    assert refusal(versions) == (f"The index in {folder} has format 2, this version of rag reads 3. {AGAIN}")


def test_another_format_is_no_damage_where_its_keys_differ_too(versions: Versions) -> None:
    rewrite(versions, format=4, shards=4, files=None)
    assert "has format 4, this version of rag reads 3" in refusal(versions)


def test_where_there_are_other_versions_they_are_offered_first_and_what_is_wrong_with_them_is_told_without(
    versions: Versions,
) -> None:
    with versions.writing(), versions.new() as folder:
        (folder / "data").write_text("whole")
    lacking = f"The index in {versions.folder('000002')} has no manifest."
    assert refusal(versions) == (
        f"{lacking} Choose one of 000001: rag index rollback VERSION --index notes; "
        "or build it again: rag index PATH --index notes --rebuild."
    )
    assert (check(versions, "000001"), check(versions, "000002")) == (None, lacking)
