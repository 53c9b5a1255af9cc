"""Batches of a training whose rows are about as long as each other."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TOGETHER = 32


def sampler(dataset: Any, **given: Any) -> Any:
    """`by_length` for sentence-transformers' trainers. They pickle their arguments, so this is a function and no class of
    another's."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class ByLength(DefaultBatchSampler):  # type: ignore[misc]
        def __iter__(self) -> Iterator[list[int]]:
            return iter(by_length(dataset.to_dict(), self.batch_size, self.seed + self.epoch))

    return ByLength(dataset, **given)


def by_length(columns: Mapping[str, Sequence[Any]], size: int, seed: int) -> list[list[int]]:
    """Batches of rows of about one length, in any order: what a batch is padded to is computed too, which of short pairs is
    a third of all. Rows are sorted among those of `TOGETHER` batches, drawn at random, so that the batches of an epoch differ."""
    lengths = [sum(map(_longest, row)) for row in zip(*columns.values(), strict=True)]
    chance = random.Random(seed)
    rows = chance.sample(range(len(lengths)), len(lengths))
    batches = []
    for start in range(0, len(rows), size * TOGETHER):
        some = sorted(rows[start : start + size * TOGETHER], key=lengths.__getitem__)
        batches += [some[first : first + size] for first in range(0, len(some), size)]
    return chance.sample(batches, len(batches))


def _longest(value: Any) -> int:
    """Characters of a text, or of the longest of a list of them; of a label none."""
    if isinstance(value, list):
        return max(map(_longest, value), default=0)
    return len(value) if isinstance(value, str) else 0
