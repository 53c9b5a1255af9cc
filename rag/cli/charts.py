"""Bars in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

MARKS = "█▓▒░▞▚"
COLOURS = ("blue", "green", "yellow", "magenta", "cyan", "red")
"""Of the parts of a bar, which differ without colours too."""

WIDTH = 60
"""Characters of the longest bar."""


def stacked(bars: Sequence[tuple[str, Mapping[str, float]]], unit: str, width: int = WIDTH) -> list[Text]:
    """A line a bar, its parts in order and its sum behind it, and below them what the parts are. Nothing for no bars."""
    if not bars:
        return []
    longest = max(sum(parts.values()) for _, parts in bars)
    names = list(dict.fromkeys(part for _, parts in bars for part in parts))
    looks = {name: (MARKS[at % len(MARKS)], COLOURS[at % len(COLOURS)]) for at, name in enumerate(names)}
    margin = max(len(name) for name, _ in bars)
    lines = []
    for name, parts in bars:
        line = Text(f"{name:{margin}} ")
        reached = drawn = 0.0
        for part, value in parts.items():
            reached += value  # rounded at its end, so that the parts of a bar are together as long as it is
            mark, colour = looks[part]
            length = round(width * reached / longest) - drawn if longest > 0 else 0
            line.append(mark * int(length), colour)
            drawn += length
        lines.append(line.append(f" {reached:.2f} {unit}"))
    legend = Text(" " * (margin + 1))
    for name in names:
        mark, colour = looks[name]
        legend.append(mark, colour).append(f" {name}  ")
    return [*lines, legend]
