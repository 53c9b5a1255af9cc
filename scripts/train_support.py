"""Train the support checker: `make train-support`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

from pathlib import Path

from rag import build
from rag.cli import ending
from rag.training import datasets, loop, options, record, support
from rag.training.examples import kept
from rag.training.record import Run


def main(
    folder: options.Folder = Path("training/support"),
    data: options.Datasets = None,
    examples: options.Examples = 160_000,
    held_out: options.HeldOut = 600,
    steps: options.Steps = None,
    seed: options.Seed = 0,
) -> None:
    """Train the support checker on sentences and the passages that they cite, rightly or wrongly."""
    loop.require_extra()
    loop.quieten()
    run = Run("support", examples, seed, steps)
    record.check(folder, run)
    training, seen = kept(
        folder, support.SupportPair, examples, held_out, seed, lambda: support.Pairs(datasets.folder(data))
    )
    record.write(folder, run)
    base = build.model_store().build("all-minilm-l6-v2", options.say)
    support.train(base, folder, training, seen, seed=seed, steps=steps)


if __name__ == "__main__":
    ending.run_script(main)
