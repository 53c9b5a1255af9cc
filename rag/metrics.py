"""Quality of ranked lists, of texts against a reference, and of scores. Pure.

What takes `weights`, one for each score, takes them of shape (..., n) and returns shape (...): how often each score
stands in each of many resamples.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

ROUNDING = 1e-9
"""Sums of weights are compared with a share of their total, which may not be a binary fraction."""


def ranked(found: Iterable[str], grades: Mapping[str, int], measure: str) -> float:
    """A measure by its name in ir-measures (`nDCG@10`, `R@5`, `RR`, `Success@1`), which asks trec_eval, of a list that names
    each document once, best first. `grades` are of relevance, from 1, and the gains of nDCG.

    Raises ValueError where nothing is relevant, or a document is named twice.
    """
    import ir_measures

    names = list(found)
    places = {name: str(rank) for rank, name in enumerate(names)}
    if not any(grade > 0 for grade in grades.values()):
        raise ValueError(f"{measure} of a question to which nothing is relevant")
    if len(places) < len(names):
        raise ValueError(f"{measure} of a list that names a document twice: {names}")
    # trec_eval breaks ties by name, so that scores have to fall; and the process dies of a name that isn't UTF-8.
    run = {place: -float(place) for place in places.values()}
    judged = {places.get(name, f"missed {number}"): grade for number, (name, grade) in enumerate(grades.items())}
    [metric] = ir_measures.iter_calc([ir_measures.parse_measure(measure)], {"q": judged}, {"q": run})
    return float(metric.value)


def ranked_at(ranks: Collection[int], relevant: int, measure: str) -> float:
    """As `ranked`, of a list of which is known where the relevant ones stand, from 1, and how many there are in all.
    Raises ValueError where that is none, or fewer than stand there."""
    if relevant < len(ranks):
        raise ValueError(f"{measure} of {len(ranks)} ranks where {relevant} are relevant")
    found = map(str, range(1, max(ranks, default=0) + 1))
    missed = (f"missed {number}" for number in range(relevant - len(ranks)))
    return ranked(found, dict.fromkeys([*map(str, ranks), *missed], 1), measure)


def ranks(found: Iterable[str], relevant: Iterable[str]) -> list[int]:
    """Where in a ranked list the relevant ones stand, from 1. One that stands there several times counts each time."""
    wanted = frozenset(relevant)
    return [rank for rank, name in enumerate(found, start=1) if name in wanted]


def recall(found: Iterable[str], relevant: Collection[str]) -> float:
    """The share of the relevant ones that is among those found, in whatever order. Raises ZeroDivisionError where there are
    none."""
    wanted = frozenset(relevant)
    return len(wanted & frozenset(found)) / len(wanted)


def precision(found: Collection[str], relevant: Iterable[str]) -> float:
    """The share of the found ones that is among the relevant. Raises ZeroDivisionError where none was found."""
    return recall(relevant, found)


# --- texts against a reference --------------------------------------------------------------------


def key_facts_found(text: str, facts: Iterable[Iterable[str]]) -> list[bool]:
    """Of each fact, whether one of its accepted variants stands in the text, whatever its capitals and white space."""
    plain = _plain(text)
    return [any(_plain(variant) in plain for variant in variants) for variants in facts]


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words that two texts share, each as often as it occurs in both, after SQuAD's normalisation: small
    letters, no punctuation, no articles (Rajpurkar et al. 2016). Two empty texts agree."""
    ours, theirs = _squad_words(answer), _squad_words(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    return 2 * shared / (len(ours) + len(theirs))


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin, ACL workshop 2004), words as Google's rouge-score has them without
    stemming: runs of a-z and 0-9 in small letters. 0.0 where one of the two has none."""
    # Not by rouge-score, whose last release is of 2022 and brings NLTK for these few lines.
    ours, theirs = _words(text), _words(reference)
    if not ours or not theirs:
        return 0.0
    return 2 * _longest_common(ours, theirs) / (len(ours) + len(theirs))


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by rows of the usual table."""
    above = [0] * (len(second) + 1)
    for one in first:
        row = [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if one == other else max(above[column + 1], row[column]))
        above = row
    return above[-1]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


# --- scores ---------------------------------------------------------------------------------------


def risk_coverage(confidence: ArrayLike, wrong: ArrayLike, weights: ArrayLike = 1.0) -> tuple[NDArray[np.float64], ...]:
    """The risk-coverage curve (El-Yaniv and Wiener, JMLR 11, 2010), a point for each confidence that occurs, highest first:
    that confidence, the share that has it or a higher one, and the share of those that are wrong."""
    values, losses = np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    weighted = _of_each(weights, values)[..., order]
    last = np.flatnonzero(np.diff(values[order], append=-np.inf) < 0)
    covered = np.cumsum(weighted, axis=-1)[..., last]
    with np.errstate(invalid="ignore"):
        risk = np.cumsum(weighted * losses[order], axis=-1)[..., last] / covered
        return values[order][last], covered / covered[..., -1:], risk


def aurc(confidence: ArrayLike, wrong: ArrayLike, weights: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Area under the risk-coverage curve: the mean risk over the coverages that there are (Geifman, Uziel and El-Yaniv, ICLR
    2019); those of one confidence are covered together. Low is good; NaN where all weights are 0."""
    _, coverage, risk = risk_coverage(confidence, wrong, weights)
    steps = np.diff(coverage, prepend=0.0)
    area: NDArray[np.float64] = np.where(steps > 0, steps * risk, 0.0).sum(axis=-1) + 0 * coverage[..., -1]
    return area


def auroc(scores: ArrayLike, positive: ArrayLike, weights: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Area under the ROC curve: the share of pairs of a positive and a negative in which the positive has the higher score,
    ties counting half (Hanley and McNeil, Radiology 143, 1982). NaN where there is no such pair."""
    values, positives = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    order = np.argsort(values, kind="stable")
    weighted = _of_each(weights, values)[..., order]
    # One column for each score that occurs, lowest first.
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0)
    above = np.add.reduceat(weighted * positives[order], starts, axis=-1)
    below = np.add.reduceat(weighted * ~positives[order], starts, axis=-1)
    lower = np.cumsum(below, axis=-1) - below
    wins = (above * (lower + below / 2)).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        area: NDArray[np.float64] = wins / (above.sum(axis=-1) * below.sum(axis=-1))
    return area


def threshold(scores: ArrayLike, share: float, weights: ArrayLike = 1.0) -> NDArray[np.float64]:
    """The highest of the scores that no more than `share` of them, by weight, lie below. NaN where all weights are 0."""
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(_of_each(weights, values)[..., order], axis=-1)
    total = upto[..., -1]
    reached = upto > share * total[..., None] + ROUNDING
    found: NDArray[np.float64] = np.where(total > 0, values[order][np.argmax(reached, axis=-1)], np.nan)
    return found


def share_below(scores: ArrayLike, limit: ArrayLike, weights: ArrayLike = 1.0) -> NDArray[np.float64]:
    """The share of the scores, by weight, below a limit of shape (...). NaN where all weights are 0."""
    values = np.asarray(scores, dtype=np.float64)
    weighted = _of_each(weights, values)
    with np.errstate(invalid="ignore"):
        share: NDArray[np.float64] = (weighted * (values < np.asarray(limit)[..., None])).sum(axis=-1) / weighted.sum(
            axis=-1
        )
    return share


def _of_each(weights: ArrayLike, values: NDArray[np.float64]) -> NDArray[np.float64]:
    given = np.asarray(weights, dtype=np.float64)
    return np.broadcast_to(given, np.broadcast_shapes(given.shape, values.shape))
