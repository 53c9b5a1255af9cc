"""A model as a judge: does an answer state what the reference answer does? Off unless it is asked for."""

from __future__ import annotations

import re
from contextlib import aclosing
from pathlib import Path
from typing import Any

from rag import workers
from rag.bench import results
from rag.engine.api import Server
from rag.errors import UsageError
from rag.evaluate.samples import VERDICTS, Sample, Verdict, judged, read
from rag.evaluate.scores import text
from rag.progress import Progress
from rag.settings import Generator

BENCH = "judge"
AT_ONCE = 4
MAX_TOKENS = 1024
"""Models that think first need some."""

INSTRUCTION = (
    "You are given a question, a reference answer, and the answer to be judged. Does that answer state everything that the "
    "reference states, and nothing that contradicts it? Other words and further details don't matter. "
    "Reply with one word: yes or no."
)


async def judge(folder: Path, settings: Generator, command: str, progress: Progress) -> None:
    """Have a server's model judge each answer to an answerable question, at temperature 0; `settings` name both. What it said
    is kept as it is; verdicts of the same judge stay, those of another make room. An answer that declines states nothing, and
    isn't shown to it.

    Raises `UsageError` where no model is named, `EngineError` where the server doesn't answer; verdicts until then are kept.
    """
    if settings.model is None:
        raise UsageError("--judge-url needs --judge-model: the name that the server knows the judge by.")
    _, samples = read(folder)
    asked = [sample for sample in samples if sample.answer is not None and sample.question.answerable]
    asked = [sample for sample in asked if sample.question.answer is not None]
    store = results.Samples(folder, VERDICTS)
    head = results.header(BENCH, command, settings={"model": settings.model, "instruction": INSTRUCTION})
    # Neither this machine nor our code says more.
    head = {name: head[name] for name in ("bench", "command", "date", "settings")}
    known = {judged(one) for one in store.resume(head)}
    left = [sample for sample in asked if sample.judged not in known]
    done = len(asked) - len(left)
    progress("verdicts", done, len(asked))
    server = Server(settings)

    async def look_at(sample: Sample) -> None:
        nonlocal done
        said, whole = await _ask(server, settings.model, sample) if sample.given is not None else (None, True)
        verdict = "no" if said is None else read_verdict(said) if whole else "unclear"
        name, answer = sample.judged
        store.add({"id": name, "answer": answer, "verdict": verdict, "said": said})
        done += 1
        progress("verdicts", done, len(asked))

    try:
        await workers.each(left, AT_ONCE, look_at)
    finally:
        await server.close()


def read_verdict(said: str) -> Verdict:
    """By the last yes or no that stands alone, since some models argue first."""
    words = re.findall(r"\b(yes|no)\b", said.lower())
    return words[-1] if words else "unclear"


async def _ask(server: Server, model: str | None, sample: Sample) -> tuple[str, bool]:
    """What the judge says, and whether it could end: in the middle of its argument it has said nothing."""
    assert sample.answer is not None
    request: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": INSTRUCTION},
            {
                "role": "user",
                "content": f"Question: {sample.question.question}\n\nReference: {sample.question.answer}\n\n"
                f"Answer: {text(sample.answer)}",
            },
        ],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }
    said, whole = "", True
    async with aclosing(server.pieces(request, {})) as pieces:
        async for piece in pieces:
            said += piece.text
            whole = whole and piece.finish_reason != "length"
    return said, whole
