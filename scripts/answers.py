"""Answers to questions of a set, as they are, good and bad.

    python scripts/answers.py [--questions eval/dev_60.jsonl] [--every 6]

Takes every n-th question, so that all kinds are there. Prints question, answer, sources and times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rag import build, settings
from rag.cli import ending
from rag.cli.console import Terminal, library_output
from rag.cli.rendering import time_line
from rag.evaluate import Question, read_questions
from rag.settings import Loaded


def main(
    questions: Annotated[Path, typer.Option(help="Question set, JSONL.")] = Path("eval/dev_60.jsonl"),
    every: Annotated[int, typer.Option(min=1, help="Take every n-th question.")] = 6,
    profile: Annotated[str, typer.Option(help="Bundle of techniques.")] = "auto",
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Settings, KEY=VALUE.")] = None,
) -> None:
    """Answers to every n-th question of a set, as they are."""
    asked = read_questions(questions).questions[::every]
    loaded = settings.load(profile, assignments=[f"index.name={build.SAMPLE}", *(assignments or [])])
    with library_output(verbose=False) as (terminal, _):
        build.ensure_sample_index(loaded)
        asyncio.run(_answer(loaded, asked, terminal))


async def _answer(loaded: Loaded, asked: Sequence[Question], terminal: Terminal) -> None:
    async with build.open_pipeline(loaded) as pipeline:
        for one in asked:
            answer = await pipeline.answer(one.question)
            sources = ", ".join(f"[{c.marker}] {c.doc_id} ({c.origin})" for c in answer.citations) or "none"
            terminal.out.print(
                f"{one.id} {one.type}: {one.question}\n  {' '.join(answer.answer.split())}\n"
                f"  sources: {sources}; gold: {', '.join(one.gold) or 'none'}; abstained: {answer.abstained}\n"
                f"  {time_line(answer.timings, answer.tokens.output, None)}\n",
                markup=False,
            )


if __name__ == "__main__":
    ending.run_script(main)
