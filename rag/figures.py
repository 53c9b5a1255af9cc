"""What a benchmark's samples come to, one figure after the other, and their table in a report or a model card. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One result; `lo` and `hi` are its 95% interval (None where nothing is estimated: of what was counted, or measured once),
    `goal` as text, `met` whether the value reaches it (None where there is no goal)."""

    name: str
    value: float
    lo: float | None
    hi: float | None
    unit: str
    n: int
    goal: str | None = None
    met: bool | None = None

    @property
    def shown(self) -> str:
        """Three digits, or as many as it takes to tell a missed goal from its limit."""
        texts = (f"{self.value:.{digits}f}" for digits in range(3, 18))
        if self.met is not False or self.goal is None or not self.goal.startswith(("<= ", ">= ")):
            return next(texts)
        limit = float(self.goal.split()[1])
        return next((text for text in texts if float(text) != limit), repr(self.value))

    def interval(self, pattern: str = "{:.3f} to {:.3f}") -> str:
        """By a format of both its ends; "" where there is none."""
        return "" if self.lo is None or self.hi is None else pattern.format(self.lo, self.hi)

    def cell(self, form: str = "{:.3f}", around: str = " ({} to {})") -> str:
        """Value and interval, each number by one format."""
        return form.format(self.value) + self.interval(around.format(form, form))


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table."""
    return [_row(heads), f"|{'---|' * len(heads)}", *map(_row, rows)]


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def table(figures: Iterable[Figure]) -> list[str]:
    """In Markdown."""
    heads = ("figure", "value", "95% interval", "unit", "n", "goal", "met")
    met = {None: "", True: "yes", False: "**no**"}
    rows = ((f"`{f.name}`", f.shown, f.interval(), f.unit, f.n, f.goal or "", met[f.met]) for f in figures)
    return markdown(heads, rows)
