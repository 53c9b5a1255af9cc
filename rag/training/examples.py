"""Examples to train on: drawn from several sources in fixed shares and a fixed order, and kept beside the training."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from rag.errors import UsageError
from rag.files import replacing_file

Item = TypeVar("Item")
Made = TypeVar("Made", covariant=True)

Round = Callable[[str, random.Random], Iterator[Item]]
"""(source, chance) to its examples, each once, in an order and in words of that chance."""


def draw(shares: Mapping[str, float], one_round: Round[Item], seed: int) -> Iterator[Item]:
    """Examples without end, the source of each by its share. A source that is through begins a new round.

    A longer training takes more of them, and so begins as a shorter one did. Raises `ValueError` where a round is empty.
    """
    chance = random.Random(f"{seed}-shares")
    names, weights = list(shares), list(shares.values())
    sources = {name: _endless(name, one_round, seed) for name in shares}
    while True:
        yield next(sources[chance.choices(names, weights)[0]])


def _endless(name: str, one_round: Round[Item], seed: int) -> Iterator[Item]:
    turn = 0
    while True:
        found = False
        for item in one_round(name, random.Random(f"{seed}-{name}-{turn}")):
            found = True
            yield item
        if not found:
            raise ValueError(f"round {turn} of {name} has no examples")
        turn += 1


def shuffled(items: Sequence[Item], chance: random.Random) -> list[Item]:
    return chance.sample(items, len(items))


class Examples(Protocol[Made]):
    """Gives the same examples for the same seed, the first ones whatever the count."""

    def training(self, count: int, seed: int) -> Sequence[Made]: ...

    def held_out(self, count: int, seed: int) -> Sequence[Made]: ...


def kept(
    folder: Path, kind: type[Item], training: int, held_out: int, seed: int, source: Callable[[], Examples[Item]]
) -> tuple[list[Item], list[Item]]:
    """So many examples of the dataclass `kind` to train on, and held-out ones. They are made once and stay in `folder`:
    a training that goes on sees what it saw, and needs neither the datasets nor their index."""
    paths = folder / f"examples-{training}-{seed}.jsonl", folder / f"held-out-{held_out}-{seed}.jsonl"
    if not all(path.is_file() for path in paths):
        made = source()
        for path, some, count in zip(paths, (made.training, made.held_out), (training, held_out), strict=True):
            if not path.is_file():
                write(path, some(count, seed))
    return read(paths[0], kind), read(paths[1], kind)


def write(path: Path, items: Sequence[Any]) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text("".join(json.dumps(asdict(item)) + "\n" for item in items), encoding="utf-8")


def read(path: Path, kind: type[Item]) -> list[Item]:
    """Raises `UsageError` where a line isn't one of `kind`."""
    adapter = TypeAdapter(kind)
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(adapter.validate_json(line))
        except ValidationError as error:
            raise UsageError(
                f"{path}:{number}: no example of the kind {kind.__name__}. Remove the file, and it is made again."
            ) from error
    return found
