"""How many questions an evaluation would answer, and how many of those wrongly, by the confidence that it asks for.

Wrong is here an answer to a question that the sources don't answer: that is what `confidence` is about, and it is known of
the questions that were declined as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rag import metrics
from rag.evaluate.samples import Sample
from rag.stats import Estimate, Floats, bootstrap_clusters

ROWS = 10
WIDTH, HEIGHT, LEFT, TOP = 480, 300, 56, 16


@dataclass(frozen=True, slots=True)
class Curve:
    """Columns, one place a question: confidence, and whether nothing answers it."""

    confidence: Floats
    wrong: Floats

    def aurc(self) -> Estimate:
        return bootstrap_clusters(
            range(len(self.confidence)), lambda weights: metrics.aurc(self.confidence, self.wrong, weights)
        )

    def points(self) -> list[tuple[float, float, float]]:
        """(confidence, coverage, risk), from the most confident on."""
        columns = metrics.risk_coverage(self.confidence, self.wrong)
        return list(zip(*(column.tolist() for column in columns), strict=True))


def curve(samples: Sequence[Sample]) -> Curve | None:
    """A question for which nothing was found close enough comes last. None where nothing was weighed, or where all questions are
    of one kind."""
    rows = [
        (answer.confidence if answer.confidence is not None else 0.0, not sample.question.answerable)
        for sample in samples
        if (answer := sample.answer) is not None and (answer.confidence is not None or answer.route is None)
    ]
    weighed = any(sample.answer is not None and sample.answer.confidence is not None for sample in samples)
    if not weighed or len({wrong for _, wrong in rows}) < 2:
        return None
    confidence, wrong = zip(*rows, strict=True)
    return Curve(np.array(confidence, dtype=np.float64), np.array(wrong, dtype=np.float64))


def table(curve: Curve) -> list[str]:
    """The curve in Markdown, at about each tenth of the questions."""
    points = curve.points()
    tenths = [next(point for point in points if point[1] >= number / ROWS - 1e-9) for number in range(1, ROWS + 1)]
    return [
        "| answered | with a confidence of at least | of these wrong |",
        "|---|---|---|",
        *(f"| {coverage:.0%} | {least:.3f} | {risk:.3f} |" for least, coverage, risk in dict.fromkeys(tenths)),
    ]


def svg(curve: Curve) -> str:
    """The curve as a picture: risk over coverage, both from 0."""
    points = [(coverage, risk) for _, coverage, risk in curve.points()]
    top = max(0.1, float(np.ceil(10 * max(risk for _, risk in points)) / 10))
    right, bottom = WIDTH - 16, HEIGHT - 44

    def x(coverage: float) -> float:
        return LEFT + coverage * (right - LEFT)

    def y(risk: float) -> float:
        return bottom - risk / top * (bottom - TOP)

    line = " ".join(f"{x(coverage):.1f},{y(risk):.1f}" for coverage, risk in points)
    ticks = [
        *(
            f'<text x="{x(at):.0f}" y="{bottom + 18}" text-anchor="middle">{at:.0%}</text>'
            for at in (0, 0.25, 0.5, 0.75, 1)
        ),
        *(
            f'<text x="{LEFT - 8}" y="{y(at) + 4:.0f}" text-anchor="end">{at:.0%}</text>'
            f'<path d="M{LEFT} {y(at):.1f}H{right}" stroke="#ddd"/>'
            for at in (0, top / 2, top)
        ),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            *ticks,
            f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#333"/>',
            f'<polyline points="{line}" fill="none" stroke="#06c" stroke-width="2"/>',
            f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">questions answered</text>',
            f'<text transform="translate(14 {(TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">of these wrong</text>',
            "</svg>",
            "",
        ]
    )
