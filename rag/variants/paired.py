"""One variant against another, question by question: both have answered those that count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rag.core import Answer
from rag.evaluate import Difference, engagement
from rag.evaluate.compare import MARGIN, difference
from rag.evaluate.samples import Sample
from rag.evaluate.scores import METRICS
from rag.figures import Figure, markdown
from rag.stats import pairs_needed
from rag.variants.samples import Taken

KEY_FACTS = next(metric for metric in METRICS if metric.name == "key_fact_recall")


def answered(taken: Iterable[Taken], variant: str, cold: bool = False) -> dict[str, Sample]:
    """By id the variant's answers, those that failed left out."""
    return {
        one.sample.id: one.sample
        for one in taken
        if one.variant == variant and one.cold == cold and one.sample.answer is not None
    }


def pairs(before: Mapping[str, Sample], after: Mapping[str, Sample]) -> tuple[list[Sample], list[Sample]]:
    """Of the questions that both have, in the order of their ids."""
    ids = sorted(before.keys() & after.keys())
    return [before[name] for name in ids], [after[name] for name in ids]


def total(sample: Sample) -> float:
    """Seconds of its answer."""
    answer = given(sample)
    assert answer.timings.total is not None
    return answer.timings.total


def given(sample: Sample) -> Answer:
    assert sample.answer is not None
    return sample.answer


def total_ratios(before: Mapping[str, Sample], after: Mapping[str, Sample]) -> list[float]:
    """By question the seconds after over those before.

    Their median is what is reported, not the ratio of the sums: a question that the machine was busy at counts once, however
    long it took, and a long one no more than a short one.
    """
    return [total(two) / total(one) for one, two in zip(*pairs(before, after), strict=True)]


def key_facts(before: Mapping[str, Sample], after: Mapping[str, Sample]) -> Difference | None:
    """None where no question both answered has any."""
    return difference(KEY_FACTS, None, *pairs(before, after))


def difference_figure(name: str, found: Difference) -> Figure:
    """Its goal is met where it is shown that no more than the margin was lost."""
    goal = f"interval above {-MARGIN:.2f}" if found.not_worse is not None else None
    return Figure(name, found.difference, found.lo, found.hi, found.unit, found.n, goal, found.not_worse)


def techniques(what: str, answers: Mapping[str, Mapping[str, Sample]]) -> list[str]:
    """A table: what was asked of the engine of each (of each `what`, by name), and whether it engaged, in those of its answers that it
    wrote."""
    rows = []
    for name, some in answers.items():
        told = [given(one).engine.techniques for one in some.values() if given(one).route is not None]
        rows += [(f"`{name}`", *cells) for cells in engagement.cells(told)]
    return [*markdown((what, *engagement.COLUMNS), rows), ""] if rows else []


def said_of_quality(base: str, found: Mapping[str, Difference | None]) -> list[str]:
    """What may be said of each variant's key facts against those of `base`: of no loss only where that is shown."""
    lines = []
    for name, one in found.items():
        if one is None or one.not_worse is None:
            lines.append(f"- `{name}`: there was too little to lose to speak of it.")
            continue
        interval = (
            f"{100 * one.difference:+.1f} points (95% interval {100 * one.lo:+.1f} to {100 * one.hi:+.1f}, n={one.n})"
        )
        lines.append(
            f"- `{name}`: {one.after:.3f} of the key facts, `{base}` {one.before:.3f}; {interval}: {_shown(one)}."
        )
    return lines


def _shown(one: Difference) -> str:
    """Of a difference that could be a loss."""
    points, needed = f"{100 * MARGIN:g} points", pairs_needed(MARGIN)
    if one.n < needed:
        if one.lo > 0:
            return "nothing was lost, as far as so few questions tell"
        return f"too few questions to tell whether {points} were lost, which takes {needed}"
    says = f"it is **not shown** that no more than {points} were lost"
    if one.not_worse:
        says = f"no loss of quality by more than {points} is shown"
    assert one.power is not None
    return f"{says}. So many questions show it with a probability of {one.power:.2f} where nothing is lost"


def unfinished(counts: Mapping[str, int], asked: int) -> list[str]:
    """A note where the variants have answered fewer questions than were asked."""
    short = {name: count for name, count in counts.items() if count < asked}
    if not short:
        return []
    said = ", ".join(f"`{name}` {count}" for name, count in short.items())
    return [f"**Not all of the {asked} questions are answered: {said}. The same command goes on.**", ""]


def failed(taken: Sequence[Taken]) -> list[Taken]:
    return [one for one in taken if one.sample.error is not None]
