"""rag/paths.py: state under RAG_HOME or the user's folders; shipped files in a checkout and in a wheel."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from rag import paths

ROOT = Path(__file__).parent.parent


def installed(folder: Path) -> ModuleType:
    """rag/paths.py as it stands in `folder`/rag, loaded under another name."""
    (folder / "rag").mkdir()
    copy = shutil.copy(ROOT / "rag" / "paths.py", folder / "rag" / "paths.py")
    spec = importlib.util.spec_from_file_location("paths_of_another_place", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_state_lives_under_rag_home(home: Path) -> None:
    assert paths.models_dir() == home / "cache" / "models"
    assert paths.indexes_dir() == home / "data" / "indexes"
    assert paths.logs_dir() == home / "logs"


def test_asking_for_a_place_makes_nothing(home: Path) -> None:
    paths.models_dir(), paths.indexes_dir(), paths.logs_dir()
    assert not home.exists()


def test_a_change_of_rag_home_is_seen_at_once(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.logs_dir() == home / "logs"
    monkeypatch.setenv("RAG_HOME", str(tmp_path / "other"))
    assert paths.logs_dir() == tmp_path / "other" / "logs"


def test_rag_home_may_be_relative_and_start_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAG_HOME", "state/../here")
    assert paths.logs_dir() == tmp_path / "here" / "logs"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("RAG_HOME", "~/rag")
    assert paths.logs_dir() == tmp_path / "me" / "rag" / "logs"


@pytest.mark.parametrize("value", [None, ""])
def test_without_rag_home_state_lives_in_the_users_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("RAG_HOME", raising=False)
    else:
        monkeypatch.setenv("RAG_HOME", value)
    for name in ("CACHE", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    assert paths.models_dir() == tmp_path / "cache" / "rag" / "models"
    assert paths.indexes_dir() == tmp_path / "data" / "rag" / "indexes"
    assert paths.logs_dir().is_relative_to(tmp_path / "state" / "rag")


def test_in_a_checkout_shipped_files_stand_at_its_top() -> None:
    assert paths.shipped() == ROOT
    assert paths.shipped("configs", "profiles") == ROOT / "configs" / "profiles"
    assert paths.shipped("configs", "profiles", "auto-cpu.yaml").is_file()
    assert paths.shipped("data", "models").is_dir()


def test_in_a_wheel_shipped_files_stand_inside_the_package(tmp_path: Path) -> None:
    wheel = installed(tmp_path)
    (tmp_path / "rag" / "_shipped").mkdir()
    assert wheel.shipped("configs", "profiles") == tmp_path / "rag" / "_shipped" / "configs" / "profiles"


def test_what_is_shipped_does_not_depend_on_rag_home_or_the_working_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not home.exists()
    assert paths.shipped("data") == ROOT / "data"
    assert paths.shipped("data").is_absolute()
