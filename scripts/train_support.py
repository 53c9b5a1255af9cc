"""Train the support checker: `make train-support`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

from pathlib import Path

from rag import build
from rag.training import datasets, loop, options, recipes, support
from rag.training.examples import kept


def main(
    folder: options.Folder = Path("training/support"),
    data: options.Datasets = None,
    examples: options.Examples = 32_000,
    held_out: options.HeldOut = 600,
    steps: options.Steps = None,
    seed: options.Seed = 0,
) -> None:
    """Train the support checker on sentences and the passages that they cite, rightly or wrongly."""
    loop.require_extra()
    loop.quieten()
    training, seen = kept(folder, support.Pair, examples, held_out, seed, lambda: support.Pairs(datasets.folder(data)))
    base = build.model_store().build("all-minilm-l6-v2", options.say)
    recipes.write_record(folder, "support", examples, seed, steps)
    support.train(base, folder, training, seen, seed=seed, steps=steps)


if __name__ == "__main__":
    options.run(main)
