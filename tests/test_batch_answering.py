"""Many questions over one pipeline, on fakes: each answered once, several at a time, the next ones searched ahead."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving
from evaluating import Answering
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from lookahead import PATIENCE, Encoding, Finding, looking, nothing_hangs_and_no_thread_stays, until

from rag import settings
from rag.batch import Outcome, answer_all, for_batch
from rag.batch.answering import looking_ahead
from rag.cache import CachedSearcher, Memory, QuestionCache
from rag.core import Answer, CacheInfo, Encoder, EngineInfo, Hits, Query, Searcher, StageTimings, Trace
from rag.errors import EngineDied, EngineError
from rag.pipeline import Answers, Caches, Pipeline
from rag.prefetch import PrefetchCounts, PrefetchSearcher, QuestionKey
from rag.search import HybridSearcher
from rag.settings import Batch
from rag.testing import FakeEncoder, FakeGenerator, FakeReranker

ORDERS = pytest.mark.parametrize("order", ["input", "prefix"])


@pytest.fixture(autouse=True)
def _guarded() -> Iterator[None]:
    with nothing_hangs_and_no_thread_stays():
        yield


def numbered(count: int) -> list[QuestionKey]:
    return [(f"question {number}", None) for number in range(count)]


def speaking(asked: Sequence[QuestionKey], failing: Mapping[str, Exception] = {}, **more: Any) -> Answering:
    """Answers each question by its first source."""
    return Answering({**{text.strip(): f"So much for {text.strip()} [1]." for text, _ in asked}, **failing}, **more)


def pipeline_of(
    searcher: Searcher, generator: FakeGenerator, encoder: Encoder | None = None, answers: Answers | None = None
) -> Pipeline:
    loaded = serving.LOADED
    return Pipeline(
        loaded.settings,
        loaded.profile,
        encoder if encoder is not None else FakeEncoder(),
        searcher,
        generator,
        caches=Caches(answers=answers),
    )


@dataclass
class Told:
    """What `finished` was told, by place, in order."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def __call__(self, place: int, outcome: Outcome) -> None:
        assert place not in self.outcomes, "a question was answered twice"
        self.outcomes[place] = outcome

    def answer(self, place: int) -> Answer:
        answer = self.outcomes[place].answer
        assert answer is not None, self.outcomes[place].error
        return answer

    @property
    def errors(self) -> dict[int, str]:
        return {place: one.error for place, one in sorted(self.outcomes.items()) if one.error is not None}


async def ask(
    pipeline: Pipeline,
    asked: Sequence[QuestionKey],
    at_once: int = 4,
    lookahead: int = 8,
    search_batch: int = 4,
    order: str = "input",
    together: int = 1,
) -> tuple[Told, PrefetchCounts | None]:
    told = Told()
    batch = Batch(lookahead=lookahead, search_batch=search_batch, order=order, together=together)
    with closing(pipeline):
        async with asyncio.timeout(PATIENCE):
            return told, await answer_all(pipeline, asked, told, batch, at_once)


def document(answer: Answer) -> str:
    [citation] = answer.citations
    return citation.doc_id


# --- all of them, each once ------------------------------------------------------------------------


@ORDERS
@pytest.mark.parametrize("at_once", [1, 3, 40])
@pytest.mark.parametrize(("lookahead", "search_batch"), [(1, 1), (6, 3), (32, 8)])
async def test_every_question_is_answered_once_from_what_was_found_for_it(
    order: str, at_once: int, lookahead: int, search_batch: int
) -> None:
    asked = numbered(20)
    finding, generator = Finding(), speaking(asked)
    told, counts = await ask(pipeline_of(finding, generator), asked, at_once, lookahead, search_batch, order)
    assert sorted(told.outcomes) == list(range(20))
    for place, (question, where) in enumerate(asked):
        answer, searched = told.answer(place), told.outcomes[place].searched
        assert (answer.question, answer.answer) == (question, f"So much for {question} [1].")
        assert document(answer) == f"{question} where {where}"
        assert searched is not None
        assert searched.hits == finding.hits((question, where))
    assert len(generator.asked) == 20
    assert counts is not None
    assert (counts.ahead + counts.late + counts.alone, counts.wasted) == (20, 0)


@pytest.mark.parametrize("lookahead", [0, 8])
@pytest.mark.parametrize("at_once", [1, 3])
async def test_no_more_are_answered_at_once_than_may_be(at_once: int, lookahead: int) -> None:
    asked = numbered(12)
    generator = speaking(asked, pause=0.01)
    await ask(pipeline_of(Finding(), generator), asked, at_once, lookahead)
    assert (generator.most_open, generator.open) == (at_once, 0)


class Slowly(Finding):
    """Each search takes longer than an answer does."""

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        time.sleep(0.05 * len(queries))
        return super().search(queries, trace)


@pytest.mark.parametrize("together", [3, 4, 40])
@pytest.mark.parametrize("lookahead", [0, 8])
async def test_the_engine_is_given_several_prompts_at_a_time(lookahead: int, together: int) -> None:
    """Of searches one by one: else the answer to one question would be there before the next one's prompt is."""
    asked = numbered(8)
    generator = speaking(asked)
    told, _ = await ask(pipeline_of(Slowly(), generator), asked, 4, lookahead, 1, together=together)
    assert len(told.outcomes) == 8
    assert generator.most_open >= min(together, 4)
    assert [[name for name, *_ in told.answer(place).spans].count("wait") for place in range(8)] == [1] * 8


async def test_a_question_that_is_not_found_yet_holds_up_none_that_is() -> None:
    asked = numbered(4)
    finding = Finding()
    generator = speaking(asked)
    with closing(pipeline_of(finding, generator)) as pipeline, looking_ahead(pipeline, asked, 4, 2) as (ahead, _):
        until(lambda: len(finding.batches) == 2)
        first = asyncio.create_task(ahead.answer(*asked[0]))
        await first
        finding.gate.clear()
        with looking_ahead(pipeline, asked, 4, 2) as (slower, _):
            until(lambda: len(finding.batches) == 3)
            late = asyncio.create_task(slower.answer(*asked[0]))
            await asyncio.sleep(0.03)
            async with asyncio.timeout(PATIENCE):
                await ahead.answer(*asked[1])  # both share a worker thread
            assert not late.done()
            finding.gate.set()
            await late


async def test_they_are_asked_in_the_order_of_the_input() -> None:
    asked = numbered(15)
    generator = speaking(asked)
    await ask(pipeline_of(Finding(), generator), asked, at_once=1)
    assert generator.questions == [question for question, _ in asked]


@ORDERS
async def test_no_question_is_nothing_to_do(order: str) -> None:
    told, counts = await ask(pipeline_of(Finding(), FakeGenerator()), [], order=order)
    assert (told.outcomes, counts) == ({}, PrefetchCounts())


async def test_the_next_ones_are_searched_as_batches_while_the_engine_is_at_work() -> None:
    asked = numbered(24)
    finding, encoder = Finding(), Encoding()
    generator = speaking(asked, pause=0.05)
    _, counts = await ask(pipeline_of(finding, generator, encoder), asked, at_once=2, lookahead=8, search_batch=4)
    assert counts is not None
    assert counts.ahead >= 12
    assert finding.batches == encoder.batches
    assert max(map(len, finding.batches)) == 4
    assert len(finding.alone) == counts.alone
    first = 2  # asked at once, at the start: either may be encoded alone, and yet find its batch searched
    assert sum(map(len, encoder.alone)) <= counts.alone + counts.late + first, (
        "what was encoded in a batch is remembered"
    )


async def test_without_looking_ahead_each_is_searched_when_it_is_asked() -> None:
    asked = numbered(5)
    finding = Finding()
    told, counts = await ask(pipeline_of(finding, speaking(asked)), asked, lookahead=0)
    assert (counts, finding.batches, len(finding.alone), len(told.outcomes)) == (None, [], 5, 5)


# --- the same answers with looking ahead and without -----------------------------------------------


def without_times(outcome: Outcome) -> Outcome:
    answer = outcome.answer
    if answer is None:
        return outcome
    engine = EngineInfo("fake", "1", "cpu")
    return replace(outcome, answer=replace(answer, timings=StageTimings(), spans=(), engine=engine))


WORDS = ("malaria", "scurvy", "gout", "lemons", "parasites", "joints", "football")


@st.composite
def questions(draw: st.DrawFn) -> list[QuestionKey]:
    """Questions and what stands in their place, some of them more than once, some under conditions, good ones and bad ones."""
    text = st.one_of(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(
            lambda words: f"What is it with {' '.join(words)}?"
        ),
        st.sampled_from(["What causes mumps?", "What causes gout?", " What causes gout?", "", "  ", "why " * 1000]),
    )
    where = st.sampled_from([None, None, None, "retracted", "year>2000", "year >"])
    return draw(st.lists(st.tuples(text, where), max_size=14))


@given(asked=questions(), at_once=st.integers(1, 5), lookahead=st.integers(1, 6), data=st.data())
@hypothesis(max_examples=60, deadline=None)
def test_looking_ahead_changes_no_answer_and_no_error(
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[QuestionKey],
    at_once: int,
    lookahead: int,
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.getbasetemp() / "looking-ahead"
    if not root.exists():
        serving.write(root)
    batch = data.draw(st.integers(1, lookahead), label="search_batch")
    searcher = HybridSearcher(serving.search(root).index, serving.LOADED.settings.retrieve, FakeReranker())
    failing = {"What causes mumps?": EngineError("The engine is busy.")}

    def outcomes(lookahead: int) -> dict[int, Outcome]:
        pipeline = pipeline_of(searcher, speaking(asked, failing))
        told, _ = asyncio.run(ask(pipeline, asked, at_once, lookahead, batch))
        return {place: without_times(outcome) for place, outcome in told.outcomes.items()}

    alone = outcomes(0)
    assert sorted(alone) == list(range(len(asked)))
    assert outcomes(lookahead) == alone


async def test_two_questions_that_differ_in_capitals_alone_are_each_searched_by_their_own_vector() -> None:
    """To this encoder, as to many, they aren't the same. So which one the look-ahead had read before would decide over the other."""

    class Exact(FakeEncoder):
        def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
            return super().encode_queries([text.replace("AIDS", "acquired immunodeficiency") for text in texts])

    asked: list[QuestionKey] = [("What is AIDS", None), ("What is aids", None)]
    found = []
    for lookahead in (0, 1):
        pipeline = pipeline_of(Finding(), speaking(asked), Exact())
        told, _ = await ask(pipeline, asked, at_once=1, lookahead=lookahead, search_batch=1)
        searched = [told.outcomes[place].searched for place in range(2)]
        found.append([one.hits[0].dense for one in searched if one is not None])
    assert found[1] == found[0]


async def test_with_a_cache_behind_the_look_ahead_an_answer_still_says_that_it_served() -> None:
    asked = [("What causes gout?", None)] * 6
    told_of = []
    for lookahead in (0, 2):
        cached = CachedSearcher(Finding(), QuestionCache[Hits](Memory(FakeEncoder.dimension, 10)))
        told, _ = await ask(pipeline_of(cached, speaking(asked)), asked, 1, lookahead, search_batch=1)
        told_of.append(
            [told.answer(place).cache for place in (3, 4, 5)]
        )  # the first may be searched twice beside each other
    served = CacheInfo(hit=True, similarity=1.0, index_version=Finding.index_version)
    assert told_of == [[served] * 3] * 2


async def test_a_kept_answer_leaves_no_room_taken_by_what_was_searched_ahead_for_it() -> None:
    asked = [("What causes gout?", None), ("what causes gout", None), ("What causes scurvy?", None)]
    finding, generator = Finding(), speaking(asked)
    answers: Answers = QuestionCache(Memory(FakeEncoder.dimension, 10))
    told, counts = await ask(pipeline_of(finding, generator, answers=answers), asked, at_once=1)
    assert counts is not None
    assert counts.ahead + counts.late + counts.alone == len(generator.asked) == 2
    assert counts.wasted <= 1
    assert told.answer(1).cache.hit
    assert told.answer(1).answer == told.answer(0).answer


async def test_looking_ahead_is_over_with_its_block_and_leaves_the_pipeline_as_it_was() -> None:
    finding, encoder = Finding(), Encoding()
    pipeline = pipeline_of(finding, speaking(numbered(5)), encoder)
    with closing(pipeline):
        with looking_ahead(pipeline, numbered(5), 4, 2) as (ahead, searcher):
            assert searcher is not None
            assert looking()
            assert ahead.index_version == pipeline.index_version == Finding.index_version
            until(lambda: len(finding.batches) == 2)
            await ahead.answer("question 1")
        assert (searcher.counts.ahead, finding.alone, looking()) == (1, [], set())
        await pipeline.answer("question 1")
        assert (finding.alone, encoder.alone) == ([["question 1"]], [["question 1"]])
        with pytest.raises(ZeroDivisionError), looking_ahead(pipeline, numbered(5), 4, 2):
            raise ZeroDivisionError


# --- those with the same passages one after the other ----------------------------------------------


def by_topic(count: int) -> list[QuestionKey]:
    """Of three topics in turns; what is found depends on the topic alone."""
    return [(f"{'cab'[number % 3]} {number}", None) for number in range(count)]


async def test_questions_with_the_same_passages_are_asked_one_after_the_other() -> None:
    asked = by_topic(12)
    generator = speaking(asked)
    pipeline = pipeline_of(Finding(passage=lambda question: question[0]), generator)
    told, counts = await ask(pipeline, asked, at_once=1, lookahead=24, search_batch=4, order="prefix")
    assert [question[0] for question in generator.questions] == [*"aaaabbbbcccc"]
    assert generator.questions[:4] == ["a 1", "a 4", "a 7", "a 10"], "within them the order of the input"
    assert [told.answer(place).question for place in range(12)] == [question for question, _ in asked]
    assert counts == PrefetchCounts(ahead=12)


async def test_of_more_than_the_window_holds_each_half_of_it_is_in_order_and_none_waits_for_ever() -> None:
    asked = by_topic(15)
    generator = speaking(asked)
    pipeline = pipeline_of(Finding(passage=lambda question: question[0]), generator)
    await ask(pipeline, asked, at_once=1, lookahead=12, search_batch=2, order="prefix")
    topics = [question[0] for question in generator.questions]
    assert topics == [*"aabbcc", *"aabbcc", *"abc"]


async def test_so_it_is_with_more_at_once_than_the_window_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next ones are looked at while those before are about to be asked."""
    real = PrefetchSearcher.search

    def slow(self: PrefetchSearcher, queries: Any, trace: Any) -> Any:
        time.sleep(0.003)
        return real(self, queries, trace)

    monkeypatch.setattr(PrefetchSearcher, "search", slow)
    asked = by_topic(96)
    generator = speaking(asked)
    pipeline = pipeline_of(Finding(passage=lambda question: question[0]), generator)
    looked: list[Hits] = []
    peek = PrefetchSearcher.peek
    monkeypatch.setattr(PrefetchSearcher, "peek", lambda self, key: looked.append(peek(self, key)) or looked[-1])
    await ask(pipeline, asked, at_once=32, lookahead=16, search_batch=4, order="prefix")
    assert len(looked) == 96
    assert all(looked)


async def test_one_long_answer_does_not_hold_up_the_next_half_of_the_window() -> None:
    asked = by_topic(12)
    first = threading.Event()

    class Slow(Answering):
        async def stream(self, messages: Any, params: Any) -> Any:
            if "c 0" in messages[-1]["content"]:
                await asyncio.to_thread(first.wait, PATIENCE)
            async for item in super().stream(messages, params):
                yield item

    generator = Slow({text: f"So much for {text} [1]." for text, _ in asked})
    pipeline = pipeline_of(Finding(passage=lambda question: question[0]), generator)
    answering = asyncio.create_task(ask(pipeline, asked, at_once=2, lookahead=8, search_batch=2, order="prefix"))
    await serving.until(lambda: len(generator.questions) == 11)
    first.set()
    told, _ = await answering
    assert generator.questions[-1] == "c 0"
    assert sorted(told.outcomes) == list(range(12))


async def test_a_window_that_batches_do_not_fill_holds_nothing_up() -> None:
    """Batches of 2 leave one place of the window of 3 empty; the third question is looked at before one is asked."""
    asked = by_topic(7)
    told, _ = await ask(
        pipeline_of(Finding(), speaking(asked)), asked, at_once=2, lookahead=3, search_batch=2, order="prefix"
    )
    assert sorted(told.outcomes) == list(range(7))


@ORDERS
async def test_a_question_that_is_asked_twice_with_white_space_around_it_holds_nothing_up(order: str) -> None:
    asked: list[QuestionKey] = [(" b ", None), ("a", None), ("b", None), ("c", None), ("d", None), ("e", None)]
    pipeline = pipeline_of(Finding(), speaking(asked))
    told, _ = await ask(pipeline, asked, at_once=1, lookahead=2, search_batch=1, order=order)
    assert [told.answer(place).question for place in range(6)] == [*"babcde"]


# --- failures --------------------------------------------------------------------------------------


@ORDERS
async def test_a_question_that_fails_is_told_with_its_error_and_the_others_go_on(order: str) -> None:
    asked = numbered(10)
    failing = {"question 3": EngineError("The engine is busy."), "question 7": ZeroDivisionError("oh")}
    finding = Finding(failing={"question 5"})
    told, counts = await ask(pipeline_of(finding, speaking(asked, failing)), asked, order=order)
    assert told.errors == {
        3: "The engine is busy.",
        5: "A defect of rag's: ValueError('nothing can be found for question 5')",
        7: "A defect of rag's: ZeroDivisionError('oh')",
    }
    assert sorted(told.outcomes) == list(range(10))
    assert {place for place, one in told.outcomes.items() if one.searched is None} == {5}
    assert all(document(told.answer(place)) == f"question {place} where None" for place in (0, 4, 6, 9))
    assert counts is not None
    assert counts.ahead + counts.late + counts.alone == 10


async def test_a_bad_condition_is_the_error_of_its_question_alone(tmp_path: Path) -> None:
    serving.write(tmp_path)
    asked: list[QuestionKey] = [
        ("What causes gout?", None),
        ("What causes gout?", "year >"),
        ("What causes scurvy?", "year>2000"),
        ("What causes malaria?", "retracted"),
        ("What causes malaria?", None),
    ]
    searcher = HybridSearcher(serving.search(tmp_path).index, serving.LOADED.settings.retrieve)
    told, _ = await ask(pipeline_of(searcher, speaking(asked)), asked)
    assert sorted(told.errors) == [1, 2]
    assert "where a value after > is expected" in told.errors[1]
    assert "year" in told.errors[2]
    assert told.answer(3).abstained
    assert [document(told.answer(place)) for place in (0, 4)] == ["gout", "malaria"]


@ORDERS
async def test_an_empty_or_overlong_question_is_an_error_of_its_own_and_does_not_hold_up_the_window(order: str) -> None:
    asked: list[QuestionKey] = [("", None), ("  ", None), ("why " * 1000, None), *numbered(12)]
    told, counts = await ask(
        pipeline_of(Finding(), speaking(numbered(12), pause=0.02)), asked, 2, lookahead=4, search_batch=2, order=order
    )
    assert sorted(told.errors) == [0, 1, 2]
    assert told.errors[0] == told.errors[1]
    assert "The question is empty" in told.errors[0]
    assert "at most 2,000" in told.errors[2]
    assert [told.answer(place).question for place in range(3, 15)] == [question for question, _ in numbered(12)]
    assert counts is not None
    assert (counts.ahead + counts.late + counts.alone, counts.wasted) == (12, 0)
    assert counts.ahead + counts.late > 2


@ORDERS
async def test_a_question_that_cannot_be_encoded_does_not_hold_up_the_window(order: str) -> None:
    """It fails before it is searched; the search in advance goes on all the same."""
    asked = numbered(14)
    encoder = Encoding(failing={"question 0"})
    told, counts = await ask(
        pipeline_of(Finding(), speaking(asked, pause=0.02), encoder), asked, 1, lookahead=2, search_batch=2, order=order
    )
    assert told.errors == {0: "A defect of rag's: ValueError(\"a text that can't be encoded\")"}
    assert sorted(told.outcomes) == list(range(14))
    assert counts is not None
    assert counts.ahead + counts.late > 2


@ORDERS
async def test_an_engine_that_dies_ends_it(order: str) -> None:
    asked = numbered(10)
    pipeline = pipeline_of(Finding(), speaking(asked, dies_at="question 4"))
    told = Told()
    with closing(pipeline), pytest.raises(EngineDied, match="The engine died"):
        await answer_all(pipeline, asked, told, Batch(lookahead=6, search_batch=2, order=order), 1)
    assert sorted(told.outcomes) == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), EngineDied("gone")])
async def test_an_engine_that_is_lost_ends_it_whichever_of_both_tells_it(error: Exception) -> None:
    """An error while the engine isn't alive any more, or one that says so before the engine does."""
    asked = numbered(10)
    generator = speaking(asked, {"question 2": error})
    generator.alive = isinstance(error, EngineDied)
    pipeline = pipeline_of(Finding(), generator)
    told = Told()
    with closing(pipeline), pytest.raises(type(error), match="gone"):
        await answer_all(pipeline, asked, told, Batch(), 1)
    assert sorted(told.outcomes) == [0, 1]


@pytest.mark.parametrize("lookahead", [0, 8])
async def test_what_cannot_be_kept_ends_it(lookahead: int) -> None:
    def full(place: int, outcome: Outcome) -> None:
        del outcome
        if place == 3:
            raise OSError("no room")

    asked = numbered(10)
    generator = speaking(asked)
    pipeline = pipeline_of(Finding(), generator)
    with closing(pipeline), pytest.raises(OSError, match="no room"):
        await answer_all(pipeline, asked, full, Batch(lookahead=lookahead, search_batch=2), 2)
    assert generator.open == 0
    assert len(generator.asked) < 10


# --- cancelled -------------------------------------------------------------------------------------


@ORDERS
async def test_cancelled_in_the_middle_it_aborts_what_is_under_way_and_leaves_no_thread(order: str) -> None:
    asked = numbered(30)
    generator = speaking(asked, pause=60)
    pipeline = pipeline_of(Finding(), generator)
    batch = Batch(lookahead=8, search_batch=4, order=order)
    with closing(pipeline):
        task = asyncio.create_task(answer_all(pipeline, asked, Told(), batch, 3))
        await serving.until(lambda: generator.open == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (generator.open, looking()) == (0, set())


async def test_cancelled_while_the_order_waits_for_the_search_it_leaves_no_thread() -> None:
    """The batch under way is let end, so it takes as long as that."""
    asked = numbered(30)
    finding = Finding()
    finding.gate.clear()
    pipeline = pipeline_of(finding, speaking(asked))
    with closing(pipeline):
        batch = Batch(lookahead=8, search_batch=4, order="prefix")
        task = asyncio.create_task(answer_all(pipeline, asked, Told(), batch, 3))
        await serving.until(lambda: bool(finding.batches))
        threading.Timer(0.1, finding.gate.set).start()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (len(finding.batches), looking()) == (1, set())


# --- the engine of a batch -------------------------------------------------------------------------


def test_the_engine_has_the_cores_of_a_batch() -> None:
    loaded = settings.load(assignments=["batch.cores=0-1", "generator.max_tokens=9"], environ={}, device="cpu")
    batch = for_batch(loaded).settings.generator
    assert batch == loaded.settings.generator.model_copy(update={"cores": "0-1"})
    assert loaded.settings.generator.cores != "0-1"


@pytest.mark.parametrize(
    "by_hand", [{"assignments": ["generator.cores=0"]}, {"environ": {"RAG__GENERATOR__CORES": "0"}}]
)
def test_cores_that_are_set_by_hand_stay(by_hand: dict[str, Any]) -> None:
    assignments = ["batch.cores=0-1", *by_hand.get("assignments", ())]
    loaded = settings.load(assignments=assignments, environ=by_hand.get("environ", {}), device="cpu")
    assert for_batch(loaded).settings.generator.cores == "0"


def test_cores_of_a_profile_make_room_for_those_of_a_batch(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text('generator: {cores: "0"}\nbatch: {cores: "0-1"}\n')
    loaded = settings.load(str(tmp_path / "mine.yaml"), environ={}, device="cpu")
    assert for_batch(loaded).settings.generator.cores == "0-1"


@pytest.mark.parametrize(("by_hand", "together"), [([], 1), (["batch.together=4"], 4)])
def test_prompts_for_a_server_are_held_back_only_where_that_is_asked_for(by_hand: list[str], together: int) -> None:
    """It shares no cores with the search, which is what a profile for a CPU holds them back for."""
    remote = ["generator.base_url=http://127.0.0.1:1/v1", "generator.model=m", *by_hand]
    batch = for_batch(settings.load("auto-cpu", assignments=remote, environ={}, device="cpu")).settings
    assert (batch.batch.together, batch.at_once) == (together, 16 + (together if together > 1 else 0))


def test_without_cores_of_a_batch_the_settings_are_the_same() -> None:
    loaded = settings.load(assignments=["batch.cores=null"], environ={}, device="cpu")
    assert for_batch(loaded) is loaded
