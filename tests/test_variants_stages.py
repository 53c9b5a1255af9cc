"""rag/variants/breakdown/stages.py: where the time of an answer went."""

from __future__ import annotations

from dataclasses import replace

import pytest
from beside import answer
from hypothesis import given
from hypothesis import strategies as st

from rag.core import STAGES, StageTimings, covered
from rag.variants.breakdown.stages import critical_path, spent


def test_stages_one_after_the_other_keep_their_seconds() -> None:
    assert critical_path([("embed", 0, 1), ("retrieve", 1, 3), ("generate", 4, 9)]) == {
        "embed": 1,
        "retrieve": 2,
        "generate": 5,
    }


def test_an_instant_at_which_two_are_at_work_counts_for_the_one_that_ends_last() -> None:
    assert critical_path([("embed", 0, 2), ("retrieve", 0, 5), ("generate", 4, 9)]) == {
        "embed": 0,
        "retrieve": 4,
        "generate": 5,
    }


def test_the_steps_inside_a_stage_are_part_of_it() -> None:
    spans = [("retrieve", 0, 4), ("dense", 0, 1), ("lexical", 1, 3.5), ("fuse", 3.5, 4)]
    assert critical_path(spans) == {"retrieve": 4}


def test_a_stage_that_runs_twice_has_both() -> None:
    assert critical_path([("retrieve", 0, 1), ("generate", 1, 2), ("retrieve", 2, 4)]) == {"retrieve": 3, "generate": 1}


@given(
    st.lists(
        st.tuples(st.sampled_from(STAGES), st.integers(0, 20), st.integers(0, 20)).map(
            lambda one: (one[0], float(min(one[1:])), float(max(one[1:])))
        ),
        max_size=8,
    )
)
def test_together_they_are_the_time_during_which_anything_ran(spans: list[tuple[str, float, float]]) -> None:
    path = critical_path(spans)
    assert sum(path.values()) == pytest.approx(covered(spans))
    assert set(path) == {name for name, _, _ in spans}
    for name, seconds in path.items():
        assert 0 <= seconds <= covered([span for span in spans if span[0] == name])


def test_stages_and_the_rest_add_up_to_the_total_with_reading_and_writing_inside_the_generation() -> None:
    one = answer("Why?", 10.0, spans=[("embed", 0.0, 1.0), ("generate", 1.5, 9.0)])
    one = replace(one, timings=replace(one.timings, queue=0.5, ttft=3.0, decode=4.0))
    assert spent(one) == {
        "embed": 1.0,
        "generate": 7.5,
        "queue": 0.5,
        "prefill": 2.5,
        "decode": 4.0,
        "other": 1.5,
        "total": 10.0,
    }


def test_what_an_engine_does_not_tell_is_left_out() -> None:
    one = answer("Why?", 2.0)
    untold = replace(one, timings=replace(one.timings, queue=None, decode=None))
    assert spent(untold) == {"retrieve": 0.2, "generate": 1.8, "prefill": 1.0, "other": 0.0, "total": 2.0}
    nothing = answer("Why?", 2.0, spans=[("retrieve", 0.0, 1.0)])
    assert set(spent(nothing)) == {"retrieve", "other", "total"}


def test_an_answer_without_a_total_is_refused() -> None:
    with pytest.raises(ValueError, match="has no total time"):
        spent(replace(answer("Why?", 1.0), timings=StageTimings()))
