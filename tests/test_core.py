"""rag/core.py: the trace of one question, and the arithmetic on its spans."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import core
from rag.core import STAGES, GenerationStats, Hit, Passage, Span, StageTimings, Trace, covered

PASSAGE = Passage(id="d:0", doc_id="d", title="T", text="A sentence.", start=0, end=11)


def ticking(*times: float) -> Callable[[], float]:
    """A clock that shows these times, one a look; a look too many fails."""
    return iter(times).__next__


# --- spans -------------------------------------------------------------------------------------


def test_a_span_is_measured_in_seconds_since_the_trace_was_made() -> None:
    trace = Trace(ticking(100.0, 101.0, 103.5))
    with trace.span("embed"):
        pass
    assert trace.origin == 100.0
    assert trace.spans == (("embed", 1.0, 3.5),)


def test_spans_are_in_order_of_their_start_though_an_outer_one_ends_last() -> None:
    trace = Trace(ticking(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    with trace.span("generate"), trace.span("retrieve"):
        pass
    with trace.span("verify"):
        pass
    assert trace.spans == (("generate", 1.0, 4.0), ("retrieve", 2.0, 3.0), ("verify", 5.0, 6.0))


def test_a_span_is_kept_when_its_stage_fails_and_the_error_goes_on() -> None:
    trace = Trace(ticking(0.0, 1.0, 2.0))
    with pytest.raises(ZeroDivisionError), trace.span("rerank"):
        raise ZeroDivisionError
    assert trace.spans == (("rerank", 1.0, 2.0),)


def test_an_open_span_is_not_among_the_spans_yet() -> None:
    trace = Trace(ticking(0.0, 1.0, 2.0))
    with trace.span("embed"):
        assert trace.spans == ()
        assert trace.seconds("embed") is None
    assert len(trace.spans) == 1


def test_the_seconds_of_a_stage_are_the_sum_of_its_spans() -> None:
    trace = Trace(ticking(0.0, 1.0, 2.0, 5.0, 5.5, 6.0, 9.0))
    for stage in ("retrieve", "retrieve", "rerank"):
        with trace.span(stage):
            pass
    assert trace.seconds("retrieve") == 1.5
    assert trace.seconds("rerank") == 3.0
    assert trace.seconds("cache") is None


# --- timings -----------------------------------------------------------------------------------


def test_a_stage_that_did_not_run_has_no_time_and_the_total_runs_to_now() -> None:
    trace = Trace(ticking(10.0, 11.0, 13.0, 20.0))
    with trace.span("embed"):
        pass
    assert trace.timings() == StageTimings(embed=2.0, total=10.0)


def test_a_stage_that_took_no_time_has_zero_and_not_none() -> None:
    trace = Trace(ticking(0.0, 1.0, 1.0, 2.0))
    with trace.span("route"):
        pass
    assert trace.timings().route == 0.0


def test_the_engines_times_are_taken_over_and_none_and_zero_stay_what_they_are() -> None:
    stats = GenerationStats(output_tokens=3, queue=0.0, ttft=0.0, decode=None)
    timings = Trace(ticking(0.0, 1.0)).timings(stats)
    assert timings == StageTimings(queue=0.0, ttft=0.0, decode=None, total=1.0)


def test_every_stage_has_a_field_of_its_own_in_the_timings() -> None:
    trace = Trace(ticking(*range(2 * len(STAGES) + 2)))
    for stage in STAGES:
        with trace.span(stage):
            pass
    timings = dataclasses.asdict(trace.timings(GenerationStats(1, queue=1.0, ttft=2.0, decode=3.0)))
    assert timings == dict.fromkeys(STAGES, 1) | {"queue": 1.0, "ttft": 2.0, "decode": 3.0, "total": 19}


def test_the_timings_have_the_keys_and_the_order_of_the_json_contract() -> None:
    expected = "embed cache retrieve rerank filter context route generate queue ttft decode verify total"
    assert [field.name for field in dataclasses.fields(StageTimings)] == expected.split()


# --- threads -----------------------------------------------------------------------------------


def test_spans_of_many_threads_that_are_open_at_once_keep_their_own_times() -> None:
    workers = 8
    own = threading.local()
    own.times = iter([0.0])
    all_open = threading.Barrier(workers, timeout=10)
    trace = Trace(lambda: next(own.times))

    def stage(number: int) -> None:
        own.times = iter([float(number), 100.0 + 2 * number])
        with trace.span(f"stage {number}"):
            all_open.wait()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(stage, range(workers)))
    assert trace.spans == tuple((f"stage {n}", float(n), 100.0 + 2 * n) for n in range(workers))


def test_no_span_is_lost_when_threads_write_at_once() -> None:
    rounds, workers = 2000, 4
    trace = Trace()
    ready = threading.Barrier(workers, timeout=10)

    def stage(name: str) -> None:
        ready.wait()
        for _ in range(rounds):
            with trace.span(name):
                pass

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or each thread would be through before the next begins
    try:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(stage, "abcd"))
    finally:
        sys.setswitchinterval(interval)
    assert Counter(name for name, _, _ in trace.spans) == dict.fromkeys("abcd", rounds)


# --- covered -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0.0),
        ([("a", 1.0, 3.0)], 2.0),
        ([("a", 0.0, 2.0), ("b", 5.0, 6.0)], 3.0),
        ([("a", 0.0, 2.0), ("b", 1.0, 4.0)], 4.0),
        ([("a", 0.0, 10.0), ("b", 2.0, 3.0), ("c", 4.0, 12.0)], 12.0),
        ([("a", 0.0, 2.0), ("b", 2.0, 3.0)], 3.0),
        ([("a", 1.0, 2.0), ("a", 1.0, 2.0)], 1.0),
        ([("b", 5.0, 6.0), ("a", 0.0, 2.0)], 3.0),
    ],
    ids=["none", "one", "apart", "overlapping", "nested", "touching", "twice the same", "unsorted"],
)
def test_overlapping_spans_are_counted_once(spans: list[Span], seconds: float) -> None:
    assert covered(spans) == seconds


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10))))
def test_covered_is_the_number_of_seconds_in_which_some_span_was_open(starts: list[tuple[int, int]]) -> None:
    spans = [("stage", float(start), float(start + length)) for start, length in starts]
    open_seconds = {second for start, length in starts for second in range(start, start + length)}
    assert covered(spans) == len(open_seconds)


# --- types -------------------------------------------------------------------------------------


def test_the_score_of_a_hit_is_the_rerankers_or_else_the_cosine() -> None:
    assert Hit(PASSAGE, dense=0.4, lexical=7.0, fused=0.03).score == 0.4
    assert Hit(PASSAGE, dense=0.4, lexical=7.0, fused=0.03, rerank=0.9).score == 0.9


def test_a_reranker_probability_of_zero_is_a_score() -> None:
    assert Hit(PASSAGE, dense=0.4, rerank=0.0).score == 0.0


def test_every_type_is_frozen_and_slotted() -> None:
    types = [kind for kind in vars(core).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    assert len(types) > 15
    for kind in types:
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[attr-defined]
        assert "__slots__" in vars(kind), kind


def test_a_value_of_a_type_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PASSAGE.text = "Another."  # type: ignore[misc]
