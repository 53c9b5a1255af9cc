"""Where the time of an answer went. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from rag.core import STAGES, Answer, Span

OTHER = "other"
"""Time that no stage accounts for."""

TOTAL = "total"

PARTS = ("queue", "prefill", "decode")
"""Of a generation: waiting, reading the prompt, writing. Where it was begun twice (`rag.abstain`), both requests' waiting and reading
count. What it took beyond these is the way to the engine and back."""

ROWS = (*STAGES[: STAGES.index("generate") + 1], *PARTS, *STAGES[STAGES.index("generate") + 1 :], OTHER, TOTAL)
"""All that `spent` may tell of, in the order of a table."""


def spent(answer: Answer) -> Mapping[str, float]:
    """Seconds, of the stages that ran: on the critical path, so that they and `OTHER` add up to `TOTAL`; `PARTS` are inside
    "generate", and there where the engine told them. Raises ValueError for an answer without a total."""
    times = answer.timings
    if times.total is None:
        raise ValueError(f"the answer to {answer.question!r} has no total time")
    parts = {
        "queue": times.queue,
        "prefill": times.ttft - times.queue if times.ttft is not None and times.queue is not None else times.ttft,
        "decode": times.decode,
    }
    path = critical_path(answer.spans)
    other = max(0.0, times.total - sum(path.values()))
    return {**path, **{name: one for name, one in parts.items() if one is not None}, OTHER: other, TOTAL: times.total}


def critical_path(spans: Sequence[Span]) -> dict[str, float]:
    """Seconds of each stage that the answer waited for. While several are at work it waits for the one that ends last; the
    steps that a stage has inside it have other names, and aren't told apart from it."""
    stages = [span for span in spans if span[0] in STAGES]
    edges = sorted({edge for _, start, end in stages for edge in (start, end)})
    path = dict.fromkeys((name for name, _, _ in stages), 0.0)
    for start, end in pairwise(edges):
        at_work = [span for span in stages if span[1] <= start and span[2] >= end]
        if at_work:
            last = max(at_work, key=lambda span: span[2])
            path[last[0]] += end - start
    return path
