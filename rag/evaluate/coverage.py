"""How many questions an evaluation would answer, and how many of those wrongly, by the confidence that it asks for.

Wrong is here an answer to a question that the sources don't answer: that is what `confidence` is about, and it is known of
the questions that were declined as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag import metrics
from rag.bench.pictures import picture
from rag.evaluate.samples import Sample
from rag.figures import markdown
from rag.stats import Estimate, Floats, bootstrap_clusters

ROWS = 10


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
    return markdown(
        ("answered", "with a confidence of at least", "of these wrong"),
        [(f"{coverage:.0%}", f"{least:.3f}", f"{risk:.3f}") for least, coverage, risk in dict.fromkeys(tenths)],
    )


def draw(curve: Curve, folder: Path, name: str) -> None:
    """The curve as a picture: risk over coverage, both from 0."""
    _, coverage, risk = zip(*curve.points(), strict=True)
    with picture(folder, name) as figure:
        axes = figure.subplots()
        axes.plot(coverage, risk, gid="curve", clip_on=False)
        axes.set(xlabel="questions answered", ylabel="of these wrong")
        axes.set(xlim=(0, 1), ylim=(0, max(0.1, 1.05 * max(risk))))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda at, _: f"{100 * at:g}%")
