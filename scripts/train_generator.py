"""Train the grounded generator: `make train-generator`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag.build import Progress, open_search
from rag.models import ModelStore
from rag.settings import load
from rag.training import corpora, datasets, generator, mixture


def main(
    folder: Annotated[Path, typer.Option(help="Checkpoints, adapter and curve.")] = Path("training/generator"),
    data: Annotated[
        Path | None, typer.Option("--datasets", help="The datasets' folder.", envvar="RAG_DATASETS")
    ] = None,
    examples: Annotated[int, typer.Option(min=generator.GROUP, help="Training examples.")] = 8000,
    held_out: Annotated[int, typer.Option(min=1, help="Held-out examples for the curve.")] = 96,
    index: Annotated[
        str | None,
        typer.Option(help="Index of MedQuAD that distractors are searched in.", show_default="bench-medquad, built"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps: a trial.")] = None,
    initial: Annotated[Path | None, typer.Option(help="PEFT adapter to begin with.")] = None,
    seed: int = 0,
) -> None:
    """Train the grounded generator on prompts that the product itself builds."""
    made = folder / f"examples-{examples}-{seed}.jsonl"
    if not made.is_file():
        root = datasets.folder(data)
        search = open_search(corpora.index(load(), root, "medquad", index, Progress(step=say)))
        found = mixture.searching(search.encoder.encode_queries, search.searcher)
        mixed = mixture.Mixture(root, found)
        folder.mkdir(parents=True, exist_ok=True)
        mixture.write(made, mixed.training(examples, seed))
        mixture.write(folder / "held_out.jsonl", mixed.held_out(400, seed))
        del search, found, mixed  # a gigabyte
    training, seen = mixture.read(made), mixture.read(folder / "held_out.jsonl")[:held_out]
    base = ModelStore().resolve("smollm2-135m-instruct").path
    generator.train(base, folder, training, seen, seed=seed, steps=steps, initial=initial)


def say(what: str) -> None:
    typer.echo(f"{what} ...", err=True)


if __name__ == "__main__":
    typer.run(main)
