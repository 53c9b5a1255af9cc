"""What a benchmark's samples come to, one figure after the other, and their table in a report or a model card. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One result; `goal` as text, `met` whether the value reaches it (None where there is no goal)."""

    name: str
    value: float
    lo: float
    hi: float
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


def table(figures: Iterable[Figure]) -> list[str]:
    """Lines of Markdown."""
    return [
        "| figure | value | 95% interval | unit | n | goal | met |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| `{f.name}` | {f.shown} | {f.lo:.3f} to {f.hi:.3f} | {f.unit} | {f.n} | {f.goal or ''} | "
            f"{'' if f.met is None else 'yes' if f.met else '**no**'} |"
            for f in figures
        ),
    ]
