"""How well the support checker tells a supported sentence from one that isn't, and how fast.

Held-out pairs of `rag.training.support`: other documents, another source of MedQuAD and other words put in than in
training. They go through the stage itself; a sentence's score is the probability of "supported" that it compares with
`verify.min_support`, and below every probability where a number of the sentence doesn't stand in the passage, or it says the
opposite of what it follows word by word.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag import bert, build, metrics
from rag.bench import SEED, provenance, results
from rag.bench.results import Sample
from rag.bench.timing import timed
from rag.core import Clock, Hit, Passage, Sentence, Source, SupportChecker
from rag.errors import UsageError
from rag.figures import Figure
from rag.models import ModelStore
from rag.progress import Progress
from rag.settings import Loaded
from rag.stats import Estimate, Floats, bootstrap_clusters
from rag.training import support
from rag.training.corruption import KINDS
from rag.training.support import SupportPair
from rag.verify import LABELS, CrossEncoderChecker

BENCH = "support"
PAIRS = 300
"""Of each source, kind and label, at most: what there are many of would drown the rest."""

FALSE_ALARMS = 0.05

SENTENCES, CHARS = 3, 800
"""Of the answers that are timed, and of the passage that each sentence cites."""

ROUNDS, WARM_UP = 50, 5
AT_ONCE = 32

REFUSED = -1.0
"""Score of a sentence that is never supported, whatever the threshold."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """`about` numbers the passage's title: pairs of one title resemble one another."""

    id: str
    source: str
    about: int
    pair: SupportPair


def choose(held_out: Mapping[str, Sequence[SupportPair]], count: int) -> list[Chosen]:
    """At most `count` of each source, kind and label, drawn with a fixed seed, in the order that they came in."""
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for source, made in held_out.items():
        for row, pair in enumerate(made):
            groups[source, pair.kind, pair.label].append(row)
    drawn = {
        (group[0], row)
        for group, rows in groups.items()
        for row in random.Random(f"{SEED}-{'-'.join(group)}").sample(rows, min(count, len(rows)))
    }
    titles: dict[tuple[str, str], int] = {}
    return [
        Chosen(f"{source}-{row}", source, titles.setdefault((source, pair.title), len(titles)), pair)
        for source, made in held_out.items()
        for row, pair in enumerate(made)
        if (source, row) in drawn
    ]


# --- samples -----------------------------------------------------------------------------------


def measure(loaded: Loaded, folder: Path, root: Path, count: int, command: str, progress: Progress) -> None:
    """Take a sample a pair, at most `count` of each source and kind, and `ROUNDS` of the speed; those that an earlier
    run with the same settings took stay. `root` holds the datasets. Raises `UsageError` where the settings name no
    support checker."""
    if loaded.settings.verify.model is None:
        raise UsageError("verify.model is null: there is nothing to measure. Name one: --set verify.model=NAME.")
    progress("loading the support checker")
    checker = build.open_checker(loaded)
    assert checker is not None
    model = ModelStore().resolve(loaded.settings.verify.model).path
    progress("making pairs")
    chosen = choose(support.Pairs(root).measured(SEED), count)
    samples = results.Samples(folder)
    taken = samples.resume(results.header(BENCH, command, settings=_depends_on(loaded, model, count, chosen)))

    known = {sample["id"] for sample in taken if "id" in sample}
    left = [one for one in chosen if one.id not in known]
    if left:
        progress("pairs", len(known), len(chosen))
        samples.take(judged(checker, left), progress, "pairs", len(known), len(chosen))

    rounds = sum("seconds" in sample for sample in taken)
    if rounds < ROUNDS:
        progress("speed", rounds, ROUNDS)
        seconds = times(checker, [one.pair for one in chosen], ROUNDS - rounds)
        fresh = ({"round": number, "seconds": one} for number, one in enumerate(seconds, start=rounds))
        samples.take(fresh, progress, "speed", rounds, ROUNDS)


def _depends_on(loaded: Loaded, model: Path, count: int, chosen: Sequence[Chosen]) -> dict[str, Any]:
    settings = loaded.settings.verify
    told = "\n".join(repr((one.id, asdict(one.pair))) for one in chosen)
    return {
        "pairs": count,
        "sha256": sha256(told.encode()).hexdigest(),
        "backend": bert.choose(model, loaded.device, settings.backend),
        "weights": provenance.weights(model),
        "verify": settings.model_dump(exclude={"action"}),  # what is made of verdicts
    }


def judged(checker: CrossEncoderChecker, chosen: Sequence[Chosen]) -> Iterator[dict[str, Any]]:
    """Without the texts, which aren't ours to publish."""
    for start in range(0, len(chosen), AT_ONCE):
        some = chosen[start : start + AT_ONCE]
        said = checker.judge([(one.pair.sentence, _source(one.pair, 1, one.pair.passage)) for one in some])
        for one, found in zip(some, said, strict=True):
            yield {
                "id": one.id,
                "source": one.source,
                "about": one.about,
                "kind": one.pair.kind,
                "label": one.pair.label,
                "verbatim": _plain(one.pair.sentence) in _plain(one.pair.passage),
                "numbers_stand": found.numbers_stand,
                "opposite": found.opposite,
                "probabilities": dict(zip(LABELS, found.probabilities, strict=True)),
            }


def _source(pair: SupportPair, marker: int, quote: str) -> Source:
    passage = Passage("", "", pair.title, pair.passage, 0, len(pair.passage))
    return Source(marker, Hit(passage, 1.0), quote)


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def times(
    checker: SupportChecker, made: Sequence[SupportPair], rounds: int, clock: Clock = time.perf_counter
) -> Iterator[float]:
    """Seconds of each check of an answer, warm: every answer another, as it is in use.

    Raises `UsageError` where no passage is long enough.
    """
    long = [pair for pair in made if len(pair.passage) >= CHARS]
    if not long:
        raise UsageError(f"No held-out passage has {CHARS} characters. Is the datasets' folder complete?")
    chance = random.Random(SEED)
    for number in range(-WARM_UP, rounds):
        answer = [chance.choice(long) for _ in range(SENTENCES)]
        sentences = [Sentence(pair.sentence, (marker,)) for marker, pair in enumerate(answer, start=1)]
        sources = [_source(pair, marker, pair.passage[:CHARS]) for marker, pair in enumerate(answer, start=1)]
        seconds, _ = timed(partial(checker.check, sentences, sources), clock)
        if number >= 0:
            yield seconds


# --- figures -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scores:
    """Columns of the samples: a score, whether the sentence is supported, and the number of its passage's title,
    by which they are resampled."""

    values: Floats
    supported: NDArray[np.bool_]
    about: NDArray[np.int64]

    def where(self, rows: NDArray[np.bool_]) -> Scores:
        return Scores(self.values[rows], self.supported[rows], self.about[rows])

    def auroc(self) -> Estimate:
        return bootstrap_clusters(self.about, lambda weights: metrics.auroc(self.values, self.supported, weights))

    def threshold(self) -> Estimate:
        return replace(bootstrap_clusters(self.about, self._threshold), n=int(self.supported.sum()))

    def false_alarms(self) -> Estimate:
        return self._flagged(self.supported)

    def recall(self) -> Estimate:
        return self._flagged(~self.supported)

    def flagged_below(self, limit: float, rows: NDArray[np.bool_]) -> Estimate:
        """The share of these rows below a threshold that is set."""
        return self._flagged(rows, lambda weights: np.full(len(weights), limit))

    def _flagged(self, rows: NDArray[np.bool_], threshold: Callable[[Floats], Floats] | None = None) -> Estimate:
        """The share of these rows below the threshold. Each resample has one of its own, unless another is given."""
        limit_of = threshold if threshold is not None else self._threshold

        def statistic(weights: Floats) -> Floats:
            return metrics.share_below(self.values, limit_of(weights), weights * rows)

        return replace(bootstrap_clusters(self.about, statistic), n=int(rows.sum()))

    def _threshold(self, weights: Floats) -> Floats:
        """Never below 0: a sentence that is refused is flagged whatever `verify.min_support` is."""
        return np.maximum(metrics.threshold(self.values, FALSE_ALARMS, weights * self.supported), 0.0)


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk. Raises `UsageError` where there is no pair."""
    head, samples = results.Samples(folder).of(BENCH)
    made = [sample for sample in samples if "id" in sample]
    if not made:
        raise results.lacking("pair", folder / results.SAMPLES)
    supported = np.array([sample["label"] == "supported" for sample in made])
    verbatim = np.array([sample["verbatim"] for sample in made])
    probability = np.array([sample["probabilities"]["supported"] for sample in made])
    refused = np.array([not sample["numbers_stand"] or sample["opposite"] for sample in made])
    about = np.array([sample["about"] for sample in made])
    served = Scores(np.where(refused, REFUSED, probability), supported, about)
    unguarded = Scores(probability, supported, about)

    figures = results.Figures()
    figures.estimated("auroc", served.auroc, "area", at_least=0.90)
    figures.estimated("auroc_not_verbatim", served.where(~supported | ~verbatim).auroc, "area")
    figures.estimated("auroc_verbatim_only", served.where(~supported | verbatim).auroc, "area")
    figures.estimated("auroc_without_guard", unguarded.auroc, "area")
    figures.add("not_verbatim", list(1.0 - verbatim[supported]), np.mean, "share", at_least=0.5)
    figures.estimated("threshold", served.threshold, "probability")
    figures.estimated("false_alarms", served.where(supported).false_alarms, "share", at_most=FALSE_ALARMS)
    of_kind = {
        kind: supported | np.array([sample["kind"] == kind for sample in made]) for kind in _kinds(made, supported)
    }
    for kind, rows in of_kind.items():
        goal = 0.80 if kind in KINDS else None
        figures.estimated(f"recall_{kind}", served.where(rows).recall, "share", at_least=goal)
    for kind in KINDS:
        figures.estimated(f"recall_{kind}_without_guard", unguarded.where(of_kind[kind]).recall, "share")
    as_set = head["settings"]["verify"]["min_support"]
    figures.estimated("false_alarms_as_set", partial(served.flagged_below, as_set, supported), "share")
    figures.estimated("recall_as_set", partial(served.flagged_below, as_set, ~supported), "share")
    seconds = [sample["seconds"] for sample in samples if "seconds" in sample]
    figures.ms("latency_ms", seconds, at_most=30)
    results.write(folder, head, figures.all, [*_notes(head, made), *figures.notes])
    return figures.all


def _kinds(samples: Sequence[Sample], supported: Sequence[bool] | NDArray[np.bool_]) -> list[str]:
    """Of sentences that aren't supported: the corruptions, then the others."""
    found = {sample["kind"] for sample, right in zip(samples, supported, strict=True) if not right}
    return [*KINDS, *sorted(found - set(KINDS))]


def _notes(head: Mapping[str, Any], samples: Sequence[Sample]) -> list[str]:
    settings = head["settings"]
    sources = Counter(sample["source"] for sample in samples)
    labels = Counter(sample["label"] for sample in samples)
    return [
        f"Held-out pairs: {_counted(labels)}; {_counted(sources)}. The score is the probability of `supported`, and "
        f"{REFUSED:g} where a number of the sentence doesn't stand in the passage, or it says the opposite of what it follows word by "
        "word (the guards of `rag.verify`). "
        "`auroc`: supported against all others. `threshold` is the highest that no more than "
        f"{FALSE_ALARMS:.0%} of the supported ones lie below, the recalls are at it. `_as_set`: at "
        f"`verify.min_support`, {settings['verify']['min_support']:g}, all kinds together. `_without_guard`: by the model alone, "
        "at the threshold that it needs. Some of the opposites were written after reading what was missed on these pairs. Intervals: "
        "bootstrap over the titles of the passages.",
        "",
        f"`{settings['verify']['model']}` runs on {settings['backend']}. `latency_ms`: `check` of an answer of "
        f"{SENTENCES} sentences, each citing a passage of {CHARS} characters; the median of answers checked once each.",
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
