"""Make the activations of a quantised generator smooth: `scripts/smooth_generator.py`. Do it after its base was exported.

Writes `data/models/NAME/`: by how much which channels are divided, and the recipe with what it builds to.
"""

from __future__ import annotations

from typing import Annotated

import typer

from rag import build
from rag.cli import ending
from rag.cli.console import library_output
from rag.errors import UsageError
from rag.models.recipe import RecipeBase
from rag.training import recipes, smoothing


def main(
    name: Annotated[str, typer.Argument(help="A recipe of another recipe's model.")] = "smollm2-grounded-int8",
    count: Annotated[int, typer.Option(min=1, max=1000, help="Prompts to read, of our own training questions.")] = 24,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
) -> None:
    """Make the activations of a quantised generator smooth."""
    store = build.model_store()
    recipe = store.status(name).recipe
    if not isinstance(recipe.base, RecipeBase) or recipe.quantize is None:
        raise UsageError(f"{name} is no quantised model of another recipe's: it has nothing to smooth.")
    with library_output(verbose=False):
        folder = store.build(recipe.base.recipe)
        activations, weights = smoothing.largest(folder, list(smoothing.prompts(count, seed)))
        found = {writer: smoothing.exponents(activations[writer], weights[writer]) for writer in activations}
        recipes.write_smoothing(name, found)


if __name__ == "__main__":
    ending.run_script(main)
