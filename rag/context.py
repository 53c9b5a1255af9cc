"""From hits to the passages of the prompt. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

from rag.core import Hit, Hits, Source
from rag.settings import Context, Filter
from rag.text import cut, sentences


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


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What of a hit's passage is for the prompt."""

    hit: Hit
    text: str


def passages(hits: Sequence[Hit], settings: Context) -> list[Excerpt]:
    """The best hits, cut to length."""
    return [Excerpt(hit, _cut(hit.passage.text, settings)) for hit in hits[: settings.passages]]


def condensed(
    hits: Sequence[Hit], settings: Context, count: int, score: Callable[[Sequence[Hit]], Sequence[float]]
) -> list[Excerpt]:
    """Of the best hits so many sentences, those that `score` highest as passages of their own; of each hit they stay in order.
    One that has none of them is left out.

    A small generator takes the wrong sentence of a passage more often than a cross-encoder does, and what it needn't read
    takes no time (extractive compression: Xu et al. 2023, "RECOMP").
    """
    best = hits[: settings.passages]
    parts = [
        (number, replace(hit, passage=replace(hit.passage, text=hit.passage.text[start:end])))
        for number, hit in enumerate(best)
        for start, end in sentences(hit.passage.text)
    ]
    scores = score([part for _, part in parts])
    kept = set(sorted(range(len(parts)), key=lambda place: -scores[place])[:count])
    excerpts = []
    for number, hit in enumerate(best):
        own = [(place in kept, part.passage.text) for place, (of, part) in enumerate(parts) if of == number]
        runs = [[text for _, text in run] for there, run in groupby(own, key=itemgetter(0)) if there]
        if text := GAP.join(map(" ".join, runs)):
            excerpts.append(Excerpt(hit, _cut(text, settings)))
    return excerpts


GAP = " … "
"""In a quote, between sentences that didn't stand side by side. The model reads on as if nothing were left out: of dev_60's simple
questions its answers hold 0.73 of the key facts so, and 0.67 where it reads the ellipsis, or a line break in its place."""


def _cut(text: str, settings: Context) -> str:
    return text if settings.chars_per_passage is None else cut(text, settings.chars_per_passage)


def fit(
    excerpts: Sequence[Excerpt], settings: Context, budget: int, count_tokens: Callable[[str], int]
) -> tuple[Source, ...]:
    """As many as fit `budget` tokens; numbered from 1, best first.

    A passage that would burst the budget ends the list: a worse one in its place would hide it. The
    first one is cut down instead, so that there is always something to answer from.
    """
    budget = budget if settings.max_tokens is None else min(budget, settings.max_tokens)
    sources: list[Source] = []
    for excerpt in excerpts:
        title, text = excerpt.hit.passage.title, excerpt.text
        cost = count_tokens(render(len(sources) + 1, title, text))
        while cost > budget and not sources and len(text) > 50:
            text = cut(text, len(text) * 3 // 4)
            cost = count_tokens(render(1, title, text))
        if cost > budget:
            break
        budget -= cost
        sources.append(Source(len(sources) + 1, excerpt.hit, text))
    return tuple(sources)


def render(marker: int, title: str, text: str) -> str:
    """A passage as it stands in the prompt."""
    return f"[{marker}] {title}\n{text.replace(GAP, ' ')}\n\n"
