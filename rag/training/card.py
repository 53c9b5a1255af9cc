"""A model card: the kind's text in `data/training/cards/`, filled with what was trained and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from rag import figures, paths
from rag.models import Recipe
from rag.training.datasets import Dataset

BENCHES = {"matcher": "cache"}
"""Of kinds whose benchmark has another name."""

CARDS = ("data", "training", "cards")


def render(
    name: str, recipe: Recipe, data: Sequence[Dataset], curve: Sequence[Mapping[str, float]], results: Path
) -> str:
    """`curve` is the training's, () where it isn't known; `results` the folder of the devices' results."""
    text = paths.shipped(*CARDS, f"{recipe.kind}.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        name=name,
        description=recipe.description,
        base=f"{recipe.origin} ({recipe.licence}), {recipe.base}",
        training="\n".join(_training(recipe, curve)),
        data="\n".join(figures.markdown(("data", "licence"), [(_linked(one), one.licence) for one in data])),
        figures="\n\n".join(
            _figures(path) for path in sorted(results.glob(f"*/{BENCHES.get(recipe.kind, recipe.kind)}/summary.json"))
        )
        or "Not measured yet.",
    )


def _linked(source: Dataset) -> str:
    return f"[{source.name}]({source.address})" if "://" in source.address else f"{source.name} (`{source.address}`)"


def _training(recipe: Recipe, curve: Sequence[Mapping[str, float]]) -> list[str]:
    adapter = recipe.adapter
    lines = [f"- LoRA of rank {adapter.rank}, alpha {adapter.alpha:g}"] if adapter is not None else []
    lines += [f"- {key}: {value}" for key, value in recipe.training.items() if key != "data"]
    if recipe.abstention is not None:
        lines.append(
            f"- its declining is weighed with the scores of {recipe.abstention.reranker}: {recipe.abstention.of_word} times "
            f"its log-odds, {recipe.abstention.of_relevance} times theirs, {recipe.abstention.shift:+}"
        )
    if recipe.matching is not None:
        lines.append(f"- two questions are the same from a probability of {recipe.matching.min_same:g} on")
    held_out = [(entry["examples"], entry["eval_loss"]) for entry in curve if "eval_loss" in entry]
    if len(held_out) > 1:
        losses = [f"{loss:.3f} after {examples:,.0f}" for examples, loss in (held_out[0], held_out[-1])]
        lines.append(f"- loss on held-out examples: {', '.join(losses)} examples")
    return lines


def _figures(path: Path) -> str:
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    host = summary["host"]
    taken = f"`{summary['command']}`, {summary['date'][:10]}, {host['gpu'] or host['cpu']}:"
    return "\n".join([taken, "", *figures.table(figures.Figure(**one) for one in summary["figures"])])
