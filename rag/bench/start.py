"""Process start to first token: `rag ask` against the shortest vLLM script with the same arguments and prompt.

Each round runs bare, rag, bare: the ratio of the two bare runs is the noise that a ratio of rag to bare
has to be read against. Whole processes are timed, from before they start to the first byte of the answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from rag.bench import commands, results
from rag.engine import processes, spec
from rag.errors import EngineError, UsageError
from rag.figures import Figure
from rag.models import ModelStore
from rag.progress import Report
from rag.settings import Loaded
from rag.stats import bootstrap

QUESTION = "What causes malaria?"
BENCH = "start"
AT_MOST = 1.15


def measure(loaded: Loaded, folder: Path, rounds: int, command: str, progress: Report) -> None:
    """Take `rounds` rounds of samples, after one of each kind that isn't counted."""
    ask = commands.rag(loaded, "ask", "--sample", "--no-server")
    progress("asking once, for the prompt")
    answer = json.loads(_output([*ask, "--json", "--show-prompt", QUESTION]))
    samples = results.Samples(folder)
    head = results.header(BENCH, command, settings={"prompt": answer["prompt"]})
    taken = samples.resume(head)
    whole = {one["round"] for one in taken if one["kind"] == "bare_again"}  # which ends a round
    first = next(number for number in range(rounds + 1) if number not in whole)
    samples.replace(head, [one for one in taken if one["round"] < first])  # a round is whole or none
    with tempfile.TemporaryDirectory() as scratch:
        bare = [sys.executable, "-m", "rag.bench.bare", str(_write_spec(loaded, answer["prompt"], Path(scratch)))]
        kinds = {"bare": bare, "rag": [*ask, QUESTION], "bare_again": bare}
        for number in (-1, *range(first, rounds)) if first < rounds else ():
            for kind, arguments in kinds.items():
                if number < 0 and kind == "bare_again":
                    continue
                progress(f"round {number + 1} of {rounds}: {kind}" if number >= 0 else f"warm-up: {kind}")
                seconds = _to_first_byte(arguments)
                if number >= 0:
                    samples.add({"round": number, "kind": kind, "seconds": seconds})


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk."""
    head, samples = results.Samples(folder).of(BENCH)
    seconds = {(s["round"], s["kind"]): s["seconds"] for s in samples}
    rounds = sorted({number for number, kind in seconds if (number, "bare_again") in seconds})
    if not rounds:
        raise UsageError(f"No complete round in {folder / results.SAMPLES}: run the benchmark to its end.")
    column: dict[str, list[float]] = {
        kind: [seconds[number, kind] for number in rounds] for kind in ("bare", "rag", "bare_again")
    }
    triples = list(zip(column["bare"], column["rag"], column["bare_again"], strict=True))
    figures = [
        results.figure(
            "start_over_bare", bootstrap([2 * ours / (a + b) for a, ours, b in triples]), "ratio", at_most=AT_MOST
        ),
        results.figure("bare_over_bare", bootstrap([b / a for a, _, b in triples]), "ratio"),
        results.figure("rag_first_token_s", bootstrap(column["rag"]), "s"),
        results.figure("bare_first_token_s", bootstrap(column["bare"] + column["bare_again"]), "s"),
    ]
    notes = [
        "Medians over rounds of bare, rag, bare; `start_over_bare` divides by the mean of the two bare runs around it, "
        "and `bare_over_bare` is what the same ratio shows where there is no difference. From the start of the process to the "
        "first byte of the answer: `rag` also loads and checks the index, loads the encoder, searches and warms the engine.",
    ]
    results.write(folder, head, figures, notes)
    return figures


def _write_spec(loaded: Loaded, messages: Sequence[dict[str, str]], folder: Path) -> Path:
    from rag.engine.local import engine_arguments

    plan = spec.plan(loaded)
    store = ModelStore()
    main = store.resolve(plan.model, loaded.settings.generator.revision)
    draft = store.resolve(plan.draft_model) if plan.draft_model is not None else None
    arguments = engine_arguments(plan, main.path, draft.path if draft is not None else None)
    arguments.pop("distributed_executor_backend", None)  # that is ours
    content: dict[str, Any] = {
        "args": arguments,
        "environment": {name: value for name, value in plan.environment.items() if value is not None}
        | {"HF_HUB_OFFLINE": "1"},
        "messages": messages,
        "max_tokens": loaded.settings.generator.max_tokens,
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _to_first_byte(arguments: Sequence[str]) -> float:
    """Seconds until the process writes to standard output; then it and what it started are killed."""
    scratch = tempfile.mkdtemp(prefix="rag-bench-")
    environment = {**os.environ, "TMPDIR": scratch}
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, env=environment)
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 1)
        seconds = time.monotonic() - began
        # Taken before it ends: the bare script leaves its engine's processes running, and they would slow the next run.
        left = processes.Footprint(processes.started(by=psutil.Process(process.pid)), Path(scratch))
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        process.kill()
        process.wait()
        left.remove()
        if not first:
            errors.seek(0)
            raise EngineError(f"{arguments[2]} wrote no answer: {errors.read().decode(errors='replace')[-500:]}")
    return seconds


def _output(arguments: Sequence[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise EngineError(f"{' '.join(arguments)} failed: {done.stderr[-500:]}")
    return done.stdout
