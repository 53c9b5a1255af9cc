"""rag/variants/breakdown/lengths.py: prompts of an exact length, and the requests that are made of them. On fakes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
import serving
from beside import WARM_UP, Engine, Opened, plan_of, take

from rag import index, settings
from rag.core import Generator, Passage
from rag.errors import UsageError
from rag.index import PassageStore
from rag.prompt import SYSTEM
from rag.testing import FakeGenerator
from rag.variants import asking, breakdown
from rag.variants.breakdown import lengths
from rag.variants.breakdown.lengths import QUESTION, SHAPES, RequestShape, drawn, exactly

TEXTS = [
    "Malaria is a disease of the blood, which is caused by a parasite.",
    "Gout hurts.",
    "Scurvy is cured by lemons.",
]


def passages(titles: str = "Title") -> Iterator[Passage]:
    return cycle([Passage(f"p{n}", f"d{n}", titles, text, 0, len(text)) for n, text in enumerate(TEXTS)])


class Halves(FakeGenerator):
    """Its tokens are pairs of letters, so that a letter more is often none more, and some words are several."""

    def count_tokens(self, text: str) -> int:
        return (len(text) + 1) // 2


@pytest.mark.parametrize("generator", [FakeGenerator(), Halves()])
@pytest.mark.parametrize("titles", ["T", "A title of a good many words that costs more than there may be room for"])
@pytest.mark.parametrize("tokens", [*range(200, 240), 700, 701, 702])
def test_the_prompt_has_exactly_so_many_tokens(generator: Generator, titles: str, tokens: int) -> None:
    messages = exactly(tokens, passages(titles), generator.count_prompt_tokens)
    assert generator.count_prompt_tokens(messages) == tokens
    assert messages[0]["content"] == SYSTEM
    assert messages[1]["content"].startswith(f"[1] {titles}\n")
    assert messages[1]["content"].endswith(f"Question: {QUESTION}")


def test_the_passages_stand_in_it_in_their_order_and_the_last_is_cut() -> None:
    content = exactly(150, passages(), FakeGenerator().count_prompt_tokens)[1]["content"]
    assert content.startswith(f"[1] Title\n{TEXTS[0]}\n\n[2] Title\n{TEXTS[1]}\n\n[3] Title\n{TEXTS[2]}\n\n[4]")
    assert content.count("the the") == 0


def test_a_prompt_without_room_for_a_source_is_refused() -> None:
    with pytest.raises(UsageError, match="A prompt of 10 tokens has no room for a source"):
        exactly(10, passages(), FakeGenerator().count_prompt_tokens)


def test_each_repeat_draws_the_corpus_in_another_order_and_always_the_same(tmp_path: Path) -> None:
    serving.write(tmp_path)
    store = PassageStore(index.check_current(index.Versions(tmp_path, "test")).folder)

    def order(repeat: int) -> list[str]:
        found = drawn(len(store), lambda row: store.get([row])[0], str(repeat))
        return [next(found).id for _ in range(2 * len(store))]

    assert order(0) == order(0)
    assert order(0)[: len(store)] == order(0)[len(store) :]
    assert sorted(order(0)[: len(store)]) == sorted(order(1)[: len(store)])
    assert len({tuple(order(repeat)) for repeat in range(8)}) > 1


# --- as jobs -----------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index is under it, prompts and answers are short."""
    serving.write(tmp_path / "indexes")
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    monkeypatch.setattr(lengths, "SHAPES", (RequestShape(150, 5), RequestShape(100, 3)))
    checked = index.check_current(index.Versions(tmp_path / "indexes", "test"))
    monkeypatch.setattr(lengths.build, "check_index", lambda _: checked)
    return tmp_path


def rows(folder: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()[1:]]
    return [row for row in found if row["kind"] == "length"]


async def test_each_shape_is_asked_of_each_engine_of_the_sources_profiles_with_exactly_so_many_tokens(
    small: Path,
) -> None:
    engine, plan = Engine(), plan_of("v3", "v3_again", "v3_1", "v3_2", "auto")
    await take(small / "indexes", small / "results", engine, plan=plan, count=1, repeats=2)
    found = rows(small / "results")
    assert Counter((row["variant"], row["shape"]["prompt"], row["shape"]["answer"]) for row in found) == {  # type: ignore[index]
        (variant, *shape): 2 for variant in ("v3", "v3_2") for shape in ((150, 5), (100, 3))
    }
    for row in found:
        assert row["stats"]["prompt_tokens"] == row["shape"]["prompt"]  # type: ignore[index]
        assert row["stats"]["output_tokens"] == row["shape"]["answer"]  # type: ignore[index]
        assert row["seconds"] > 0  # type: ignore[operator]
    at = [number for number, one in enumerate(engine.did) if one == QUESTION]
    assert [engine.did[number - 2 : number] for number in at] == [["forget", WARM_UP]] * 8


async def test_a_further_repeat_goes_on_after_those_that_are_there(small: Path) -> None:
    plan = plan_of("v3", "v3_again")
    await take(small / "indexes", small / "results", plan=plan, count=1, repeats=1)
    first = (small / "results" / "samples.jsonl").read_text()
    engine = Engine()
    await take(small / "indexes", small / "results", engine, plan=plan, count=1, repeats=2)
    assert (small / "results" / "samples.jsonl").read_text().startswith(first)
    assert engine.did.count(QUESTION) == 2
    assert len(rows(small / "results")) == 4


def test_the_order_of_engines_and_shapes_changes_from_repeat_to_repeat() -> None:
    orders = [lengths._order(["v3", "v3_2"], repeat) for repeat in range(6)]
    assert all(Counter(one) == Counter((name, shape) for name in ("v3", "v3_2") for shape in SHAPES) for one in orders)
    assert len({tuple(one) for one in orders}) == 6


async def test_a_window_that_is_too_small_is_told_before_anything_is_opened(small: Path) -> None:
    loaded = settings.load(environ={}, assignments=["generator.max_model_len=4096"])
    plan = replace(plan_of("v3", "v3_again"), loads={"v3": loaded, "v3_again": loaded})
    opened = Opened(small / "indexes", Engine())
    with pytest.raises(UsageError) as caught:
        await breakdown.measure(plan, small / "results", 1, 1, lambda *_: None, opened)
    assert str(caught.value) == (
        "generator.max_model_len=4096 (from --set): prompts of 6,000 tokens and answers of 512 need 6,512. Raise it, or leave "
        "them out with --repeats 0."
    )
    assert opened.variants == []
    assert not (small / "results").exists()
    await take(small / "indexes", small / "results", plan=plan, count=1, repeats=0)


def test_the_embedded_models_window_holds_the_longest_of_them() -> None:
    loads = {profile: settings.load(profile, "embedded", environ={}) for profile in ("v3", "v3_1", "v3_2")}
    lengths.check(replace(plan_of(*loads), loads=loads))
