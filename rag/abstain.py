"""Do the sources answer the question? The generator's word and the reranker's scores, weighed together.

A generator that is trained to decline says so with its first token, which has a probability; the reranker has one that the
best source is relevant. Each misses what the other sees. A logistic regression joins their log-odds (Platt 1999, with two
inputs): a confidence, known as soon as the first token is. Where it is too low the request ends there, which also saves the
rest of it; where it isn't and the generator declines, it is made to begin with its next best word. The generator's recipe
has the weights, and `scripts/calibrate_abstention.py` fits them.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from rag.core import GenerationParams, GenerationStats, Generator, Message, Opening, Source

CERTAIN = 1e-6
"""Probabilities nearer to 0 or 1 are taken for this: one score may not outweigh everything."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """Log-odds that no source answers: `of_word * word + of_relevance * relevance + shift`, where `word` are the generator's
    own of declining, and `relevance` those of the most relevant source in the prompt. An answer is declined where the
    probability that a source answers is below `min_confidence`."""

    of_word: float
    of_relevance: float
    shift: float
    min_confidence: float

    def confidence(self, declining: float, sources: Sequence[Source]) -> float:
        """Probability that a source answers; `declining` is that of the generator's declining. Raises `ValueError` where
        no source has the reranker's score."""
        return 1 / (1 + math.exp(self.odds(log_odds(declining), relevance(sources))))

    def odds(self, word: float, relevance: float) -> float:
        return self.of_word * word + self.of_relevance * relevance + self.shift


@dataclass(frozen=True, slots=True)
class Confidence:
    """Precedes the deltas of a weighed answer: the probability that a source answers."""

    value: float


async def weighed(
    generator: Generator,
    messages: Sequence[Message],
    params: GenerationParams,
    sources: Sequence[Source],
    declining: str,
    weighing: Weighing | None,
) -> AsyncGenerator[Confidence | str | GenerationStats, None]:
    """As the generator's `stream`, but the answer is `declining` where the confidence is too low, and begins otherwise where
    it isn't. Without a `weighing`, or where the generator can't tell how probable its first token was, its word holds."""
    watching = replace(params, watch=declining) if weighing is not None else params
    opening = None
    async with aclosing(generator.stream(messages, watching)) as items:
        async for item in items:
            if not isinstance(item, Opening):
                yield item
                continue
            assert weighing is not None
            confidence = weighing.confidence(item.probability, sources)
            yield Confidence(confidence)
            declines = confidence < weighing.min_confidence
            if declines and not item.taken:
                yield declining
                yield replace(item.stats, finish_reason="stop")
                return
            if item.taken and not declines:
                opening = item
                break
    if opening is not None:
        async with aclosing(generator.stream(messages, replace(params, begin_with=opening.otherwise))) as items:
            async for item in items:
                if isinstance(item, GenerationStats):
                    yield _both(opening.stats, item)
                elif not isinstance(item, Opening):
                    yield item


def _both(first: GenerationStats, second: GenerationStats) -> GenerationStats:
    """Of an answer that was begun twice: it waits for both beginnings, and what the second finds in the prefix cache the first has
    left there."""
    return replace(
        second,
        cached_prompt_tokens=first.cached_prompt_tokens,
        queue=_sum(first.queue, second.queue),
        ttft=_sum(first.ttft, second.ttft),
    )


def _sum(first: float | None, second: float | None) -> float | None:
    return first + second if first is not None and second is not None else None


def relevance(sources: Sequence[Source]) -> float:
    """Log-odds of the most relevant source. Raises `ValueError` where none has the reranker's score."""
    return log_odds(max(source.hit.rerank for source in sources if source.hit.rerank is not None))


def log_odds(probability: float) -> float:
    """Natural logarithm of p / (1 - p), of a probability that is kept `CERTAIN` from 0 and 1."""
    kept = min(max(probability, CERTAIN), 1 - CERTAIN)
    return math.log(kept / (1 - kept))
