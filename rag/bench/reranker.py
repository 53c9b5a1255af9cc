"""How much better the reranker orders what the search finds, and how fast.

Held-out questions of MedQuAD, claims of SciFact and questions of PubMedQA, each against every passage of its dataset,
by the product's own indexes, search and reranker. sentence-transformers' `CrossEncoder` with the same weights in FP32
orders MedQuAD's candidates too, and is what the speed is compared with.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag import bert, build
from rag.bench import SEED, provenance, results
from rag.bench.results import Sample, columns
from rag.bench.timing import PAUSE, in_turn
from rag.core import Clock, Hit, Hits, Passage, Query, Reranker, Trace
from rag.errors import UsageError
from rag.figures import Figure
from rag.index import IndexReader
from rag.metrics import ranked_at, ranks
from rag.models import ModelStore
from rag.progress import Progress
from rag.rerank import CrossEncoderReranker
from rag.search import HybridSearcher
from rag.settings import Device, Loaded, Retrieve
from rag.stats import Floats, difference, ratio
from rag.training import corpora, datasets

BENCH = "reranker"
QUESTIONS = 500

DEPTH = 50
"""Candidates that are reranked, and the length of both lists that they are fused from."""

NDCG, FIRST = "nDCG@10", "Success@1"

PAIRS, PAIR_TOKENS = 20, 130
ROUNDS, WARM_UP = 30, 3

DATA = {"medquad": "MedQuAD", "scifact": "SciFact", "pubmedqa": "PubMedQA"}
SPEED = "speed"


@dataclass(frozen=True, slots=True)
class Question:
    """`answers` are the documents that do."""

    id: str
    text: str
    answers: frozenset[str]


def held_out(root: Path, count: int) -> dict[str, list[Question]]:
    """By dataset, at most `count` of each, drawn with a fixed seed: those of a smaller count come first."""
    *_, records = datasets.split_medquad(datasets.medquad(root))
    _, claims, _ = datasets.scifact(root)
    _, papers = datasets.pubmedqa(root)
    found = {
        "medquad": [Question(r.id, r.question, frozenset([r.id])) for r in records],
        "scifact": [Question(c.id, c.text, frozenset(name for name, _, _ in c.evidence)) for c in claims if c.evidence],
        "pubmedqa": [Question(p.id, p.question, frozenset([p.id])) for p in papers],
    }
    return {name: random.Random(SEED).sample(asked, len(asked))[:count] for name, asked in found.items()}


# --- samples -----------------------------------------------------------------------------------


def measure(
    loaded: Loaded, folder: Path, root: Path, questions: int, index: str | None, command: str, progress: Progress
) -> None:
    """Take a sample a question, and `ROUNDS` of the speed; those that an earlier run with the same settings took stay.

    `root` holds the datasets, `index` names an index of MedQuAD that is there already. Raises `UsageError` where the
    settings name no reranker.
    """
    if loaded.settings.rerank.model is None:
        raise UsageError("rerank.model is null: there is nothing to measure. Name one: --set rerank.model=NAME.")
    progress("loading the reranker")
    served = build.open_reranker(loaded)
    assert served is not None
    model = ModelStore().resolve(loaded.settings.rerank.model).path
    float32 = Float32(model, loaded.device, loaded.settings.rerank.max_length)
    exact = CrossEncoderReranker(float32, served.weights)
    indexed = {name: corpora.index(loaded, root, name, index if name == "medquad" else None, progress) for name in DATA}
    samples = results.Samples(folder)
    taken = samples.resume(results.header(BENCH, command, settings=_depends_on(loaded, model, questions)))

    for name, asked in held_out(root, questions).items():
        known = {sample["id"] for sample in taken if sample["data"] == name}
        left = [question for question in asked if question.id not in known]
        if left:
            progress(DATA[name], len(known), len(asked))
            on_medquad = name == "medquad"
            rerankers = {"reranked": served, **({"float32": exact} if on_medquad else {})}
            found = orders(_open(indexed[name]), loaded.settings.retrieve, rerankers, left, by_passage=on_medquad)
            fresh = ({"data": name, **sample} for sample in found)
            samples.take(fresh, progress, DATA[name], len(known), len(asked))

    rounds = sum(sample["data"] == SPEED for sample in taken)
    if rounds < ROUNDS:
        progress("speed", rounds, ROUNDS)
        tokens = min(PAIR_TOKENS, loaded.settings.rerank.max_length)
        question, hits = float32.pairs(_passages(_open(indexed["medquad"]).index), tokens)
        timed = times(served, exact, question, hits, ROUNDS - rounds)
        fresh = ({"data": SPEED, "tokens": tokens, **seconds} for seconds in timed)
        samples.take(fresh, progress, "speed", rounds, ROUNDS)


def _depends_on(loaded: Loaded, model: Path, questions: int) -> dict[str, Any]:
    import torch

    return {
        "questions": questions,
        "backend": bert.choose(model, loaded.device, loaded.settings.rerank.backend),
        "torch_threads": torch.get_num_threads(),
        "weights": provenance.weights(model),
        **{name: getattr(loaded.settings, name).model_dump() for name in ("chunk", "embed", "retrieve", "rerank")},
    }


def _open(loaded: Loaded) -> build.Search:
    return build.open_search(loaded.having("rerank", model=None))


def orders(
    search: build.Search,
    settings: Retrieve,
    rerankers: Mapping[str, Reranker],
    questions: Iterable[Question],
    *,
    by_passage: bool,
) -> Iterator[dict[str, Any]]:
    """For each question the ranks of what answers it, by method, and how many there are: passages, or documents by
    the first of their passages."""
    deep = settings.having(dense_n=DEPTH, lexical_n=DEPTH, candidates=DEPTH)
    alone = {name: deep.having(**{off: 0}) for name, off in (("dense", "lexical_n"), ("lexical", "dense_n"))}
    methods = {name: HybridSearcher(search.index, changed) for name, changed in {**alone, "fusion": deep}.items()}
    methods |= {name: HybridSearcher(search.index, deep, reranker) for name, reranker in rerankers.items()}
    passages = Counter(passage.doc_id for passage in _passages(search.index)) if by_passage else None
    for question in questions:
        query = Query(question.text, search.encoder.encode_queries([question.text])[0])
        found = {name: _documents(searcher.search([query], Trace())[0]) for name, searcher in methods.items()}
        if passages is None:
            found = {name: list(dict.fromkeys(documents)) for name, documents in found.items()}
        yield {
            "id": question.id,
            "relevant": sum(1 if passages is None else passages[name] for name in question.answers),
            "ranks": {name: ranks(documents, question.answers) for name, documents in found.items()},
        }


def _documents(hits: Hits) -> list[str]:
    return [hit.passage.doc_id for hit in hits]


def _passages(index: IndexReader) -> Iterator[Passage]:
    for row in range(len(index.passages)):
        yield from index.passages.get([row])


class Float32:
    """A pair model: sentence-transformers' `CrossEncoder` by its defaults, in FP32 whatever the weights are stored in."""

    labels = ("relevant",)

    def __init__(self, folder: Path, device: Device, max_length: int) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(
            str(folder),
            device=device,
            max_length=max_length,
            activation_fn=torch.nn.Identity(),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        found = self._model.predict(list(pairs), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32).reshape(len(pairs), 1)

    def pairs(self, passages: Iterable[Passage], tokens: int) -> tuple[str, list[Hit]]:
        """A question, and beginnings of `PAIRS` of the passages that make pairs of exactly `tokens` tokens with it.

        Raises `UsageError` where too few of them are as long.
        """
        tokenizer, question = self._model.tokenizer, "What is it, and how is it treated?"
        found: list[Hit] = []
        for passage in passages:
            text = passage.titled
            pair = tokenizer(
                question, text, truncation="only_second", max_length=tokens, return_offsets_mapping=True, padding=False
            )
            last = max((row for row, part in enumerate(pair.sequence_ids()) if part == 1), default=0)
            beginning = text[: pair["offset_mapping"][last][1]]
            # A word that was cut in the middle may be read as fewer tokens, or more.
            if len(tokenizer(question, beginning, truncation=False, padding=False)["input_ids"]) == tokens:
                title, _, rest = beginning.partition("\n")
                found.append(Hit(Passage(passage.id, passage.doc_id, title, rest, 0, len(rest)), 0.0))
            if len(found) == PAIRS:
                return question, found
        raise UsageError(f"{len(found)} passages make pairs of {tokens} tokens, {PAIRS} are needed. Is this MedQuAD?")


def times(
    ours: Reranker,
    default: Reranker,
    question: str,
    hits: Sequence[Hit],
    rounds: int,
    clock: Clock = time.perf_counter,
) -> Iterator[dict[str, float]]:
    """Seconds of each round, warm: default, ours, and default again for what two runs of the same differ by."""
    order = {"default": default, "ours": ours, "default_again": default}
    runs = {name: partial(reranker.scores, [(question, hits)]) for name, reranker in order.items()}
    for number in range(-WARM_UP, rounds):
        seconds, _ = in_turn(runs, clock, PAUSE)
        if number >= 0:
            yield seconds


# --- figures -----------------------------------------------------------------------------------


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk. Raises `UsageError` where there is none of MedQuAD."""
    head, samples = results.Samples(folder).of(BENCH)
    of = results.by_kind(samples, (*DATA, SPEED), key="data")
    if not of["medquad"]:
        raise results.lacking("question of MedQuAD", folder / results.SAMPLES)
    figures = results.Figures()
    _of_medquad(figures, of["medquad"])
    for name in ("scifact", "pubmedqa"):
        if of[name]:
            _of_other(figures, name, of[name])
    if of[SPEED]:
        _of_speed(figures, of[SPEED])
    results.write(folder, head, figures.all, [*_notes(head, of), *figures.notes])
    return figures.all


def _of_medquad(figures: results.Figures, samples: Sequence[Sample]) -> None:
    quality, first = _measured(samples, NDCG), _measured(samples, FIRST)
    both = list(zip(quality["reranked"], quality["fusion"], strict=True))
    figures.add("ndcg_gain", both, ratio(), "ratio", at_least=1.25)
    figures.add(
        "hit1_gain", list(zip(first["reranked"], first["fusion"], strict=True)), difference, "share", at_least=0.15
    )
    three = list(zip(quality["fusion"], quality["dense"], quality["lexical"], strict=True))
    figures.add("fusion_over_best", three, _over_best, "ratio", at_least=1)
    exact = list(zip(quality["reranked"], quality["float32"], strict=True))
    figures.add("ndcg_over_fp32", exact, ratio(), "ratio", at_least=0.99)
    for method in ("dense", "lexical", "fusion", "reranked", "float32"):
        figures.add(f"ndcg_{method}", quality[method], np.mean, NDCG)
    best = [ranked_at(range(1, len(s["ranks"]["fusion"]) + 1), s["relevant"], NDCG) for s in samples]
    figures.add("ndcg_best_order", best, np.mean, NDCG)
    for method in ("fusion", "reranked"):
        figures.add(f"hit1_{method}", first[method], np.mean, "share")


def _of_other(figures: results.Figures, name: str, samples: Sequence[Sample]) -> None:
    quality = _measured(samples, NDCG)
    both = list(zip(quality["reranked"], quality["fusion"], strict=True))
    figures.add(f"{name}_gain", both, ratio(), "ratio", at_least=1)
    for method in ("fusion", "reranked"):
        figures.add(f"{name}_ndcg_{method}", quality[method], np.mean, NDCG)


def _of_speed(figures: results.Figures, samples: Sequence[Sample]) -> None:
    figures.add("speedup_vs_default", columns(samples, "default", "ours"), ratio(np.median), "ratio", at_least=3)
    figures.add("default_over_default", columns(samples, "default", "default_again"), ratio(np.median), "ratio")
    figures.ms("pairs_default_ms", [s["default"] for s in samples])
    figures.ms("pairs_ours_ms", [s["ours"] for s in samples])


def _measured(samples: Sequence[Sample], measure: str) -> dict[str, list[float]]:
    """By method, of each question. Its relevant passages, or documents, are all relevant alike."""
    return {
        name: [ranked_at(s["ranks"][name], s["relevant"], measure) for s in samples] for name in samples[0]["ranks"]
    }


def _over_best(rows: Floats, axis: int) -> Floats:
    """Of rows of three: the mean of the first column over the higher one of the other two."""
    found = rows.mean(axis=axis)
    quotient: Floats = found[..., 0] / np.maximum(found[..., 1], found[..., 2])
    return quotient


def _notes(head: Mapping[str, Any], of: Mapping[str, Sequence[Sample]]) -> list[str]:
    settings = head["settings"]
    counts = ", ".join(f"{len(of[name])} of {said}" for name, said in DATA.items())
    tokens = sorted({sample["tokens"] for sample in of[SPEED]})
    return [
        f"Held-out questions: {counts}. {DEPTH} candidates, fused from {DEPTH} dense and {DEPTH} lexical ones. "
        "MedQuAD: relevant is every passage of the answer's record, among those of the whole dataset. SciFact and "
        "PubMedQA: over documents. `ndcg_best_order` is what the best order of the candidates would have. "
        "Intervals: bootstrap over questions.",
        "",
        f"`{settings['rerank']['model']}` runs on {settings['backend']}. Speed: {PAIRS} pairs of "
        f"{', '.join(map(str, tokens))} tokens, in turn with sentence-transformers' `CrossEncoder` by its defaults (FP32, "
        f"{settings['torch_threads']} threads on {head['host']['cores']} cores) in one process; `default_over_default` "
        "is what two runs of that one show where there is no difference. Medians, bootstrap over rounds.",
    ]
