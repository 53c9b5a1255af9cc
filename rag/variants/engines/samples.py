"""What is kept of engines and of their requests: a JSON line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from rag.bench import results
from rag.core import GenerationStats
from rag.errors import UsageError
from rag.evaluate.samples import Head
from rag.variants.breakdown.lengths import Length, Shape
from rag.variants.breakdown.source import MEAN_ANSWER
from rag.variants.engines.worker import WeightBytes

Kind = Literal["alone", "again", "together"]
"""A request with nothing in the prefix cache; its first token once more, with its prompt in the cache; several at once."""

Key: TypeAlias = tuple[Kind, str, Shape, int]

START = "start"

ALIKE = Shape(3000, MEAN_ANSWER)
"""At which engines are held against one another, whatever lengths the source has for their profiles; also together."""


@dataclass(frozen=True, slots=True)
class Start:
    """What became of an engine: seconds until it was ready and its weights, or why it isn't there."""

    variant: str
    seconds: float | None = None
    weights: WeightBytes | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a turn: the seconds of all its requests together, the tokens of all their answers, and what the engine reports
    of the first."""

    kind: Kind
    variant: str
    shape: Shape
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


_START, _TAKEN = TypeAdapter(Start), TypeAdapter(Taken)


def row(one: Start | Taken) -> dict[str, Any]:
    return {"kind": START, **asdict(one)} if isinstance(one, Start) else asdict(one)


def read(folder: Path) -> tuple[Head, list[Start], list[Taken]]:
    """The last start of each variant, and what was taken. Raises `UsageError` where there is nothing, or a line is none of these."""
    head, rows = results.Samples(folder).read()
    starts, taken = parse(folder, rows)
    return head, starts, taken


def parse(folder: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Start], list[Taken]]:
    starts: dict[str, Start] = {}
    taken: dict[Key, Taken] = {}
    for number, one in enumerate(rows, start=2):
        try:
            if one.get("kind") == START:
                start = _START.validate_python({name: value for name, value in one.items() if name != "kind"})
                starts[start.variant] = start
            else:
                sample = _TAKEN.validate_python(one)
                taken[sample.key] = sample
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise UsageError(
                f"{folder / results.SAMPLES}:{number}: no sample of this version of rag ({where}: {problem['msg']}). "
                "Remove the folder, or choose another one with --output."
            ) from None
    return list(starts.values()), list(taken.values())
