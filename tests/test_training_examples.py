"""Examples drawn in shares and in an order that doesn't depend on their number; made once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from rag.errors import UsageError
from rag.training import examples
from rag.training.examples import draw, kept
from rag.training.grounded import Example, Piece

SHARES = {"long": 0.75, "short": 0.25}
SIZES = {"long": 50, "short": 3}


def one_round(name: str, chance: random.Random) -> Iterator[str]:
    """The round's own chance is in each, so that two rounds can be told apart."""
    mark = chance.randrange(10**9)
    return (f"{name}-{number}-{mark}" for number in range(SIZES[name]))


def drawn(count: int, seed: int = 0) -> list[str]:
    return list(islice(draw(SHARES, one_round, seed), count))


def test_a_seed_gives_the_same_examples_and_another_gives_others() -> None:
    assert drawn(120) == drawn(500)[:120]
    assert drawn(50) != drawn(50, seed=1)


def test_sources_come_by_their_shares() -> None:
    counts = Counter(item.partition("-")[0] for item in drawn(4000))
    assert counts["short"] / 4000 == pytest.approx(0.25, abs=0.03)


def test_a_source_gives_each_of_a_round_once_and_then_begins_another_with_its_own_chance() -> None:
    short = [item for item in drawn(100) if item.startswith("short")][:9]
    rounds = [short[at : at + 3] for at in (0, 3, 6)]
    assert all([item.split("-")[1] for item in one] == ["0", "1", "2"] for one in rounds)
    assert len({item.split("-")[2] for item in short}) == 3


def test_a_source_without_examples_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(ValueError, match="round 0 of empty has no examples"):
        next(draw({"empty": 1.0}, lambda *_: iter(()), 0))


# --- kept ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    name: str
    part: tuple[int, ...]


class Counting:
    """A source that counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def training(self, count: int, seed: int) -> list[Item]:
        self.asked.append("training")
        return [Item(f"{seed}", (number,)) for number in range(count)]

    def held_out(self, count: int, seed: int) -> list[Item]:
        self.asked.append("held out")
        return [Item(f"unseen {seed}", (number,)) for number in range(count)]


def test_examples_are_made_once(tmp_path: Path) -> None:
    source = Counting()
    made = kept(tmp_path, Item, 4, 2, 7, lambda: source)
    assert made == (source.training(4, 7), source.held_out(2, 7))
    source.asked.clear()

    def unwanted() -> Counting:
        raise AssertionError

    assert kept(tmp_path, Item, 4, 2, 7, unwanted) == made
    assert source.asked == []


@pytest.mark.parametrize(("wanted", "asked"), [((5, 2, 7), ["training"]), ((4, 3, 7), ["held out"])])
def test_only_what_is_not_there_is_made(tmp_path: Path, wanted: tuple[int, int, int], asked: list[str]) -> None:
    kept(tmp_path, Item, 4, 2, 7, Counting)
    source = Counting()
    training, held_out = kept(tmp_path, Item, *wanted, lambda: source)
    assert source.asked == asked
    assert (len(training), len(held_out)) == wanted[:2]


def test_an_example_comes_back_as_it_was(tmp_path: Path) -> None:
    given = [
        Example("m1", "one", "Why?", (Piece("Gout", "It is Zürich's."),), "It is. [1]", (1,)),
        Example("", "", "", (), "", ()),
    ]
    examples.write(tmp_path / "made.jsonl", given)
    assert examples.read(tmp_path / "made.jsonl", Example) == given


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    examples.write(path, [Item("a", (1,))])
    path.write_text(path.read_text() + '{"name": "b"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"made\.jsonl:2: no example of the kind Item"):
        examples.read(path, Item)
