"""The benchmark of a warm server: which samples a run takes, its figures by hand, and a small run on the real engine.

What a sample is: test_bench_serve_asks, test_bench_serve_losses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

from rag import settings
from rag.bench import results, serve
from rag.bench.serve import asks, losses
from rag.bench.serve.figures import summarise
from rag.bench.serve.server import Server
from rag.errors import RagError, UsageError
from rag.figures import Figure
from rag.server import state

# --- the samples of a run ------------------------------------------------------------------------


@dataclass
class Played:
    """What a run asked for; kill number `fails` isn't recovered from."""

    served: list[str]
    asked: list[str]
    kills: int = 0
    left: int = 0
    fails: int | None = None


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    play = Played([], [])

    @contextmanager
    def serving(loaded: object, log: Path, progress: object, *options: str) -> Iterator[Server]:
        del loaded, progress
        play.served.append(f"{log.name} {len(options)}")
        yield Server("127.0.0.1", 1, 0)

    def ask(server: Server, loaded: object, question: str) -> Mapping[str, Any]:
        del server, loaded
        play.asked.append(question)
        return ASK

    def kill(server: Server, questions: Iterator[str]) -> Mapping[str, Any]:
        del server, questions
        play.kills += 1
        return {**KILL, "ready": None, "problem": "gone."} if play.kills == play.fails else KILL

    def leave(server: Server, questions: Iterator[str], count: int) -> Mapping[str, Any]:
        del server, questions
        play.left += count
        return {**LEAVE, "clients": min(count, 8)}

    for module, name, fake in ((serve, "serving", serving), (asks, "ask", ask), (losses, "kill", kill)):
        monkeypatch.setattr(module, name, fake)
    monkeypatch.setattr(losses, "leave", leave)
    return play


def quiet(what: str, done: int = 0, total: int = 0) -> None:
    del what, done, total


def measure(folder: Path, questions: int, kills: int, disconnects: int, *assignments: str) -> list[dict[str, Any]]:
    loaded = settings.load(environ={}, assignments=assignments)
    workload = serve.Workload(questions, kills, disconnects)
    serve.measure(loaded, folder, workload, "rag bench serve", quiet)
    return results.Samples(folder).read()[1]


def ids(samples: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {kind: [s["id"] for s in samples if s["kind"] == kind] for kind in ("ask", "kill", "leave")}


def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path, played: Played) -> None:
    samples = measure(tmp_path, 2, 2, 12)
    assert ids(samples) == {"ask": ["d001", "d002"], "kill": [0, 1], "leave": [0, 1]}
    assert played.served == ["asks.log 0", f"losses.log {len(losses.RAMBLING)}"]
    assert len(played.asked) == serve.WARM_UP + 2
    assert played.left == 10 + (12 - 8), "of the first ten, two weren't in the middle"
    assert (tmp_path / "logs" / ".gitignore").read_text() == "*\n"

    assert measure(tmp_path, 2, 2, 12) == samples
    assert len(played.served) == 2, "nothing was left to do"

    more = measure(tmp_path, 3, 3, 12)
    assert more[: len(samples)] == samples
    assert ids(more) == {"ask": ["d001", "d002", "d003"], "kill": [0, 1, 2], "leave": [0, 1]}
    assert len(played.asked) == 2 * serve.WARM_UP + 3

    assert ids(measure(tmp_path, 0, 1, 0, "generator.seed=7")) == {"ask": [], "kill": [0], "leave": []}


def test_after_a_kill_that_it_does_not_survive_the_run_ends_and_the_sample_stays(
    tmp_path: Path, played: Played
) -> None:
    played.fails = 2
    with pytest.raises(RagError, match=r"didn't come back after a kill: gone\. Its log: .*losses\.log$"):
        measure(tmp_path, 0, 3, 0)
    assert [figure.value for figure in summarise(tmp_path) if figure.name == "recovered"] == [0.5]
    assert len(measure(tmp_path, 0, 3, 0)) == 3


def test_a_server_of_somebody_elses_is_not_killed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="that engine isn't ours to kill"):
        measure(tmp_path, 1, 1, 1, "generator.base_url=http://127.0.0.1:1/v1", "generator.tokenizer=x")
    assert not list(tmp_path.iterdir())


# --- figures -------------------------------------------------------------------------------------

ASK = {"interpreter": 0.01, "ask": 0.53, "ask_inside": 0.5, "http": 0.402, "http_inside": 0.4, "same": True}
KILL: dict[str, Any] = {
    "clients": [{"end": "error", "seconds": 1.5, "said": "It died."}] * 4,
    "ready": 20.0,
    "answered": True,
    "problem": None,
}
LEAVE: dict[str, Any] = {
    "clients": 10,
    "before": {"running": 10, "generating": 10},
    "after": {"running": 0, "generating": 0},
}
HEAD: dict[str, Any] = {
    **results.header("serve", "rag bench serve"),
    "settings": {"streams": 4, "group": 10, "hung": 30.0, "after": 1.0},
}


def taken(folder: Path, *samples: dict[str, Any]) -> Path:
    on_disk = results.Samples(folder)
    on_disk.start(HEAD)
    for number, sample in enumerate(samples):
        on_disk.add({"id": number, **sample})
    return folder


def goals(figures: list[Figure]) -> dict[str, tuple[float, str | None, bool | None]]:
    return {figure.name: (figure.value, figure.goal, figure.met) for figure in figures}


def near(value: float) -> Any:
    return pytest.approx(value)


def test_every_figure_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    slow = {**ASK, "interpreter": 0.02, "ask": 0.6, "http": 0.404, "same": False}
    lost = {"end": "cut", "seconds": 5.5, "said": None}
    figures = summarise(
        taken(
            tmp_path,
            {"kind": "ask", **ASK},
            {"kind": "ask", **slow},
            {"kind": "kill", **KILL},
            {"kind": "kill", **KILL, "clients": [*KILL["clients"][:3], lost], "ready": 30.0, "answered": False},
            {"kind": "leave", **LEAVE},
            {"kind": "leave", **LEAVE, "clients": 9, "after": {"running": 0, "generating": 2}},
        )
    )
    assert goals(figures) == {
        "warm_ask_extra_ms": (near(65), "<= 50", False),
        "warm_ask_extra_p99_ms": (near(99.3), None, None),
        "interpreter_ms": (near(15), None, None),
        "http_extra_ms": (near(3), None, None),
        "warm_ask_ms": (near(565), None, None),
        "same_answers": (0.5, None, None),
        "kills": (2, ">= 20", False),
        "client_end_s": (5.5, "<= 5", False),
        "hung_clients": (0, "<= 0", True),
        "told_clients": (7 / 8, ">= 1", False),
        "recovered": (0.5, ">= 1", False),
        "ready_again_s": (25, None, None),
        "disconnects": (19, ">= 200", False),
        "running_after_1s": (0, "<= 0", True),
        "generating_after_1s": (2, "<= 0", False),
        "generating_before": (10, None, None),
    }
    assert {figure.name: figure.n for figure in figures}["client_end_s"] == 8
    assert json.loads((tmp_path / "summary.json").read_text())["bench"] == "serve"
    assert "2 kills (SIGKILL) of the engine's process, each under 4 clients" in (tmp_path / "report.md").read_text()


def test_one_that_hung_is_neither_told_nor_in_time(tmp_path: Path) -> None:
    hung = {"end": "hung", "seconds": 30.0, "said": None}
    found = goals(summarise(taken(tmp_path, {"kind": "kill", **KILL, "clients": [hung, *KILL["clients"][1:]]})))
    assert set(found) == {"kills", "client_end_s", "hung_clients", "told_clients", "recovered", "ready_again_s"}
    assert found["client_end_s"] == (30, "<= 5", False)
    assert found["hung_clients"] == (1, "<= 0", False)
    assert found["told_clients"] == (0.75, ">= 1", False)


def test_without_a_recovery_there_is_no_time_of_one(tmp_path: Path) -> None:
    figures = summarise(taken(tmp_path, {"kind": "kill", **KILL, "ready": None, "answered": False}))
    assert goals(figures)["recovered"] == (0, ">= 1", False)
    assert "ready_again_s" not in goals(figures)
    assert "Not defined for so few samples: `ready_again_s`." in (tmp_path / "report.md").read_text()


def test_without_samples_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No samples in"):
        summarise(taken(tmp_path))


# --- the whole of it, on the real engine ---------------------------------------------------------


@pytest.mark.usefixtures("in_real_home")
def test_the_real_server_is_asked(rag: Cli, cli: Cli, tmp_path: Path) -> None:
    """That it is left, and its engine killed: test_serve_real, on the server that is there."""
    command = ("bench", "serve", "--output", str(tmp_path), "--json")
    done = cli(*command, "--questions=2", "--kills=0", "--disconnects=0")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads(done.stdout)}
    assert figures["warm_ask_extra_ms"]["n"] == 2
    assert 0 < figures["interpreter_ms"]["value"] < figures["warm_ask_extra_ms"]["value"] < 2000
    assert figures["same_answers"]["value"] == 1
    assert state.servers() == []
    report = rag(*command, "--report-only")
    assert json.loads(report.stdout) == json.loads(done.stdout)
