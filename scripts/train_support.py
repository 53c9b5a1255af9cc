"""Train the support checker: `make train-support`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated

import typer

from rag.models import ModelStore
from rag.training import datasets, export, support


def main(
    folder: Annotated[Path, typer.Option(help="Checkpoints, adapter and curve.")] = Path("training/support"),
    data: Annotated[
        Path | None, typer.Option("--datasets", help="The datasets' folder.", envvar="RAG_DATASETS")
    ] = None,
    pairs: Annotated[int, typer.Option(min=32, help="Pairs to train on.")] = 24_000,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps: a trial.")] = None,
    seed: int = 0,
) -> None:
    """Train the support checker on sentences and the passages that they cite, rightly or wrongly."""
    made = support.Pairs(datasets.folder(data))
    training = made.training(pairs, seed)
    seen = [pair for source in made.held_out(seed).values() for pair in source]
    random.Random(seed).shuffle(seen)
    base = ModelStore().resolve("all-minilm-l6-v2").path
    model, curve = support.train(base, folder, training, seen[:600], seed=seed, steps=steps)
    (folder / "curve.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    export.write_adapter(model.transformers_model, folder / "adapter.safetensors")


if __name__ == "__main__":
    typer.run(main)
