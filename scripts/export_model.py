"""Make the recipe that ships of a finished training: `scripts/export_model.py minilm-rerank --from training/reranker`.

Writes `data/models/NAME/`: adapter (a reranker's calibrated on dev_60), recipe.yaml with what it builds to,
MODEL_CARD.md with the committed figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag.cli import ending
from rag.cli.console import library_output
from rag.training import calibration, recipes


def main(
    name: Annotated[str, typer.Argument(help=", ".join(recipes.PRODUCTS))],
    folder: Annotated[
        Path | None, typer.Option("--from", help="The training's folder.", show_default="training/KIND")
    ] = None,
    average: Annotated[
        Path | None, typer.Option(help="The folder of another training of it, whose adapter is averaged in.")
    ] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="What that one counts of the mean.")] = 0.5,
    card_only: Annotated[
        bool, typer.Option("--card-only", help="Only write the card again, with new figures.")
    ] = False,
) -> None:
    """Make the recipe that ships of a finished training."""
    trained = recipes.product(name)
    source = folder if folder is not None else Path("training") / trained.kind
    if card_only:
        recipes.write_card(name, trained)
    else:
        with library_output(verbose=False):
            calibrate = calibration.on_development if trained.kind == "reranker" else None
            averaged = (average, share) if average is not None else None
            recipes.write(name, trained, source, calibrate=calibrate, averaged=averaged)


if __name__ == "__main__":
    ending.run_script(main)
