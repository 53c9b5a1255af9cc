"""Train the reranker: `make train-reranker`. Goes on where an earlier run of the same folder stopped."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from rag.build import Progress, open_search
from rag.core import Document, Passage
from rag.ingest import chunk
from rag.models import ModelStore
from rag.settings import load
from rag.training import corpora, datasets, export, mixture, reranker

SHARES = {"medquad": 0.62, "own": 0.12, "trials": 0.09, "claims": 0.1, "abstracts": 0.07}


def main(
    folder: Annotated[Path, typer.Option(help="Checkpoints, adapter and curve.")] = Path("training/reranker"),
    data: Annotated[
        Path | None, typer.Option("--datasets", help="The datasets' folder.", envvar="RAG_DATASETS")
    ] = None,
    lists: Annotated[int, typer.Option(min=8, help="Lists of passages to train on.")] = 6000,
    index: Annotated[
        str | None,
        typer.Option(help="Index of MedQuAD that negatives are searched in.", show_default="bench-medquad, built"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps: a trial.")] = None,
    seed: int = 0,
) -> None:
    """Train the reranker on lists of passages that the product's own search finds."""
    root = datasets.folder(data)
    wanted = ["candidates", "dense_n", "lexical_n"]
    loaded = load(assignments=[f"retrieve.{key}=50" for key in wanted])
    search = open_search(corpora.index(loaded, root, "medquad", index, Progress(step=say)))
    found = mixture.searching(search.encoder.encode_queries, search.searcher)
    records = datasets.medquad(root)
    training, seen = datasets.split_medquad(records)
    by_record: dict[str, list[Passage]] = defaultdict(list)
    for record in records:
        by_record[record.id] = chunk.split(Document(record.id, record.focus, record.answer), 1000, 1)
    claims, _, abstracts = datasets.scifact(root)
    papers, _ = datasets.pubmedqa(root)
    articles = datasets.articles(root)
    trials, _ = datasets.trials(root, articles)
    documents = mixture.documents()
    by_document = {n: chunk.split(Document(n, d["title"], d["text"]), 1000, 1) for n, d in documents.items()}
    questions, _ = datasets.own()
    near = {
        "claims": mixture.nearest({name: f"{title} {' '.join(text)}" for name, (title, text) in abstracts.items()}, 20),
        "abstracts": mixture.nearest({a.id: " ".join(a.contexts) for a in papers}, 20),
        "own": mixture.nearest({name: f"{d['title']} {d['text']}" for name, d in documents.items()}),
    }

    pool = {record.id: record for record in training}

    def rounds(name: str):  # type: ignore[no-untyped-def]
        turn = 0
        while True:
            chance = random.Random(f"{seed}-{name}-{turn}")
            yield from {
                "medquad": lambda chance=chance: reranker.from_medquad(training, pool, by_record, found, chance),
                "own": lambda chance=chance: reranker.from_own(
                    chance.sample(questions, len(questions)), by_document, near["own"], chance
                ),
                "trials": lambda chance=chance: reranker.from_trials(
                    chance.sample(trials, len(trials)), articles, chance
                ),
                "claims": lambda chance=chance: reranker.from_claims(
                    chance.sample(claims, len(claims)), abstracts, near["claims"], chance
                ),
                "abstracts": lambda chance=chance: reranker.from_abstracts(
                    chance.sample(papers, len(papers)), near["abstracts"], chance
                ),
            }[name]()
            turn += 1

    sources = {name: rounds(name) for name in SHARES}
    chosen = random.Random(f"{seed}-shares").choices(list(SHARES), list(SHARES.values()), k=lists)
    rankings = [next(sources[name]) for name in chosen]
    everything = {record.id: record for record in records}
    held_out = list(islice(reranker.from_medquad(seen, everything, by_record, found, random.Random(seed)), 100))
    typer.echo(f"{len(rankings)} lists", err=True)
    base = ModelStore().resolve("all-minilm-l6-v2").path
    model, curve = reranker.train(base, folder, rankings, held_out, seed=seed, steps=steps)
    (folder / "curve.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    export.write_adapter(model.transformers_model, folder / "adapter.safetensors")


def say(what: str) -> None:
    typer.echo(f"{what} ...", err=True)


if __name__ == "__main__":
    typer.run(main)
