from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.core import GenerationStats, Technique
from rag.engine.evidence import judge

ASKED = Technique(asked=True)
STATS = GenerationStats(
    output_tokens=20, prompt_tokens=600, cached_prompt_tokens=64, draft_tokens=12, accepted_tokens=9
)
LEFT_OUT = Technique(asked=True, engaged=False, reason="no kernels")
NAMES = ("quantization", "attention_backend", "kv_cache_dtype", "prefix_caching", "speculation")


def judged(name: str, engine: dict[str, str | None] | None = None, stats: GenerationStats | None = STATS) -> Technique:
    return judge({name: ASKED}, engine if engine is not None else {}, stats)[name]


# --- engaged --------------------------------------------------------------------------------------


def test_cached_prompt_tokens_show_prefix_caching() -> None:
    assert judged("prefix_caching") == Technique(True, True, "64 cached prompt tokens")


def test_draft_tokens_show_speculation() -> None:
    assert judged("speculation") == Technique(True, True, "9 of 12 draft tokens accepted")


def test_drafts_that_were_all_rejected_still_engaged_and_say_so() -> None:
    stats = replace(STATS, accepted_tokens=0)
    assert judged("speculation", stats=stats) == Technique(True, True, "0 of 12 draft tokens accepted")


@pytest.mark.parametrize(("name", "value"), [("quantization", "fp8"), ("kv_cache_dtype", "fp8_e4m3")])
def test_what_the_engine_says_it_runs_with_is_evidence(name: str, value: str) -> None:
    assert judged(name, {name: value}) == Technique(True, True, f"the engine runs with {name} {value}")


# --- planted no-ops -------------------------------------------------------------------------------


def test_a_prefix_cache_that_was_never_hit_is_reported_as_not_engaged() -> None:
    found = judged("prefix_caching", stats=replace(STATS, cached_prompt_tokens=0))
    assert found == Technique(True, False, "0 cached prompt tokens", "no block of this prompt was in the cache")


def test_speculation_that_drafted_nothing_is_reported_as_not_engaged() -> None:
    found = judged("speculation", stats=replace(STATS, draft_tokens=0, accepted_tokens=0))
    assert found == Technique(True, False, "0 of 0 draft tokens accepted", "nothing was drafted for this answer")


def test_quantization_that_the_engine_says_it_runs_without_is_reported_as_not_engaged() -> None:
    found = judged("quantization", {"quantization": None})
    assert found.asked
    assert found.engaged is False
    assert found.reason


def test_a_kv_cache_that_the_engine_left_at_auto_is_reported_as_not_engaged() -> None:
    found = judged("kv_cache_dtype", {"kv_cache_dtype": "auto"})
    assert found.asked
    assert found.engaged is False
    assert found.reason


# --- no evidence, no claim ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_technique_that_the_engine_tells_nothing_about_is_not_claimed(name: str) -> None:
    assert judged(name, {}, None) == ASKED


@pytest.mark.parametrize(
    ("name", "stats"),
    [
        ("prefix_caching", replace(STATS, cached_prompt_tokens=None)),
        ("speculation", replace(STATS, draft_tokens=None, accepted_tokens=None)),
    ],
)
def test_a_backend_that_does_not_report_a_count_leaves_it_open(name: str, stats: GenerationStats) -> None:
    assert judged(name, stats=stats) == ASKED


@pytest.mark.parametrize("name", NAMES)
def test_what_the_plan_left_out_stays_left_out_whatever_the_engine_says(name: str) -> None:
    assert judge({name: LEFT_OUT}, {name: "fp8"}, STATS) == {name: LEFT_OUT}


@pytest.mark.parametrize("name", NAMES)
def test_what_nobody_asked_for_is_never_claimed(name: str) -> None:
    assert judge({name: Technique(asked=False)}, {name: "fp8"}, STATS) == {name: Technique(asked=False)}


def test_each_technique_is_judged_by_its_own_evidence() -> None:
    found = judge(
        {"quantization": ASKED, "prefix_caching": ASKED, "speculation": Technique(asked=False)},
        {"quantization": "awq", "speculation": "ngram"},
        replace(STATS, cached_prompt_tokens=0),
    )
    assert {name: one.engaged for name, one in found.items()} == {
        "quantization": True,
        "prefix_caching": False,
        "speculation": None,
    }


COUNTS = st.none() | st.integers(0, 10_000)


@given(
    techniques=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([ASKED, LEFT_OUT, Technique(asked=False)])),
    engine=st.dictionaries(st.sampled_from(NAMES), st.none() | st.sampled_from(["fp8", "awq", "FLASHINFER"])),
    cached=COUNTS,
    drafted=COUNTS,
    accepted=COUNTS,
)
def test_a_yes_has_evidence_a_no_has_a_reason_and_nothing_is_lost(
    techniques: dict[str, Technique],
    engine: dict[str, str | None],
    cached: int | None,
    drafted: int | None,
    accepted: int | None,
) -> None:
    stats = replace(STATS, cached_prompt_tokens=cached, draft_tokens=drafted, accepted_tokens=accepted)
    found = judge(techniques, engine, stats)
    assert set(found) == set(techniques)
    for name, technique in found.items():
        assert technique.asked == techniques[name].asked
        if technique.engaged is True:
            assert technique.evidence
            assert technique.reason is None
        if technique.engaged is False:
            assert technique.reason
