"""The losses of the training that a model comes from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rag import files, paths
from rag.bench.results import mean_cell
from rag.errors import UsageError
from rag.figures import markdown
from rag.training import loop

CURVE_ROWS = 12


def keep_curve(folder: Path, curve: Path | None, model: str) -> None:
    """Copy a training's losses beside the samples: `curve`, else what `model`'s recipe has of them, else none. Raises
    `UsageError` where a named one isn't there."""
    source = curve if curve is not None else paths.shipped("data", "models", model, loop.CURVE)
    if source.is_file():
        with files.replacing_file(folder / loop.CURVE) as path:
            shutil.copyfile(source, path)
    elif curve is not None:
        raise UsageError(f"--curve {curve}: no such file. A training writes it into its folder.")
    else:
        (folder / loop.CURVE).unlink(missing_ok=True)


def curve_table(curve: Sequence[Mapping[str, float]]) -> list[str]:
    """The held-out loss over the examples seen, and the mean training loss since the row before; `CURVE_ROWS` rows."""
    held = [number for number, entry in enumerate(curve) if "eval_loss" in entry]
    keep = sorted({held[round(at)] for at in np.linspace(0, len(held) - 1, min(CURVE_ROWS, len(held)))}) if held else []
    rows = []
    before = 0
    for number in keep:
        losses = [entry["loss"] for entry in curve[before : number + 1] if "loss" in entry]
        rows.append((f"{curve[number]['examples']:,.0f}", mean_cell(losses), f"{curve[number]['eval_loss']:.3f}"))
        before = number + 1
    return markdown(("examples", "loss", "held-out loss"), rows)
