"""From hits to the passages of the prompt. Pure."""

from __future__ import annotations

from collections.abc import Callable

from rag.core import Hits, Source
from rag.settings import Context, Filter
from rag.text import cut


def filter_hits(hits: Hits, settings: Filter) -> Hits:
    """The hits that reach the threshold of every score they have.

    A reranker learns the order of passages that share words with the question: what has nothing to do with it can get
    any probability, and the cosine tells.
    """
    return tuple(
        hit
        for hit in hits
        if hit.dense >= settings.min_cosine and (hit.rerank is None or hit.rerank >= settings.min_rerank)
    )


def fit(hits: Hits, settings: Context, budget: int, count_tokens: Callable[[str], int]) -> tuple[Source, ...]:
    """The best hits, cut to length, as many as fit `budget` tokens; numbered from 1, best first.

    A passage that would burst the budget ends the list: a worse one in its place would hide it. The
    first one is cut down instead, so that there is always something to answer from.
    """
    budget = budget if settings.max_tokens is None else min(budget, settings.max_tokens)
    sources: list[Source] = []
    for hit in hits[: settings.passages]:
        text = (
            hit.passage.text
            if settings.chars_per_passage is None
            else cut(hit.passage.text, settings.chars_per_passage)
        )
        cost = count_tokens(render(len(sources) + 1, hit.passage.title, text))
        while cost > budget and not sources and len(text) > 50:
            text = cut(text, len(text) * 3 // 4)
            cost = count_tokens(render(1, hit.passage.title, text))
        if cost > budget:
            break
        budget -= cost
        sources.append(Source(len(sources) + 1, hit, text))
    return tuple(sources)


def render(marker: int, title: str, text: str) -> str:
    """A passage as it stands in the prompt."""
    return f"[{marker}] {title}\n{text}\n\n"
