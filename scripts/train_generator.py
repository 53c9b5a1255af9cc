"""Train the grounded generator: `make train-generator`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag import build
from rag.cli import ending
from rag.training import datasets, found, generator, loop, mixture, options, record
from rag.training.examples import kept
from rag.training.grounded import Example
from rag.training.record import Run


def main(
    folder: options.Folder = Path("training/generator"),
    data: options.Datasets = None,
    examples: options.Examples = 24_000,
    held_out: options.HeldOut = 96,
    index: options.Index = None,
    steps: options.Steps = None,
    initial: Annotated[
        Path | None, typer.Option(help="PEFT adapter to begin with, where its optimiser's state is gone.")
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Train the grounded generator on prompts that the product itself builds."""
    loop.require_extra()
    loop.quieten()
    run = Run("generator", examples, seed, steps, str(initial) if initial is not None else None)
    record.check(folder, run, lengthens=True)

    def source() -> mixture.Mixture:
        root = datasets.folder(data)
        return mixture.Mixture(root, found.medquad(root, index, mixture.CANDIDATES, options.say))

    training, seen = kept(folder, Example, examples, held_out, seed, source)
    record.write(folder, run)
    base = build.model_store().build("smollm2-135m-instruct", options.say)
    generator.train(base, folder, training, seen, seed=seed, steps=steps, initial=initial)


if __name__ == "__main__":
    ending.run_script(main)
