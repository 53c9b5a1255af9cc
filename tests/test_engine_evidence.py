"""Whether each technique engaged, from numbers as an engine reports them; planted no-ops among them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.core import GenerationStats, Technique
from rag.engine.evidence import (
    UNTOLD,
    Configuration,
    Pool,
    TokenCounts,
    Weights,
    counts,
    of_answer,
    of_answers,
    of_engine,
)

ASKED = Technique(asked=True)
STATS = GenerationStats(
    output_tokens=20, prompt_tokens=600, cached_prompt_tokens=64, draft_tokens=12, accepted_tokens=9
)
LATER = TokenCounts(prompts=5)
"""Of an engine that has answered others before."""
LEFT_OUT = Technique(asked=True, engaged=False, reason="no kernels")
COUNTED = ("prefix_caching", "speculation")
NAMES = ("quantization", "attention_backend", "kv_cache_dtype", *COUNTED)


def judged(
    name: str,
    stats: GenerationStats | None = STATS,
    configuration: Configuration = UNTOLD,
    since_start: TokenCounts = LATER,
) -> Technique:
    return of_answer({name: ASKED}, configuration, stats, since_start)[name]


def runs_with(name: str, reported: str | None, asked: str | None = None, pool: Pool | None = None) -> Technique:
    configuration = Configuration({name: reported}, {name: asked} if asked is not None else {}, pool)
    found = judged(name, configuration=configuration)
    assert found == of_engine({name: ASKED}, configuration, TokenCounts())[name], (
        "no request changes what is configured"
    )
    return found


# --- engaged --------------------------------------------------------------------------------------


def test_cached_prompt_tokens_show_prefix_caching() -> None:
    numbers = {"prompts": 1, "prompt_tokens": 600, "cached_prompt_tokens": 64}
    assert judged("prefix_caching") == Technique(
        True, True, "64 of 600 prompt tokens came from the cache", None, numbers
    )


def test_accepted_tokens_show_speculation() -> None:
    numbers = {"prompts": 1, "decode_tokens": 19, "draft_tokens": 12, "accepted_tokens": 9}
    assert judged("speculation") == Technique(
        True, True, "9 of 12 draft tokens accepted among 19 decoded", None, numbers
    )


def test_quantised_layers_show_quantisation() -> None:
    weights = Weights(8_705_945_024, 7_615_950_272, layers=112, quantised=112)
    assert judged("quantization", configuration=Configuration({"quantization": "fp8"}, weights=weights)) == Technique(
        True,
        True,
        "the engine runs with quantization fp8: 112 of 112 linear layers, 8.71 GB of weights",
        None,
        {"layers": 112, "quantised_layers": 112, "weight_bytes": 8_705_945_024},
    )


def test_a_planted_no_op_of_quantisation_is_caught_by_the_layers() -> None:
    weights = Weights(15_231_233_024, 14_141_238_272, layers=112, quantised=0)
    found = judged("quantization", configuration=Configuration({"quantization": "gptq"}, weights=weights))
    assert (found.engaged, found.reason) == (False, "none of the model's linear layers is quantised")
    assert found.evidence == "the engine runs with quantization gptq: 0 of 112 linear layers, 15.23 GB of weights"


@pytest.mark.parametrize(("quantised", "engaged"), [(1, False), (56, False), (57, True), (108, True)])
def test_quantisation_of_a_few_layers_alone_is_none(quantised: int, engaged: bool) -> None:
    weights = Weights(15_231_233_024, 14_141_238_272, layers=112, quantised=quantised)
    found = judged("quantization", configuration=Configuration({"quantization": "gptq"}, weights=weights))
    few = f"only {quantised} of the model's 112 linear layers are quantised"
    assert (found.engaged, found.reason) == (engaged, None if engaged else few)


@pytest.mark.parametrize("name", ["quantization", "kv_cache_dtype", "attention_backend"])
def test_what_the_engine_says_it_runs_with_is_evidence(name: str) -> None:
    assert runs_with(name, "fp8") == Technique(True, True, f"the engine runs with {name} fp8")


def test_a_kv_cache_of_eight_bits_is_shown_by_the_pool_that_was_allocated() -> None:
    pool = Pool(bytes=512 << 20, tokens=46_592, values=11_520)
    found = runs_with("kv_cache_dtype", "fp8_e4m3", "fp8", pool)
    assert found.engaged is True
    assert found.evidence == "the engine runs with kv_cache_dtype fp8_e4m3: 46,592 tokens of 8.0 bits a value"
    assert found.numbers == {"pool_bytes": 512 << 20, "pool_tokens": 46_592, "bits_per_value": 8.002}


# --- planted no-ops -------------------------------------------------------------------------------


def test_an_answer_that_nothing_was_cached_for_is_one_that_prefix_caching_did_nothing_for() -> None:
    found = judged("prefix_caching", replace(STATS, cached_prompt_tokens=0))
    assert (found.engaged, found.evidence) == (False, "0 of 600 prompt tokens came from the cache")
    assert found.reason == "this prompt shares no whole block with an earlier one that is still there"


def test_a_cache_that_many_prompts_never_hit_is_not_engaged() -> None:
    found = of_engine({"prefix_caching": ASKED}, UNTOLD, TokenCounts(12, 9000, 0))["prefix_caching"]
    assert (found.engaged, found.reason) == (
        False,
        "12 prompts share no whole block with an earlier one that is still there",
    )
    assert found.numbers["prompts"] == 12


def test_a_cache_that_no_prompt_is_looked_up_in_is_not_engaged_after_the_first() -> None:
    found = of_engine({"prefix_caching": ASKED}, UNTOLD, TokenCounts(1, 0, 0))["prefix_caching"]
    assert (found.engaged, found.reason) == (False, "no prompt token was looked up in the cache")


def test_speculation_that_drafted_nothing_is_not_engaged() -> None:
    found = judged("speculation", replace(STATS, draft_tokens=0, accepted_tokens=0))
    assert (found.engaged, found.evidence) == (False, "0 of 0 draft tokens accepted among 19 decoded")
    assert found.reason == "nothing was drafted"


def test_where_nothing_may_be_drafted_that_is_the_reason_of_one_answer_and_of_many() -> None:
    busy = replace(STATS, draft_tokens=0, accepted_tokens=0)
    techniques = {"speculation": replace(ASKED, reason="3 requests run")}
    answers = [of_answer(techniques, UNTOLD, stats, LATER) for stats in (busy, busy, STATS)]
    for one in (answers[0], of_answers(answers[:2])):
        assert (one["speculation"].engaged, one["speculation"].reason) == (False, "nothing was drafted: 3 requests run")
    for one in (answers[2], of_answers(answers)):
        assert (one["speculation"].engaged, one["speculation"].reason) == (True, None)


def test_drafts_that_were_all_rejected_only_cost_time() -> None:
    found = judged("speculation", replace(STATS, accepted_tokens=0))
    assert (found.engaged, found.evidence) == (False, "0 of 12 draft tokens accepted among 19 decoded")
    assert found.reason == "every draft token was rejected"


@pytest.mark.parametrize("name", ["quantization", "kv_cache_dtype"])
@pytest.mark.parametrize("reported", [None, "auto"])
def test_what_the_engine_says_it_runs_without_is_not_engaged(name: str, reported: str | None) -> None:
    found = runs_with(name, reported, "fp8")
    assert (found.engaged, found.reason) == (False, f"the engine runs without it ({name} {reported})")


@pytest.mark.parametrize(
    ("name", "asked", "other"),
    [("kv_cache_dtype", "fp8", "bfloat16"), ("attention_backend", "FLASHINFER", "FLASH_ATTN")],
)
def test_what_the_engine_has_put_something_else_in_the_place_of_is_not_engaged(
    name: str, asked: str, other: str
) -> None:
    found = runs_with(name, other, asked)
    assert (found.engaged, found.reason) == (False, f"the engine runs with {name} {other}, and {asked} was asked for")


def test_a_kv_cache_that_says_fp8_and_was_allocated_with_sixteen_bits_is_not_engaged() -> None:
    found = runs_with("kv_cache_dtype", "fp8", "fp8", Pool(bytes=512 << 20, tokens=23_296, values=11_520))
    assert (found.engaged, found.reason) == (False, "the pool that it allocated has 16.0 bits a value")


# --- not yet, or not told -------------------------------------------------------------------------


def test_a_first_prompt_has_nothing_to_come_from_the_cache_and_is_no_false_alarm() -> None:
    first = replace(STATS, cached_prompt_tokens=0)
    for found in (
        judged("prefix_caching", first, since_start=counts(first)),
        of_engine({"prefix_caching": ASKED}, UNTOLD, counts(first))["prefix_caching"],
    ):
        assert (found.engaged, found.reason) == (None, "there is no earlier prompt to share anything with")


@pytest.mark.parametrize("draft_tokens", [0, None])
def test_an_answer_of_one_token_leaves_nothing_to_draft(draft_tokens: int | None) -> None:
    found = judged("speculation", replace(STATS, output_tokens=1, draft_tokens=draft_tokens, accepted_tokens=0))
    assert (found.engaged, found.reason) == (None, "nothing was decoded after the first token")


@pytest.mark.parametrize("name", NAMES)
def test_a_technique_that_the_engine_tells_nothing_about_is_not_claimed(name: str) -> None:
    assert judged(name, None) == ASKED
    assert of_engine({name: ASKED}, UNTOLD, TokenCounts())[name] == ASKED


@pytest.mark.parametrize("name", COUNTED)
def test_a_backend_that_does_not_report_a_count_leaves_it_open(name: str) -> None:
    assert judged(name, GenerationStats(20, prompt_tokens=600)) == ASKED


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("technique", [LEFT_OUT, Technique(asked=False)])
def test_what_was_left_out_or_not_asked_for_stays_so_whatever_the_engine_says(name: str, technique: Technique) -> None:
    configuration = Configuration(dict.fromkeys(NAMES, "fp8"))
    assert of_answer({name: technique}, configuration, STATS, LATER) == {name: technique}
    assert of_engine({name: technique}, configuration, TokenCounts(9, 900, 90, 90, 9, 9)) == {name: technique}


def test_each_technique_is_judged_by_its_own_evidence() -> None:
    found = of_answer(
        {"quantization": ASKED, "prefix_caching": ASKED, "speculation": Technique(asked=False)},
        Configuration({"quantization": "awq", "speculation": "ngram"}),
        replace(STATS, cached_prompt_tokens=0),
        LATER,
    )
    assert {name: one.engaged for name, one in found.items()} == {
        "quantization": True,
        "prefix_caching": False,
        "speculation": None,
    }


# --- several together -----------------------------------------------------------------------------


def test_counts_are_added_and_what_is_not_told_adds_nothing() -> None:
    assert TokenCounts(1, 10, None, 5) + TokenCounts(2, 20, 3) == TokenCounts(3, 30, 3, 5)
    assert counts(STATS) + TokenCounts() == TokenCounts(1, 600, 64, 19, 12, 9)


def test_an_engine_is_judged_by_all_that_it_has_done() -> None:
    quiet = replace(STATS, cached_prompt_tokens=0, draft_tokens=0, accepted_tokens=0)
    techniques = dict.fromkeys(COUNTED, ASKED)
    since_start = counts(quiet) + counts(STATS)
    assert {one.engaged for one in of_answer(techniques, UNTOLD, quiet, since_start).values()} == {False}
    found = of_engine(techniques, UNTOLD, since_start)
    assert {one.engaged for one in found.values()} == {True}
    assert found["prefix_caching"].evidence == "64 of 1,200 prompt tokens came from the cache"
    assert found["speculation"].numbers["decode_tokens"] == 38


def test_several_answers_are_judged_by_the_sum_of_their_numbers() -> None:
    quiet = replace(STATS, cached_prompt_tokens=0, draft_tokens=0, accepted_tokens=0)
    techniques = {**dict.fromkeys(COUNTED, ASKED), "quantization": LEFT_OUT, "attention_backend": Technique(False)}
    answers = [of_answer(techniques, UNTOLD, stats, LATER) for stats in (quiet, STATS, STATS, None)]
    found = of_answers(answers)
    assert found["prefix_caching"].evidence == "128 of 1,800 prompt tokens came from the cache"
    assert found["speculation"].evidence == "18 of 24 draft tokens accepted among 57 decoded"
    assert [found[name].engaged for name in COUNTED] == [True, True]
    assert found["quantization"] == LEFT_OUT
    assert found["attention_backend"] == Technique(False)
    assert of_answers([]) == {}


def test_answers_of_a_planted_no_op_are_not_engaged_together_either() -> None:
    quiet = replace(STATS, cached_prompt_tokens=0, draft_tokens=0, accepted_tokens=0)
    techniques = dict.fromkeys(COUNTED, ASKED)
    for number in (1, 3):
        found = of_answers([of_answer(techniques, UNTOLD, quiet, LATER)] * number)
        assert {one.engaged for one in found.values()} == {False}
    first = of_answers([of_answer(techniques, UNTOLD, quiet, counts(quiet))])
    assert first["prefix_caching"].engaged is None, "one prompt alone"
    assert of_answers([of_answer(techniques, UNTOLD, None, LATER)] * 3) == techniques, "nothing was generated"


COUNTS = st.none() | st.integers(0, 10_000)
TECHNIQUE = st.sampled_from([ASKED, LEFT_OUT, Technique(asked=False)])


@given(
    techniques=st.dictionaries(st.sampled_from(NAMES), TECHNIQUE),
    reported=st.dictionaries(st.sampled_from(NAMES), st.none() | st.sampled_from(["fp8", "awq", "FLASHINFER"])),
    stats=st.builds(GenerationStats, COUNTS, st.none(), COUNTS, COUNTS, COUNTS, COUNTS),
    earlier=st.builds(TokenCounts, st.integers(0, 3), COUNTS, COUNTS, COUNTS, COUNTS, COUNTS),
)
def test_a_yes_has_evidence_a_no_has_a_reason_and_nothing_is_lost(
    techniques: dict[str, Technique], reported: dict[str, str | None], stats: GenerationStats, earlier: TokenCounts
) -> None:
    configuration, since_start = Configuration(reported, {"kv_cache_dtype": "fp8"}), earlier + counts(stats)
    answer = of_answer(techniques, configuration, stats, since_start)
    for found in (answer, of_engine(techniques, configuration, since_start), of_answers([answer, answer])):
        assert set(found) == set(techniques)
        assert json.loads(json.dumps({name: asdict(one) for name, one in found.items()})).keys() == found.keys()
        for name, technique in found.items():
            assert technique.asked == techniques[name].asked
            if technique.engaged is True:
                assert technique.evidence
                assert technique.reason is None
            if technique.engaged is False:
                assert technique.reason
