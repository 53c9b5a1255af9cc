"""Takes the samples of a generator: those of an earlier run with the same prompts, settings and weights stay."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from rag import build
from rag.bench import SEED, grounding, provenance, results
from rag.bench.generator.answering import MAX_TOKENS, Answered, ask, open_declining
from rag.bench.generator.asked import Asked
from rag.bench.generator.prompts import texts_folder
from rag.bench.results import Sample
from rag.progress import Progress
from rag.settings import Loaded
from rag.training.grounded import Example

BENCH = "generator"

OF_A_MODEL = {"model", "revision", "vocab_size", "quantized", "max_tokens"}
"""Settings of the generator that say which one, or that don't hold here."""


async def measure(
    asked: Sequence[Asked], folder: Path, prompts: Sequence[Example], command: str, progress: Progress
) -> None:
    """Take a sample a prompt and model; those of an earlier run with the same prompts, settings and weights stay."""
    samples = results.Samples(folder)
    head = results.header(BENCH, command, settings=_depends_on(asked[0].loaded, prompts))
    taken = _without_stale(samples, samples.resume(head), head, asked)
    for one in asked:
        known = {sample["id"] for sample in taken if one.took(sample)}
        left = [example for example in prompts if example.id not in known]
        if not left:
            continue
        count = len(known)

        def finished(example: Example, answered: Answered, one: Asked = one) -> None:
            nonlocal count
            _add_text(folder, one, example, answered.text)
            samples.add({**one.mark(), **sample_of(example, answered)})
            count += 1
            progress(f"answers of {one.name}", count, len(prompts))

        declining = open_declining(one.loaded)
        async with build.open_generator(one.loaded, progress) as generator:
            progress(f"answers of {one.name}", count, len(prompts))
            await ask(generator, left, one.loaded.settings.generator.max_num_seqs, finished, declining)


def _depends_on(loaded: Loaded, prompts: Sequence[Example]) -> dict[str, Any]:
    text = "".join(json.dumps(asdict(example)) for example in prompts)
    return {
        "prompts": {"count": len(prompts), "seed": SEED, "sha256": sha256(text.encode()).hexdigest()},
        "max_tokens": MAX_TOKENS,
        "generator": loaded.settings.generator.model_dump(mode="json", exclude=OF_A_MODEL),
        "abstain": _declines_by(loaded),
    }


def _declines_by(loaded: Loaded) -> dict[str, Any] | None:
    weighing, reranker = build.weighing(loaded.settings), loaded.settings.rerank.model
    if weighing is None or reranker is None:
        return None
    return {
        "weighing": asdict(weighing),
        "reranker": provenance.weights(build.model_store().build(reranker)),
    }


def _without_stale(
    samples: results.Samples, taken: Sequence[Sample], head: Mapping[str, Any], asked: Sequence[Asked]
) -> list[Sample]:
    """There is one measured model, and one set of weights a name: samples of others go as these are taken."""

    def stale(sample: Sample) -> bool:
        rivals = [one for one in asked if (not one.base and not sample["base"]) or one.name == sample["model"]]
        return bool(rivals) and not any(one.took(sample) for one in rivals)

    fresh = [sample for sample in taken if not stale(sample)]
    if len(fresh) < len(taken):
        samples.replace(head, fresh)
    return fresh


def _add_text(folder: Path, one: Asked, example: Example, answer: str) -> None:
    row = {**one.mark(), "id": example.id, "kind": example.kind, "question": example.question}
    with (texts_folder(folder) / "texts.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "gold": example.gold, "reference": example.answer, "answer": answer}) + "\n")


def sample_of(example: Example, answered: Answered) -> dict[str, Any]:
    """No text in it."""
    answer, stats = answered.text, answered.stats
    score = grounding.score(answer, stats.finish_reason == "length", example.answer, example.gold, example.sources)
    return {
        "id": example.id,
        "kind": example.kind,
        "passages": len(example.passages),
        "gold": list(example.gold),
        **asdict(score),
        "markers": list(score.markers),
        "confidence": answered.confidence,
        "finish_reason": stats.finish_reason,
        "prompt_tokens": stats.prompt_tokens,
        "output_tokens": stats.output_tokens,
    }
