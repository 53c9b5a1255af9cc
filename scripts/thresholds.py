"""What the thresholds of `filter` and `verify` rest on: scores and abstentions on the development questions.

    python scripts/thresholds.py [--questions eval/dev_60.jsonl] [--set KEY=VALUE]

First, with a reranker, what is left of the candidates at several values of `filter.min_rerank`; then the answers: who
declined, what the support checker said of them, and what abstention comes to with each `verify.action`. The reranker was
calibrated on dev_60: its rows there are in-sample.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from rag import build, settings
from rag.cli import ending
from rag.cli.console import Stream, library_output
from rag.context import filter_hits
from rag.core import Answer, Hits, Trace
from rag.evaluate import Question, read_questions
from rag.metrics import recall
from rag.settings import Loaded
from rag.stats import bootstrap
from rag.verify import shown

VALUES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)


def main(
    questions: Annotated[Path, typer.Option(help="Question set, JSONL.")] = Path("eval/dev_60.jsonl"),
    answers: Annotated[bool, typer.Option(help="Answer the questions too.")] = True,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Settings, KEY=VALUE.")] = None,
) -> None:
    """What the thresholds of `filter` and `verify` rest on."""
    records = read_questions(questions).questions
    loaded = settings.load(assignments=[f"index.name={build.SAMPLE}", "verify.action=mark", *(assignments or [])])
    with library_output(verbose=False) as (terminal, _):
        build.ensure_sample_index(loaded)
        if loaded.settings.rerank.model is not None:
            found = build.open_search(loaded).search([record.question for record in records], Trace())
            for line in filtered(records, found, loaded):
                terminal.out.print(line, markup=False)
        if answers:
            asyncio.run(answered(records, loaded, terminal.out))


def filtered(records: Sequence[Question], found: Sequence[Hits], loaded: Loaded) -> list[str]:
    """A table over `filter.min_rerank`, the other threshold as it is set."""
    lines = ["min_rerank  passages left  gold documents left  answerable, nothing left  unanswerable, nothing left"]
    for value in VALUES:
        chosen = loaded.settings.filter.having(min_rerank=value)
        left = [filter_hits(hits, chosen) for hits in found]
        golds = [
            recall((hit.passage.doc_id for hit in hits), record.gold)
            for record, hits in zip(records, left, strict=True)
            if record.answerable
        ]
        empty = [not hits for hits in left]
        answerable = [record.answerable for record in records]
        lines.append(
            f"{value:10.2f}  {np.mean([len(hits) for hits in left]):13.1f}  {np.mean(golds):19.3f}  "
            f"{sum(e and a for e, a in zip(empty, answerable, strict=True)):24}  "
            f"{sum(e and not a for e, a in zip(empty, answerable, strict=True)):26}"
        )
    return lines


async def answered(records: Sequence[Question], loaded: Loaded, out: Stream) -> None:
    """Each question in a line, then abstention by what it takes to abstain."""
    rows: list[tuple[bool, Answer]] = []
    async with build.open_pipeline(loaded) as pipeline:
        for record in records:
            answer = await pipeline.answer(record.question)
            rows.append((record.answerable, answer))
            said = "declined" if answer.abstained else " ".join(sentence.support for sentence in answer.sentences)
            cited = ", ".join(f"{c.doc_id} {c.score:.2f}" for c in answer.citations) or "nothing"
            gold = ", ".join(record.gold) or "none"
            out.print(f"{record.id} {record.type:12} {said}; cites {cited}; gold {gold}", markup=False)
    supported = [shown(answer.sentences, "drop") for _, answer in rows]
    abstains = {"the model's word": [answer.abstained for _, answer in rows]}
    if loaded.settings.verify.model is not None:
        said_so = abstains["the model's word"]
        abstains["or no sentence supported"] = [a or not any(s) for a, s in zip(said_so, supported, strict=True)]
        abstains["or one sentence not"] = [a or not all(s) for a, s in zip(said_so, supported, strict=True)]
    for what, gone_of in abstains.items():
        right = [not answerable for (answerable, _), gone in zip(rows, gone_of, strict=True) if gone]
        caught = [gone for (answerable, _), gone in zip(rows, gone_of, strict=True) if not answerable]
        out.print(f"{what:26} precision {_said(right)}  recall {_said(caught)}", markup=False)


def _said(values: Sequence[bool]) -> str:
    if not values:
        return "none"
    mean = bootstrap([float(value) for value in values], np.mean)
    return f"{mean.value:.2f} [{mean.lo:.2f}, {mean.hi:.2f}] n={mean.n}"


if __name__ == "__main__":
    ending.run_script(main)
