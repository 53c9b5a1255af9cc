"""`rag bench batch` on fakes: its figures by hand, the ways to ask that it holds against one another, and what of a run is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import combinations, count
from pathlib import Path
from typing import Any

import pytest
import serving
from beside import WARM_UP, Engine
from evaluating import ANSWERS, MALARIA, SCURVY, SET
from serving import LOADED

from rag import settings
from rag.bench import results
from rag.cache import Memory, QuestionCache, QuestionCaches
from rag.core import GenerationParams, GenerationStats, Message, Opening
from rag.errors import EngineDied, EngineError, UsageError
from rag.evaluate import QuestionSet
from rag.figures import Figure
from rag.pipeline import Pipeline
from rag.search import HybridSearcher
from rag.settings import Batch, Loaded
from rag.testing import FakeEncoder, FakeReranker, FakeSupportChecker
from rag.variants import asking, batching
from rag.variants.batching.figures import RATIOS
from rag.variants.batching.modes import AHEAD, BATCH, DRAFTING, MODES, NOT_AHEAD, SINGLE, Mode, loads_of
from rag.variants.turns import order

NAMES = [mode.name for mode in MODES if mode.name != AHEAD]
"""Where a batch looks ahead: with looking ahead it would be itself."""
FIRST = order(NAMES, 0)
"""In the first round."""
TEXTS = [question.question for question in SET.first(None)]

MOST_WAITED = 10.0
"""Seconds until a test fails where fewer are asked at once than are to be."""


def quiet(what: str, done: int = 0, total: int = 0) -> None:
    del what, done, total


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    monkeypatch.setattr(asking, "LOOK", 0.0)
    monkeypatch.setattr(
        batching,
        "depends_on",
        lambda loaded, questions, report: {"cores": loaded.settings.generator.cores},  # noqa: ARG005
    )


# --- the ways to ask -------------------------------------------------------------------------------


def mode(name: str) -> Mode:
    return next(one for one in MODES if one.name == name)


def test_every_figure_is_of_ways_that_are_taken() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {name for mode, other, _ in RATIOS.values() for name in (mode, other)} == {*NAMES, AHEAD}


def test_each_way_differs_from_a_batch_in_what_its_name_says() -> None:
    settled = {"lookahead": 16, "search_batch": 4, "order": "prefix", "cores": "0-1", "together": 3}
    loaded = settings.load(environ={}, device="cpu").having("batch", at_once=4, **settled)
    asked = loaded.settings.batch

    def of(name: str) -> Batch:
        return mode(name).settings(loaded).batch

    batch = of("batch")
    assert batch == asked.model_copy(update={"order": "input"})
    assert of("prefix_order") == asked
    assert of("single_cores") == batch
    assert of("without_lookahead") == batch.model_copy(update={"lookahead": 0})
    assert of("with_lookahead") == batch
    assert of("one_by_one") == batch.model_copy(update={"together": 1})
    for name in ("sequential", "gather"):
        assert of(name) == batch.model_copy(update={"lookahead": 0, "together": 1}), name
    assert {one.name: one.of for one in MODES if one.of != BATCH} == {
        "sequential": SINGLE,
        "single_cores": SINGLE,
        "always_drafting": DRAFTING,
    }
    assert {one.name for one in MODES if one.at_once is not None} == {"sequential", "gather"}


def test_a_batch_that_does_not_look_ahead_is_held_against_one_that_does() -> None:
    loaded = settings.load(environ={}, device="cpu").having("batch", lookahead=0)
    batch = loaded.settings.batch
    assert mode("batch").settings(loaded).batch == mode(NOT_AHEAD).settings(loaded).batch == batch
    usual = Batch().lookahead
    assert mode(AHEAD).settings(loaded).batch == batch.model_copy(update={"lookahead": usual})
    assert mode("prefix_order").settings(loaded).batch == batch.model_copy(
        update={"lookahead": usual, "order": "prefix"}
    )
    many = loaded.having("batch", search_batch=usual + 1)
    assert mode(AHEAD).settings(many).batch.lookahead == usual + 1


def test_drafts_by_load_cores_and_prompts_together_are_compared_where_the_settings_differ() -> None:
    def names(*assignments: str) -> set[str]:
        loads = loads_of(settings.load(environ={}, assignments=assignments, device="cpu"))
        return {one.name for one in MODES if one.can_be_had(loads)}

    always = {"batch", "sequential", "gather", "prefix_order"}
    assert names(
        "generator.speculation.max_batch_size=2", "batch.cores=0-1", "batch.together=2", "batch.lookahead=8"
    ) == set(NAMES)
    same = ("batch.cores=null", "batch.together=1")
    assert names("generator.speculation.max_batch_size=null", "batch.lookahead=0", *same) == always | {AHEAD}
    assert names("generator.speculation.method=none", "batch.lookahead=8", *same) == always | {NOT_AHEAD}


# --- figures ---------------------------------------------------------------------------------------

SECONDS: Mapping[str, Sequence[float]] = {
    "batch": (2.0, 2.0),
    "sequential": (4.0, 6.0),
    "gather": (2.0, 1.0),
    "without_lookahead": (3.0, 3.0),
    "one_by_one": (2.2, 2.2),
    "prefix_order": (1.0, 1.5),
    "single_cores": (2.5, 2.5),
    "always_drafting": (3.5, 3.5),
}
LOOKING_AHEAD = {"batch", "one_by_one", "prefix_order", "single_cores", "always_drafting"}
AHEAD_OF = {"ahead": 7, "late": 2, "alone": 1, "wasted": 0}


def ran(name: str, number: int, seconds: float, lookahead: Mapping[str, int] | None = None) -> dict[str, Any]:
    fields = {"kind": "run", "round": number, "mode": name, "seconds": seconds}
    return {**fields, "questions": 10, "output_tokens": 400, "lookahead": lookahead}


def runs(seconds: Mapping[str, Sequence[float]] = SECONDS, looked_ahead: bool = True) -> list[dict[str, Any]]:
    return [
        ran(name, number, one, AHEAD_OF if looked_ahead and name in LOOKING_AHEAD else None)
        for number in range(2)
        for name, some in seconds.items()
        for one in some[number : number + 1]
    ]


def head(lookahead: int = 8) -> dict[str, Any]:
    return results.header("batch", "rag bench batch", settings={"batch": {BATCH: {"lookahead": lookahead}}})


def summarised(folder: Path, samples: Sequence[Mapping[str, Any]], lookahead: int = 8) -> dict[str, Figure]:
    store = results.Samples(folder)
    store.start(head(lookahead))
    for one in samples:
        store.add(one)
    return {figure.name: figure for figure in batching.summarise(folder)}


def test_every_figure_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    figures = summarised(tmp_path, runs())
    assert {name: figure.value for name, figure in figures.items()} == {
        name: pytest.approx(value)
        for name, value in {
            "batch_over_sequential": 10 / 4,
            "batch_over_gather": 3 / 4,
            "lookahead_gain": 6 / 4,
            "together_gain": 4.4 / 4,
            "prefix_order_gain": 4 / 2.5,
            "cores_gain": 5 / 4,
            "drafts_by_load_gain": 7 / 4,
            "questions_per_s@batch": 5.0,
            "questions_per_s@sequential": (10 / 4 + 10 / 6) / 2,
            "questions_per_s@gather": 7.5,
            "questions_per_s@without_lookahead": 10 / 3,
            "questions_per_s@one_by_one": 10 / 2.2,
            "questions_per_s@prefix_order": (10 + 10 / 1.5) / 2,
            "questions_per_s@single_cores": 4.0,
            "questions_per_s@always_drafting": 10 / 3.5,
        }.items()
    }
    assert {(figure.name, figure.goal, figure.met) for figure in figures.values() if figure.goal is not None} == {
        ("batch_over_sequential", ">= 1.8", True),
        ("batch_over_gather", "interval >= 1, of six rounds at least", False),
    }
    assert (figures["batch_over_sequential"].lo, figures["batch_over_sequential"].hi) == (2.0, 3.0)
    assert {figure.n for figure in figures.values()} == {2}
    report = (tmp_path / "report.md").read_text()
    assert "10 questions a run." in report
    assert "7 had been searched when they were asked, 2 were being searched, and 1 were searched then." in report


def test_looking_ahead_gains_the_same_whichever_of_both_a_batch_does(tmp_path: Path) -> None:
    """Two seconds with it, three without."""
    samples = [ran("batch", 0, 3.0), ran(AHEAD, 0, 2.0, AHEAD_OF), ran("prefix_order", 0, 1.0, AHEAD_OF)]
    figures = summarised(tmp_path, samples, lookahead=0)
    assert (figures["lookahead_gain"].value, figures["prefix_order_gain"].value) == (1.5, 2.0)
    assert "Looking ahead, of a run's questions 7 had been searched" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("rounds", "gather", "shown"), [(1, 9.0, False), (5, 9.0, False), (6, 2.0, True), (6, 1.9, False)]
)
def test_that_a_batch_is_not_slower_than_all_at_once_is_met_where_enough_rounds_show_it(
    tmp_path: Path, rounds: int, gather: float, shown: bool
) -> None:
    took = {"batch": 2.0, "gather": gather}
    figures = summarised(tmp_path, [ran(mode, n, took[mode]) for mode in took for n in range(rounds)])
    assert figures["batch_over_gather"].met is shown


def test_runs_of_one_round_belong_together_and_what_has_no_partner_is_left_out(tmp_path: Path) -> None:
    """As an interrupted run leaves it: the second round has two ways, and the batch isn't among them."""
    samples = [one for one in runs() if one["round"] == 0 or one["mode"] in ("gather", "sequential")]
    figures = summarised(tmp_path, samples)
    assert {name: figures[name].n for name in RATIOS} == dict.fromkeys(RATIOS, 1)
    assert figures["batch_over_sequential"].value == 2.0
    assert figures["questions_per_s@gather"].n == 2


def test_the_order_of_the_samples_does_not_matter(tmp_path: Path) -> None:
    assert summarised(tmp_path / "one", runs()) == summarised(tmp_path / "other", runs()[::-1])


def test_what_is_not_measured_yet_is_named(tmp_path: Path) -> None:
    figures = summarised(tmp_path, runs({"batch": (2.0,), "gather": (1.0,)}))
    assert set(figures) == {"batch_over_gather", "questions_per_s@batch", "questions_per_s@gather"}
    report = (tmp_path / "report.md").read_text()
    assert "Not defined for so few samples: `batch_over_sequential`, `lookahead_gain`," in report
    assert set(summarised(tmp_path, runs({"sequential": (4.0,)}))) == {"questions_per_s@sequential"}


def test_without_look_ahead_nothing_is_said_of_it(tmp_path: Path) -> None:
    """`--set batch.lookahead=0`, or kept answers, which nothing is searched ahead for."""
    figures = summarised(tmp_path, runs(looked_ahead=False))
    assert figures["batch_over_sequential"].value == 2.5
    assert "had been searched" not in (tmp_path / "report.md").read_text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No run in"):
        summarised(tmp_path, [])
    with pytest.raises(UsageError, match="No samples in"):
        batching.summarise(tmp_path / "nowhere")


def test_the_report_is_the_same_from_the_same_samples(tmp_path: Path) -> None:
    summarised(tmp_path, runs())
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"samples.jsonl", "summary.json", "report.md"}
    batching.summarise(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


# --- what is taken ---------------------------------------------------------------------------------


class Watched(Engine):
    """`at_once` tells for each run how many questions it got at most at a time, `questions` which, in their order.

    `waits` has for each run how many are to be open before the first is answered: without it a loaded machine could answer some
    before others are searched."""

    def __init__(
        self,
        answers: Mapping[str, str | Exception] = ANSWERS,
        dies_at: str | None = None,
        waits: Collection[int] = (),
    ) -> None:
        super().__init__(answers, dies_at)
        self.at_once: list[int] = []
        self._waits = list(waits)
        self.questions: list[list[str]] = []
        self._open = 0

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[Opening | str | GenerationStats, None]:
        question = messages[-1]["content"].rpartition("Question: ")[2].strip()
        if question == WARM_UP:
            self.at_once.append(0)
            self.questions.append([])
        else:
            self.questions[-1].append(question)
        self._open += question != WARM_UP
        self.at_once[-1] = max(self.at_once[-1], self._open)
        try:
            await self._gathered()
            async with aclosing(super().stream(messages, params)) as items:
                async for item in items:
                    yield item
        finally:
            self._open -= question != WARM_UP

    async def _gathered(self) -> None:
        run = len(self.at_once) - 1
        if self._waits and self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(MOST_WAITED):
                    while self.at_once[run] < self._waits[run]:
                        await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)  # more than are to be would come now


class Opened:
    """Opens both pipelines over the index under `root`, with one engine; where finished answers are kept, both keep them."""

    def __init__(self, root: Path, engine: Engine) -> None:
        self.root, self.engine, self.count = root, engine, 0

    @asynccontextmanager
    async def __call__(self, loads: Mapping[str, Loaded], report: Any) -> AsyncIterator[dict[str, Pipeline]]:
        report("starting the engine")
        self.count += 1
        searcher = HybridSearcher(serving.search(self.root).index, LOADED.settings.retrieve, FakeReranker())
        pipelines = {}
        for name, one in loads.items():
            answers: QuestionCache[Any] = QuestionCache(Memory(64, 100))
            pipelines[name] = Pipeline(
                one.settings,
                one.profile,
                FakeEncoder(),
                searcher,
                self.engine,
                FakeSupportChecker(),
                caches=QuestionCaches(answers=answers) if one.settings.cache.answers else None,
            )
        try:
            yield pipelines
        finally:
            for pipeline in pipelines.values():
                pipeline.close()


def load(*assignments: str) -> dict[str, Loaded]:
    few = (
        "verify.model=null",
        "rerank.model=null",
        "abstain.weigh=false",
        "batch.search_batch=2",
        "batch.together=2",
        "batch.lookahead=32",
    )
    loaded = settings.load(environ={}, assignments=[*few, *assignments])
    cores = settings.load(environ={}, assignments=[*few, *assignments, "generator.cores=0"])
    return {SINGLE: loaded, BATCH: cores, DRAFTING: cores}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    serving.write(tmp_path / "indexes")
    return tmp_path / "indexes"


async def take(
    root: Path,
    folder: Path,
    engine: Engine | None = None,
    *,
    rounds: int = 2,
    some: int | None = None,
    loads: Mapping[str, Loaded] | None = None,
    questions: QuestionSet = SET,
    progress: Any = quiet,
) -> Opened:
    opened = Opened(root, engine if engine is not None else Watched())
    ticks = count()
    await batching.measure(
        loads if loads is not None else load(),
        questions,
        some,
        rounds,
        folder,
        "rag bench batch",
        progress,
        opened,
        lambda: float(next(ticks)),
    )
    return opened


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return results.Samples(folder).read()[1]


def turns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    return [(row["round"], row["mode"]) for row in rows]


async def test_ways_take_turns_so_that_each_is_as_often_before_another_as_after_it(root: Path, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    await take(root, tmp_path / "out", rounds=6, progress=lambda *what: told.append(what))
    rows = rows_of(tmp_path / "out")
    orders = [[name for number, name in turns(rows) if number == one] for one in range(6)]
    assert [sorted(names) for names in orders] == [sorted(NAMES)] * 6
    for one, other in combinations(NAMES, 2):
        assert sum(names.index(one) < names.index(other) for names in orders) == 3
    assert told[-1] == ("runs", 6 * len(NAMES), 6 * len(NAMES))
    assert [one[1] for one in told if one[0] == "runs"] == list(range(6 * len(NAMES) + 1))


async def test_a_run_is_all_questions_in_the_way_that_its_mode_has(root: Path, tmp_path: Path) -> None:
    at_once = {
        "batch": 2,
        "sequential": 1,
        "gather": 5,
        "without_lookahead": 2,
        "one_by_one": 2,
        "prefix_order": 2,
        "single_cores": 2,
        "always_drafting": 2,
    }
    engine = Watched(waits=[at_once[name] for name in FIRST])
    await take(root, tmp_path / "out", engine, rounds=1, loads=load("batch.at_once=2"))
    rows = rows_of(tmp_path / "out")
    assert [sorted(one) for one in engine.questions] == [sorted(TEXTS)] * len(NAMES)
    assert dict(zip(FIRST, engine.at_once, strict=True)) == at_once
    by_mode = dict(zip(FIRST, engine.questions, strict=True))
    for name in ("sequential", "one_by_one"):
        assert by_mode[name] == TEXTS, name
    ahead = {row["mode"]: row["lookahead"] for row in rows}
    assert {name for name, counts in ahead.items() if counts is not None} == LOOKING_AHEAD
    for counts in filter(None, ahead.values()):
        assert counts["ahead"] + counts["late"] + counts["alone"] == 5
        assert counts["wasted"] == 0
    assert {(row["kind"], row["questions"], row["seconds"]) for row in rows} == {("run", 5, 1.0)}
    assert len({row["output_tokens"] for row in rows}) == 1
    assert rows[0]["output_tokens"] > 0


async def test_each_run_begins_with_nothing_but_the_instruction_in_the_engine_s_cache(
    root: Path, tmp_path: Path
) -> None:
    engine = Watched()
    await take(root, tmp_path / "out", engine, rounds=1)
    begins = [place for place, did in enumerate(engine.did) if did == "forget"]
    assert [engine.did[place + 1] for place in begins] == [WARM_UP] * len(NAMES)
    assert begins == [7 * number for number in range(len(NAMES))]


async def test_as_many_as_the_engine_takes_are_asked_at_once_where_nothing_else_is_said(
    root: Path, tmp_path: Path
) -> None:
    at_once = dict.fromkeys(NAMES, 3) | {"sequential": 1, "one_by_one": 1, "gather": 5}
    engine = Watched(waits=[at_once[name] for name in FIRST])
    await take(root, tmp_path / "out", engine, rounds=1, loads=load("generator.max_num_seqs=1"))
    assert dict(zip(FIRST, engine.at_once, strict=True)) == at_once


async def test_some_of_the_questions_are_of_each_type_its_share(root: Path, tmp_path: Path) -> None:
    engine = Watched()
    await take(root, tmp_path / "out", engine, rounds=1, some=3)
    assert [sorted(one) for one in engine.questions] == [sorted(q.question for q in SET.first(3))] * len(NAMES)
    assert {row["questions"] for row in rows_of(tmp_path / "out")} == {3}


@pytest.mark.parametrize("runs_before", [0, 1, len(NAMES) - 1, len(NAMES), len(NAMES) + 2])
async def test_a_run_of_all_goes_on_where_it_was_interrupted(root: Path, tmp_path: Path, runs_before: int) -> None:
    folder = tmp_path / "out"
    engine = Watched()

    def interrupted(what: str, done: int = 0, total: int = 0) -> None:
        del total
        if (what, done) == ("runs", runs_before):
            engine.dies_at = SCURVY.question

    with pytest.raises(EngineDied):
        await take(root, folder, engine, progress=interrupted)
    before = (folder / "samples.jsonl").read_text().splitlines()
    assert len(before) == 1 + runs_before
    again = Watched()
    await take(root, folder, again)
    after = (folder / "samples.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    assert turns(rows_of(folder)) == [(0, name) for name in FIRST] + [(1, name) for name in FIRST[::-1]]
    assert len(again.questions) == 2 * len(NAMES) - runs_before


async def test_more_rounds_go_on_after_those_that_are_there(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    await take(root, folder, rounds=1)
    before = (folder / "samples.jsonl").read_bytes()
    assert (await take(root, folder, rounds=1)).count == 0
    assert (folder / "samples.jsonl").read_bytes() == before
    await take(root, folder, rounds=3)
    assert (folder / "samples.jsonl").read_bytes().startswith(before)
    assert len(rows_of(folder)) == 3 * len(NAMES)


@pytest.mark.parametrize("change", ["count", "settings", "questions"])
async def test_with_something_else_to_ask_it_begins_anew(root: Path, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "out"
    await take(root, folder, rounds=1)
    fewer = QuestionSet("five", SET.questions[:4])
    others: dict[str, dict[str, Any]] = {
        "count": {"some": 3},
        "settings": {"loads": load("batch.at_once=2")},
        "questions": {"questions": fewer},
    }
    await take(root, folder, rounds=1, **others[change])
    assert len(rows_of(folder)) == len(NAMES)
    assert len(results.Samples(folder).aside()) == 1


async def test_what_the_samples_depend_on_stands_in_their_header(root: Path, tmp_path: Path) -> None:
    loads = load("batch.at_once=2")
    await take(root, tmp_path / "out", rounds=1, some=4, loads=loads)
    head = json.loads((tmp_path / "out" / "samples.jsonl").read_text().splitlines()[0])
    assert (head["bench"], head["command"]) == ("batch", "rag bench batch")
    assert head["settings"] == {
        "questions": {**SET.head, "count": 4},
        "variants": {SINGLE: {"cores": "auto"}, BATCH: {"cores": "0"}, DRAFTING: {"cores": "0"}},
        "batch": {name: one.settings.batch.model_dump(mode="json") for name, one in loads.items()},
    }


@pytest.mark.parametrize("error", [EngineError("The engine is busy."), RuntimeError("boom")])
async def test_a_question_that_fails_ends_it_and_its_run_is_none(root: Path, tmp_path: Path, error: Exception) -> None:
    folder = tmp_path / "out"
    with pytest.raises(EngineError) as caught:
        await take(root, folder, Watched({**ANSWERS, MALARIA.question: error}))
    assert str(caught.value).startswith("Question 'q1' failed: ")
    assert str(error) in str(caught.value)
    assert rows_of(folder) == []
    await take(root, folder, rounds=1)
    assert len(rows_of(folder)) == len(NAMES)


async def test_of_kept_answers_none_is_given_again_in_another_run(root: Path, tmp_path: Path) -> None:
    """With a cache that a profile switches on: the second run would be of look-ups."""
    engine = Watched()
    loads = load("cache.enabled=true", "cache.answers=true")
    await take(root, tmp_path / "out", engine, rounds=1, loads=loads)
    assert [len(one) for one in engine.questions] == [5] * len(NAMES)


@pytest.mark.parametrize("assignment", ["batch.lookahead=0", "cache.answers=true"])
async def test_where_nothing_can_be_searched_ahead_it_is_measured_all_the_same(
    root: Path, tmp_path: Path, assignment: str
) -> None:
    engine = Watched()
    await take(root, tmp_path / "out", engine, rounds=1, loads=load("cache.enabled=true", assignment))
    assert {"batch_over_sequential"} <= {figure.name for figure in batching.summarise(tmp_path / "out")}
