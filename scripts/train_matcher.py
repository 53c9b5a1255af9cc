"""Train the matcher of questions: `make train-matcher`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag import build, paths
from rag.cli import ending
from rag.errors import UsageError
from rag.training import datasets, export, loop, matcher, options, record
from rag.training.examples import kept
from rag.training.record import Run


def main(
    folder: options.Folder = Path("training/matcher"),
    data: options.Datasets = None,
    examples: options.Examples = 80_000,
    held_out: options.HeldOut = 1000,
    steps: options.Steps = None,
    seed: options.Seed = 0,
    base: Annotated[str, typer.Option(help=f"What it is made of: {' or '.join(matcher.SIZES)}.")] = matcher.SMALL.base,
    initial: Annotated[
        Path | None, typer.Option(help="Adapter to begin with.", show_default="of MiniLM minilm-support's")
    ] = None,
) -> None:
    """Train the matcher on pairs of questions that ask the same, or nearly."""
    loop.require_extra()
    loop.quieten()
    if base not in matcher.SIZES:
        raise UsageError(f"--base {base}: expected {' or '.join(matcher.SIZES)}.")
    size = matcher.SIZES[base]
    run = Run("matcher", examples, seed, steps, str(initial) if initial is not None else None, base)
    record.check(folder, run)
    training, seen = kept(
        folder, matcher.QuestionPair, examples, held_out, seed, lambda: matcher.Pairs(datasets.folder(data))
    )
    record.write(folder, run)
    if initial is None and size.begins_with is not None:
        initial = paths.shipped("data", "models", size.begins_with, export.ADAPTER)
    built = build.model_store().build(base, options.say)
    matcher.train(built, folder, training, seen, initial, size=size, seed=seed, steps=steps)


if __name__ == "__main__":
    ending.run_script(main)
