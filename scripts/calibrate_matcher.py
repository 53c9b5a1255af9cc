"""Find from which probability on the matcher's two questions are the same: `scripts/calibrate_matcher.py minilm-same-question`.

On the half of `eval/paraphrases.jsonl` that is for it and near misses of MedQuAD, neither of which the model was trained on. Do it
after the model was exported.
"""

from __future__ import annotations

from typing import Annotated

import typer

from rag import build, calibrate
from rag.cli import ending
from rag.cli.console import library_output
from rag.matching import MATCHED_TOKENS, QuestionMatcher
from rag.models.recipe import Matching
from rag.pairs import open_pairs
from rag.progress import quiet
from rag.training import corpora, datasets, matcher, options, recipes


def main(
    name: Annotated[str, typer.Argument(help="A matcher of ours.")] = "minilm-same-question",
    max_wrong: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            max=0.9999,
            help="Upper 95% bound of the rate of wrong hits.",
            show_default="cache.max_wrong_hits",
        ),
    ] = None,
    data: options.Datasets = None,
) -> None:
    """Find the matcher's threshold and write it into its recipe."""
    loaded = corpora.embedded([])
    pairs = matcher.calibration_pairs(datasets.folder(data))
    with library_output(verbose=False):
        encoder = build.open_encoder(loaded)
        model = open_pairs(build.resolve(name, quiet).path, loaded.device, MATCHED_TOKENS, 32)
        settings = loaded.settings.cache
        bound = max_wrong if max_wrong is not None else settings.max_wrong_hits
        found = calibrate.calibrate(encoder, QuestionMatcher(model, 0.0), pairs, bound, settings.min_cosine)
        recipes.write_weights(name, recipes.product(name), Matching(min_same=found.min_same))
    typer.echo(f"The same from a probability of {found.min_same:g} on.")
    for line in found.lines:
        typer.echo(line)


if __name__ == "__main__":
    ending.run_script(main)
