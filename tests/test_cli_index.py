"""`rag index` from day to day: what changed, what is there, back to an earlier version, away with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from serving import LOADED

from rag.index import Versions
from rag.server import state

pytestmark = pytest.mark.usefixtures("home")

FACTS = {"year": 1747, "retracted": "Retracted publication", "corrected": "erratum in: Lancet 1748"}
GOUT = "# Gout\n\nGout is caused by crystals of urate. Joints swell at night.\n"


@pytest.fixture
def corpus(tmp_path: Path, home: Path, real_home: Path) -> Path:
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "models").symlink_to(real_home / "cache" / "models")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "gout.md").write_text(GOUT)
    (folder / "scurvy.jsonl").write_text(
        json.dumps({"id": "scurvy", "title": "Scurvy", "text": "Lemons cure scurvy.", **FACTS}) + "\n"
    )
    return folder


def indexed(run: Cli, *arguments: str) -> dict[str, Any]:
    done = run("index", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    built: dict[str, Any] = json.loads(done.stdout)
    return {name: built[name] for name in ("version", "documents", "added", "changed", "unchanged", "removed")}


def test_an_index_lives_from_day_to_day(rag: Cli, corpus: Path, home: Path, tmp_path: Path) -> None:
    """One test: each step stands on the one before, and takes seconds."""
    counts = {"added": 0, "changed": 0, "unchanged": 0, "removed": 0}
    assert indexed(rag, str(corpus)) == {**counts, "version": "000001", "documents": 2, "added": 2}
    assert indexed(rag, "build", str(corpus)) == {**counts, "version": "000001", "documents": 2, "unchanged": 2}

    (corpus / "gout.md").write_text(GOUT.replace("urate", "sodium urate"))
    (corpus / "scurvy.jsonl").unlink()
    changed = {**counts, "version": "000002", "documents": 2, "changed": 1}
    assert indexed(rag, str(corpus)) == changed
    kept = "Documents: 1 unchanged. Kept, though nothing that was read has it: 1; --prune removes that.\n"
    assert kept in rag("index", str(corpus)).stdout
    (corpus / "broken.md").write_bytes(b"\0")
    left = rag("index", "--prune", str(corpus))
    assert "Documents: 1 unchanged. Kept, though nothing that was read has it: 1.\n" in left.stdout
    assert "broken.md" in left.stderr
    assert "Nothing was pruned: what was skipped may hold documents of the index. Move those files" in left.stderr
    (corpus / "broken.md").unlink()
    assert indexed(rag, "--prune", str(corpus)) == {
        **counts,
        "version": "000003",
        "documents": 1,
        "unchanged": 1,
        "removed": 1,
    }

    found = rag("search", "--json", "--where", "year<1800", "What cures scurvy?")
    assert found.returncode == 2
    assert "No document of this index has 'year'" in found.stderr
    assert rag("index", "rollback", "2").stdout == "Index 'default' is at version 000002.\n"
    found = rag("search", "--json", "--where", "year<1800", "What cures gout?")
    (hit,) = json.loads(found.stdout)["hits"]
    assert (hit["passage"]["doc_id"], hit["passage"]["metadata"]) == ("scurvy", FACTS)
    found = rag("search", "--where", "year<long-ago", "What cures gout?")
    assert found.returncode == 2
    assert (
        "'year<long-ago' compares year with 'long-ago'. Every year of this index is a number: give one." in found.stderr
    )
    told = rag("search", "--where", "year<1800", "What cures gout?").stdout
    assert "\n    1747\n    Retracted publication\n    erratum in: Lancet 1748\n" in told

    listed = json.loads(rag("index", "list", "--json").stdout)
    assert [(one["version"], one["documents"], one["is_current"]) for one in listed] == [
        ("000001", 2, False),
        ("000002", 2, True),
        ("000003", 1, False),
    ]
    vectors = Versions(home / "data" / "indexes", "default").folder("000003") / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    checked = rag("index", "verify", "--json")
    assert checked.returncode == 1
    problems = json.loads(checked.stdout)["versions"]
    assert problems["000002"] is None
    assert "vectors.npy" in problems["000003"]

    refused = rag("index", "--set", "chunk.max_chars=500", str(corpus))
    assert refused.returncode == 1
    assert "chunk.max_chars=1000" in refused.stderr
    assert "--rebuild" in refused.stderr
    for command in (("index", str(corpus)), ("search", "scurvy")):
        mixed = rag(*command, "--set", 'embed.passage_prefix="passage: "')
        assert mixed.returncode == 1
        assert "'passage: ' before each passage" in mixed.stderr
    rebuilt = indexed(rag, "--rebuild", "--set", "chunk.max_chars=500", str(corpus))
    assert rebuilt == {**counts, "version": "000004", "documents": 1, "added": 1}

    assert rag("index", "remove", "default", stdin="n\n").returncode == 1
    assert Versions(home / "data" / "indexes", "default").all() == ["000001", "000002", "000004"]
    serving = replace(state.of_this_process(LOADED, "127.0.0.1", 1, tmp_path / "socket"), index="default")
    with state.announced(serving):
        removed = rag("index", "remove", "--yes", "default")
    assert removed.stdout == "Index 'default' is removed.\n"
    assert removed.stderr == f"The server at http://127.0.0.1:1 still answers from it: rag stop {serving.pid}\n"
    assert rag("index", "list", "--json").stdout == "[]\n"
    assert "No index named 'default'" in rag("index", "remove", "--yes", "default").stderr


def test_a_version_that_is_not_there(rag: Cli) -> None:
    assert "No index named 'default'" in rag("index", "rollback").stderr


def test_a_condition_that_is_none_is_refused_before_anything_is_loaded(cli: Cli) -> None:
    done = cli("ask", "--where", "year>>2020", "What cures scurvy?")
    assert (done.returncode, done.stdout) == (2, "")
    assert "at character 6" in done.stderr


def test_interrupted_it_says_that_it_will_go_on(corpus: Path) -> None:
    lines = (json.dumps({"id": f"d{number}", "text": f"Gout number {number}. " * 20}) for number in range(20_000))
    (corpus / "many.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "rag", "index", str(corpus)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while (line := process.stderr.readline()) != "reading and encoding ...\n":
                assert line
            process.send_signal(signal.SIGINT)
            last = process.stderr.read().splitlines()[-1]
            assert last == "Interrupted. The same command goes on after what is encoded."
            assert process.wait(20) == 130
        finally:
            process.kill()
