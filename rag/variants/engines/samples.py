"""What is kept of engines and of their requests: a JSON line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from rag.bench import results
from rag.core import GenerationStats, Technique
from rag.engine.evidence import Weights
from rag.evaluate.samples import Head, unreadable
from rag.records import problems
from rag.variants.breakdown.lengths import Length, RequestShape
from rag.variants.breakdown.source import MEAN_ANSWER

Kind = Literal["alone", "again", "together"]
"""A request with nothing in the prefix cache; its first token once more, with its prompt in the cache; several at once."""

Key: TypeAlias = tuple[Kind, str, RequestShape, int]

START, ENGAGED = "start", "engaged"

ALIKE = RequestShape(3000, MEAN_ANSWER)
"""At which engines are held against one another, whatever lengths the source has for their profiles; also together."""

BENCH = "engines"


@dataclass(frozen=True, slots=True)
class Start:
    """What became of an engine: seconds until it was ready and its weights, or why it isn't there."""

    variant: str
    seconds: float | None = None
    weights: Weights | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Engaged:
    """What an engine told of its techniques at the end, of all that it had been asked since its start."""

    variant: str
    techniques: Mapping[str, Technique]


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a turn: the seconds of all its requests together, the tokens of all their answers, and what the engine reports
    of the first."""

    kind: Kind
    variant: str
    shape: RequestShape
    repeat: int
    requests: int
    seconds: float
    output_tokens: int
    stats: GenerationStats

    @property
    def key(self) -> Key:
        return self.kind, self.variant, self.shape, self.repeat

    @property
    def length(self) -> Length:
        """Of a request alone."""
        return Length(self.variant, self.shape, self.repeat, self.seconds, self.stats)


@dataclass(frozen=True, slots=True)
class Samples:
    """By variant its last start, the weights of the last one that came about, and what it told last; of each turn what was taken."""

    starts: Mapping[str, Start]
    weights: Mapping[str, Weights]
    engaged: Mapping[str, Engaged]
    taken: Mapping[Key, Taken]


_START, _ENGAGED, _TAKEN = TypeAdapter(Start), TypeAdapter(Engaged), TypeAdapter(Taken)


def row(one: Start | Engaged | Taken) -> dict[str, Any]:
    if isinstance(one, Taken):
        return asdict(one)
    return {"kind": START if isinstance(one, Start) else ENGAGED, **asdict(one)}


def read(folder: Path) -> tuple[Head, Samples]:
    """Raises `UsageError` where there is nothing, and what `parse` raises."""
    head, rows = results.Samples(folder).of(BENCH)
    return head, parse(folder, rows)


def parse(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Samples:
    """Of a file's rows. Raises `UsageError` for one that is none of these."""
    starts: dict[str, Start] = {}
    weights: dict[str, Weights] = {}
    engaged: dict[str, Engaged] = {}
    taken: dict[Key, Taken] = {}
    for number, one in enumerate(rows, start=2):
        rest = {name: value for name, value in one.items() if name != "kind"}
        try:
            if one.get("kind") == START:
                start = _START.validate_python(rest)
                starts[start.variant] = start
                if start.weights is not None:
                    weights[start.variant] = start.weights
            elif one.get("kind") == ENGAGED:
                told = _ENGAGED.validate_python(rest)
                engaged[told.variant] = told
            else:
                sample = _TAKEN.validate_python(one)
                taken[sample.key] = sample
        except ValidationError as error:
            raise unreadable(folder / results.SAMPLES, number, str(problems(error)[0])) from None
    return Samples(starts, weights, engaged, taken)
