"""rag/bench/pictures.py: what is written, and that the same is written again."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from rag.bench.pictures import paths, picture

SVG = "{http://www.w3.org/2000/svg}"

DRAW = """
import sys
from pathlib import Path
from rag.bench.pictures import picture
with picture(Path(sys.argv[1]), "bars", 5, 3) as figure:
    axes = figure.subplots()
    axes.barh(["V3", "V3.1"], [6.8, 4.7], label="generate")
    axes.set_xlabel("seconds")
    axes.legend()
"""


def draw(folder: Path) -> list[Path]:
    """In a process of its own."""
    subprocess.run([sys.executable, "-c", DRAW, str(folder)], check=True, timeout=120)
    return paths(folder, "bars")


def test_a_picture_is_svg_with_its_text_as_text_and_a_png_of_its_size(tmp_path: Path) -> None:
    svg, png = draw(tmp_path / "new")
    root = ET.parse(svg).getroot()
    assert root.attrib["viewBox"] == f"0 0 {5 * 72} {3 * 72}"
    assert {"V3", "V3.1", "seconds", "generate"} <= {text.text for text in root.iter(f"{SVG}text")}
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == (5 * 160, 3 * 160)


def test_the_same_is_the_same_to_the_byte_whenever_it_is_drawn_and_however_matplotlib_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = draw(tmp_path / "first")
    settings = tmp_path / "matplotlibrc"
    settings.write_text("lines.linewidth: 9\nfont.size: 20\nlegend.fontsize: 30\naxes.facecolor: black\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(settings))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    again = draw(tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in first]


def test_nothing_is_written_where_drawing_fails_and_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), picture(tmp_path, "bars") as figure:
        figure.subplots().plot([0], [1 / 0])
    assert list(tmp_path.iterdir()) == []
    with picture(tmp_path, "bars") as figure:
        figure.subplots()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars.png", "bars.svg"]
    assert json.dumps(dict(matplotlib.rcParams), default=repr) == json.dumps(before, default=repr)
