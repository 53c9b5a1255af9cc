"""The folders of an index: one writer at a time, an atomic switch, nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import itertools
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag import files
from rag.errors import IndexMissing, SearchIndexError, StorageError
from rag.index.versions import KEPT, Versions

HOLDER = """
import sys
from pathlib import Path
from rag.index.versions import Versions
versions = Versions(Path(sys.argv[1]), sys.argv[2])
with versions.writing(), versions.new() as folder:
    (folder / "half.bin").write_bytes(b"half")
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def writing(versions: Versions) -> Iterator[Path]:
    with versions.writing(), versions.new() as folder:
        yield folder


def write(versions: Versions, content: str = "text") -> str:
    with writing(versions) as folder:
        (folder / "data").write_text(content)
    return versions.current()[0]


def write_and_fail(versions: Versions, error: BaseException) -> None:
    with writing(versions) as folder:
        (folder / "sub").mkdir()
        (folder / "sub/data").write_text("new")
        raise error


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder and what each file holds."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def another_writer(root: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own in the middle of writing a version; a line on its stdin lets it finish."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


# --- numbers and the switch --------------------------------------------------------------------


def test_versions_are_numbered_from_one(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    assert [write(versions), write(versions)] == ["000001", "000002"]
    assert versions.all() == ["000001", "000002"]
    assert versions.current() == ("000002", tmp_path / "notes/versions/000002")


def test_a_version_holds_what_was_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    with writing(versions) as folder:
        assert list(folder.iterdir()) == []
        (folder / "sub").mkdir()
        (folder / "sub/data").write_text("text")
    assert tree(tmp_path / "notes") == {
        "CURRENT": b"000001 " + hashlib.sha256(b"000001").hexdigest()[:16].encode() + b"\n",
        "versions": None,
        "versions/000001": None,
        "versions/000001/sub": None,
        "versions/000001/sub/data": b"text",
    }


def test_others_can_read_a_version(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    assert versions.current()[1].stat().st_mode & 0o777 == 0o755


def test_the_old_version_is_current_until_the_new_one_is_whole(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions, "old")
    with writing(versions) as folder:
        (folder / "data").write_text("new")
        assert versions.current()[0] == "000001"
        assert versions.all() == ["000001"]
    assert (versions.current()[1] / "data").read_text() == "new"


def test_a_reader_finds_a_whole_version_at_any_moment(tmp_path: Path) -> None:
    versions, done = Versions(tmp_path, "notes"), threading.Event()
    seen: list[str] = []
    failures: list[Exception] = []
    write(versions)

    def read() -> None:
        try:
            while not done.is_set():
                version, folder = versions.current()
                assert (folder / "data").read_text() == "text"
                seen.append(version)
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        before = len(seen)
        write(versions)
        while len(seen) == before and reader.is_alive():  # else three writes may overtake one read
            time.sleep(0.001)
    done.set()
    reader.join()
    assert failures == []
    assert seen == sorted(seen)
    assert len(set(seen)) > 10


def test_indexes_of_different_names_share_nothing(tmp_path: Path) -> None:
    one, two = Versions(tmp_path, "one"), Versions(tmp_path, "two")
    with writing(one) as folder:
        (folder / "data").write_text("one")
        write(two, "two")
    assert [(versions.current()[1] / "data").read_text() for versions in (one, two)] == ["one", "two"]


def test_a_version_that_never_became_current_is_not_overwritten(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    (tmp_path / "notes/versions/000005").mkdir()
    assert versions.current()[0] == "000001"
    assert write(versions) == "000006"


def test_folders_that_are_no_versions_are_passed_over(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    (tmp_path / "notes/versions/backup").mkdir()
    assert versions.all() == ["000001"]
    assert write(versions) == "000002"


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ValueError("broken"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
    ],
)
def test_a_failed_write_keeps_the_old_version_and_leaves_nothing(
    tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions, "old")
    before = tree(tmp_path)
    with pytest.raises(raised):
        write_and_fail(versions, error)
    assert tree(tmp_path) == before


def test_a_failed_first_write_leaves_no_index(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    with pytest.raises(ValueError, match="broken"):
        write_and_fail(versions, ValueError("broken"))
    assert tree(tmp_path / "notes") == {"versions": None}
    with pytest.raises(IndexMissing):
        versions.current()


def test_an_index_can_be_written_again_while_the_error_of_a_failed_write_is_still_held(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    with pytest.raises(StorageError) as held:
        write_and_fail(versions, OSError(errno.ENOSPC, "No space left on device"))
    assert write(versions) == "000001"
    assert f"No room on the disk while writing {tmp_path / 'notes'}" in str(held.value)


# --- one writer --------------------------------------------------------------------------------


def test_a_second_process_is_told_that_the_index_is_being_written(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions, "old")
    with another_writer(tmp_path, "notes") as process:
        before = tree(tmp_path)
        with pytest.raises(SearchIndexError) as caught, versions.writing():
            pytest.fail("two writers at once")
        assert (
            str(caught.value) == "Index 'notes' is being written by another process. Try again later, or with --wait."
        )
        assert tree(tmp_path) == before
        assert versions.current()[0] == "000001"
        process.communicate("\n", timeout=20)
        assert process.returncode == 0
    assert versions.current()[0] == "000002"
    assert write(versions) == "000003"


def test_a_killed_writer_blocks_nobody_and_its_leftovers_are_swept(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions, "old")
    with another_writer(tmp_path, "notes") as process:
        process.kill()
        process.wait()
    assert any(path.endswith("half.bin") for path in tree(tmp_path))
    assert versions.current()[0] == "000001"
    assert write(versions) == "000002"
    assert not any(path.endswith("half.bin") for path in tree(tmp_path))


def test_a_pointer_that_a_killed_writer_left_half_written_is_swept(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    (tmp_path / "notes/.CURRENT.k3j2h1").write_text("0000")
    write(versions)
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["CURRENT", "versions"]


def test_who_waits_for_a_removal_begins_a_new_index_and_loses_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions, "old")
    began, deletes = threading.Event(), shutil.rmtree
    told: list[str] = []

    def write_when_it_may() -> None:
        began.set()
        with versions.writing(wait=True, report=told.append), versions.new() as folder:
            (folder / "data").write_text("new")

    waiting = threading.Thread(target=write_when_it_may)

    def delete_slowly(folder: Path, **options: bool) -> None:
        if folder.is_dir() and not began.is_set():
            waiting.start()
            began.wait()
            time.sleep(0.3)
            assert waiting.is_alive()
            assert not versions.root.exists()
        deletes(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", delete_slowly)
    versions.remove()
    waiting.join(20)
    version, folder = versions.current()
    assert (version, (folder / "data").read_text()) == ("000001", "new")
    assert told == ["waiting for another process that writes this index"]
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


# --- keeping -----------------------------------------------------------------------------------


def test_the_three_newest_versions_are_kept(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    for _ in range(5):
        write(versions)
    assert versions.all() == ["000003", "000004", "000005"]
    assert versions.current()[0] == "000005"


def test_an_opened_version_stays_until_three_newer_ones_exist(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    opened = versions.current()[1]
    there = []
    for _ in range(KEPT):
        write(versions)
        there.append(opened.is_dir())
    assert there == [True, True, False]


# --- the pointer -------------------------------------------------------------------------------


def test_an_index_that_is_not_there_names_the_way_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing) as caught:
        Versions(tmp_path, "notes").current()
    message = str(caught.value)
    assert "No index named 'notes' yet." in message
    assert "rag index PATH --index notes" in message
    assert list(tmp_path.iterdir()) == []


def test_without_a_pointer_there_is_no_index_even_where_versions_lie(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    (tmp_path / "notes/CURRENT").unlink()
    with pytest.raises(IndexMissing):
        versions.current()
    assert write(versions) == "000002"


@pytest.mark.parametrize("pointer", [b"000009\n", b"000001\n", b"", b"../000001\n", b"one\n", b"\xff\xfe0\x001\x00"])
def test_a_pointer_that_leads_nowhere_is_an_error_that_a_new_write_mends(tmp_path: Path, pointer: bytes) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    (tmp_path / "notes/CURRENT").write_bytes(pointer)
    with pytest.raises(SearchIndexError) as caught:
        versions.current()
    assert not isinstance(caught.value, IndexMissing)
    assert f"The index file {tmp_path / 'notes/CURRENT'} has changed since it was written." in str(caught.value)
    assert "Choose one of 000001: rag index rollback VERSION --index notes; or build it again: rag index PATH" in str(
        caught.value
    )
    assert write(versions) == "000002"


def test_a_pointer_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    shutil.rmtree(versions.folder("000001"))
    with pytest.raises(SearchIndexError, match=r"version '000001', which isn't there\. Build it again"):
        versions.current()


def test_any_change_of_a_byte_of_the_pointer_is_noticed(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    write(versions)
    pointer = versions.root / "CURRENT"
    whole = pointer.read_bytes()
    for place, change in itertools.product(range(len(whole)), range(1, 256)):
        pointer.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        with pytest.raises(SearchIndexError, match="has changed since it was written"):
            versions.current()


def test_what_goes_wrong_after_the_switch_takes_nothing_of_the_version_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions, "old")
    sync = files._sync

    def interrupted(path: Path) -> None:
        sync(path)
        if path == versions.root:  # CURRENT has its new content by then
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "_sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(versions, "new")
    monkeypatch.undo()
    assert versions.current()[0] == "000002"
    assert (versions.current()[1] / "data").read_text() == "new"
    assert write(versions, "newer") == "000003"


def test_what_was_rolled_back_from_goes_with_the_next_version_and_not_what_was_rolled_back_to(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    for content in ("good", "bad", "bad"):
        write(versions, content)
    assert versions.roll_back("000001") == "000001"
    assert versions.all() == ["000001", "000002", "000003"], "until then it can be gone forward to"
    assert write(versions, "better") == "000004"
    assert versions.all() == ["000001", "000004"]
    assert versions.roll_back() == "000001"


def test_an_old_version_that_cannot_be_removed_is_left_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = Versions(tmp_path, "notes")
    for content in ("1", "2", "3"):
        write(versions, content)
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == "000001":
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    assert write(versions, "4") == "000004"
    assert versions.current()[0] == "000004"
    assert versions.all() == ["000001", "000002", "000003", "000004"]
    assert (versions.folder("000001") / "data").read_text() == "1"


def test_a_version_that_is_named_can_be_rolled_back_to_where_the_current_one_is_lost(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "notes")
    write(versions)
    (versions.root / "CURRENT").write_text("00000\n")
    assert versions.roll_back("000001") == "000001"
    assert versions.current()[0] == "000001"


@pytest.mark.parametrize("to", [None, "000001"])
def test_rolling_back_an_index_that_is_not_there_makes_none(tmp_path: Path, to: str | None) -> None:
    with pytest.raises(IndexMissing):
        Versions(tmp_path, "typo").roll_back(to)
    assert list(tmp_path.iterdir()) == []
