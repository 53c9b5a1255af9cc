"""Pairs of questions that are held out: of topics that nothing was calibrated on, and near misses of MedQuAD's held-out sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rag import build, calibrate, paths
from rag.bench import SEED, results
from rag.calibrate import Pair
from rag.progress import Progress
from rag.settings import Loaded
from rag.training import datasets, matcher

KIND = "pair"
HELD_OUT = "heldout"

NEAR_MISSES = 800
"""Of MedQuAD, at most."""

AT_ONCE = 64


def held_out(root: Path) -> list[tuple[str, Pair]]:
    """With the source of each."""
    own = [("paraphrases", pair) for pair in calibrate.read_pairs(paths.shipped("eval", "paraphrases.jsonl"), HELD_OUT)]
    _, _, records = datasets.split_medquad(datasets.medquad(root))
    return own + [("medquad", pair) for pair in matcher.near_misses(records, NEAR_MISSES, SEED)]


def measure(
    loaded: Loaded, root: Path, samples: results.Samples, taken: Sequence[results.Sample], progress: Progress
) -> None:
    progress("making pairs")
    chosen = held_out(root)
    known = sum(sample["kind"] == KIND for sample in taken)
    if known < len(chosen):
        progress("pairs", known, len(chosen))
        samples.take(judged(loaded, chosen[known:], known), progress, "pairs", known, len(chosen))


def judged(loaded: Loaded, chosen: Sequence[tuple[str, Pair]], first: int = 0) -> Iterator[dict[str, Any]]:
    """Without the texts: MedQuAD's aren't ours to publish."""
    encoder, judge = build.open_encoder(loaded), build.open_matcher(loaded, anyhow=True)
    assert judge is not None
    for start in range(0, len(chosen), AT_ONCE):
        some = chosen[start : start + AT_ONCE]
        alike = calibrate.cosines(encoder, [pair for _, pair in some])
        same = judge.probabilities([(pair.a, pair.b) for _, pair in some])
        for number, ((source, pair), cosine, probability) in enumerate(
            zip(some, alike, same.tolist(), strict=True), start
        ):
            yield {
                "kind": KIND,
                "id": first + number,
                "source": source,
                "topic": pair.topic,
                "of": pair.kind,
                "same": pair.same,
                "cosine": cosine,
                "probability": probability,
            }
