"""The generator's word and the reranker's, weighed together: what the confidence is, and what becomes of the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from rag.abstain import Confidence, Weighing, log_odds, relevance, weighed
from rag.core import GenerationParams, GenerationStats, Hit, Opening, Passage, Source
from rag.prompt import NOT_IN_SOURCES
from rag.testing import FakeGenerator

MESSAGES = ({"role": "user", "content": "Why?"},)
STATS = GenerationStats(1, prompt_tokens=9, ttft=0.1)
WEIGHING = Weighing(of_word=0.5, of_relevance=-1.0, shift=1.0, min_confidence=0.5)


def sources(*scores: float | None) -> tuple[Source, ...]:
    passage = Passage("p", "d", "Gout", "Urate crystals.", 0, 15)
    return tuple(Source(n, Hit(passage, 0.5, rerank=score), passage.text) for n, score in enumerate(scores, start=1))


def opening(probability: float) -> Opening:
    """Greedy: what is likelier than all else is taken."""
    return Opening(probability, probability > 0.5, "Gout", STATS)


async def run(
    deltas: Sequence[str],
    opened: Opening | None,
    scores: tuple[float, ...] = (0.5,),
    weighing: Weighing | None = WEIGHING,
) -> tuple[list[object], FakeGenerator]:
    generator = FakeGenerator(list(deltas))
    generator.opening = opened
    stream = weighed(generator, MESSAGES, GenerationParams(20), sources(*scores), NOT_IN_SOURCES, weighing)
    return [item async for item in stream], generator


def text(items: Sequence[object]) -> str:
    return "".join(item for item in items if isinstance(item, str))


def test_the_confidence_is_the_logistic_of_both_log_odds() -> None:
    odds = 0.5 * math.log(0.2 / 0.8) - 1.0 * math.log(0.9 / 0.1) + 1.0
    assert WEIGHING.confidence(0.2, sources(0.3, 0.9, None)) == pytest.approx(1 / (1 + math.exp(odds)))


def test_more_relevant_sources_and_a_less_likely_refusal_make_more_of_it() -> None:
    assert WEIGHING.confidence(0.2, sources(0.9)) > WEIGHING.confidence(0.2, sources(0.4))
    assert WEIGHING.confidence(0.1, sources(0.4)) > WEIGHING.confidence(0.2, sources(0.4))


def test_a_certain_score_stays_finite() -> None:
    assert [log_odds(0.0), log_odds(0.5), log_odds(1.0)] == pytest.approx([-13.8, 0, 13.8], abs=0.1)
    assert 0 < WEIGHING.confidence(0.0, sources(1.0)) < 1


def test_sources_that_no_reranker_saw_have_no_relevance() -> None:
    with pytest.raises(ValueError, match="empty"):
        relevance(sources(None))


async def test_where_the_confidence_is_high_the_answer_goes_on_as_it_began() -> None:
    items, generator = await run(["Urate ", "[1]."], opening(0.01), (0.9,))
    assert text(items) == "Urate [1]."
    assert items[0] == Confidence(pytest.approx(WEIGHING.confidence(0.01, sources(0.9))))
    assert isinstance(items[-1], GenerationStats)
    assert (len(generator.asked), generator.aborted) == (1, 0)


async def test_where_it_is_too_low_the_request_ends_with_a_refusal() -> None:
    items, generator = await run(["Urate ", "[1]."], opening(0.3), (0.1,))
    assert text(items) == NOT_IN_SOURCES
    assert items[-1] == GenerationStats(1, "stop", prompt_tokens=9, ttft=0.1)
    assert (len(generator.asked), generator.aborted) == (1, 1)


async def test_a_refusal_against_the_evidence_is_asked_once_more_to_begin_otherwise() -> None:
    items, generator = await run([" is caused ", "by urate [1]."], opening(0.6), (0.99,))
    assert text(items) == "Gout is caused by urate [1]."
    (_, first), (_, second) = generator.asked
    assert (first.watch, first.begin_with, second.watch, second.begin_with) == (NOT_IN_SOURCES, "", None, "Gout")
    assert generator.aborted == 1


async def test_an_answer_that_was_begun_twice_waited_for_both_and_found_in_the_cache_what_the_first_did() -> None:
    class Timed(FakeGenerator):
        async def stream(self, messages, params):  # type: ignore[no-untyped-def]
            async with aclosing(super().stream(messages, params)) as items:
                async for item in items:
                    if isinstance(item, GenerationStats):  # the second finds what the first has read
                        item = replace(item, cached_prompt_tokens=96, queue=0.5, ttft=0.75, decode=2.0)
                    yield item

    generator = Timed([" is caused ", "by urate [1]."])
    generator.opening = replace(
        opening(0.6), stats=GenerationStats(1, prompt_tokens=100, cached_prompt_tokens=32, queue=0.25, ttft=1.0)
    )
    stream = weighed(generator, MESSAGES, GenerationParams(20), sources(0.99), NOT_IN_SOURCES, WEIGHING)
    *_, stats = [item async for item in stream]
    assert isinstance(stats, GenerationStats)
    assert (stats.cached_prompt_tokens, stats.queue, stats.ttft, stats.decode) == (32, 0.75, 1.75, 2.0)


async def test_a_refusal_that_the_evidence_bears_out_is_the_model_s_own() -> None:
    items, generator = await run(["None of the sources ", "answers the question."], opening(0.9), (0.2,))
    assert text(items) == NOT_IN_SOURCES
    assert (len(generator.asked), generator.aborted) == (1, 0)


@pytest.mark.parametrize(("least", "declines"), [(0.0, False), (0.2, False), (0.99, True)])
async def test_the_least_confidence_decides(least: float, declines: bool) -> None:
    items, _ = await run(["Urate [1]."], opening(0.3), (0.4,), replace(WEIGHING, min_confidence=least))
    assert (text(items) == NOT_IN_SOURCES) == declines


async def test_without_weights_the_model_isn_t_watched() -> None:
    items, generator = await run(["Urate [1]."], opening(0.3), (0.1,), weighing=None)
    assert text(items) == "Urate [1]."
    assert not any(isinstance(item, Confidence | Opening) for item in items)
    assert generator.asked[0][1].watch is None


async def test_where_the_backend_can_t_tell_the_model_s_word_holds() -> None:
    items, _ = await run(["Urate [1]."], None, (0.01,))
    assert text(items) == "Urate [1]."
    assert not any(isinstance(item, Confidence) for item in items)
