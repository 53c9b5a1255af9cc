"""rag/cli/charts.py: bars in a terminal."""

from __future__ import annotations

from rag.cli.charts import stacked


def plain(bars: list[tuple[str, dict[str, float]]], width: int) -> list[str]:
    return [line.plain.rstrip() for line in stacked(bars, "s", width)]


def test_bars_are_as_long_as_their_sums_and_their_parts_fill_them() -> None:
    bars = [("v3", {"search": 1.0, "write": 3.0}), ("auto", {"search": 1.0, "write": 1.0})]
    assert plain(bars, 8) == [
        "v3   ██▓▓▓▓▓▓ 4.00 s",
        "auto ██▓▓ 2.00 s",
        "     █ search  ▓ write",
    ]


def test_rounding_loses_nothing_of_a_bar_s_length() -> None:
    parts = {str(number): 1 / 7 for number in range(7)}
    [bar, _] = stacked([("a", parts)], "s", 10)
    assert len(bar.plain) == len("a ") + 10 + len(" 1.00 s")


def test_parts_keep_their_look_from_bar_to_bar_and_have_colours() -> None:
    first, second, legend = stacked([("a", {"x": 1.0, "y": 1.0}), ("b", {"y": 2.0})], "s", 4)
    assert (first.plain, second.plain) == ("a ██▓▓ 2.00 s", "b ▓▓▓▓ 2.00 s")
    colours = {span.style for span in first.spans}
    assert len(colours) == 2
    assert {span.style for span in second.spans} < colours
    assert {span.style for span in legend.spans} == colours


def test_nothing_and_nothing_but_zeros() -> None:
    assert stacked([], "s") == []
    assert plain([("a", {"x": 0.0})], 10) == ["a  0.00 s", "  █ x"]
