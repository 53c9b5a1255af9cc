"""Train the matcher of questions: `make train-matcher`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag import build, paths
from rag.cli import ending
from rag.training import datasets, loop, matcher, options, record
from rag.training.examples import kept
from rag.training.record import Run


def main(
    folder: options.Folder = Path("training/matcher"),
    data: options.Datasets = None,
    examples: options.Examples = 80_000,
    held_out: options.HeldOut = 1000,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    initial: Annotated[
        Path | None, typer.Option(help="Adapter to begin with.", show_default="minilm-support's")
    ] = None,
) -> None:
    """Train the matcher on pairs of questions that ask the same, or nearly."""
    loop.require_extra()
    loop.quieten()
    run = Run("matcher", examples, seed, steps, str(initial) if initial is not None else None)
    record.check(folder, run)
    training, seen = kept(
        folder, matcher.QuestionPair, examples, held_out, seed, lambda: matcher.Pairs(datasets.folder(data))
    )
    record.write(folder, run)
    begin = initial if initial is not None else paths.shipped("data", "models", "minilm-support", "adapter.safetensors")
    base = build.model_store().build("all-minilm-l6-v2", options.say)
    matcher.train(base, folder, training, seen, begin, seed=seed, steps=steps)


if __name__ == "__main__":
    ending.run_script(main)
