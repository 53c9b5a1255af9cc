"""Two runs over the same questions, question by question: what has changed, and whether anything was lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rag.bench import results
from rag.errors import UsageError
from rag.evaluate.samples import Head, Sample, judged_by, read
from rag.evaluate.scores import METRICS, Metric
from rag.questions import TYPES
from rag.stats import Floats, non_inferiority, paired_bootstrap, permutation_test, power, ratio

MARGIN = 0.10


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two runs over the same `n` questions, all of them or those of one `type`. `difference` is what was gained,
    with its 95% interval; `p` that of a paired permutation test.

    `not_worse`: it is shown that no more than the margin was lost. None for what is no quality, as seconds, and where there was no
    more to lose. `power` is the probability to show it with as many such questions where nothing is lost.
    """

    name: str
    type: str | None
    unit: str
    before: float
    after: float
    difference: float
    lo: float
    hi: float
    n: int
    p: float
    not_worse: bool | None
    power: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`changed` are the settings, versions and other things that differ, by name, before and after."""

    margin: float
    questions: int
    changed: tuple[tuple[str, object, object], ...]
    differences: tuple[Difference, ...]

    def shown(self, not_worse: bool) -> list[str]:
        """The figures over all questions of which it is shown that no more than the margin was lost, or of which it isn't: of
        the former alone it may be said."""
        return [one.name for one in self.differences if one.type is None and one.not_worse is not_worse]


def compare(before: Path, after: Path, margin: float = MARGIN) -> Comparison:
    """The second run against the first. `margin` is a share, above 0 and below 1. Verdicts count of questions that one judge has seen
    in both.

    Raises `UsageError` where one has other questions than the other, or some of them failed, and what `samples.read` raises.
    """
    (first_head, first), (second_head, second) = read(before), read(after)
    for folder, samples in ((before, first), (after, second)):
        failed = [sample.id for sample in samples if sample.error is not None]
        if failed:
            raise UsageError(
                f"{len(failed)} questions failed in {folder}, {failed[0]!r} the first: without them nothing can be said. "
                "Run its command again, which asks them again."
            )
    _require_same((before, first_head, first), (after, second_head, second))
    judges = results.differences(*(judged_by(folder) for folder in (before, after)))
    judged = {one.id for one, other in zip(first, second, strict=True) if not judges and one.verdict and other.verdict}
    first, second = (
        [replace(one, verdict=one.verdict if one.id in judged else None) for one in some] for some in (first, second)
    )
    return Comparison(
        margin,
        len(first),
        (*results.differences(first_head, second_head), *judges),
        tuple(_differences(first, second, margin)),
    )


def _require_same(first: tuple[Path, Head, Sequence[Sample]], second: tuple[Path, Head, Sequence[Sample]]) -> None:
    sets = [head["settings"]["questions"] for _, head, _ in (first, second)]
    if sets[0]["sha256"] != sets[1]["sha256"]:
        raise UsageError(
            f"{first[0]} asked the {sets[0]['count']} questions of {sets[0]['name']!r}, {second[0]} the {sets[1]['count']} of "
            f"{sets[1]['name']!r}, which aren't the same. Only runs over the same questions can be compared."
        )
    ids = [{sample.id for sample in samples} for *_, samples in (first, second)]
    if ids[0] != ids[1]:
        raise UsageError(
            f"{first[0]} has {len(ids[0])} of the {sets[0]['count']} questions, {second[0]} {len(ids[1])}, and "
            f"{min(ids[0] ^ ids[1])!r} is in one of them alone. Finish both, or run both with the same --limit."
        )


def _differences(first: Sequence[Sample], second: Sequence[Sample], margin: float) -> Iterator[Difference]:
    for metric in METRICS:
        found = [difference(metric, None, first, second, margin)]
        kinds = {sample.question.type for sample in first}
        for kind in TYPES if metric.by_type and len(kinds) > 1 else ():
            found.append(difference(metric, kind, _of(kind, first), _of(kind, second), margin))
        yield from (one for one in found if one is not None)


def _of(kind: str, samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.question.type == kind]


def difference(
    metric: Metric, kind: str | None, first: Sequence[Sample], second: Sequence[Sample], margin: float = MARGIN
) -> Difference | None:
    """Of two runs' samples of the same questions, all of them of this `kind`, in the same order. None where one of the runs has
    nothing to take it from."""
    before, after = _paired(metric, first, second)
    if not (before[:, 1].any() and after[:, 1].any()):
        return None
    estimate = paired_bootstrap(before, after, ratio(np.sum))
    both = replace(estimate, n=int((np.minimum(before[:, 1], after[:, 1]) > 0).sum()))  # what has one half is no pair
    was = _figure(before)
    could_be_worse = metric.quality and was > margin
    return Difference(
        metric.name if kind is None else f"{metric.name}_{kind}",
        kind,
        metric.unit,
        was,
        _figure(after),
        estimate.value,
        estimate.lo,
        estimate.hi,
        estimate.n,
        permutation_test(before, after, ratio(np.sum)),
        non_inferiority(both, margin) if could_be_worse else None,
        power(both, margin) if could_be_worse else None,
    )


def _figure(parts: Floats) -> float:
    numerator, denominator = parts.sum(axis=0)
    return float(numerator / denominator)


def _paired(metric: Metric, first: Sequence[Sample], second: Sequence[Sample]) -> tuple[Floats, Floats]:
    """Parts of the questions that have one in either run; (0, 0) in the run in which it has none."""
    nothing = (0.0, 0.0)
    pairs = [
        (one, other)
        for one, other in zip(map(metric.part, first), map(metric.part, second), strict=True)
        if (one or nothing)[1] + (other or nothing)[1] > 0
    ]
    columns = np.array([(one or nothing, other or nothing) for one, other in pairs], dtype=np.float64).reshape(-1, 2, 2)
    return columns[:, 0], columns[:, 1]
