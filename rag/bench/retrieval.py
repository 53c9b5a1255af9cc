"""What a search takes, stage by stage, and what follows it up to the prompt.

PubMedQA's questions go the whole way of the product over passages of the open articles, to a generator that answers at
once: what remains is embedding, search, reranking, and all of ours around them. Then BM25 finds passages for the same
questions in turn with rank-bm25.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag import bert, build
from rag.bench import articles, provenance, results
from rag.bench.results import Sample, columns
from rag.bench.timing import in_turn
from rag.core import Clock, EngineInfo, GenerationParams, GenerationStats, Message
from rag.engine import spec
from rag.engine.tokens import EngineTokenizer
from rag.figures import Figure
from rag.index import IndexReader, lexical
from rag.index.lexical import LexicalIndex
from rag.pipeline import Pipeline
from rag.progress import Progress, Report, quiet
from rag.settings import Loaded
from rag.stats import p99, ratio
from rag.training.datasets import Abstract

BENCH = "retrieval"
WARM_UP = 5
K = 10

STAGES = ("embed", "retrieve", "dense", "lexical", "fuse", "rerank", "filter", "context", "score")
"""Of which `dense`, `lexical` and `fuse` are the steps of `retrieve`, and `score` is what encoder and reranker do in `context`, where
that chooses sentences."""

ELSEWHERE = ("embed", "retrieve", "rerank", "score")
"""Where models and indexes do the work: the rest is overhead."""

TIED = 1e-5
"""Share of a BM25 score by which two may differ and still tie: both are sums of float32 in orders of their own."""

SECTIONS = ("chunk", "embed", "index", "retrieve", "rerank", "filter", "context")

Found: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and rows, best first."""

QUESTION, LEXICAL = "question", "lexical"


class Instant:
    """A generator that counts tokens as the engine does and answers at once, a word at a time, from its first source."""

    answer = "An answer of about the length that answers have comes word by word and names its first source [1]."

    def __init__(self, model: str, tokenizer: EngineTokenizer, context_window: int) -> None:
        self.model = model
        self.context_window = context_window
        self._tokenizer = tokenizer

    @property
    def alive(self) -> bool:
        return True

    @property
    def generating(self) -> None:
        return None

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._tokenizer.encode_chat(messages))

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[str | GenerationStats, None]:
        del messages, params
        words = self.answer.split(" ")
        for number, word in enumerate(words):
            yield word if number == 0 else f" {word}"
        yield GenerationStats(len(words), finish_reason="stop")

    def info(self, stats: GenerationStats | None) -> EngineInfo:
        del stats
        return EngineInfo("none", None, "cpu")

    async def reset_prefix_cache(self) -> bool:
        return True

    async def close(self) -> None:
        pass


def open_generator(loaded: Loaded, report: Report = quiet) -> Instant:
    """With the tokenizer of the model that the settings name."""
    from transformers import AutoTokenizer

    name = spec.plan(loaded).model
    folder = build.resolve(name, report, loaded.settings.generator.revision).path
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return Instant(name, EngineTokenizer(tokenizer), loaded.settings.generator.max_model_len)


# --- samples -----------------------------------------------------------------------------------


def measure(
    loaded: Loaded, folder: Path, root: Path, passages: int, questions: int, command: str, progress: Progress
) -> None:
    """Take two samples a question, of its way and of BM25; those that an earlier run with the same settings took stay.

    `root` holds the datasets, `passages` is how many of the articles' are searched.
    """
    indexed = articles.index(loaded, root, passages, progress)
    asked = articles.questions(root, questions)
    progress("loading the models")
    search = build.open_search(indexed)
    samples = results.Samples(folder)
    taken = samples.resume(results.header(BENCH, command, settings=_depends_on(loaded, search.index)))
    known = {(sample["kind"], sample["id"]) for sample in taken}

    def left(kind: str) -> list[Abstract]:
        return [one for one in asked if (kind, one.id) not in known]

    if to_ask := left(QUESTION):
        generator = open_generator(loaded, progress)
        pipeline = Pipeline(
            loaded.settings, loaded.profile, search.encoder, search.searcher, generator, reranker=search.reranker
        )
        done = len(asked) - len(to_ask)
        progress("questions", done, len(asked))

        def finished(sample: dict[str, Any]) -> None:
            nonlocal done
            samples.add({"kind": QUESTION, **sample})
            done += 1
            progress("questions", done, len(asked))

        try:
            asyncio.run(ask(pipeline, asked[:WARM_UP], lambda _: None))
            asyncio.run(ask(pipeline, to_ask, finished))
        finally:
            pipeline.close()
    if to_find := left(LEXICAL):
        progress("building rank-bm25's index")
        version = build.check_index(indexed).folder
        ours, reference = lexical.open_index(version, "bm25s"), lexical.open_index(version, "rank_bm25")
        for paper in asked[:WARM_UP]:
            ours.search(search.index.tokenizer(paper.question), K)
        compared = (
            {"kind": LEXICAL, "id": paper.id, **beside(ours, reference, search.index.tokenizer(paper.question))}
            for paper in to_find
        )
        samples.take(compared, progress, "BM25 beside rank-bm25", len(asked) - len(to_find), len(asked))


def _depends_on(loaded: Loaded, index: IndexReader) -> dict[str, Any]:
    reranker = loaded.settings.rerank.model
    encoder = build.resolve(loaded.settings.embed.model).path
    return {
        "documents": index.manifest.documents,
        "passages": index.manifest.passages,
        "dense": index.manifest.dense,
        "backend": bert.choose(encoder, loaded.device, loaded.settings.embed.backend),
        "encoder": index.manifest.model,
        "reranker": provenance.weights(build.resolve(reranker).path) if reranker is not None else None,
        "tokenizer": spec.plan(loaded).model,
        **{name: getattr(loaded.settings, name).model_dump(exclude={"name"}) for name in SECTIONS},
    }


async def ask(pipeline: Pipeline, asked: Sequence[Abstract], finished: Callable[[dict[str, Any]], None]) -> None:
    """One question after the other; `finished` is told the seconds of each stage that ran."""
    for paper in asked:
        answer = await pipeline.answer(paper.question)
        seconds: dict[str, float] = {}
        for stage, start, end in answer.spans:
            if stage in STAGES:
                seconds[stage] = seconds.get(stage, 0.0) + end - start
        finished({"id": paper.id, "seconds": seconds, "total": answer.timings.total})


def beside(
    ours: LexicalIndex, reference: LexicalIndex, tokens: Sequence[str], clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Seconds of a search: ours, the reference's, and ours again for what two runs of the same differ by; and how far what
    they find agrees."""
    order = {"ours": ours, "reference": reference, "ours_again": ours}
    seconds, found = in_turn({name: partial(one.search, tokens, K) for name, one in order.items()}, clock)
    same, overlap = agreement(found["ours"][1], found["reference"], lambda: reference.search(tokens, ALL))
    return {**seconds, "same": same, "overlap": overlap}


ALL = 2**31 - 1


def agreement(ours: NDArray[np.int64], reference: Found, every: Callable[[], Found]) -> tuple[float, float]:
    """Shares of the reference's rows that ours are: the same ones; and the same, or others that tie with the last of them.

    Which of several passages with one score comes last is chance. `every` gives the reference's score of all rows.
    """
    scores, rows = reference
    longest = max(len(ours), len(rows))
    if longest == 0:
        return 1.0, 1.0
    same = len(set(ours.tolist()) & set(rows.tolist()))
    if same == longest:
        return 1.0, 1.0
    all_scores, all_rows = every()
    of_row = dict(zip(all_rows.tolist(), all_scores.tolist(), strict=True))
    enough = float(scores[-1]) * (1 - TIED) if len(scores) else 0.0
    as_good = sum(of_row.get(row, 0.0) >= enough > 0 for row in ours.tolist())
    return same / longest, as_good / longest


# --- figures -----------------------------------------------------------------------------------


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk. Raises `UsageError` where there are none."""
    head, samples = results.Samples(folder).of(BENCH)
    of = results.by_kind(samples, (QUESTION, LEXICAL))
    if not of[QUESTION]:
        raise results.lacking("question", folder / results.SAMPLES)
    figures = results.Figures()
    if of[LEXICAL]:
        _of_lexical(figures, of[LEXICAL])
    _of_stages(figures, of[QUESTION])
    results.write(folder, head, figures.all, [*_notes(head, len(of[QUESTION])), *figures.notes])
    return figures.all


def _of_lexical(figures: results.Figures, samples: Sequence[Sample]) -> None:
    pairs = columns(samples, "reference", "ours")
    figures.add("lexical_speedup_vs_rank_bm25", pairs, ratio(np.median), "ratio", at_least=100)
    figures.add("lexical_over_lexical", columns(samples, "ours", "ours_again"), ratio(np.median), "ratio")
    figures.add("lexical_overlap_at_10", [s["overlap"] for s in samples], np.mean, "share", at_least=0.99)
    figures.add("lexical_same_at_10", [s["same"] for s in samples], np.mean, "share")
    figures.ms("bm25_p50_ms", [s["ours"] for s in samples])
    figures.ms("rank_bm25_p50_ms", [s["reference"] for s in samples])


def _of_stages(figures: results.Figures, samples: Sequence[Sample]) -> None:
    """A question for which nothing was close enough has no context: it counts for the stages that it has."""
    answered = [s for s in samples if "context" in s["seconds"]]
    ours = [
        sum(s["seconds"][stage] for stage in ("fuse", "filter", "context")) - s["seconds"].get("score", 0.0)
        for s in answered
    ]
    figures.ms("fuse_filter_context_p50_ms", ours, at_most=5)
    besides = [s["total"] - sum(s["seconds"].get(stage, 0.0) for stage in ELSEWHERE) for s in answered]
    figures.ms("overhead_p50_ms", besides, at_most=2)
    for stage in STAGES:
        times = [s["seconds"][stage] for s in samples if stage in s["seconds"]]
        if times:
            figures.ms(f"{stage}_p50_ms", times)
            figures.ms(f"{stage}_p99_ms", times, p99)
    totals = [s["total"] for s in samples]
    figures.ms("total_p50_ms", totals)
    figures.ms("total_p99_ms", totals, p99)


def _notes(head: Mapping[str, Any], count: int) -> list[str]:
    settings = head["settings"]
    return [
        f"{count} questions of PubMedQA over {settings['passages']:,} passages ({settings['documents']:,} of the open articles, "
        f"dense index {settings['dense']}), one after the other and warm, by the product's pipeline with a generator that "
        "answers at once. `dense`, `lexical` and `fuse` are the steps of `retrieve`; `fuse` reads the passages too. `score` is "
        "encoder and reranker at work inside `context`, on the sentences of the best passages; "
        "`fuse_filter_context_p50_ms` is without it. `overhead_p50_ms`: all of the way but `embed`, `retrieve`, `rerank` and "
        "`score`, so filter, the rest of context, route, citations, and the ways between threads.",
        "",
        f"BM25: the same tokens through bm25s and rank-bm25, in turn, {K} passages each; `lexical_over_lexical` is what two "
        "runs of the same show. `lexical_overlap_at_10` counts a passage as agreed that has at least the score of "
        "rank-bm25's tenth, by rank-bm25: which of several equal ones comes last is chance. `lexical_same_at_10` counts "
        "the same passages alone. Intervals: bootstrap over questions.",
    ]
