"""scripts/: each answers --help, and ends with one line where what it needs isn't there. More of the training's:
test_training_scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, Cli

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "scripts").glob("*.py")))
def test_each_answers_help(script: Cli, name: str) -> None:
    done = script(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: {name}" in done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("answers.py", ("--questions", "nowhere.jsonl"), "nowhere.jsonl: no such file or folder"),
        ("followups.py", ("--questions", "nowhere.jsonl"), "Can't read nowhere.jsonl: "),
        ("recall.py", ("--questions", "nowhere.jsonl"), "nowhere.jsonl: no such file or folder"),
        ("recall.py", ("--index", "nowhere"), "No index named 'nowhere' yet."),
        ("thresholds.py", ("--questions", "nowhere.jsonl"), "nowhere.jsonl: no such file or folder"),
        ("calibrate_abstention.py", ("--datasets", "nowhere"), "No datasets in nowhere."),
        ("calibrate_matcher.py", ("--datasets", "nowhere"), "No datasets in nowhere."),
    ],
)
def test_without_what_it_needs_it_says_so_in_one_line(
    script: Cli, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(ROOT)
    done = script(name, *arguments)
    assert (done.returncode in (1, 2), done.stdout) == (True, "")
    assert done.stderr.startswith(f"{name}: {said}")
    assert done.stderr.count("\n") == 1
    assert not Path("nowhere").exists()
