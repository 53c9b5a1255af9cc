"""Searching ahead, on fakes: whatever is asked, and when, each question gets its own hits, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lookahead import (
    PATIENCE,
    Encoding,
    Finding,
    in_thread,
    looking,
    nothing_hangs_and_no_thread_stays,
    query_of,
    until,
)

from rag.core import Encoder, Hits, Trace
from rag.prefetch import PrefetchCounts, PrefetchSearcher, QuestionKey


@pytest.fixture(autouse=True)
def _guarded() -> Iterator[None]:
    with nothing_hangs_and_no_thread_stays():
        yield


def numbered(count: int) -> list[QuestionKey]:
    return [(f"q{number}", None) for number in range(count)]


def names(*texts: str) -> list[QuestionKey]:
    return [(text, None) for text in texts]


def over(
    finding: Finding, stream: Iterable[QuestionKey], window: int, batch_size: int, encoder: Encoder | None = None
) -> PrefetchSearcher:
    return PrefetchSearcher(finding, encoder if encoder is not None else Encoding(), stream, window, batch_size)


def ask(ahead: PrefetchSearcher, *asked: QuestionKey, trace: Trace | None = None) -> list[Hits]:
    return ahead.search([query_of(one) for one in asked], trace if trace is not None else Trace())


def settled(finding: Finding, searched: int) -> None:
    """Waits until so many are searched in advance, and sees that it stays at that."""
    until(lambda: sum(map(len, finding.batches)) >= searched)
    time.sleep(0.03)
    assert sum(map(len, finding.batches)) == searched


# --- every question gets its own hits --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """`asked` of a stream by so many threads; the search fails at `failing`."""

    stream: list[QuestionKey]
    asked: list[QuestionKey]
    window: int
    batch_size: int
    threads: int
    failing: frozenset[str]


WHERE = st.sampled_from([None, "year>2000"])
OF_STREAM, FOREIGN = (st.tuples(st.sampled_from(letters), WHERE) for letters in ("abcde", "xyz"))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    stream = draw(st.lists(OF_STREAM, max_size=20))
    asked = list(stream)
    if draw(st.booleans()):
        asked = [one for one in stream if draw(st.booleans())]
        for foreign in draw(st.lists(FOREIGN | OF_STREAM, max_size=5)):
            asked.insert(draw(st.integers(0, len(asked))), foreign)
    if draw(st.booleans()):
        asked = draw(st.permutations(asked))
    window = draw(st.integers(1, 8))
    return Case(
        stream,
        asked,
        window,
        batch_size=draw(st.integers(1, window)),
        threads=draw(st.sampled_from([1, 1, 3])),
        failing=frozenset(draw(st.sampled_from(["", "", "a", "x"]))),
    )


@given(case=cases())
@settings(max_examples=300, deadline=None)
def test_each_question_gets_its_own_hits_and_no_more_are_waiting_than_the_window_holds(case: Case) -> None:
    """Whatever the stream, and whatever of it is asked, in which order, and what else: with failures too."""
    finding = Finding(case.failing)
    ahead = over(finding, case.stream, case.window, case.batch_size)

    def ask_one(asked: QuestionKey) -> Hits | str:
        finding.started.append(asked)
        try:
            [hits] = ask(ahead, asked)
        except ValueError as error:
            return str(error)
        return hits

    def ask_all() -> list[Hits | str]:
        with ThreadPoolExecutor(case.threads) as pool, closing(ahead):
            return list(pool.map(ask_one, case.asked))

    found = in_thread(ask_all)()
    assert found == [
        f"nothing can be found for {one[0]}" if one[0] in case.failing else finding.hits(one) for one in case.asked
    ]

    searched = 0
    for call in finding.calls:
        if call.ahead:
            assert 1 <= len(call.asked) <= case.batch_size
            failed = any(text in case.failing for text, _ in call.asked)
            searched += 0 if failed else len(call.asked)  # nothing waits of a batch that failed
            assert searched - call.started <= case.window
    counts = ahead.counts
    assert counts.ahead + counts.late + counts.alone == len(case.asked)
    if not case.failing:
        assert counts.ahead + counts.late + counts.wasted == searched
    if Counter(case.asked) == Counter(case.stream):
        assert counts.wasted == 0, "what is asked before its turn isn't searched again"
    assert not looking()


def test_16_threads_that_ask_at_once_all_get_theirs() -> None:
    stream = [one for one in numbered(60) for _ in range(2)] + [(f"q{number}", "retracted") for number in range(60)]
    finding = Finding()
    with closing(over(finding, stream, window=12, batch_size=5)) as ahead:
        begin = threading.Barrier(16)

        def ask_some(first: int) -> list[tuple[QuestionKey, Hits]]:
            begin.wait(PATIENCE)
            return [(one, ask(ahead, one)[0]) for one in stream[first::16]]

        with ThreadPoolExecutor(16) as pool:
            found = [pair for some in pool.map(ask_some, range(16)) for pair in some]
    assert len(found) == len(stream)
    assert all(hits == finding.hits(asked) for asked, hits in found)
    assert (ahead.counts.ahead + ahead.counts.late + ahead.counts.alone, ahead.counts.wasted) == (len(stream), 0)


def test_several_queries_of_one_call_keep_their_order_and_those_left_over_are_searched_together() -> None:
    finding = Finding()
    with closing(over(finding, names("a", "b", "c"), window=2, batch_size=2)) as ahead:
        settled(finding, 2)
        asked = [("x", None), ("b", None), ("y", None), ("a", None), ("a", "retracted")]
        assert ask(ahead, *asked) == [finding.hits(one) for one in asked]
        assert finding.alone == [["x", "y", "a"]]
    assert ahead.counts.ahead == 2
    assert ahead.counts.alone == 3


def test_an_index_version_is_that_of_the_search_behind_it() -> None:
    with closing(over(Finding(), [], window=1, batch_size=1)) as ahead:
        assert ahead.index_version == Finding.index_version
        assert ask(ahead) == []


# --- batches ---------------------------------------------------------------------------------------


def test_a_batch_is_encoded_once_and_searched_once() -> None:
    finding, encoder = Finding(), Encoding()
    with closing(over(finding, numbered(8), window=8, batch_size=3, encoder=encoder)) as ahead:
        settled(finding, 6)
        assert finding.batches == encoder.batches == [["q0", "q1", "q2"], ["q3", "q4", "q5"]]
        assert ask(ahead, ("q0", None)) == [finding.hits(("q0", None))]
        settled(finding, 8)
        assert finding.batches[2:] == encoder.batches[2:] == [["q6", "q7"]]
        for one in numbered(8)[1:]:
            ask(ahead, one)
    assert (encoder.alone, finding.alone) == ([], [])
    assert ahead.counts == PrefetchCounts(ahead=8)


def test_the_same_question_twice_is_searched_twice_and_given_twice() -> None:
    finding = Finding()
    with closing(over(finding, names("a", "a", "b"), window=4, batch_size=4)) as ahead:
        settled(finding, 3)
        assert ask(ahead, ("a", None)) == ask(ahead, ("a", None)) == [finding.hits(("a", None))]
        ask(ahead, ("a", None))
    assert ahead.counts == PrefetchCounts(ahead=2, alone=1, wasted=1)


def test_never_more_than_the_window_is_searched_and_not_asked() -> None:
    finding = Finding()
    with closing(over(finding, numbered(20), window=5, batch_size=2)) as ahead:
        settled(finding, 4)
        for number, one in enumerate(numbered(16)):
            assert ask(ahead, one) == [finding.hits(one)]
            settled(finding, 4 + 2 * ((number + 2) // 2) if number < 14 else 20)
    assert ahead.counts == PrefetchCounts(ahead=16, wasted=4)


def test_of_a_stream_without_an_end_no_more_is_read_than_the_window_holds() -> None:
    read: list[str] = []

    def endless() -> Iterator[QuestionKey]:
        for number in itertools.count():
            read.append(f"q{number}")
            yield read[-1], None

    finding = Finding()
    with closing(over(finding, endless(), window=6, batch_size=3)) as ahead:
        settled(finding, 6)
        assert len(read) == 6
        ask(ahead, ("q3", None))
    assert ahead.counts == PrefetchCounts(ahead=1, wasted=5)


@pytest.mark.parametrize(("window", "batch_size"), [(3, 4), (3, 0), (0, 0), (0, 1)])
def test_a_batch_that_the_window_does_not_hold_is_refused_and_no_thread_begins(window: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batches of {batch_size} in a window of {window}"):
        over(Finding(), numbered(3), window, batch_size)


# --- ahead, late, alone ----------------------------------------------------------------------------


def test_what_is_asked_while_it_is_searched_waits_for_that_and_is_late() -> None:
    finding = Finding()
    finding.gate.clear()
    with closing(over(finding, names("a", "b"), window=2, batch_size=2)) as ahead:
        until(lambda: bool(finding.batches))
        found = in_thread(lambda: ask(ahead, ("a", None)))
        time.sleep(0.03)
        finding.gate.set()
        assert found() == [finding.hits(("a", None))]
        until(lambda: ahead.counts.late == 1)
        ask(ahead, ("b", None))
    assert (finding.alone, ahead.counts) == ([], PrefetchCounts(ahead=1, late=1))


def test_a_batch_that_is_not_whole_is_searched_where_somebody_waits_for_it() -> None:
    finding = Finding()
    with closing(over(finding, numbered(9), window=3, batch_size=2)) as ahead:
        settled(finding, 2)
        assert in_thread(lambda: ask(ahead, ("q2", None)))() == [finding.hits(("q2", None))]
        assert finding.batches[1][0] == "q2"
        assert finding.alone == []
    assert ahead.counts.late == 1


async def test_who_waits_for_its_arrival_finds_it_there_and_it_was_late_all_the_same() -> None:
    finding = Finding()
    finding.gate.clear()
    with closing(over(finding, names("a", "a", "b"), window=3, batch_size=3)) as ahead:
        waiting = [asyncio.create_task(ahead.arrival(one)) for one in names("a", "a", "b", "b", "x")]
        await asyncio.sleep(0.03)
        assert [one.done() for one in waiting] == [False, False, False, True, True], (
            "whose turn hasn't come needn't wait"
        )
        waiting[2].cancel()
        finding.gate.set()
        await asyncio.wait_for(asyncio.gather(*waiting[:2]), PATIENCE)
        for text in "aab":
            assert ask(ahead, (text, None)) == [finding.hits((text, None))]
        assert ask(ahead, ("x", None)) == [finding.hits(("x", None))]
    assert ahead.counts == PrefetchCounts(late=3, alone=1)


async def test_closing_ends_the_wait_for_what_was_not_searched() -> None:
    finding = Finding()
    finding.gate.clear()
    ahead = over(finding, numbered(9), window=4, batch_size=2)
    until(lambda: bool(finding.batches))
    waiting = asyncio.create_task(ahead.arrival(("q3", None)))
    await asyncio.sleep(0.03)
    closed = in_thread(ahead.close)
    await asyncio.sleep(0.03)
    finding.gate.set()
    closed()
    await asyncio.wait_for(waiting, PATIENCE)
    assert ask(ahead, ("q3", None)) == [finding.hits(("q3", None))]
    assert finding.alone == [["q3"]]


def test_what_is_asked_before_its_turn_is_passed_over_then_and_not_wasted() -> None:
    finding = Finding()
    with closing(over(finding, names("a", "b", "c", "d"), window=1, batch_size=1)) as ahead:
        settled(finding, 1)
        assert ask(ahead, ("c", None)) == [finding.hits(("c", None))]
        for text in "abd":
            ask(ahead, (text, None))
    assert [text for [text] in finding.batches if text == "c"] == []
    assert finding.alone[0] == ["c"]
    assert ahead.counts.wasted == 0


def test_what_is_asked_twice_before_its_turn_is_passed_over_as_often_as_it_was_asked() -> None:
    finding = Finding()
    with closing(over(finding, names("a", "b", "b", "b", "c"), window=1, batch_size=1)) as ahead:
        settled(finding, 1)
        for _ in range(2):
            ask(ahead, ("b", None))
        ask(ahead, ("a", None))
        until(lambda: finding.batches[-1] == ["b"])
        ask(ahead, ("b", None))
        until(lambda: finding.batches[-1] == ["c"])
    assert finding.batches == [["a"], ["b"], ["c"]]
    assert ahead.counts.wasted == 1


def test_another_condition_makes_another_question_of_it() -> None:
    finding = Finding()
    with closing(over(finding, [("a", "retracted")], window=1, batch_size=1)) as ahead:
        settled(finding, 1)
        assert ask(ahead, ("a", None)) == [finding.hits(("a", None))]
        assert ask(ahead, ("a", "retracted")) == [finding.hits(("a", "retracted"))]
    assert ahead.counts == PrefetchCounts(ahead=1, alone=1)


def test_the_time_that_is_waited_for_hits_is_that_of_their_retrieval() -> None:
    """What the search itself took is nobody's: it ran before the question was asked."""
    finding = Finding()
    with closing(over(finding, names("a"), window=1, batch_size=1)) as ahead:
        settled(finding, 1)
        of_ahead, of_alone = Trace(), Trace()
        ask(ahead, ("a", None), trace=of_ahead)
        ask(ahead, ("x", None), trace=of_alone)
    assert [stage for stage, _, _ in of_ahead.spans] == ["retrieve"]
    assert [stage for stage, _, _ in of_alone.spans] == ["finding"]


# --- failures --------------------------------------------------------------------------------------


def test_of_a_batch_that_fails_only_the_question_at_fault_fails_and_at_its_own_call() -> None:
    finding = Finding(failing={"b"})
    with closing(over(finding, names("a", "b", "c", "d", "e"), window=3, batch_size=3)) as ahead:
        until(lambda: bool(finding.batches))
        assert ask(ahead, ("a", None)) == [finding.hits(("a", None))]
        with pytest.raises(ValueError, match="nothing can be found for b"):
            ask(ahead, ("b", None))
        assert ask(ahead, ("c", None)) == [finding.hits(("c", None))]
        assert finding.alone == [["a"], ["b"], ["c"]]
        settled(finding, 5)
        for text in "de":
            assert ask(ahead, (text, None)) == [finding.hits((text, None))]
    assert ahead.counts == PrefetchCounts(ahead=2, alone=3)


def test_where_a_batch_cannot_be_encoded_each_of_its_questions_is_searched_alone() -> None:
    finding, encoder = Finding(), Encoding(failing={"b"})
    with closing(over(finding, names("a", "b", "c", "d"), window=2, batch_size=2, encoder=encoder)) as ahead:
        for text in "abcd":
            if text == "c":
                settled(finding, 2)
            assert ask(ahead, (text, None)) == [finding.hits((text, None))]
        assert finding.alone == [["a"], ["b"]]
        assert finding.batches == [["c", "d"]]
    assert ahead.counts == PrefetchCounts(ahead=2, alone=2)


def test_an_encoder_that_gives_too_few_vectors_is_a_batch_that_fails() -> None:
    class Short(Encoding):
        def encode_queries(self, texts: Sequence[str]) -> object:  # type: ignore[override]
            return super().encode_queries(texts)[:1]

    finding = Finding()
    with closing(over(finding, names("a", "b"), window=2, batch_size=2, encoder=Short())) as ahead:  # type: ignore[arg-type]
        for text in "ab":
            assert in_thread(partial(ask, ahead, (text, None)))() == [finding.hits((text, None))]
    assert ahead.counts == PrefetchCounts(alone=2)


def test_a_search_that_gives_too_few_hits_leaves_no_question_waiting() -> None:
    """A batch that came back short is one that failed."""

    class Short(Finding):
        def search(self, queries, trace):  # type: ignore[no-untyped-def]
            found = super().search(queries, trace)
            return found[:1] if len(queries) > 1 else found

    finding = Short()
    with closing(over(finding, names("a", "b"), window=2, batch_size=2)) as ahead:
        for text in "ab":
            assert in_thread(partial(ask, ahead, (text, None)))() == [finding.hits((text, None))]


def test_a_stream_that_breaks_off_leaves_no_question_waiting() -> None:
    """What was read of it before is asked all the same."""

    read = threading.Event()

    def broken() -> Iterator[QuestionKey]:
        yield "a", None
        read.set()
        raise OSError("the file is gone")

    finding = Finding()
    with closing(over(finding, broken(), window=2, batch_size=2)) as ahead:
        assert read.wait(PATIENCE)
        assert in_thread(lambda: ask(ahead, ("a", None)))() == [finding.hits(("a", None))]


# --- a look at what comes --------------------------------------------------------------------------


def test_a_look_at_what_will_be_found_takes_nothing_away() -> None:
    finding = Finding()
    with closing(over(finding, names("a", "b"), window=2, batch_size=2)) as ahead:
        assert ahead.peek(("a", None)) == ahead.peek(("a", None)) == finding.hits(("a", None))
        assert ask(ahead, ("a", None)) == [finding.hits(("a", None))]
    assert (finding.batches, finding.alone) == ([["a", "b"]], [])
    assert ahead.counts == PrefetchCounts(ahead=1, wasted=1)


def test_a_look_waits_until_the_question_is_searched() -> None:
    finding = Finding()
    finding.gate.clear()
    with closing(over(finding, names("a", "b", "c"), window=4, batch_size=2)) as ahead:
        seen = [in_thread(partial(ahead.peek, one)) for one in names("a", "b", "c")]
        time.sleep(0.03)
        finding.gate.set()
        assert [one() for one in seen] == [finding.hits(one) for one in names("a", "b", "c")]


def test_a_look_that_waits_as_the_stream_ends_without_the_question_is_over_then() -> None:
    finding = Finding()
    finding.gate.clear()
    with closing(over(finding, names("a", "b"), window=4, batch_size=2)) as ahead:
        until(lambda: bool(finding.batches))
        seen = in_thread(partial(ahead.peek, ("x", None)))
        time.sleep(0.03)
        finding.gate.set()
        assert seen() == ()


def test_a_look_finds_nothing_where_the_batch_failed_or_the_stream_ends_without_the_question() -> None:
    finding = Finding(failing={"b"})
    with closing(over(finding, names("a", "b"), window=4, batch_size=2)) as ahead:
        assert [in_thread(partial(ahead.peek, one))() for one in names("a", "b", "x")] == [(), (), ()]


@pytest.mark.parametrize(("window", "batch_size", "looked_at"), [(3, 2, "c"), (2, 2, "x"), (2, 2, "b")])
def test_a_look_does_not_wait_for_what_cannot_come_before_something_is_asked(
    window: int, batch_size: int, looked_at: str
) -> None:
    """Who looks before asking would wait for ever: there is no room for another batch, whether the question is still to come, isn't
    of the stream, or was asked before and isn't searched again."""
    finding = Finding()
    with closing(over(finding, names("a", "b", "c", "d", "e"), window, batch_size)) as ahead:
        settled(finding, 2)
        if looked_at == "b":
            ask(ahead, ("b", None))
        seen = in_thread(lambda: ahead.peek((looked_at, None)))
        try:
            assert seen() in ((), finding.hits((looked_at, None)))
        finally:
            ahead.close()


# --- closed in the middle --------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 3])
def test_closed_in_the_middle_of_a_batch_it_waits_for_that_alone_and_leaves_no_thread(asked: int) -> None:
    finding = Finding()
    ahead = over(finding, numbered(50), window=8, batch_size=4)
    settled(finding, 8)
    for one in numbered(asked):
        ask(ahead, one)
    settled(finding, 8)
    finding.gate.clear()
    for one in numbered(asked + 4)[asked:]:
        ask(ahead, one)
    until(lambda: len(finding.batches) == 3)
    closed = in_thread(ahead.close)
    time.sleep(0.03)
    assert looking()
    finding.gate.set()
    closed()
    assert not looking()
    assert len(finding.batches) == 3
    assert ahead.counts.wasted == 12 - (asked + 4)


def test_closing_wakes_who_looks_at_what_will_never_come() -> None:
    finding = Finding()
    ahead = over(finding, numbered(9), window=2, batch_size=2)
    seen = in_thread(lambda: ahead.peek(("q8", None)))
    settled(finding, 2)
    ahead.close()
    assert seen() == ()


def test_after_it_is_closed_questions_are_still_answered() -> None:
    """One that was cancelled may be in the middle of its search."""
    finding = Finding()
    ahead = over(finding, numbered(9), window=2, batch_size=2)
    settled(finding, 2)
    ahead.close()
    ahead.close()
    assert ahead.counts.wasted == 2, "counted once"
    for one in numbered(4):
        assert ask(ahead, one) == [finding.hits(one)]
    assert ahead.peek(("q5", None)) == ()
    assert finding.alone == [["q2"], ["q3"]]
