"""Train the grounded generator: `make train-generator`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag import build
from rag.training import datasets, found, generator, loop, mixture, options, recipes
from rag.training.examples import kept
from rag.training.grounded import Example


def main(
    folder: options.Folder = Path("training/generator"),
    data: options.Datasets = None,
    examples: options.Examples = 16_000,
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

    def source() -> mixture.Mixture:
        root = datasets.folder(data)
        return mixture.Mixture(root, found.medquad(root, index, mixture.CANDIDATES, options.say))

    training, seen = kept(folder, Example, examples, held_out, seed, source)
    base = build.model_store().build("smollm2-135m-instruct", options.say)
    recipes.write_record(folder, "generator", examples, seed, steps)
    generator.train(base, folder, training, seen, seed=seed, steps=steps, initial=initial)


if __name__ == "__main__":
    options.run(main)
