"""Fixtures: state of its own for every test, and one real set of models and index for all that need it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rag import build, settings

ROOT = Path(__file__).parent.parent

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty state: no models, no index."""
    folder = tmp_path / "home"
    monkeypatch.setenv("RAG_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State with every shipped model built and the sample corpus indexed, by the real code. Takes a minute."""
    folder = tmp_path_factory.mktemp("real-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(folder))
        store = build.model_store()
        for status in store.list():
            store.build(status.name)
        build.ensure_sample_index(settings.load(assignments=[f"index.name={build.SAMPLE}"]))
    return folder


@pytest.fixture
def in_real_home(real_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAG_HOME", str(real_home))
    return real_home


@pytest.fixture
def cli() -> Cli:
    """Runs `rag ...` as a process of its own, with the environment of the test."""

    def run(*arguments: str, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rag", *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=cwd,
            env=os.environ,
            check=False,
        )

    return run
