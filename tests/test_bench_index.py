"""The benchmark of an index: what is timed and compared, its figures by hand, and a whole run of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from math import log2
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from conftest import Cli
from numpy.typing import NDArray

from rag import settings
from rag.bench import commands, results
from rag.bench.index import Steps, encode_both, encoding, nearest, over_build, quality, summarise
from rag.core import Passage
from rag.errors import RagError, UsageError
from rag.index import Versions
from rag.testing import FakeEncoder
from rag.training.datasets import Abstract

HEAD: dict[str, Any] = {
    **results.header("index", "rag bench index"),
    "settings": {"passages": 16, "torch_threads": 2, "backend": "openvino"},
}


# --- what is timed and compared ----------------------------------------------------------------


class Timed(FakeEncoder):
    """Takes the given seconds by a clock of the test's."""

    def __init__(self, now: list[float], seconds: float) -> None:
        self.now, self.seconds = now, seconds

    def encode_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.now[0] += self.seconds
        return np.full((len(texts), 2), self.seconds, dtype=np.float32)


def test_both_encode_the_same_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PAUSE", 0.0)
    now = [0.0]
    ours, reference = Timed(now, 1.0), Timed(now, 4.0)
    seconds, vectors = encode_both(ours, reference, ["a", "b"], clock=lambda: now[0])  # type: ignore[arg-type]
    assert seconds == {"reference": 4.0, "ours": 1.0, "ours_again": 1.0}
    assert {name: found.tolist() for name, found in vectors.items()} == {
        "ours": [[1.0, 1.0]] * 2,
        "reference": [[4.0, 4.0]] * 2,
    }


def test_the_nearest_come_first() -> None:
    vectors = np.array([[0, 1], [1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    assert nearest(vectors, np.array([0, 1], dtype=np.float32)) == [0, 3, 2, 1]


class AnyDirection(FakeEncoder):
    """A direction of its own for each text, so that no two are equally near to a third."""

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.array([np.random.default_rng(crc32(text.encode())).normal(size=64) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    encode_passages = encode_queries


def test_what_is_lost_against_the_reference_is_told_a_question() -> None:
    passages = [Passage(f"{n}#0", f"{n}", "", f"Passage {n}.", 0, 9) for n in range(40)]
    encoder = AnyDirection()
    theirs = encoder.encode_passages([passage.text for passage in passages])
    asked = [Abstract(f"{n}", passages[n].text, (), "") for n in range(3)]
    loaded = settings.load(environ={})

    def told(ours: NDArray[np.float32]) -> list[dict[str, Any]]:
        return list(quality(loaded, encoder, encoder, passages, ours, theirs, asked))  # type: ignore[arg-type]

    same = told(theirs)
    assert [(one["overlap"], one["overlap_exact"]) for one in same] == [(1.0, 1.0)] * 3
    assert [one["ranks"] for one in same] == [{"ours": [1], "reference": [1]}] * 3
    wrong = told(np.roll(theirs, 7, axis=0))
    assert all(one["overlap"] == one["overlap_exact"] < 1 for one in wrong)
    assert all(one["ranks"]["ours"] != [1] == one["ranks"]["reference"] for one in wrong)


def test_the_steps_of_a_build_last_until_the_next() -> None:
    now = iter([1.0, 3.0, 3.5, 10.0])
    steps = Steps(lambda: next(now))
    for what in ("reading", "writing", "switching"):
        steps(what)
    assert steps.seconds() == {"reading": 2.0, "writing": 0.5, "switching": 6.5}


def test_an_update_is_compared_with_encoding_all_passages() -> None:
    update = {"seconds": 6.0, "block": 500, "block_seconds": 2.0, "passages": 50_000}
    assert over_build(update) == pytest.approx(6.0 / 200.0)


# --- processes ---------------------------------------------------------------------------------


def test_a_process_is_told_its_own_peak_of_memory() -> None:
    ours = bytearray(300_000_000)  # what this process holds isn't that one's
    ran = commands.run(
        [sys.executable, "-c", "b = bytearray(100_000_000); import time; time.sleep(0.5); print(len(b))"]
    )
    assert len(ours) == 300_000_000
    assert ran.output == "100000000\n"
    assert ran.peak is not None
    assert 100_000_000 < ran.peak < 200_000_000
    assert ran.seconds >= 0.5


def test_a_process_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(RagError, match="failed: no such luck"):
        commands.run([sys.executable, "-c", "import sys; sys.exit('no such luck')"])


def test_a_command_carries_what_was_set_by_hand() -> None:
    loaded = settings.load(assignments=["index.name=other", "retrieve.dense_n=7"], environ={}, device="cpu")
    assert commands.rag(loaded, "index", "here")[1:] == [
        *("-m", "rag", "--profile", "auto-cpu", "--models", "embedded"),
        *('--set=index.name="other"', "--set=retrieve.dense_n=7", "index", "here"),
    ]


# --- figures -----------------------------------------------------------------------------------

SAMPLES: list[dict[str, Any]] = [
    {"kind": "block", "id": 0, "passages": 500, "reference": 6.0, "ours": 2.0, "ours_again": 1.0},
    {"kind": "block", "id": 1, "passages": 100, "reference": 2.0, "ours": 0.0, "ours_again": 1.0},
    {"kind": "question", "id": "1", "overlap": 0.9, "overlap_exact": 1.0, "ranks": {"ours": [2], "reference": [1]}},
    {
        "kind": "build",
        "id": "bench-jats-all",
        "peak": 500_000_000,
        "process_seconds": 11.0,
        "seconds": 10.0,
        "bytes": 3_000_000,
        "documents": 900,
        "passages": 1000,
        "dense": "flat",
    },
    {"kind": "search", "id": "1", "total": 0.02, "seconds": {"embed": 0.004, "retrieve": 0.006}},
    {
        "kind": "update",
        "id": 0,
        "changed": 100,
        "seconds": 6.0,
        "steps": {"reading and encoding": 5.0},
        "passages": 50_000,
        "dense": "flat",
        "block": 500,
        "block_seconds": 2.0,
    },
]


def taken(folder: Path, samples: Sequence[dict[str, Any]]) -> Path:
    on_disk = results.Samples(folder)
    on_disk.start(HEAD)
    for sample in samples:
        on_disk.add(sample)
    return folder


def test_every_figure_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    figures = summarise(taken(tmp_path, SAMPLES))
    assert {figure.name: figure.value for figure in figures} == {
        "index_build_speedup": pytest.approx(4.0),
        "ours_over_ours": pytest.approx(1.0),
        "passages_per_s_ours": pytest.approx(300),
        "passages_per_s_reference": pytest.approx(75),
        "recall_at_10_vs_reference": pytest.approx(0.9),
        "recall_at_10_exact": 1.0,
        "ndcg_ours": pytest.approx(1 / log2(3)),
        "ndcg_reference": 1.0,
        "ndcg_over_reference": pytest.approx(1 / log2(3)),
        "build_passages": 1000.0,
        "build_s": 10.0,
        "build_size_mb": 3.0,
        "build_peak_mb": 500.0,
        "search_p50_ms": pytest.approx(20),
        "search_embed_p50_ms": pytest.approx(4),
        "search_retrieve_p50_ms": pytest.approx(6),
        "update_over_build": pytest.approx(0.03),
        "update_s": 6.0,
    }
    assert {figure.name: (figure.goal, figure.met) for figure in figures if figure.goal is not None} == {
        "index_build_speedup": (">= 3", True),
        "recall_at_10_vs_reference": (">= 0.97", False),
        "update_over_build": ("<= 0.03", True),
    }
    assert "reading and encoding 5.00" in (tmp_path / "report.md").read_text()


def test_a_run_that_was_interrupted_reports_what_it_has(tmp_path: Path) -> None:
    names = {figure.name for figure in summarise(taken(tmp_path, SAMPLES[:2]))}
    assert "index_build_speedup" in names
    assert not {name for name in names if name.startswith(("recall", "build", "search", "update"))}


def test_without_samples_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No samples in"):
        summarise(taken(tmp_path, []))


# --- the whole of it ---------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_interrupted(
    rag: Cli, datasets_folder: Path, real_home: Path, home: Path, tmp_path: Path
) -> None:
    home.mkdir()
    (home / "cache").symlink_to(real_home / "cache")
    sizes = ("--passages", "10", "--largest", "20", "--questions", "3", "--updates", "2")
    command = ("bench", "index", "--datasets", str(datasets_folder), "--output", str(tmp_path), *sizes)
    done = rag(*command, "--json")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads(done.stdout)}
    assert figures["recall_at_10_vs_reference"]["value"] > 0.8
    assert (figures["build_passages"]["value"], figures["search_p50_ms"]["n"]) == (20, 3)
    assert figures["build_peak_mb"]["value"] > 50
    assert figures["update_over_build"]["n"] == 2
    assert (tmp_path / "vectors" / ".gitignore").read_text() == "*\n"
    indexes = home / "data" / "indexes"
    assert {path.name for path in indexes.iterdir()} == {"bench-jats-10", "bench-jats-all"}
    assert Versions(indexes, "bench-jats-10").all() == ["000001"], "an update has changed it"

    path = tmp_path / "samples.jsonl"
    head, *lines = path.read_text().splitlines(keepends=True)
    assert [json.loads(line)["changed"] for line in lines if '"update"' in line] == [10, 10]
    path.write_text(head + "".join(line for line in lines if '"question"' not in line))
    for file in (tmp_path / "vectors").glob("*.npz"):
        file.unlink()
    again = rag(*command)
    assert again.returncode == 0, again.stderr
    now = path.read_text().splitlines(keepends=True)
    assert sorted(now) == sorted([head, *lines]), "what was taken again isn't what it was before"
    assert "All samples were there already" in rag(*command).stderr
