"""Weigh the generator's word with the reranker's scores: `scripts/calibrate_abstention.py smollm2-grounded`.

Asks the generator about prompts that neither it nor the reranker was trained on, none of which is measured on, and writes
what joins the two into its recipe. Do it last: after both were exported.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from rag import build
from rag.abstain import Weighing, log_odds
from rag.cli import ending
from rag.cli.console import library_output
from rag.metrics import auroc
from rag.training import abstention, corpora, datasets, found, mixture, options, recipes
from rag.training.abstention import Observed

SEEDS = (1, 2)
"""Each record of MedQuAD is asked about once a seed, among other passages."""


def main(
    name: Annotated[str, typer.Argument(help="A generator of ours.")] = "smollm2-grounded",
    data: options.Datasets = None,
    index: options.Index = None,
    count: Annotated[int, typer.Option(min=50, help="Prompts of MedQuAD a seed, at most.")] = 400,
) -> None:
    """Weigh the generator's word with the reranker's scores."""
    root = datasets.folder(data)
    loaded = corpora.embedded([f"generator.model={name}", "generator.quantization=null", f"index.name={build.SAMPLE}"])
    made = mixture.Mixture(root, found.medquad(root, index, mixture.CANDIDATES, options.say))
    prompts = [example for seed in SEEDS for example in made.held_out(count, seed)]
    seen: dict[str, list[Observed]] = {}
    with library_output(verbose=False) as (terminal, _), terminal.count("preparing") as progress:

        async def observe() -> None:
            async with build.open_generator(loaded, progress) as generator:
                search = build.open_search(loaded)
                assert search.reranker is not None
                contexts = abstention.Contexts(loaded.settings, search.encoder, search.reranker, generator.count_tokens)
                cases = {}
                for form, sentences in (("sentences", loaded.settings.context.sentences), ("passages", None)):
                    of_form = contexts.having(sentences=sentences)
                    cases[f"MedQuAD's, {form}"] = list(abstention.of_prompts(prompts, of_form))
                    cases[f"users', {form}"] = list(abstention.of_questions(search, of_form))
                for kind, some in cases.items():
                    seen[kind] = []
                    for case in some:
                        seen[kind].append(await abstention.observe(generator, case))
                        progress(f"{kind} questions", len(seen[kind]), len(some))

        build.ensure_sample_index(loaded)
        asyncio.run(observe())
    assert loaded.settings.rerank.model is not None
    weights = abstention.weigh(seen, loaded.settings.rerank.model)
    recipes.write_weights(name, recipes.product(name), weights)
    typer.echo(weights.model_dump_json())
    least = loaded.settings.abstain.min_confidence
    for line in table(seen, Weighing(weights.of_word, weights.of_relevance, weights.shift, least)):
        typer.echo(line)


def table(seen: dict[str, list[Observed]], weighing: Weighing) -> list[str]:
    """In-sample: how well each tells prompts without an answer, and what declining below the lowest confidence comes to."""
    lines = ["questions                n  without answer  word  relevance  together  recall  precision"]
    for kind, some in seen.items():
        wrong = [not one.answered for one in some]
        odds = [weighing.odds(one.word, one.relevance) for one in some]
        declined = [w for w, o in zip(wrong, odds, strict=True) if o > -log_odds(weighing.min_confidence)]
        lines.append(
            f"{kind:22} {len(some):4}  {sum(wrong):14}  {auroc([one.word for one in some], wrong):.2f}  "
            f"{auroc([-one.relevance for one in some], wrong):9.2f}  {auroc(odds, wrong):8.2f}  "
            f"{sum(declined) / max(1, sum(wrong)):6.2f}  {sum(declined) / max(1, len(declined)):9.2f}"
        )
    return lines


if __name__ == "__main__":
    ending.run_script(main)
