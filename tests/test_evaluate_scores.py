"""What a question counts for each metric: by hand, on answers that are made for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from evaluating import BOTH, MALARIA, RABIES

from rag.core import Answer, CacheInfo, Citation, EngineInfo, Sentence, StageTimings, Support, Tokens
from rag.evaluate import Question
from rag.evaluate.samples import Found, Sample
from rag.evaluate.scores import METRICS, parts
from rag.prompt import NOT_IN_SOURCES

OF = {metric.name: metric for metric in METRICS}


def cited(*documents: str, origin: str = "model") -> tuple[Citation, ...]:
    return tuple(
        Citation(marker, name, f"{name}#0", name, "", origin, 0.5)  # type: ignore[arg-type]
        for marker, name in enumerate(documents, start=1)
    )


def answer(text: str, *citations: Citation, support: Sequence[Support] = (), abstained: bool = False) -> Answer:
    return Answer(
        question="?",
        answer=text,
        abstained=abstained,
        confidence=None,
        withheld=False,
        truncated=False,
        sentences=tuple(Sentence("So.", (1,), one) for one in support),
        citations=citations,
        invalid_markers=0,
        route=None,
        cache=CacheInfo(),
        timings=StageTimings(total=1.5),
        spans=(),
        tokens=Tokens(output=12),
        engine=EngineInfo("fake", "1", "cpu"),
        profile="auto-cpu",
    )


DECLINED = answer(NOT_IN_SOURCES, abstained=True)


def sample(question: Question, came: Answer | None, found: Found | None = None, **more: object) -> Sample:
    error = "It failed." if came is None else None
    return replace(Sample(question.id, question, found, came, error, 1, 1.0), **more)  # type: ignore[arg-type]


def part(name: str, *arguments: object, **more: object) -> tuple[float, float] | None:
    return OF[name].part(sample(*arguments, **more))  # type: ignore[arg-type]


# --- retrieval ---------------------------------------------------------------------------------------


def test_retrieval_counts_each_document_at_the_place_of_its_best_passage() -> None:
    """Reranked: x, gout, y, scurvy; fused: gout, scurvy, x, y."""
    found = Found(("gout", "scurvy", "gout", "x", "y"), ("x", "x", "gout", "y", "x", "scurvy"))
    of = {name: part(name, BOTH, None, found) for name in OF if name.endswith(("_1", "_5", "_10", "mrr"))}
    assert {name: value and round(value[0], 3) for name, value in of.items()} == {
        "recall_at_1": 0.0,
        "recall_at_5": 1.0,
        "recall_at_10": 1.0,
        "mrr": 0.5,
        "ndcg_at_10": round((0.63093 + 0.43068) / 1.63093, 3),
        "fused_recall_at_1": 0.5,
        "fused_recall_at_5": 1.0,
        "fused_recall_at_10": 1.0,
        "fused_mrr": 1.0,
        "fused_ndcg_at_10": 1.0,
    }


def test_retrieval_is_of_questions_that_something_answers_and_fused_of_what_was_reranked() -> None:
    assert part("recall_at_1", MALARIA, None, Found(("malaria",), None)) == (1.0, 1.0)
    assert part("fused_recall_at_1", MALARIA, None, Found(("malaria",), None)) is None
    assert part("recall_at_1", RABIES, None, Found(("malaria",), None)) is None
    assert part("recall_at_1", MALARIA, None) is None
    assert part("recall_at_10", MALARIA, DECLINED, Found((), None)) == (0.0, 1.0)


# --- answers -----------------------------------------------------------------------------------------


def test_key_facts_are_looked_for_in_the_answer_without_its_markers() -> None:
    assert part("key_fact_recall", BOTH, answer("Urate crystals [1].")) == (0.5, 1.0)
    assert part("key_fact_recall", BOTH, DECLINED) == (0.0, 1.0)
    assert part("key_fact_recall", RABIES, answer("So.")) is None
    assert part("key_fact_recall", BOTH, None) is None
    one = replace(MALARIA, key_facts=(("1",),))
    assert part("key_fact_recall", one, answer("Parasites [1].")) == (0.0, 1.0)


def test_declining_in_the_words_of_a_fact_states_nothing() -> None:
    fact = replace(MALARIA, key_facts=(("sources",),), answer=NOT_IN_SOURCES)
    assert part("key_fact_recall", fact, DECLINED) == (0.0, 1.0)
    assert part("token_f1", fact, DECLINED) == part("rouge_l", fact, DECLINED) == (0.0, 1.0)


def test_the_reference_is_compared_where_there_is_one() -> None:
    assert part("token_f1", MALARIA, answer("Plasmodium parasites [1].")) == (1.0, 1.0)
    assert part("rouge_l", MALARIA, answer("The parasites Plasmodium.")) == (pytest.approx(2 / 5), 1.0)
    assert part("token_f1", replace(MALARIA, answer=None), answer("So.")) is None
    assert part("rouge_l", RABIES, answer("So.")) is None


def test_the_length_is_that_of_answers_given_where_the_backend_tells_it() -> None:
    assert part("answer_tokens", RABIES, answer("So.")) == (12.0, 1.0)
    assert part("answer_tokens", MALARIA, DECLINED) is None
    assert part("answer_tokens", MALARIA, replace(answer("So."), tokens=Tokens())) is None


@pytest.mark.parametrize(
    ("verdict", "expected"), [("yes", (1.0, 1.0)), ("no", (0.0, 1.0)), ("unclear", None), (None, None)]
)
def test_a_judge_counts_where_it_says_yes_or_no(verdict: str | None, expected: object) -> None:
    assert part("judged_right", MALARIA, answer("So."), verdict=verdict) == expected


# --- citations ---------------------------------------------------------------------------------------


def test_citations_count_documents_and_only_those_that_the_model_wrote() -> None:
    both = answer("So [1][2][3].", *cited("gout", "x"), *cited("gout"), *cited("scurvy", origin="attributed"))
    assert part("citation_precision", BOTH, both) == (0.5, 1.0)
    assert part("citation_recall", BOTH, both) == (0.5, 1.0)


def test_an_answer_to_what_nothing_answers_cites_nothing_right() -> None:
    assert part("citation_precision", RABIES, answer("So [1].", *cited("malaria"))) == (0.0, 1.0)
    assert part("citation_recall", RABIES, answer("So [1].", *cited("malaria"))) is None


def test_where_nothing_is_cited_there_is_no_precision_and_no_recall_is_gained() -> None:
    assert part("citation_precision", MALARIA, answer("So.", *cited("malaria", origin="attributed"))) is None
    assert part("citation_precision", MALARIA, DECLINED) is None
    assert part("citation_recall", MALARIA, answer("So.")) == part("citation_recall", MALARIA, DECLINED) == (0.0, 1.0)


def test_sentences_are_counted_by_the_markers_that_stand_in_the_text() -> None:
    assert part("cited_sentences", MALARIA, answer("It is so [1]. And so. It ends [1][2].")) == (2.0, 3.0)
    assert part("cited_sentences", MALARIA, DECLINED) is None


def test_supported_sentences_are_those_written_also_where_the_answer_is_withheld() -> None:
    given = answer("So. So.", support=("supported", "not_stated"))
    assert part("supported_sentences", MALARIA, given) == (1.0, 2.0)
    withheld = replace(given, abstained=True, withheld=True)
    assert part("supported_sentences", MALARIA, withheld) == (1.0, 2.0)
    assert part("supported_sentences", MALARIA, replace(given, abstained=True)) is None
    assert part("supported_sentences", MALARIA, answer("So.", support=("unchecked",))) == (0.0, 0.0)


# --- abstention, time, and what parts make -----------------------------------------------------------


def test_abstention() -> None:
    wrongly, rightly, given = sample(MALARIA, DECLINED), sample(RABIES, DECLINED), sample(RABIES, answer("So."))
    of = {name: [OF[name].part(one) for one in (wrongly, rightly, given)] for name in OF if name.startswith("abst")}
    assert of == {
        "abstained": [(1.0, 1.0), (1.0, 1.0), (0.0, 1.0)],
        "abstention_precision": [(0.0, 1.0), (1.0, 1.0), None],
        "abstention_recall": [None, (1.0, 1.0), (0.0, 1.0)],
    }


def test_a_question_that_failed_counts_nowhere_but_for_what_it_found() -> None:
    failed = sample(MALARIA, None, Found(("malaria",), ("malaria",)))
    counted = {metric.name for metric in METRICS if metric.part(failed) is not None}
    assert counted == {name for name in OF if name.endswith(("recall_at_1", "at_5", "at_10", "mrr"))}


def test_the_parts_of_a_metric_are_those_of_the_questions_that_have_one() -> None:
    samples = [
        sample(MALARIA, answer("So [1].")),
        sample(MALARIA, DECLINED),
        sample(MALARIA, answer("So [1]. No.")),
        sample(MALARIA, None),
    ]
    assert parts(OF["cited_sentences"], samples).tolist() == [[1.0, 1.0], [1.0, 2.0]]
    assert parts(OF["judged_right"], samples).shape == (0, 2)
    unchecked = [sample(MALARIA, answer("So.", support=("unchecked",)))]
    assert parts(OF["supported_sentences"], unchecked).shape == (0, 2)


def test_the_seconds_are_the_question_s_own() -> None:
    assert part("total_s", RABIES, answer("So.")) == (1.5, 1.0)
