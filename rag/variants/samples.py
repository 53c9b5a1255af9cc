"""What is kept of each turn: a JSON line, beside those that a benchmark takes of something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from rag.bench import results
from rag.errors import UsageError
from rag.evaluate.samples import Head, Sample, unreadable
from rag.evaluate.samples import row as evaluated
from rag.records import problems
from rag.variants.turns import Key

ANSWER, LENGTH = "answer", "length"
"""Kinds of samples: an answer to a question, and a request of a fixed length (`breakdown.lengths`)."""
KINDS = (ANSWER, LENGTH)

Row: TypeAlias = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a turn; `sample` is as an evaluation keeps it."""

    variant: str
    block: int
    cold: bool
    sample: Sample

    @property
    def key(self) -> Key:
        return self.variant, self.sample.id, self.cold


_TAKEN = TypeAdapter(Taken)


def row(taken: Taken) -> dict[str, Any]:
    return {"kind": ANSWER, **asdict(taken), "sample": evaluated(taken.sample)}


def resume(folder: Path, head: Head) -> list[Row]:
    """What an earlier run with the same questions and settings took, to go on after it; answers that failed in it are taken out,
    to be asked again. Raises what `results.Samples.resume` raises, and `UsageError` for a line that is no sample."""
    samples = results.Samples(folder)
    rows = samples.resume(head)
    answers(folder, rows)
    kept: list[Row] = [one for one in rows if one["kind"] != ANSWER or one["sample"]["error"] is None]
    if len(kept) < len(rows):
        samples.replace(results.header_of(samples.path), kept)
    return kept


def read(folder: Path, bench: str) -> tuple[Head, list[Row]]:
    """Raises `UsageError` where there is nothing, or it is of another benchmark."""
    samples = results.Samples(folder)
    head, rows = samples.of(bench)
    return head, list(rows)


def answers(folder: Path, rows: Sequence[Row]) -> list[Taken]:
    """Those among a file's rows. Raises what `of_kind` raises."""
    return of_kind(ANSWER, _TAKEN, lambda one: one.key, folder, rows)


def of_kind(
    kind: str, reader: TypeAdapter[T], key: Callable[[T], tuple[object, ...]], folder: Path, rows: Sequence[Row]
) -> list[T]:
    """The samples of a kind among a file's rows. Raises `UsageError` for a line that this version can't read, and where two have
    the same key."""
    path = folder / results.SAMPLES
    found: dict[tuple[object, ...], T] = {}
    for number, one in enumerate(rows, start=2):
        if one.get("kind") not in KINDS:
            raise unreadable(path, number, f"kind {one.get('kind')!r}")
        if one["kind"] != kind:
            continue
        try:
            sample = reader.validate_python(one)
        except ValidationError as error:
            raise unreadable(path, number, str(problems(error)[0])) from None
        if key(sample) in found:
            named = ", ".join(map(str, key(sample)))
            raise UsageError(f"{path}:{number}: {named} appears twice. Remove one of the two lines.")
        found[key(sample)] = sample
    return list(found.values())
