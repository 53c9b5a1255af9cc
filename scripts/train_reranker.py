"""Train the reranker: `make train-reranker`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

from pathlib import Path

from rag import build
from rag.cli import ending
from rag.training import datasets, found, loop, options, record, reranker
from rag.training.examples import kept
from rag.training.record import Run


def main(
    folder: options.Folder = Path("training/reranker"),
    data: options.Datasets = None,
    examples: options.Examples = 25_000,
    held_out: options.HeldOut = 100,
    index: options.Index = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
) -> None:
    """Train the reranker on lists of passages that the product's own search finds."""
    loop.require_extra()
    loop.quieten()
    run = Run("reranker", examples, seed, steps)
    record.check(folder, run)

    def source() -> reranker.Lists:
        root = datasets.folder(data)
        return reranker.Lists(root, found.medquad(root, index, reranker.CANDIDATES, options.say))

    training, seen = kept(folder, reranker.Ranking, examples, held_out, seed, source)
    record.write(folder, run)
    base = build.model_store().build("all-minilm-l6-v2", options.say)
    reranker.train(base, folder, training, seen, seed=seed, steps=steps)


if __name__ == "__main__":
    ending.run_script(main)
