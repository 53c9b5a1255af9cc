"""What each question counts for each metric. Pure: from its sample alone.

A question has a part in a metric, or none where it isn't defined for it: a numerator and a denominator. A figure is the sum
of the numerators over that of the denominators, so that means of questions, shares of sentences and precisions are all made,
resampled and compared in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rag import metrics, prompt
from rag.core import Answer
from rag.evaluate.samples import Sample
from rag.stats import Floats

Part: TypeAlias = tuple[float, float]

DEPTHS = (1, 5, 10)
K = 10


@dataclass(frozen=True, slots=True)
class Metric:
    """`quality`: of 0 to 1, and more is better, so that a loss of it can be spoken of. `by_type`: also of each type of
    questions; what is about one type alone isn't."""

    name: str
    unit: str
    part: Callable[[Sample], Part | None]
    quality: bool = True
    by_type: bool = True


def parts(metric: Metric, samples: Sequence[Sample]) -> Floats:
    """Of the samples that have one, shape (n, 2)."""
    found = [part for sample in samples if (part := metric.part(sample)) is not None and part[1] > 0]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


# --- retrieval: of questions whose gold documents are known -----------------------------------------


def _retrieval(prefix: str, order: Callable[[Sample], Sequence[str] | None]) -> list[Metric]:
    """Of the documents found, each at the place of its best passage."""

    def of(measure: str) -> Callable[[Sample], Part | None]:
        def part(sample: Sample) -> Part | None:
            found = order(sample)
            if found is None or not sample.question.answerable:
                return None
            return metrics.ranked(dict.fromkeys(found), sample.question.gold, measure), 1.0

        return part

    return [
        *(Metric(f"{prefix}recall_at_{k}", "share", of(f"R@{k}")) for k in DEPTHS),
        Metric(f"{prefix}mrr", "MRR", of("RR")),
        Metric(f"{prefix}ndcg_at_{K}", f"nDCG@{K}", of(f"nDCG@{K}")),
    ]


def _order(sample: Sample) -> Sequence[str] | None:
    return sample.found.order if sample.found is not None else None


def _order_before(sample: Sample) -> Sequence[str] | None:
    """Before reranking; None where nothing was reranked."""
    return sample.found.fused if sample.found is not None and sample.found.reranked is not None else None


# --- answers: of questions that have one; declining scores nothing ----------------------------------


def text(answer: Answer) -> str:
    """What a reader is told, without markers; nothing where it declines."""
    return "" if answer.abstained else prompt.unmarked(answer.answer)


def _key_facts(sample: Sample) -> Part | None:
    facts = sample.question.key_facts
    if sample.answer is None or not facts:
        return None
    return float(np.mean(metrics.key_facts_found(text(sample.answer), facts))), 1.0


def _against_reference(score: Callable[[str, str], float]) -> Callable[[Sample], Part | None]:
    def part(sample: Sample) -> Part | None:
        reference = sample.question.answer
        if sample.answer is None or reference is None or not sample.question.answerable:
            return None
        return score(text(sample.answer), reference), 1.0

    return part


def _judged(sample: Sample) -> Part | None:
    """Of the verdicts that say yes or no."""
    return (float(sample.verdict == "yes"), 1.0) if sample.verdict in ("yes", "no") else None


def _length(sample: Sample) -> Part | None:
    tokens = sample.given.tokens.output if sample.given is not None else None
    return (float(tokens), 1.0) if tokens is not None else None


# --- citations: those that the model wrote ----------------------------------------------------------


def _cited(answer: Answer) -> frozenset[str]:
    return frozenset(citation.doc_id for citation in answer.citations if citation.origin == "model")


def _citation_precision(sample: Sample) -> Part | None:
    """Of the answers that cite anything. One to a question that nothing answers cites nothing that is right."""
    if sample.given is None or not (cited := _cited(sample.given)):
        return None
    return metrics.precision(cited, sample.question.gold), 1.0


def _citation_recall(sample: Sample) -> Part | None:
    if sample.answer is None or not sample.question.answerable:
        return None
    return metrics.recall(_cited(sample.answer), sample.question.gold.keys()), 1.0


def _cited_sentences(sample: Sample) -> Part | None:
    if sample.given is None:
        return None
    markers = prompt.written_markers(sample.given.answer)
    return float(sum(len(some) > 0 for some in markers)), float(len(markers))


def _supported_sentences(sample: Sample) -> Part | None:
    """Of those written, also where they aren't shown for it (`verify.action`); none where nothing checks."""
    if sample.answer is None or (sample.answer.abstained and not sample.answer.withheld):
        return None
    checked = [sentence.support for sentence in sample.answer.sentences if sentence.support != "unchecked"]
    return float(checked.count("supported")), float(len(checked))


# --- abstention -------------------------------------------------------------------------------------


def _abstained(sample: Sample) -> Part | None:
    return (float(sample.answer.abstained), 1.0) if sample.answer is not None else None


def _abstention_precision(sample: Sample) -> Part | None:
    if sample.answer is None or not sample.answer.abstained:
        return None
    return float(not sample.question.answerable), 1.0


def _abstention_recall(sample: Sample) -> Part | None:
    return _abstained(sample) if not sample.question.answerable else None


# --- time -------------------------------------------------------------------------------------------


def _seconds(sample: Sample) -> Part | None:
    total = sample.answer.timings.total if sample.answer is not None else None
    return (total, 1.0) if total is not None else None


METRICS: tuple[Metric, ...] = (
    *_retrieval("", _order),
    *_retrieval("fused_", _order_before),
    Metric("key_fact_recall", "share", _key_facts),
    Metric("token_f1", "F1", _against_reference(metrics.token_f1)),
    Metric("rouge_l", "F1", _against_reference(metrics.rouge_l)),
    Metric("judged_right", "share", _judged),
    Metric("answer_tokens", "tokens", _length, quality=False),
    Metric("citation_precision", "share", _citation_precision),
    Metric("citation_recall", "share", _citation_recall),
    Metric("cited_sentences", "share", _cited_sentences),
    Metric("supported_sentences", "share", _supported_sentences),
    Metric("abstained", "share", _abstained, quality=False),
    Metric("abstention_precision", "share", _abstention_precision, by_type=False),
    Metric("abstention_recall", "share", _abstention_recall, by_type=False),
    Metric("total_s", "s", _seconds, quality=False, by_type=False),
)
