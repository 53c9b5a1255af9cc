"""Pictures of results: in one style, as SVG and PNG, the same to the byte from the same figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 7.0, 4.0
"""Inches, of 72 units in the SVG and 160 pixels in the PNG."""

METADATA: dict[str, dict[str, Any]] = {"svg": {"Creator": None, "Date": None}, "png": {"Software": None}}
"""By format, what a picture isn't to tell of when and by what it was drawn: its bytes would differ by it."""

STYLE: list[str | dict[str, Any]] = [
    "default",  # whatever the user's own matplotlibrc says
    "petroff10",  # colours that are told apart also by the colour-blind (Petroff, arXiv:2107.02270)
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "grid.color": "#dddddd",
        "legend.frameon": False,
        "savefig.dpi": 160,
        "svg.fonttype": "none",  # text stays text, which can be searched for and read aloud
        "svg.hashsalt": "rag",  # without one the ids of elements are random
    },
]


@contextmanager
def picture(folder: Path, name: str, width: float = WIDTH, height: float = HEIGHT) -> Iterator[Figure]:
    """An empty figure; what is drawn in it inside the block becomes `NAME.svg` and `NAME.png`.

    Raises `StorageError` where they can't be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    # Not through pyplot, which keeps the figures that it makes and may look for a display.
    with style.context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure
        for target in paths(folder, name):
            kind = target.suffix[1:]
            with files.replacing_file(target) as path:
                figure.savefig(path, format=kind, metadata=METADATA[kind])


def paths(folder: Path, name: str) -> list[Path]:
    """The files of a picture."""
    return [folder / f"{name}.{kind}" for kind in METADATA]


def remove(folder: Path, name: str) -> None:
    """The files of a picture that there is nothing to draw in any more."""
    for path in paths(folder, name):
        path.unlink(missing_ok=True)
