"""Weigh the matcher's word with the cosine: `scripts/calibrate_matcher.py minilm-same-question`.

On the half of `eval/paraphrases.jsonl` that is for it and near misses of MedQuAD, neither of which the model was trained on. Do it
after the model was exported.
"""

from __future__ import annotations

from typing import Annotated

import typer

from rag import build, calibrate
from rag.cli.console import library_output
from rag.matching import MATCHED_TOKENS, QuestionMatcher, Weights
from rag.pairs import open_pairs
from rag.training import corpora, datasets, matcher, options, recipes


def main(
    name: Annotated[str, typer.Argument(help="A matcher of ours.")] = "minilm-same-question",
    max_wrong: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Upper 95% bound of the rate of wrong hits.", show_default="cache.max_wrong_hits"
        ),
    ] = 0.01,
    data: options.Datasets = None,
) -> None:
    """Weigh the matcher's word with the cosine, and find the threshold."""
    loaded = corpora.embedded([])
    pairs = matcher.calibration_pairs(datasets.folder(data))
    with library_output(verbose=False):
        encoder = build.open_encoder(loaded)
        model = open_pairs(build.resolve(name, build.quiet).path, loaded.device, MATCHED_TOKENS, 32)
        found = matcher.calibrated(encoder, model, pairs, loaded.settings.embed.model, max_wrong)
        recipes.write_weights(name, recipes.product(name), found)
        weighed = QuestionMatcher(model, Weights(found.of_logit, found.of_cosine, found.shift), found.min_same)
        said = calibrate.calibrate(encoder, weighed, pairs, max_wrong, loaded.settings.cache.min_cosine)
    typer.echo(found.model_dump_json())
    for line in said.lines:
        typer.echo(line)


if __name__ == "__main__":
    options.run(main)
