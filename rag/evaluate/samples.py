"""What an evaluation keeps of each question: all that any figure is made of, a JSON line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from rag.bench import results
from rag.core import Answer, Hits
from rag.errors import UsageError
from rag.questions import Question
from rag.records import problems

BENCH = "eval"
VERDICTS = "verdicts.jsonl"

Head: TypeAlias = Mapping[str, Any]
"""The first line of a file of samples (`rag.bench.results.header`)."""

Verdict: TypeAlias = Literal["yes", "no", "unclear"]
"""A judge's: does the answer state what the reference does?"""


@dataclass(frozen=True, slots=True)
class Found:
    """The documents of the passages that the search found, best first, each as often as its passages: in the order of the
    fusion, and in the reranker's, None without one."""

    fused: tuple[str, ...]
    reranked: tuple[str, ...] | None

    @property
    def order(self) -> tuple[str, ...]:
        """The one that the answer was written from."""
        return self.reranked if self.reranked is not None else self.fused


def found(hits: Hits) -> Found:
    fused = sorted(hits, key=lambda hit: hit.fused_rank if hit.fused_rank is not None else len(hits))
    reranked = tuple(hit.passage.doc_id for hit in hits) if any(hit.rerank is not None for hit in hits) else None
    return Found(tuple(hit.passage.doc_id for hit in fused), reranked)


@dataclass(frozen=True, slots=True)
class Sample:
    """One question and what came of it: an `answer`, or the `error` that it failed with. `found` is None where it failed
    before anything was.

    `run` counts the runs that these samples were taken in, from 1; `at` is seconds since that one's first question, when this
    one ended. `verdict` is a judge's, and kept in a file of its own.
    """

    id: str
    question: Question
    found: Found | None
    answer: Answer | None
    error: str | None
    run: int
    at: float
    verdict: Verdict | None = None

    @property
    def given(self) -> Answer | None:
        """The answer, unless it declines."""
        return self.answer if self.answer is not None and not self.answer.abstained else None

    @property
    def judged(self) -> tuple[str, str | None]:
        """What a verdict is on: the question, and this answer to it, not another run's."""
        return self.id, self.answer.answer if self.answer is not None else None


_SAMPLE = TypeAdapter(Sample)


def row(sample: Sample) -> dict[str, Any]:
    fields = asdict(sample)
    del fields["verdict"]
    return fields


def resume(folder: Path, head: Head) -> list[Sample]:
    """The answers of an earlier run with the same questions and settings, to go on after them; questions that failed in it are
    taken out, to be asked again. Raises what `results.Samples.resume` raises."""
    samples = results.Samples(folder)
    rows = samples.resume(head)
    taken = _read(samples, rows)
    answered = [number for number, sample in enumerate(taken) if sample.error is None]
    if len(answered) < len(taken):
        samples.replace(results.header_of(samples.path), [rows[number] for number in answered])
    return [taken[number] for number in answered]


def read(folder: Path) -> tuple[Head, list[Sample]]:
    """In the order of their ids, whatever order they were finished in, with the verdicts that there are.

    Raises `UsageError` where there are none, or they are of another command or version.
    """
    samples = results.Samples(folder)
    head, rows = samples.of(BENCH, "rag eval")
    taken = sorted(_read(samples, rows), key=lambda sample: sample.id)
    if not taken:
        raise UsageError(f"No question in {samples.path}: run `rag eval` first, without --report-only.")
    verdicts = {judged(one): one["verdict"] for one in _verdicts(folder)[1]}
    return head, [replace(sample, verdict=verdicts.get(sample.judged)) for sample in taken]


def judged(verdict: Mapping[str, Any]) -> tuple[str, str | None]:
    """What it is a verdict on, as `Sample.judged`."""
    return verdict["id"], verdict.get("answer")


def _verdicts(folder: Path) -> tuple[Head, list[dict[str, Any]]]:
    verdicts = results.Samples(folder, VERDICTS)
    return verdicts.read() if verdicts.path.is_file() else ({}, [])


def judged_by(folder: Path) -> Head:
    """What made a judge of its server, whenever and wherever it was asked; empty where there was none."""
    return {name: value for name, value in _verdicts(folder)[0].items() if name == "settings"}


def unreadable(path: Path, number: int, why: str) -> UsageError:
    """Of a line that this version can't read."""
    return UsageError(
        f"{path}:{number}: no sample of this version of rag ({why}). "
        "Remove the folder, or choose another one with --output."
    )


def _read(samples: results.Samples, rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
    taken: dict[str, Sample] = {}
    for number, one in enumerate(rows, start=2):
        try:
            sample = _SAMPLE.validate_python(one)
        except ValidationError as error:
            raise unreadable(samples.path, number, str(problems(error)[0])) from None
        if sample.id in taken:
            raise UsageError(f"{samples.path}:{number}: {sample.id!r} appears twice. Remove one of the two lines.")
        taken[sample.id] = sample
    return list(taken.values())
