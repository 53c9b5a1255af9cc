"""The weights of `rag.abstain`, from prompts that neither model was trained on: a generator's word and a reranker's scores,
and whether the sources answer.

Two kinds of prompts. Those of MedQuAD are what both models know best, with near misses for passages. Questions as users
ask them, on documents of the shipped corpus, go through the product's own search; there the scores say less. Each kind is asked
with whole passages and with the sentences of them that answer best: the generator declines less often where it reads more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rag import build, paths, prompt
from rag.abstain import log_odds, relevance
from rag.context import filter_hits, fit
from rag.core import Encoder, GenerationParams, Generator, Hit, Message, Opening, Query, Reranker, Source, Trace
from rag.errors import EngineError
from rag.index import lexical
from rag.models.recipe import Abstention
from rag.pipeline import condense
from rag.rerank import scored
from rag.settings import Loaded, Settings
from rag.training.calibration import logistic
from rag.training.grounded import Example

QUESTIONS = "calibration.jsonl"

WITHOUT_ANSWER = 0.15
"""Of the questions that are asked: as of `eval/dev_60.jsonl`'s. Of the prompts here it is about a third, and weights fitted to
that decline questions which the sources answer."""


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, its scored sources, and whether they answer."""

    messages: tuple[Message, ...]
    sources: tuple[Source, ...]
    answered: bool


Scorer = Callable[[Example], tuple[Source, ...]]
"""To an example's sources with their cosines, their BM25 scores among themselves, and the reranker's scores."""


def open_scorer(loaded: Loaded) -> Scorer:
    """With the encoder and the reranker that the settings name."""
    reranker = build.open_reranker(loaded)
    assert reranker is not None
    return scoring(build.open_encoder(loaded), reranker)


def scoring(encoder: Encoder, reranker: Reranker) -> Scorer:
    def score(example: Example) -> tuple[Source, ...]:
        _, hits = _scored(example, encoder, reranker)
        return tuple(replace(source, hit=hit) for source, hit in zip(example.sources, hits, strict=True))

    return score


def _scored(example: Example, encoder: Encoder, reranker: Reranker) -> tuple[Query, list[Hit]]:
    query = Query(example.question, encoder.encode_queries([example.question])[0])
    hits = [source.hit for source in example.sources]
    return query, scored(query, hits, encoder, reranker, _bm25(example.question, hits))


def _bm25(question: str, hits: Sequence[Hit]) -> list[float]:
    """As in a search the best one has the best score: without it the reranker's probabilities would be lower than there."""
    import bm25s

    tokens = lexical.Tokenizer()
    index = bm25s.BM25(k1=lexical.K1, b=lexical.B)
    index.index([tokens(hit.passage.titled) for hit in hits], show_progress=False)
    asked = index.get_tokens_ids(tokens(question))
    scores: list[float] = index.get_scores_from_ids(asked).tolist() if asked else [0.0] * len(hits)
    return scores


@dataclass(frozen=True, slots=True)
class Contexts:
    """Makes prompts of hits as the product does."""

    settings: Settings
    encoder: Encoder
    reranker: Reranker
    count_tokens: Callable[[str], int]

    def sources(self, query: Query, hits: Sequence[Hit]) -> tuple[Source, ...]:
        context = self.settings.context
        excerpts = condense(query, hits, context, self.encoder, self.reranker, Trace())
        return fit(excerpts, context, self.settings.generator.max_model_len, self.count_tokens)

    def having(self, **context: Any) -> Contexts:
        """These with other settings of the context."""
        return replace(self, settings=self.settings.having("context", **context))


def of_prompts(prompts: Sequence[Example], contexts: Contexts) -> Iterator[Case]:
    """Of all passages of an example, in its order, which isn't a search's."""
    for example in prompts:
        query, hits = _scored(example, contexts.encoder, contexts.reranker)
        sources = contexts.having(passages=len(hits)).sources(query, hits)
        yield Case(prompt.build(example.question, sources).messages, sources, bool(example.gold))


def of_questions(search: build.Search, contexts: Contexts) -> Iterator[Case]:
    """Those of `data/training/calibration.jsonl`, on an index of the sample corpus. Left out where the document that should
    answer isn't among the sources: others may."""
    lines = paths.shipped("data", "training", QUESTIONS).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    asked = [row["question"] for row in rows]
    queries = [Query(*one) for one in zip(asked, search.encoder.encode_queries(asked), strict=True)]
    for row, query, hits in zip(rows, queries, search.searcher.search(queries, Trace()), strict=True):
        sources = contexts.sources(query, filter_hits(hits, contexts.settings.filter))
        found = row["doc_id"] in [source.hit.passage.doc_id for source in sources]
        if sources and (found or not row["answerable"]):
            yield Case(prompt.build(row["question"], sources).messages, sources, row["answerable"])


@dataclass(frozen=True, slots=True)
class Observed:
    """Log-odds of declining, and of the most relevant source's relevance; whether the sources answer."""

    word: float
    relevance: float
    answered: bool


async def observe(generator: Generator, case: Case) -> Observed:
    """What the two say. Raises `EngineError` where the backend can't tell how probable a first token was."""
    params = GenerationParams(max_tokens=1, watch=prompt.NOT_IN_SOURCES)
    items = [item async for item in generator.stream(case.messages, params)]
    for item in items:
        if isinstance(item, Opening):
            return Observed(log_odds(item.probability), relevance(case.sources), case.answered)
    raise EngineError(f"{generator.model} doesn't tell how probable its first token was.")


def weigh(observed: Mapping[str, Sequence[Observed]], reranker: str) -> Abstention:
    """By logistic regression, in which each kind of prompts counts as much as another, and those of it without an answer as
    much as `WITHOUT_ANSWER` says. Raises `ValueError` where only answered ones were seen, or only others, or where one of
    the two says nothing."""
    seen = [
        (one, share / len(alike))
        for some in observed.values()
        for answered, share in ((True, 1 - WITHOUT_ANSWER), (False, WITHOUT_ANSWER))
        for alike in [[one for one in some if one.answered is answered]]
        for one in alike
    ]
    if not seen:
        raise ValueError("nothing was observed")
    mean = sum(weight for _, weight in seen) / len(seen)
    [of_word, of_relevance], shift = logistic(
        np.array([[one.word, one.relevance] for one, _ in seen]),
        [not one.answered for one, _ in seen],
        np.array([weight / mean for _, weight in seen]),
    )
    if of_word <= 0 or of_relevance >= 0:
        raise ValueError(f"one of the two is no sign of it: weights {of_word:.3f} and {of_relevance:.3f}")
    return Abstention(
        reranker=reranker, of_word=round(of_word, 3), of_relevance=round(of_relevance, 3), shift=round(shift, 3)
    )
