"""rag/files.py: after a failure nothing is left, and what was there before still is."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.errors import StorageError
from rag.files import explaining_storage, only_writer, replacing_file, replacing_folder, require_room, sha256

KIB = 1 << 10
MB = 1_000_000

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts an empty file system in memory with the options given, e.g. a size."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        if shutil.which("mount") is None:
            pytest.skip("there is no `mount` here to make a full disk with")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"mounting a tiny disk isn't permitted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def tree(folder: Path) -> dict[str, str]:
    """Every file and empty folder below, hidden ones too, with what is in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else "(empty folder)"
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_half_and_raise(path: Path, failure: BaseException) -> None:
    path.write_text("half")
    raise failure


def burst(folder: Path) -> None:
    """More than 64 KiB, in two files of which the first still fits."""
    (folder / "first").write_bytes(b"x" * 32 * KIB)
    (folder / "second").write_bytes(b"x" * 100 * KIB)


# --- a file ------------------------------------------------------------------------------------


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with replacing_file(target) as path:
        path.write_text("new")
    assert tree(tmp_path) == {"a.json": "new"}


def test_the_folders_above_a_new_file_are_made(tmp_path: Path) -> None:
    with replacing_file(tmp_path / "deep" / "er" / "a.json") as path:
        path.write_text("new")
    assert tree(tmp_path) == {"deep/er/a.json": "new"}


def test_until_the_end_a_reader_sees_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with replacing_file(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
        assert path.parent == tmp_path
    assert target.read_text() == "new"


def test_a_reader_that_opened_the_old_file_keeps_it(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with target.open() as reader:
        with replacing_file(target) as path:
            path.write_text("new")
        assert reader.read() == "old"


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt(), FileNotFoundError("gone")])
def test_after_an_exception_the_old_file_stays_and_nothing_is_left(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(type(failure)) as caught, replacing_file(target) as path:
        write_half_and_raise(path, failure)
    assert caught.value is failure
    assert tree(tmp_path) == {"a.json": "old"}


def test_after_an_exception_a_file_that_was_not_there_still_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), replacing_file(tmp_path / "a.json") as path:
        write_half_and_raise(path, ValueError("broken"))
    assert tree(tmp_path) == {}


# --- a folder ----------------------------------------------------------------------------------


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "index"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "old").write_text("old")
    with replacing_folder(target) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "new").write_text("new")
        assert tree(target) == {"sub/old": "old"}
    assert tree(tmp_path) == {"index/deep/new": "new"}


def test_the_folders_above_a_new_folder_are_made(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "deep" / "er" / "index") as folder:
        (folder / "a").write_text("new")
    assert tree(tmp_path) == {"deep/er/index/a": "new"}


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt(), FileNotFoundError("gone")])
def test_after_an_exception_the_old_folder_stays_and_nothing_is_left(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "index"
    target.mkdir()
    (target / "a").write_text("old")
    with pytest.raises(type(failure)) as caught, replacing_folder(target) as folder:
        write_half_and_raise(folder / "a", failure)
    assert caught.value is failure
    assert tree(tmp_path) == {"index/a": "old"}


def test_after_an_exception_a_folder_that_was_not_there_still_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), replacing_folder(tmp_path / "index") as folder:
        write_half_and_raise(folder / "a", ValueError("broken"))
    assert tree(tmp_path) == {}


# --- who may read it ---------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=["022", "077"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_replaced_target_has_the_permissions_of_one_that_was_written_directly(
    tmp_path: Path, umask: int, kind: str
) -> None:
    before = os.umask(umask)
    try:
        plain = tmp_path / "plain"
        if kind == "file":
            plain.write_text("x")
            with replacing_file(tmp_path / "replaced") as path:
                path.write_text("x")
        else:
            plain.mkdir()
            with replacing_folder(tmp_path / "replaced"):
                pass
    finally:
        os.umask(before)
    assert oct(mode(tmp_path / "replaced")) == oct(mode(plain))


# --- a disk that is full or closed -------------------------------------------------------------


def test_one_process_writes_at_a_time_and_leaves_nothing_beside_what_it_wrote(tmp_path: Path) -> None:
    target = tmp_path / "new" / "answers"
    script = "import sys; from pathlib import Path; from rag.files import only_writer\n"
    script += "with only_writer(Path(sys.argv[1])): print('in')"
    other = [sys.executable, "-c", script, str(target)]
    with only_writer(target):
        refused = subprocess.run(other, capture_output=True, text=True, check=False)
        with pytest.raises(StorageError, match=f"Another process is writing {target}. Wait"), only_writer(target, 0.05):
            pass
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Another process is writing" in refused.stderr
    assert list(target.parent.iterdir()) == []
    assert subprocess.run(other, capture_output=True, text=True, check=True).stdout == "in\n"


def test_one_that_waits_goes_on_when_the_other_has_ended(tmp_path: Path) -> None:
    """Many in turn, each of which removes the lock that the next ones wait for."""
    at_it = 0

    def write(_: int) -> int:
        nonlocal at_it
        with only_writer(tmp_path / "answers", 60):
            at_it += 1
            seen = at_it
            time.sleep(0.002)
            at_it -= 1
        return seen

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(64))) == {1}
    assert list(tmp_path.iterdir()) == []


def test_on_a_full_disk_the_old_file_stays_and_the_message_says_what_to_do(mount: Mount) -> None:
    disk = mount("size=64k")
    target = disk / "a.json"
    target.write_text("old")
    with pytest.raises(StorageError) as caught, replacing_file(target) as path:
        path.write_bytes(b"x" * 100 * KIB)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert f"No room on the disk while writing {target}" in str(caught.value)
    assert "RAG_HOME" in str(caught.value)
    assert tree(disk) == {"a.json": "old"}


def test_on_a_full_disk_the_old_folder_stays_and_the_room_is_given_back(mount: Mount) -> None:
    disk = mount("size=64k")
    target = disk / "index"
    target.mkdir()
    (target / "a").write_text("old")
    free = shutil.disk_usage(disk).free
    with pytest.raises(StorageError, match="No room on the disk while writing"), replacing_folder(target) as folder:
        burst(folder)
    assert tree(disk) == {"index/a": "old"}
    assert shutil.disk_usage(disk).free == free


@pytest.mark.parametrize("replacing", [replacing_file, replacing_folder])
def test_a_disk_without_room_for_even_a_temporary_name_is_explained(
    mount: Mount, replacing: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    disk = mount("size=64k,nr_inodes=2")
    (disk / "last").write_text("old")
    with pytest.raises(StorageError, match="No room on the disk"), replacing(disk / "a"):
        pytest.fail("there was room")
    assert tree(disk) == {"last": "old"}


@pytest.mark.parametrize("replacing", [replacing_file, replacing_folder])
def test_a_disk_that_may_only_be_read_is_explained(
    mount: Mount, replacing: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    disk = mount("size=64k,ro")
    with pytest.raises(StorageError) as caught, replacing(disk / "a"):
        pytest.fail("it could be written")
    assert str(caught.value).startswith(f"Can't write {disk / 'a'}: Read-only file system.")
    assert "RAG_HOME" in str(caught.value)


@pytest.mark.parametrize("replacing", [replacing_file, replacing_folder])
def test_a_file_where_a_folder_should_be_is_explained(
    tmp_path: Path, replacing: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(StorageError) as caught, replacing(tmp_path / "home" / "models" / "a"):
        pytest.fail("it could be written")
    assert str(tmp_path / "home") in str(caught.value)


# --- explaining --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "No room on the disk while writing /target"),
        (errno.EDQUOT, "No room on the disk while writing /target"),
        (errno.EACCES, "Can't write /target: Permission denied"),
        (errno.EPERM, "Can't write /target: Operation not permitted"),
        (errno.EROFS, "Can't write /target: Read-only file system"),
    ],
)
def test_a_storage_error_of_the_system_is_turned_into_ours(number: int, message: str) -> None:
    with pytest.raises(StorageError) as caught, explaining_storage(Path("/target")):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(message)
    assert "RAG_HOME" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone"), ValueError("broken")])
def test_an_error_that_is_not_about_storage_goes_through_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explaining_storage(Path("/target")):
        raise error
    assert caught.value is error


def test_a_source_that_may_not_be_read_is_not_called_a_target_that_may_not_be_written(tmp_path: Path) -> None:
    source = tmp_path / "corpus" / "secret.txt"
    with pytest.raises((StorageError, PermissionError)) as caught, replacing_folder(tmp_path / "index"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(source))
    assert str(source) in str(caught.value)
    assert f"Can't write {tmp_path / 'index'}" not in str(caught.value)


# --- room --------------------------------------------------------------------------------------


def test_exactly_the_free_room_is_enough_and_a_byte_more_is_not(mount: Mount) -> None:
    disk = mount("size=64k")
    require_room(disk, 64 * KIB)
    with pytest.raises(StorageError):
        require_room(disk, 64 * KIB + 1)


def test_too_little_room_is_refused_with_both_sizes_and_a_way_out(mount: Mount) -> None:
    disk = mount("size=4m")
    with pytest.raises(StorageError) as caught:
        require_room(disk, 2500 * MB)
    assert str(caught.value).startswith(f"No room on the disk for {disk}: 2,500 MB needed, 4 MB free.")
    assert "RAG_HOME" in str(caught.value)


def test_room_for_a_folder_that_is_not_there_is_looked_for_on_the_disk_it_will_be_on(mount: Mount) -> None:
    disk = mount("size=64k")
    require_room(disk / "not" / "yet", 64 * KIB)
    with pytest.raises(StorageError):
        require_room(disk / "not" / "yet", 65 * KIB)
    assert tree(disk) == {}


@pytest.mark.parametrize(("size", "needed"), [("64k", 300_000), ("10m", 10_490_000)])
def test_the_two_sizes_of_a_refusal_are_never_the_same(mount: Mount, size: str, needed: int) -> None:
    with pytest.raises(StorageError) as caught:
        require_room(mount(f"size={size}"), needed)
    sizes = str(caught.value).partition(": ")[2].partition(". ")[0]
    wanted, free = sizes.removesuffix(" free").split(" needed, ")
    assert wanted != free


# --- checksums ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
)
def test_the_checksum_is_sha_256_in_hexadecimal(tmp_path: Path, content: bytes, digest: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert sha256(path) == digest


@given(block=st.binary(min_size=1, max_size=100), times=st.integers(1, 20_000))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_checksum_of_a_large_file_is_that_of_its_whole_content(tmp_path: Path, block: bytes, times: int) -> None:
    path = tmp_path / "large"
    path.write_bytes(block * times)
    assert sha256(path) == hashlib.sha256(block * times).hexdigest()
