"""How servers are found, and how what they leave behind isn't mistaken for them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from rag import server, settings
from rag.errors import StorageError, UsageError
from rag.server import state


@pytest.fixture
def me(home: Path) -> state.ServerState:
    del home
    return state.of_this_process(settings.load(environ={}), "127.0.0.1", 1, Path("/nowhere/ask"))


def file_of(one: state.ServerState) -> Path:
    return Path(server.runtime_folder()) / f"{one.digest}.json"


def test_a_server_is_found_while_it_runs_and_by_its_user_alone(me: state.ServerState) -> None:
    assert state.servers() == []
    with state.announced(me):
        assert state.servers() == [me]
        assert stat.S_IMODE(file_of(me).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(server.runtime_folder()).stat().st_mode) == 0o700
    assert state.servers() == []
    assert not file_of(me).exists()


def test_a_second_one_for_the_same_settings_is_refused_and_for_others_is_not(me: state.ServerState) -> None:
    with state.announced(me):
        with (
            pytest.raises(UsageError, match=f"runs already: http://127.0.0.1:1, pid {os.getpid()}"),
            state.announced(me),
        ):
            pass
        assert state.servers() == [me]
        other = replace(me, digest="0" * 16)
        with state.announced(other):
            assert len(state.servers()) == 2


@pytest.mark.parametrize("reused", [True, False])
def test_the_file_of_a_server_that_is_gone_is_removed_and_does_not_stand_in_the_way(
    me: state.ServerState, reused: bool
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    gone = replace(me, created=me.created - 3600) if reused else replace(me, pid=child.pid)
    for _ in range(2):
        file_of(me).parent.mkdir(parents=True, exist_ok=True)
        file_of(me).write_text(json.dumps(asdict(gone)))
        assert state.servers() == []
        assert not file_of(me).exists()
    file_of(me).write_text(json.dumps(asdict(gone)))
    with state.announced(me):
        assert state.servers() == [me]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 99999999}'])
def test_a_file_that_cannot_be_read_is_removed(me: state.ServerState, text: str) -> None:
    file_of(me).parent.mkdir(parents=True, exist_ok=True)
    file_of(me).write_text(text)
    assert state.servers() == []
    assert not file_of(me).exists()


@pytest.mark.parametrize("name", ["settings.json", "lock.json", "0123456789abcdef.json.bak"])
def test_a_file_of_somebody_else_stays(me: state.ServerState, name: str) -> None:
    other = file_of(me).with_name(name)
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text("{}")
    with state.announced(me):
        assert state.servers() == [me]
    assert other.read_text() == "{}"


def test_the_file_of_another_versions_server_stays_as_long_as_its_process(me: state.ServerState) -> None:
    other = file_of(replace(me, digest="0" * 16))
    other.parent.mkdir(parents=True, exist_ok=True)
    for pid, stays in ((os.getpid(), True), (2**22 + 1, False)):
        other.write_text(json.dumps({**asdict(me), "pid": pid, "since": "yesterday"}))
        assert state.servers() == []
        assert other.exists() is stays


def test_a_link_to_a_folder_of_ours_is_none(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    assert server.is_ours(str(tmp_path / "ours"))
    assert not server.is_ours(str(tmp_path / "link"))


@pytest.mark.usefixtures("home")
def test_a_folder_that_others_may_write_to_is_refused() -> None:
    folder = Path(server.runtime_folder())
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert not server.is_ours(str(folder))
    with pytest.raises(StorageError, match="must be a folder of yours"):
        state.servers()
    folder.chmod(0o700)
    assert server.is_ours(str(folder))


def test_a_socket_and_its_folder_go_and_are_this_users_alone() -> None:
    with state.socket_path() as path:
        path.touch()
        assert len(bytes(path)) < 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()


def test_the_process_is_named_by_number_and_start(me: state.ServerState) -> None:
    assert me.process == psutil.Process()
    assert replace(me, created=me.created + 5).process is None


def test_an_address_of_ipv6_has_brackets(me: state.ServerState) -> None:
    assert (me.address, replace(me, host="::1").address) == ("127.0.0.1:1", "[::1]:1")


def digest(*assignments: str, profile: str = "auto", models: str = "auto", **environ: str) -> str:
    return state.settings_digest(settings.load(profile, models, assignments, environ=environ, device="cpu"))


def test_the_digest_is_of_what_shapes_an_answer_and_not_of_where_it_comes_from() -> None:
    plain = digest()
    assert digest() == plain
    assert digest("generator.max_tokens=100") == digest(RAG__GENERATOR__MAX_TOKENS="100") != plain
    assert digest(f"generator.max_tokens={settings.load(environ={}).settings.generator.max_tokens}") == plain
    assert digest(UNRELATED="1", LANG="C") == plain
    assert digest(profile="auto-cpu", models="embedded") == plain
    others = {digest(profile="v3"), digest(models="qwen3-8b"), digest("index.name=other"), plain}
    assert len(others) == 4


def test_the_folder_is_that_of_rag_home_or_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAG_HOME", str(tmp_path))
    assert server.runtime_folder() == str(tmp_path / "run")
    monkeypatch.delenv("RAG_HOME")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert server.runtime_folder() == "/run/user/7/rag"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert server.runtime_folder() == f"/tmp/rag-{os.getuid()}"
