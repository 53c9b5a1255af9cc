"""`rag bench cache` on fakes: its figures by hand, the trace that it asks, what a look-up reads, and what of a run is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count, groupby, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import serving
import tiny_datasets
from beside import Engine
from evaluating import BOTH, MALARIA, SCURVY, SET
from serving import LOADED

from rag import build, calibrate, evaluate, paths, settings
from rag.bench import results
from rag.cache import CachedEncoder, CachedSearcher, Memory, QuestionCache, QuestionCaches, normalised
from rag.cli import commands
from rag.core import GenerationParams, Hits, Message
from rag.errors import EngineDied, EngineError, UsageError
from rag.matching import LABEL, QuestionMatcher, comparable
from rag.pipeline import Pipeline
from rag.search import HybridSearcher
from rag.settings import Cache, Loaded
from rag.stats import upper_bound
from rag.testing import FakeEncoder, FakeReranker, FakeSupportChecker
from rag.training import datasets
from rag.variants import asking, caching
from rag.variants.caching import latency, pairs, trace
from rag.variants.caching.trace import PASSES, Plan, Wording, plan

if TYPE_CHECKING:
    from rag.core import Matrix
    from rag.figures import Figure
    from rag.pairs import Logits

HEAD: dict[str, Any] = {
    **results.header("cache", "rag bench cache"),
    "settings": {"variants": {}, "trace": {}, "entries": 100, "min_same": 0.9, "min_cosine": -1.0},
}


def quiet(what: str, done: int = 0, total: int = 0) -> None:
    del what, done, total


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    monkeypatch.setattr(asking, "LOOK", 0.0)


# --- figures ---------------------------------------------------------------------------------------


def judged_pair(same: bool, probability: float, cosine: float, source: str = "paraphrases") -> dict[str, Any]:
    of = "paraphrase" if same else "near_miss" if source == "paraphrases" else "other kind"
    fields = {"kind": "pair", "id": 0, "source": source, "topic": "gout", "of": of}
    return {**fields, "same": same, "cosine": cosine, "probability": probability}


PAIRS = [
    judged_pair(True, 0.99, 0.95),
    judged_pair(True, 0.95, 0.70),
    judged_pair(True, 0.50, 0.85),
    judged_pair(True, 0.20, 0.62),
    judged_pair(False, 0.97, 0.92),
    judged_pair(False, 0.30, 0.86),
    judged_pair(False, 0.10, 0.65, "medquad"),
    judged_pair(False, 0.00, 0.88, "medquad"),
    judged_pair(False, 0.00, 0.61, "medquad"),
]
HITS = [
    {"kind": "hit", "round": number, "seconds": seconds, "repeat": repeat, "hit": True}
    for number, (seconds, repeat) in enumerate(((0.001, 0.0001), (0.003, 0.0005), (0.002, 0.0003)))
]


def passed(number: int, *rows: tuple[float, bool, float | None], error: str | None = None) -> list[dict[str, Any]]:
    """A pass over questions of which seconds, hit and key facts are known."""
    return [
        {
            "kind": "trace",
            "pass": number,
            "variant": PASSES[number],
            "place": place,
            "id": f"q{place}",
            "seconds": seconds,
            "error": error,
            "hit": hit,
            "similarity": None,
            "key_facts": facts,
        }
        for place, (seconds, hit, facts) in enumerate(rows)
    ]


TRACED = [
    *passed(0, (2.0, False, 1.0), (2.0, False, 0.5)),
    *passed(1, (2.0, False, 1.0), (0.5, True, 0.0)),
    *passed(2, (2.0, False, 1.0), (0.5, True, 0.5)),
    *passed(3, (3.0, False, 1.0), (1.0, False, 0.5)),
]


def summarised(folder: Path, samples: Sequence[Mapping[str, Any]], min_same: float = 0.9) -> dict[str, Figure]:
    store = results.Samples(folder)
    store.start({**HEAD, "settings": {**HEAD["settings"], "min_same": min_same}})
    for one in samples:
        store.add(one)
    return {figure.name: figure for figure in caching.summarise(folder)}


def values(figures: Mapping[str, Figure]) -> dict[str, float]:
    return {name: figure.value for name, figure in figures.items()}


def test_every_figure_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    figures = summarised(tmp_path, [*PAIRS, *HITS, *TRACED])
    assert values(figures) == {
        name: pytest.approx(value, abs=1e-6)
        for name, value in {
            "wrong_hit_upper95": 0.657408,  # (1 - p)^5 + 5 p (1 - p)^4 = 0.05
            "wrong_hit_upper95@medquad": upper_bound(0, 3),
            "wrong_hit_upper95@paraphrases": upper_bound(1, 2),
            "paraphrase_hit_rate": 2 / 4,
            "auroc": (5 + 4 + 4 + 3) / 20,
            "auroc_cosine": (5 + 2 + 2 + 1) / 20,
            # Half of the paraphrases have a cosine above 0.775, and so have three others.
            "cosine_wrong_rate_at_same_hit_rate": 3 / 5,
            "cosine_0.80_hit_rate": 2 / 4,
            "cosine_0.80_wrong_rate": 3 / 5,
            "cosine_0.85_hit_rate": 2 / 4,
            "cosine_0.85_wrong_rate": 3 / 5,
            "cosine_0.90_hit_rate": 1 / 4,
            "cosine_0.90_wrong_rate": 1 / 5,
            "cosine_0.95_hit_rate": 1 / 4,
            "cosine_0.95_wrong_rate": 0.0,
            "hit_p50_ms": 2.0,
            "exact_hit_p50_ms": 0.3,
            "skewed_trace_gain": 8 / 5,
            "trace_hit_rate": 2 / 4,
            "trace_key_fact_difference": -0.5 / 4,
        }.items()
    }
    assert {name: (figure.goal, figure.met) for name, figure in figures.items() if figure.goal is not None} == {
        "wrong_hit_upper95": ("<= 0.01", False),
        "paraphrase_hit_rate": (">= 0.6", False),
        "hit_p50_ms": ("<= 5", True),
        "exact_hit_p50_ms": ("<= 0.2", False),
        "skewed_trace_gain": (">= 1.3", True),
    }
    assert {name: figures[name].n for name in ("wrong_hit_upper95", "paraphrase_hit_rate", "skewed_trace_gain")} == {
        "wrong_hit_upper95": 5,
        "paraphrase_hit_rate": 4,
        "skewed_trace_gain": 2,
    }


@pytest.mark.parametrize(("wrong", "others", "met"), [(0, 299, True), (0, 298, False), (1, 473, True), (1, 472, False)])
def test_the_goal_is_of_the_bound_and_not_of_the_rate(tmp_path: Path, wrong: int, others: int, met: bool) -> None:
    rows = [judged_pair(False, 0.9, 0.9)] * wrong + [judged_pair(False, 0.89, 0.9)] * (others - wrong)
    figure = summarised(tmp_path, [*PAIRS[:1], *rows])["wrong_hit_upper95"]
    assert (figure.value, figure.lo, figure.hi) == (upper_bound(wrong, others), wrong / others, figure.value)
    assert (figure.n, figure.met) == (others, met)


def test_a_pair_of_exactly_the_lowest_probability_is_served(tmp_path: Path) -> None:
    least = 0.9
    rows = [judged_pair(True, least, 0.9), judged_pair(True, float(np.nextafter(least, 0)), 0.9), *PAIRS[-1:]]
    assert summarised(tmp_path, rows, least)["paraphrase_hit_rate"].value == 0.5


@pytest.mark.parametrize("served", range(11))
def test_beside_each_hit_rate_stands_the_cosine_with_as_many_hits(tmp_path: Path, served: int) -> None:
    """Of ten paraphrases with the cosines 0.00 to 0.90 and ten others between them: as many others are as near."""
    same = [judged_pair(True, float(place < served), place / 10) for place in range(10)]
    others = [judged_pair(False, 0.0, place / 10 + 0.05) for place in range(10)]
    figures = summarised(tmp_path, [*same, *others])
    assert figures["paraphrase_hit_rate"].value == served / 10
    assert figures["cosine_wrong_rate_at_same_hit_rate"].value == pytest.approx(served / 10, abs=0.1001)
    nearest = sorted((place / 10 for place in range(10)), reverse=True)[:served]
    low, high = (
        sum(other["cosine"] >= limit for other in others) / 10
        for limit in ((nearest[-1] if nearest else 1.0), (nearest[-1] - 0.1 if nearest else 1.0))
    )
    assert low - 1e-9 <= figures["cosine_wrong_rate_at_same_hit_rate"].value <= high + 1e-9


def test_the_report_says_what_is_served_of_each_kind(tmp_path: Path) -> None:
    summarised(tmp_path, [*PAIRS, *HITS, *TRACED])
    report = (tmp_path / "report.md").read_text()
    assert "| paraphrases | paraphrase | 2 | 4 |" in report
    assert "| paraphrases | near_miss | 1 | 2 |" in report
    assert "| medquad | other kind | 0 | 3 |" in report
    assert "4 pairs that ask the same and 5 that don't" in report
    assert "served from a probability of 0.9000 on" in report
    assert "1 wrong hits of 5" in report
    assert "The trace: 2 questions by both" in report
    assert "that no more than 0.1 is lost isn't shown. 0 failed, and count" in report


def test_that_no_key_fact_is_lost_is_said_where_it_is_shown(tmp_path: Path) -> None:
    rows = [row for number in range(4) for row in passed(number, *[(1.0, False, 0.75)] * 40)]
    assert summarised(tmp_path, [*PAIRS, *rows])["trace_key_fact_difference"].value == 0.0
    assert (
        "plain one's (0.750), by question: that no more than 0.1 is lost is shown."
        in (tmp_path / "report.md").read_text()
    )


def test_questions_without_key_facts_count_for_the_time_alone(tmp_path: Path) -> None:
    rows = [row for number in range(4) for row in passed(number, (1.0, False, None), (2.0, False, 1.0))]
    figures = summarised(tmp_path / "some", [*PAIRS, *rows])
    assert (figures["trace_key_fact_difference"].n, figures["skewed_trace_gain"].n) == (1, 2)
    none = [row for number in range(4) for row in passed(number, (1.0, False, None))]
    figures = summarised(tmp_path / "none", [*PAIRS, *none])
    assert "trace_key_fact_difference" not in figures
    assert "skewed_trace_gain" in figures
    assert "`trace_key_fact_difference`" in (tmp_path / "none" / "report.md").read_text()


def test_a_question_that_failed_is_an_answer_without_its_facts_and_is_told_of(tmp_path: Path) -> None:
    rows = [*TRACED[:4], *passed(2, (0.1, False, 0.0), (0.1, False, 0.0), error="no room"), *TRACED[6:]]
    figures = summarised(tmp_path, [*PAIRS, *rows])
    assert figures["trace_key_fact_difference"].value == pytest.approx((0 - 0.5 - 1 - 0.5) / 4)
    assert "skewed_trace_gain" not in figures, "each place was asked in vain once"
    assert "2 failed, and count for the facts alone." in (tmp_path / "report.md").read_text()
    [failed, *others] = passed(2, (0.1, False, 0.0), (0.5, True, 0.5))
    rows = [*TRACED[:4], failed | {"error": "no room"}, *others, *TRACED[6:]]
    assert summarised(tmp_path / "one", [*PAIRS, *rows])["skewed_trace_gain"].value == 1.5 / 0.5


def test_what_is_not_measured_yet_is_named(tmp_path: Path) -> None:
    figures = summarised(tmp_path, PAIRS)
    assert "wrong_hit_upper95" in figures
    missing = ("hit_p50_ms", "exact_hit_p50_ms", "skewed_trace_gain", "trace_hit_rate", "trace_key_fact_difference")
    assert not set(missing) & set(figures)
    assert (
        f"Not defined for so few samples: {', '.join(f'`{name}`' for name in missing)}."
        in (tmp_path / "report.md").read_text()
    )


def test_pairs_of_one_answer_alone_give_the_figures_that_they_can(tmp_path: Path) -> None:
    same = summarised(tmp_path / "same", PAIRS[:4])
    assert (same["paraphrase_hit_rate"].value, same["wrong_hit_upper95"].value) == (0.5, 1.0)
    assert "auroc" not in same
    others = summarised(tmp_path / "others", PAIRS[4:])
    assert others["wrong_hit_upper95"].value == upper_bound(1, 5)
    assert "paraphrase_hit_rate" not in others


@pytest.mark.parametrize("whole", [1, 2, 3])
def test_a_report_of_a_run_that_was_interrupted_is_of_its_whole_passes(tmp_path: Path, whole: int) -> None:
    """`--report-only` after Ctrl-C in the middle of a pass."""
    figures = summarised(tmp_path, [*PAIRS, *TRACED[: 2 * whole + 1]])
    assert figures["paraphrase_hit_rate"].value == 0.5
    assert ("skewed_trace_gain" in figures) == (whole >= 2)
    if whole >= 2:
        assert (figures["skewed_trace_gain"].value, figures["skewed_trace_gain"].n) == (4 / 2.5, 2)


def test_samples_without_a_pair_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No pair in"):
        summarised(tmp_path, [*HITS, *TRACED])


def test_the_report_is_the_same_from_the_same_samples(tmp_path: Path) -> None:
    summarised(tmp_path, [*PAIRS, *HITS, *TRACED])
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"samples.jsonl", "summary.json", "report.md"}
    caching.summarise(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_without_a_matcher_there_is_nothing_to_measure() -> None:
    with pytest.raises(UsageError, match=r"cache\.model is null: .* --set cache\.model="):
        caching.require_matcher(LOADED)
    named = settings.load(environ={}, assignments=["cache.model=minilm-same-question"])
    caching.require_matcher(named)


# --- the trace: what is asked ----------------------------------------------------------------------

QA_120 = evaluate.read_questions(paths.shipped("eval", "qa_120.jsonl"))
TRACE = paths.shipped("eval", "trace.jsonl")


def written(path: Path, *rows: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def wordings_of(path: Path = TRACE) -> dict[str, list[str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row["wordings"] for row in rows}


def test_three_in_a_hundred_questions_are_asked_in_six_of_ten_cases() -> None:
    planned = plan(QA_120, TRACE, 150)
    answerable = {question.id: question.question for question in QA_120.questions if question.answerable}
    asked = Counter(one.id for one in planned.asked)
    hot = list(wordings_of())[: round(0.03 * len(answerable))]
    assert planned.head["hot"] == sorted(hot)
    assert len(hot) == 3
    assert sum(asked[name] for name in hot) == 90
    assert all(asked[name] >= 20 for name in hot)
    assert max(asked[name] for name in asked if name not in hot) == 1


def test_hot_questions_are_asked_in_other_words_and_the_others_as_they_are() -> None:
    hot = {name: wordings_of()[name] for name in list(wordings_of())[:3]}
    own = {question.id: [question.question] for question in QA_120.questions}
    for one in plan(QA_120, TRACE, 200).asked:
        assert one.text in hot.get(one.id, own[one.id])


def test_the_trace_is_always_the_same() -> None:
    assert plan(QA_120, TRACE, 200) == plan(QA_120, TRACE, 200)
    assert plan(QA_120, TRACE, 200).head != plan(QA_120, TRACE, 199).head


def test_a_trace_longer_than_there_are_words_for_it_is_refused() -> None:
    with pytest.raises(
        UsageError, match="A trace of 400 questions is too long: 120 wordings and 99 other questions are there"
    ):
        plan(QA_120, TRACE, 400)


def test_in_other_words_each_time_is_true_of_the_shipped_trace() -> None:
    """The report says it. A repeat in the same words needs no matcher, and no such cache as this."""
    planned = plan(QA_120, TRACE, 200)
    hot = [normalised(one.text) for one in planned.asked if one.id in wordings_of()]
    assert [text for text, times in Counter(hot).items() if times > 1] == []


def test_of_a_small_set_one_question_is_hot(tmp_path: Path) -> None:
    wordings = ["Which fruit?", "Fruit, but which?", "What fruit?"]
    path = written(tmp_path / "trace.jsonl", {"id": "q2", "wordings": wordings}, {"id": "q1", "wordings": []})
    planned = plan(SET, path, 5)
    head = planned.head
    assert (head["asked"], head["hot"], head["topics"], head["share"], head["seed"]) == (5, ["q2"], 0.03, 0.6, 0)
    assert {(one.id, one.text) for one in planned.asked} == {
        *(("q2", wording) for wording in wordings),
        ("q1", MALARIA.question),
        ("q3", BOTH.question),
    }


@pytest.mark.parametrize("name", ["q4", "q9"])
def test_a_wording_of_a_question_that_cannot_be_answered_or_is_none_is_refused(tmp_path: Path, name: str) -> None:
    good = {"id": "q1", "wordings": ["Why malaria?"]}
    path = written(tmp_path / "trace.jsonl", good, {"id": name, "wordings": ["Why?"]})
    with pytest.raises(UsageError) as caught:
        plan(SET, path, 10)
    assert str(caught.value) == f"{path}:2: {name!r} is no question of five that can be answered."


def test_too_few_wordings_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.jsonl", {"id": "q012", "wordings": ["Why no honey?"]})
    with pytest.raises(UsageError, match="puts 1 questions in other words, 3 are needed"):
        plan(QA_120, path, 10)
    with pytest.raises(UsageError, match="puts 0 questions in other words, 1 are needed"):
        plan(SET, written(tmp_path / "none.jsonl"), 10)


# --- the trace: what is taken ----------------------------------------------------------------------

WORDINGS = ("Malaria, what causes it?", "Why does somebody get malaria?", "Malaria: cause?")
ASKED = (
    *(Wording("q1", text) for text in WORDINGS[:2]),
    Wording("q2", SCURVY.question),
    Wording("q1", WORDINGS[0]),
    Wording("q3", BOTH.question),
    Wording("q1", WORDINGS[2]),
)
PLANNED = Plan(SET, ASKED)
ANSWERS: Mapping[str, str | Exception] = {
    **dict.fromkeys(WORDINGS, "Malaria is caused by Plasmodium parasites [1]."),
    SCURVY.question: "Lemons cure it [1].",
    BOTH.question: "Gout is caused by crystals of urate [1]. Joints swell.",
}
CACHED = [False, True, False, True, False, True]
"""Which of `ASKED` the cache serves."""


class Wordings:
    """Takes two questions for the same where both are wordings of the hot one."""

    def same(self, question: str, earlier: str) -> bool:
        return {question, earlier} <= set(WORDINGS)


class Killed(Engine):
    """Dies as it gets its so-many-th question."""

    def __init__(self, at: int, answers: Mapping[str, str | Exception] = ANSWERS) -> None:
        super().__init__(answers)
        self.left = at

    async def stream(self, messages: Sequence[Message], params: GenerationParams) -> Any:
        if params.max_tokens > 1:
            self.left -= 1
            if self.left < 0:
                self.alive = False
                raise EngineDied("The engine died.")
        async for item in super().stream(messages, params):
            yield item


class Caches:
    """Opens a plain pipeline and one with caches over the index under `root`, both with one engine. `kept` tells how much lay in the
    caches whenever the engine was made to forget."""

    def __init__(self, root: Path, engine: Engine) -> None:
        self.root, self.engine, self.opened = root, engine, 0
        self.kept: list[int] = []

    @asynccontextmanager
    async def __call__(self, loads: Mapping[str, Loaded], report: Any) -> AsyncIterator[dict[str, Pipeline]]:
        report("starting the engine")
        assert list(loads) == ["plain", "cached"]
        self.opened += 1
        searched: QuestionCache[Hits] = QuestionCache(Memory(64, 100), Wordings(), -1.0)
        answers: QuestionCache[Any] = QuestionCache(Memory(64, 100), Wordings(), -1.0)
        reset = self.engine.reset_prefix_cache

        async def noting() -> bool:
            self.kept.append(len(searched.memory) + len(answers.memory))
            return await reset()

        self.engine.reset_prefix_cache = noting  # type: ignore[method-assign]
        searcher = HybridSearcher(serving.search(self.root).index, LOADED.settings.retrieve, FakeReranker())
        common = (self.engine, FakeSupportChecker())
        encoder = CachedEncoder(FakeEncoder(), 100)
        pipelines = {
            "plain": Pipeline(LOADED.settings, "plain", FakeEncoder(), searcher, *common),
            "cached": Pipeline(
                LOADED.settings,
                "cached",
                encoder,
                CachedSearcher(searcher, searched),
                *common,
                caches=QuestionCaches(encoder, searched, answers),
            ),
        }
        try:
            yield pipelines
        finally:
            self.engine.reset_prefix_cache = reset  # type: ignore[method-assign]
            for pipeline in pipelines.values():
                pipeline.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    serving.write(tmp_path / "indexes")
    return tmp_path / "indexes"


LOADS = {"plain": LOADED, "cached": LOADED}


async def take(
    root: Path, folder: Path, engine: Engine | None = None, planned: Plan = PLANNED, progress: Any = quiet
) -> Caches:
    opened = Caches(root, engine if engine is not None else Engine(ANSWERS))
    samples = results.Samples(folder)
    taken = samples.resume(HEAD)
    ticks = count()
    await trace.measure(LOADS, planned, samples, taken, progress, opened, lambda: float(next(ticks)))
    return opened


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return results.Samples(folder).read()[1]


async def test_the_passes_are_taken_in_order_and_each_from_empty_caches(root: Path, tmp_path: Path) -> None:
    engine = Engine(ANSWERS)
    told: list[tuple[Any, ...]] = []
    opened = await take(root, tmp_path / "out", engine, progress=lambda *what: told.append(what))
    rows = rows_of(tmp_path / "out")
    assert [(row["pass"], row["place"], row["id"]) for row in rows] == [
        (number, place, one.id) for number in range(4) for place, one in enumerate(ASKED)
    ]
    assert [name for name, _ in groupby(row["variant"] for row in rows)] == ["plain", "cached", "plain"]
    assert [row["hit"] for row in rows] == [*[False] * 6, *CACHED, *CACHED, *[False] * 6]
    assert {row["seconds"] for row in rows} == {1.0}
    assert {row["error"] for row in rows} == {None}
    assert [row["similarity"] == 1.0 for row in rows[6:12]] == [False, False, False, True, False, False]
    assert all(row["similarity"] is None for row in rows if not row["hit"])

    texts = [one.text for one in ASKED]
    missed = [text for text, hit in zip(texts, CACHED, strict=True) if not hit]
    begin = ["forget", "?"]
    assert engine.did == [*begin, *texts, *begin, *missed, *begin, *missed, *begin, *texts]
    assert opened.kept == [0, 0, 0, 3 + 3], "as the last one begins, which has none"
    assert opened.opened == 1
    assert told[-1] == ("questions of the trace", 24, 24)


async def test_key_facts_are_those_of_the_question_however_it_was_put(root: Path, tmp_path: Path) -> None:
    await take(root, tmp_path / "out")
    plain = rows_of(tmp_path / "out")[:6]
    assert [row["key_facts"] for row in plain] == [1.0, 1.0, 0.5, 1.0, 0.5, 1.0]


async def test_a_question_that_fails_is_written_down_and_the_pass_goes_on(root: Path, tmp_path: Path) -> None:
    answers = {**ANSWERS, SCURVY.question: EngineError("The engine is busy.")}
    await take(root, tmp_path / "out", Engine(answers))
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 24
    failed = [row for row in rows if row["error"] is not None]
    assert {(row["id"], row["error"], row["key_facts"], row["hit"]) for row in failed} == {
        ("q2", "The engine is busy.", 0.0, False)
    }
    assert len(failed) == 4


@pytest.mark.parametrize("asked", [1, 5, 6, 8, 10, 17])
async def test_a_pass_that_was_interrupted_begins_anew_and_whole_ones_stay(
    root: Path, tmp_path: Path, asked: int
) -> None:
    """The engine gets six questions in a plain pass, and three in a cached one."""
    folder = tmp_path / "out"
    with pytest.raises(EngineDied):
        await take(root, folder, Killed(asked))
    [_, *before] = (folder / "samples.jsonl").read_text().splitlines()
    whole = sum(asked >= questions for questions in (6, 9, 12))
    assert len(before) == 6 * whole + {1: 1, 5: 5, 6: 0, 8: 4, 10: 2, 17: 5}[asked]
    engine = Engine(ANSWERS)
    opened = await take(root, folder, engine)
    [_, *after] = (folder / "samples.jsonl").read_text().splitlines()
    assert after[: 6 * whole] == before[: 6 * whole]
    assert [(row["pass"], row["place"]) for row in rows_of(folder)] == list(product(range(4), range(6)))
    assert [row["hit"] for row in rows_of(folder)[6:12]] == CACHED, "from an empty cache"
    assert len(opened.kept) == 4 - whole
    assert engine.did.count("?") == 4 - whole


async def test_of_a_whole_trace_nothing_is_opened_again(root: Path, tmp_path: Path) -> None:
    await take(root, tmp_path / "out")
    before = (tmp_path / "out" / "samples.jsonl").read_bytes()
    assert (await take(root, tmp_path / "out")).opened == 0
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() == before


async def test_other_samples_of_the_folder_stay_where_a_pass_begins_anew(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    samples = results.Samples(folder)
    samples.start(HEAD)
    for row in (*PAIRS, *HITS):
        samples.add(row)
    with pytest.raises(EngineDied):
        await take(root, folder, Killed(8))
    await take(root, folder)
    rows = rows_of(folder)
    assert rows[:12] == [*PAIRS, *HITS]
    assert len(rows) == 12 + 24
    assert {"skewed_trace_gain", "trace_hit_rate"} <= {figure.name for figure in caching.summarise(folder)}


# --- pairs -----------------------------------------------------------------------------------------


class Reading:
    """A pair model with the same logit for all; `read` counts its calls."""

    labels = (LABEL,)

    def __init__(self, logit: float = 3.0) -> None:
        self.logit, self.read = logit, 0

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        self.read += 1
        return np.full((len(pairs), 1), self.logit, dtype=np.float32)


class Counting(FakeEncoder):
    """`asked` keeps the texts that it encoded."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        self.asked += texts
        return super().encode_queries(texts)


def matcher(model: Reading | None = None, min_same: float = 0.5) -> QuestionMatcher:
    return QuestionMatcher(model if model is not None else Reading(), min_same)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_datasets.write(tmp_path_factory.mktemp("datasets"))


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """The models that the bench opens."""
    model = Reading()
    monkeypatch.setattr(build, "open_encoder", lambda *_: FakeEncoder())
    monkeypatch.setattr(build, "open_matcher", lambda *_, anyhow=False: matcher(model))  # noqa: ARG005
    return model


def test_pairs_are_of_the_held_out_half_and_of_medquad_s_held_out_sources(data: Path) -> None:
    chosen = pairs.held_out(data)
    own = calibrate.read_pairs(paths.shipped("eval", "paraphrases.jsonl"), "heldout")
    assert [pair for source, pair in chosen if source == "paraphrases"] == own
    _, _, held_out = datasets.split_medquad(datasets.medquad(data))
    made = [pair for source, pair in chosen if source == "medquad"]
    assert {text for pair in made for text in (pair.a, pair.b)} <= {record.question for record in held_out}
    assert {(pair.same, pair.kind) for pair in made} == {(False, "other kind"), (False, "other disease")}
    assert len({(pair.a, pair.b) for pair in made}) == len(made)
    assert pairs.held_out(data) == chosen


def test_of_medquad_s_near_misses_no_more_are_taken_than_there_should_be(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "NEAR_MISSES", 2)
    kinds = Counter(pair.kind for source, pair in pairs.held_out(data) if source == "medquad")
    assert kinds == {"other kind": 1, "other disease": 1}


def test_a_pair_is_written_down_without_its_texts(faked: Reading, data: Path) -> None:
    chosen = pairs.held_out(data)[-5:]
    rows = list(pairs.judged(LOADED, chosen, first=70))
    assert faked.read == 1
    assert [row["id"] for row in rows] == [70, 71, 72, 73, 74]
    assert {tuple(row) for row in rows} == {
        ("kind", "id", "source", "topic", "of", "same", "cosine", "probability"),
    }
    texts = {text for _, pair in chosen for text in (pair.a, pair.b)}
    assert not texts & {value for row in rows for value in row.values() if isinstance(value, str)}
    assert [row["cosine"] for row in rows] == calibrate.cosines(FakeEncoder(), [pair for _, pair in chosen])


def test_many_pairs_are_judged_as_each_alone_and_in_their_order(faked: Reading, data: Path) -> None:
    del faked
    chosen = pairs.held_out(data)[:150]
    together = list(pairs.judged(LOADED, chosen))
    alone = [row for number, one in enumerate(chosen) for row in pairs.judged(LOADED, [one], number)]
    for row, other in zip(together, alone, strict=True):
        assert row == {**other, "cosine": pytest.approx(other["cosine"]), "probability": other["probability"]}


def test_pairs_that_were_judged_before_are_not_judged_again(faked: Reading, data: Path, tmp_path: Path) -> None:
    samples = results.Samples(tmp_path)
    chosen = pairs.held_out(data)
    samples.start(HEAD)
    for row in pairs.judged(LOADED, chosen[:100]):
        samples.add(row)
    pairs.measure(LOADED, data, samples, samples.read()[1], quiet)
    assert [row["id"] for row in rows_of(tmp_path)] == list(range(len(chosen)))
    assert [row["same"] for row in rows_of(tmp_path)] == [pair.same for _, pair in chosen]
    read = faked.read
    pairs.measure(LOADED, data, samples, samples.read()[1], quiet)
    assert faked.read == read


def test_a_pair_that_the_cache_would_not_look_at_is_no_hit(faked: Reading, data: Path, tmp_path: Path) -> None:
    """Its cosine is below `cache.min_cosine`: the cache doesn't ask the matcher, whatever that would say."""
    del faked
    chosen = pairs.held_out(data)
    own = [pair for _, pair in chosen if pair.same]
    cosines = calibrate.cosines(FakeEncoder(), own)
    lowest = Cache().min_cosine
    served = [c >= lowest and comparable(pair.a, pair.b) for pair, c in zip(own, cosines, strict=True)]
    assert 0 < sum(served) < len(own)
    samples = results.Samples(tmp_path)
    samples.start({**HEAD, "settings": {**HEAD["settings"], "min_cosine": lowest}})
    for row in pairs.judged(LOADED, chosen):
        samples.add(row)
    figures = {figure.name: figure.value for figure in caching.summarise(tmp_path)}
    assert figures["paraphrase_hit_rate"] == pytest.approx(sum(served) / len(own))


# --- look-ups --------------------------------------------------------------------------------------

OTHERS = [f"What is {a}{b}?" for a in "abcdefghij" for b in "klmnopqrst"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 12)
    monkeypatch.setattr(latency, "WARM_UP", 3)
    monkeypatch.setattr(latency, "ENTRIES", 60)


@pytest.mark.usefixtures("few")
def test_look_ups_are_timed_after_some_that_are_not() -> None:
    ticks = count()
    found = list(latency.hits(FakeEncoder(), matcher(), OTHERS, clock=lambda: float(next(ticks) ** 2)))
    assert [row["round"] for row in found] == list(range(12))
    assert {tuple(row) for row in found} == {("kind", "round", "seconds", "repeat", "hit")}
    # Four ticks a round: the n-th look-up begins at (4n)^2, and the repeat at (4n + 2)^2.
    assert [row["seconds"] for row in found] == [8 * n + 1 for n in range(3, 15)]
    assert [row["repeat"] for row in found] == [8 * n + 5 for n in range(3, 15)]


@pytest.mark.usefixtures("few")
def test_look_ups_go_on_where_they_were_interrupted() -> None:
    ticks = count()
    found = list(latency.hits(FakeEncoder(), matcher(), OTHERS, done=8, clock=lambda: float(next(ticks))))
    assert [row["round"] for row in found] == [8, 9, 10, 11]


@pytest.mark.usefixtures("few")
def test_of_each_question_in_other_words_the_vector_is_made_and_of_a_repeat_it_is_known() -> None:
    encoder = Counting()
    asked = [p for p in calibrate.read_pairs(paths.shipped("eval", "paraphrases.jsonl"), "heldout") if p.same][:15]
    list(latency.hits(encoder, matcher(), OTHERS))
    assert len(encoder.asked) == 60 + 15
    assert encoder.asked[60:] == [pair.b for pair in asked]
    assert set(encoder.asked[:60]) == {*OTHERS[:45], *(pair.a for pair in asked)}


@pytest.mark.usefixtures("few")
def test_each_look_up_that_is_timed_is_a_hit_for_which_the_matcher_has_read_both() -> None:
    """One that is told apart by its numbers, and so by a rule, takes no time to speak of."""
    model = Reading(logit=-5.0)
    found = list(latency.hits(FakeEncoder(), matcher(model), OTHERS))
    assert {row["hit"] for row in found} == {True}
    assert model.read == len(found) + 3


def test_there_are_pairs_for_as_many_look_ups_as_are_wanted() -> None:
    held_out = calibrate.read_pairs(paths.shipped("eval", "paraphrases.jsonl"), "heldout")
    asked = [pair for pair in held_out if pair.same][: latency.ROUNDS + latency.WARM_UP]
    assert len(asked) == 220
    earlier = {normalised(pair.a) for pair in asked}
    assert [pair.b for pair in asked if normalised(pair.b) in earlier] == [], "that would be a repeat"
    assert len({normalised(pair.b) for pair in asked}) == len(asked)


@pytest.mark.usefixtures("few", "faked")
def test_look_ups_that_are_there_are_not_taken_again(data: Path, tmp_path: Path) -> None:
    samples = results.Samples(tmp_path)
    samples.start(HEAD)
    latency.measure(LOADED, data, samples, [], quiet)
    before = samples.path.read_bytes()
    latency.measure(LOADED, data, samples, samples.read()[1], quiet)
    assert samples.path.read_bytes() == before
    head, rows = samples.read()
    samples.replace(head, rows[:5])
    latency.measure(LOADED, data, samples, rows[:5], quiet)
    assert [row["round"] for row in rows_of(tmp_path)] == list(range(12))


# --- the whole of it -------------------------------------------------------------------------------


@pytest.mark.usefixtures("few", "faked")
async def test_a_whole_run_goes_on_where_it_was_killed_and_holds_no_text_of_medquad_s(
    root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "depends_on", lambda loaded, questions, report: {"set": questions.name})  # noqa: ARG005
    folder = tmp_path / "out"

    async def measure(engine: Engine) -> Caches:
        opened = Caches(root, engine)
        await caching.measure(LOADS, folder, data, PLANNED, "rag bench cache", quiet, opened)
        return opened

    with pytest.raises(EngineDied):
        await measure(Killed(8))
    before = (folder / "samples.jsonl").read_text().splitlines()
    await measure(Engine(ANSWERS))
    text = (folder / "samples.jsonl").read_text()
    after = text.splitlines()
    chosen = pairs.held_out(data)
    assert len(after) == 1 + len(chosen) + 12 + 24
    assert after[: 1 + len(chosen) + 12 + 6] == before[: 1 + len(chosen) + 12 + 6]
    assert [kind for kind, _ in groupby(json.loads(line)["kind"] for line in after[1:])] == ["pair", "hit", "trace"]
    head = json.loads(after[0])
    assert head["bench"] == "cache"
    assert head["settings"] == {
        "variants": {name: {"set": "five"} for name in LOADS},
        "questions": PLANNED.questions.head,
        "pairs_sha256": head["settings"]["pairs_sha256"],
        "trace": PLANNED.head,
        "entries": 60,
        "min_same": 0.5,
        "min_cosine": Cache().min_cosine,
    }
    for record in datasets.medquad(data):
        assert record.question not in text
        assert record.focus not in text
    assert "Plasmodium" not in text, "nor answers"

    first = [figure.name for figure in caching.summarise(folder)]
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert (await measure(Engine(ANSWERS))).opened == 0
    assert [figure.name for figure in caching.summarise(folder)] == first
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.usefixtures("few", "faked")
async def test_with_another_trace_it_begins_anew(
    root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the questions are the same, put in other words: a gain of two traces is of none."""
    monkeypatch.setattr(caching, "depends_on", lambda loaded, questions, report: {})  # noqa: ARG005
    folder = tmp_path / "out"
    other = Plan(SET, tuple(replace(one, text=WORDINGS[2]) if one.id == "q1" else one for one in ASKED))
    with pytest.raises(EngineDied):
        await caching.measure(LOADS, folder, data, PLANNED, "rag bench cache", quiet, Caches(root, Killed(8)))
    engine = Engine(ANSWERS)
    await caching.measure(LOADS, folder, data, other, "rag bench cache", quiet, Caches(root, engine))
    asked = [text for text in engine.did if text not in ("forget", "?")]
    assert len(asked) == 6 + 2 * 3 + 6


def test_without_a_matcher_it_is_refused_before_anything_is_read_or_built(
    home: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def built(*_: Any) -> None:
        raise AssertionError("the sample corpus is indexed, for a minute")

    monkeypatch.setattr(build, "ensure_sample_index", built)
    asked = [
        "rag",
        "bench",
        "cache",
        "--datasets",
        str(data),
        "--output",
        str(home / "out"),
        "--set",
        "cache.model=null",
    ]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit) as ended:
        commands.main()
    told = [line for line in capfd.readouterr().err.splitlines() if not line.endswith("...")]
    assert ended.value.code == 2
    assert [line.partition(":")[0] for line in told] == ["rag"]
    assert "cache.model is null" in told[0]
    assert not (home / "out").exists()
