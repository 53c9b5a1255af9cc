"""The training scripts as commands: the same options, and an error in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

COMMON = {"--folder", "--datasets", "--examples", "--held-out", "--steps", "--seed", "--help"}
SEARCHES = {"--index"}
SCRIPTS = {
    "reranker": SEARCHES,
    "generator": SEARCHES | {"--initial"},
    "support": set[str](),
    "matcher": {"--base", "--initial"},
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_they_take_the_same_options(script: Cli, kind: str) -> None:
    done = script(f"train_{kind}.py", "--help")
    assert done.returncode == 0
    assert set(re.findall(r"--[a-z][a-z-]+", done.stdout)) == COMMON | SCRIPTS[kind]


@pytest.mark.parametrize("kind", SCRIPTS)
def test_without_datasets_there_is_one_line_and_nothing_is_written(script: Cli, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = tmp_path / "training"
    done = script(f"train_{kind}.py", "--folder", str(folder), "--datasets", str(tmp_path / "none"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"train_{kind}.py: No datasets in {tmp_path / 'none'}.")
    assert done.stderr.count("\n") == 1
    assert not folder.exists()


def test_an_export_of_nothing_is_refused(script: Cli, tmp_path: Path) -> None:
    done = script("export_model.py", "minilm-rerank", "--from", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"export_model.py: No adapter in {tmp_path}")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("UsageError('No luck.')", 2, "-c: No luck.\n"),
        ("KeyboardInterrupt", 130, ""),
        ("BrokenPipeError", 0, ""),
    ],
)
def test_a_script_ends_as_rag_does(error: str, code: int, said: str) -> None:
    script = f"""
from rag.cli.ending import run_script
from rag.errors import UsageError
def main() -> None:
    raise {error}
run_script(main)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, said)
