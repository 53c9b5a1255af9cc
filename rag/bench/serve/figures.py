"""Figures from the samples, and the words around them. Pure but for reading and writing the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag.bench import results
from rag.bench.results import Sample
from rag.figures import Figure
from rag.stats import p99

BENCH = "serve"

ASK, KILL, LEAVE = "ask", "kill", "leave"
"""Kinds of samples."""

TOLD = ("answer", "error")
"""Ends of a stream by which its client knows what became of its question."""


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk. Raises `UsageError` where there are none."""
    head, samples = results.Samples(folder).of(BENCH)
    if not samples:
        raise results.lacking("samples", folder / results.SAMPLES)
    parts = {ASK: _of_asks, KILL: _of_kills, LEAVE: _of_leaving}
    of = results.by_kind(samples, parts)
    figures = results.Figures()
    notes: list[str] = []
    for kind, add in parts.items():
        if of[kind]:
            notes += ["", add(figures, of[kind], head["settings"])]
    results.write(folder, head, figures.all, [*notes[1:], *figures.notes])
    return figures.all


def _of_asks(figures: results.Figures, samples: Sequence[Sample], settings: Sample) -> str:
    del settings
    extra = [s["ask"] - s["ask_inside"] for s in samples]
    figures.ms("warm_ask_extra_ms", extra, at_most=50)
    figures.ms("warm_ask_extra_p99_ms", extra, p99)
    figures.ms("interpreter_ms", [s["interpreter"] for s in samples])
    figures.ms("http_extra_ms", [s["http"] - s["http_inside"] for s in samples])
    figures.ms("warm_ask_ms", [s["ask"] for s in samples])
    figures.add("same_answers", [s["same"] for s in samples], np.mean, "share")
    return (
        f"{len(samples)} questions of `dev_60`, in turn by Python alone (`interpreter_ms`), by `rag ask --json`, and by "
        "`POST /v1/ask` without a stream. `warm_ask_extra_ms`: the process of `rag ask`, from before it starts to when it has "
        "ended, less the `timings.total` of its answer, which is the time in the server's process; `http_extra_ms`: the same of "
        "the request, connection included. `same_answers`: both gave the same text; the second finds its prompt in the prefix "
        "cache. Medians; intervals: bootstrap over questions."
    )


def _of_kills(figures: results.Figures, samples: Sequence[Sample], settings: Sample) -> str:
    clients = [client for sample in samples for client in sample["clients"]]
    ends = [client["end"] for client in clients]
    figures.all += [
        results.observed("kills", len(samples), "kills", at_least=20),
        results.observed("client_end_s", max(c["seconds"] for c in clients), "s", at_most=5, n=len(clients)),
        results.observed("hung_clients", ends.count("hung"), "clients", at_most=0, n=len(clients)),
    ]
    figures.add("told_clients", [end in TOLD for end in ends], np.mean, "share", at_least=1)
    figures.add("recovered", [s["ready"] is not None and s["answered"] for s in samples], np.mean, "share", at_least=1)
    figures.add("ready_again_s", [s["ready"] for s in samples if s["ready"] is not None], np.median, "s")
    return (
        f"{len(samples)} kills (SIGKILL) of the engine's process, each under {settings['streams']} clients in the middle of "
        "streamed answers. `client_end_s`: the longest until one of them had its end; `told_clients`: that was an `error` event, "
        "or an answer, and no connection that closed without a word; `hung_clients` had none after "
        f"{settings['hung']:g} s. `ready_again_s`: median until `/readyz` was 200 with a new engine; `recovered`: the next question "
        "was answered then."
    )


def _of_leaving(figures: results.Figures, samples: Sequence[Sample], settings: Sample) -> str:
    left = sum(s["clients"] for s in samples)
    figures.all += [
        results.observed("disconnects", left, "clients", at_least=200),
        *(
            results.observed(f"{what}_after_1s", _most(samples, "after", what), "requests", at_most=0, n=len(samples))
            for what in ("running", "generating")
        ),
    ]
    figures.add("generating_before", [s["before"]["generating"] for s in samples], np.median, "requests")
    return (
        f"{left} clients closed their connections in the middle of streamed answers, {settings['group']} at once. What still "
        f"ran {settings['after']:g} s later, the most that was seen: `running_after_1s` by the server's count of requests, "
        "`generating_after_1s` by the engine's own, of its scheduler after its last step. `generating_before`: what that count "
        "was while they were all connected."
    )


def _most(samples: Sequence[Sample], when: str, what: str) -> int:
    return max(int(sample[when][what]) for sample in samples)
