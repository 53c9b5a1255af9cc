"""Recall of gold documents in conversations, with follow-up questions made to stand alone and without.

    python scripts/followups.py [--questions eval/chat_40.jsonl] [--split heldout] [--show]

No answer is generated: the first document found stands for the one that an answer cites, and its passage for the answer.
Prints how often a question that leans on the conversation, and one that doesn't, finds its gold document among the first
k, and how many of the latter were changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from rag import build, files, settings
from rag.chat import Conversation
from rag.cli import ending
from rag.core import Hits, Trace
from rag.errors import UsageError
from rag.followup import Turn, standalone
from rag.stats import bootstrap
from rag.topics import topics


@dataclass(frozen=True, slots=True)
class Asked:
    """A later turn: as typed, as the rule made it, as a reader would; and the documents that each finds, best first."""

    typed: str
    made: str
    leans: bool
    gold: frozenset[str]
    found: dict[str, list[str]]

    def recall(self, way: str, k: int) -> float:
        return len(self.gold.intersection(self.found[way][:k])) / len(self.gold)


WAYS = ("as typed", "by rule", "by a reader")


def main(
    questions: Annotated[Path, typer.Option(help="Conversations, JSONL.")] = Path("eval/chat_40.jsonl"),
    split: Annotated[str | None, typer.Option(help="dev or heldout; both if left out.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print each later turn.")] = False,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Settings, KEY=VALUE.")] = None,
) -> None:
    """Recall in conversations, with follow-ups made to stand alone and without."""
    records = [json.loads(line) for _, line in files.lines(questions)]
    if split not in (None, *(splits := sorted({record["split"] for record in records}))):
        raise UsageError(f"--split {split} is none of {questions}'s: {', '.join(splits)}.")
    loaded = settings.load(assignments=[f"index.name={build.SAMPLE}", *(assignments or [])])
    build.ensure_sample_index(loaded)
    search = build.open_search(loaded)
    asked = [
        turn
        for record in records
        if split in (None, record["split"])
        for turn in hold(record["turns"], search, Conversation(loaded.settings.chat))
    ]
    for one in asked if show else []:
        ranks = [next((rank for rank, d in enumerate(one.found[way], 1) if d in one.gold), 0) for way in WAYS]
        typer.echo(
            f"{'leans' if one.leans else 'alone'} {ranks} {one.typed}{f' -> {one.made}' * (one.made != one.typed)}"
        )
    for leans, name in ((True, "leans on the conversation"), (False, "stands alone")):
        some = [one for one in asked if one.leans == leans]
        changed = sum(one.made != one.typed for one in some)
        typer.echo(f"{name}: {len(some)} questions, {changed} changed")
        for way in WAYS:
            for k in (1, 3):
                mean = bootstrap([one.recall(way, k) for one in some], np.mean)
                typer.echo(f"  {way:12} recall@{k} {mean.value:.3f} [{mean.lo:.3f}, {mean.hi:.3f}]")


def hold(turns: list[dict[str, object]], search: build.Search, conversation: Conversation) -> list[Asked]:
    """The later turns of a conversation. Each question is asked as the rule makes it, whatever became of those before."""
    asked = []
    for record in turns:
        typed, meant = str(record["question"]), str(record["standalone"])
        made = standalone(typed, conversation.turns)
        gold = record["gold_doc_ids"]
        assert isinstance(gold, list)
        different = list(dict.fromkeys((typed, made, meant)))
        found = dict(zip(different, search.search(different, Trace()), strict=True))
        if record is not turns[0]:
            by_way = {way: documents(found[text]) for way, text in zip(WAYS, (typed, made, meant), strict=True)}
            asked.append(Asked(typed, made, bool(record["leans"]), frozenset(gold), by_way))
        best = [hit.passage for hit in found[made][:1]]
        texts = [passage.text for passage in best]
        conversation.add(Turn(made, " ".join(texts), topics(made, [passage.title for passage in best], texts)))
    return asked


def documents(hits: Hits) -> list[str]:
    return list(dict.fromkeys(hit.passage.doc_id for hit in hits))


if __name__ == "__main__":
    ending.run_script(main)
