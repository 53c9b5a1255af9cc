"""Recall@k of gold documents on a question set, for dense, lexical and fused search, and reranked.

    python scripts/recall.py [--questions eval/dev_60.jsonl] [--k 10] [--index sample]

A question counts by the share of its gold documents among the first k distinct documents found;
unanswerable questions don't count. Prints one line a method, with its bootstrap interval.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from rag import build, settings
from rag.cli import ending
from rag.core import Hits, Trace
from rag.evaluate import read_questions
from rag.metrics import ranked
from rag.pipeline import check_question
from rag.stats import bootstrap

ALONE = "rerank.model=null"
METHODS = {
    "dense": ["retrieve.lexical_n=0", ALONE],
    "lexical (bm25s)": ["retrieve.dense_n=0", ALONE],
    "lexical (rank_bm25)": ["retrieve.dense_n=0", "retrieve.lexical=rank_bm25", ALONE],
    "fused": [ALONE],
    "fused and reranked": [],
}


def main(
    questions: Annotated[Path, typer.Option(help="Question set, JSONL.")] = Path("eval/dev_60.jsonl"),
    k: Annotated[int, typer.Option(help="Documents that count.")] = 10,
    index: Annotated[str, typer.Option(help="Name of the index.")] = build.SAMPLE,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Settings, KEY=VALUE.")] = None,
) -> None:
    """Recall@k of gold documents, by search method."""
    answerable = [question for question in read_questions(questions).questions if question.answerable]
    for method, changes in METHODS.items():
        deep = [f"retrieve.{name}={4 * k}" for name in ("dense_n", "lexical_n", "candidates")]
        loaded = settings.load(assignments=[f"index.name={index}", *deep, *changes, *(assignments or [])])
        if index == build.SAMPLE:
            build.ensure_sample_index(loaded)
        found = build.open_search(loaded).search([check_question(one.question) for one in answerable], Trace())
        recalls = [ranked(documents(hits), one.gold, f"R@{k}") for hits, one in zip(found, answerable, strict=True)]
        mean = bootstrap(recalls, np.mean)
        typer.echo(f"{method:20} recall@{k} {mean.value:.3f} [{mean.lo:.3f}, {mean.hi:.3f}]  n={mean.n}")


def documents(hits: Hits) -> list[str]:
    """Each at the place of its best passage."""
    return list(dict.fromkeys(hit.passage.doc_id for hit in hits))


if __name__ == "__main__":
    ending.run_script(main)
