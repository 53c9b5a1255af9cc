"""scripts/: each answers --help, and ends with one line where what it needs isn't there. More of the training's:
test_training_scripts."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.usefixtures("home")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """A script in this process; its exit code, and what it wrote to both streams."""
    monkeypatch.delenv("RAG_DATASETS", raising=False)
    monkeypatch.syspath_prepend(ROOT / "scripts")

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        path = str(ROOT / "scripts" / name)
        monkeypatch.setattr("sys.argv", [path, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(path, run_name="__main__")
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "scripts").glob("*.py")))
def test_each_answers_help(run: Run, name: str) -> None:
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: {name}" in out


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("answers.py", ("--questions", "nowhere.jsonl"), "Can't read nowhere.jsonl: "),
        ("followups.py", ("--questions", "nowhere.jsonl"), "Can't read nowhere.jsonl: "),
        ("recall.py", ("--questions", "nowhere.jsonl"), "nowhere.jsonl: no such file or folder"),
        ("recall.py", ("--index", "nowhere"), "No index named 'nowhere' yet."),
        ("thresholds.py", ("--questions", "nowhere.jsonl"), "nowhere.jsonl: no such file or folder"),
        ("calibrate_abstention.py", ("--datasets", "nowhere"), "No datasets in nowhere."),
        ("calibrate_matcher.py", ("--datasets", "nowhere"), "No datasets in nowhere."),
    ],
)
def test_without_what_it_needs_it_says_so_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(ROOT)
    code, out, err = run(name, *arguments)
    assert (code in (1, 2), out) == (True, "")
    assert err.startswith(f"{name}: {said}")
    assert err.count("\n") == 1
    assert not Path("nowhere").exists()
