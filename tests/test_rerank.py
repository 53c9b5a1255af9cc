"""The reranker: one probability a passage, from whichever pair model runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rag.bert import convert
from rag.core import Hit, Passage, Query
from rag.errors import ModelError
from rag.pairs import open_pairs
from rag.rerank import CrossEncoderReranker, ScoreWeights, lexical_shares, scored
from rag.testing import FakeEncoder


def hit(text: str, cosine: float = 0.0, lexical: float | None = None) -> Hit:
    return Hit(Passage(text, "d", "", text, 0, len(text)), cosine, lexical)


class Table:
    """A pair model that gives each second text the logit that it spells."""

    def __init__(self, labels: tuple[str, ...] = ("relevant",)) -> None:
        self.labels = labels
        self.asked: list[tuple[str, str]] = []

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.asked += pairs
        return np.array([[float(second)] for _, second in pairs], dtype=np.float32).reshape(len(pairs), 1)


def test_a_score_is_the_sigmoid_of_its_logit_in_the_order_of_the_passages() -> None:
    table = Table()
    [scores] = CrossEncoderReranker(table).scores([("why?", [hit("0"), hit("-1.5", 0.9), hit("3")])])
    assert scores == pytest.approx([0.5, 1 / (1 + np.exp(1.5)), 1 / (1 + np.exp(-3))], rel=1e-6)
    assert table.asked == [("why?", "\n0"), ("why?", "\n-1.5"), ("why?", "\n3")]


def test_a_cosine_adds_its_weight_to_the_logit() -> None:
    [scores] = CrossEncoderReranker(Table(), ScoreWeights(cosine=4.0)).scores(
        [("why?", [hit("0", 0.5), hit("1", -0.25), hit("-2", 0.5)])]
    )
    assert scores == pytest.approx([1 / (1 + np.exp(-2)), 0.5, 0.5])


def test_bm25_adds_its_weight_times_the_share_of_the_best_score() -> None:
    hits = [hit("0", 0.9, 12.0), hit("-1", 0.9, 6.0), hit("2", 0.9)]
    reranker = CrossEncoderReranker(Table(), ScoreWeights(lexical=2.0))
    expected = [1 / (1 + np.exp(-2)), 0.5, 1 / (1 + np.exp(-2))]
    assert reranker.scores([("why?", hits)]) == [pytest.approx(expected)]
    several = reranker.scores([("how?", [hit("0", 0.9, 3.0)]), ("when?", []), ("why?", hits)])
    assert several == [pytest.approx(expected[:1]), [], pytest.approx(expected)], (
        "each question has a best score of its own"
    )
    assert lexical_shares([hit("0"), hit("1")]).tolist() == [0.0, 0.0]  # the lexical search is off


def test_passages_that_no_search_has_scored_get_their_cosine_and_their_probability() -> None:
    encoder = FakeEncoder()
    query = Query("why?", encoder.encode_queries(["why?"])[0])
    hits = [hit("0", 0.9, 7.0), hit("1")]
    found = scored(query, hits, encoder, CrossEncoderReranker(Table(), ScoreWeights(cosine=2.0)))
    cosines = [float(encoder.encode_passages([f"\n{text}"])[0] @ query.vector) for text in ("0", "1")]
    assert [one.dense for one in found] == pytest.approx(cosines)
    assert [one.rerank for one in found] == pytest.approx(
        [1 / (1 + np.exp(-2 * cosines[0])), 1 / (1 + np.exp(-1 - 2 * cosines[1]))]
    )
    assert [one.lexical for one in found] == [None, None]
    assert [one.score for one in scored(query, hits, encoder, None)] == pytest.approx(cosines)
    assert scored(query, [], encoder, None) == []


@pytest.mark.filterwarnings("error")
def test_extreme_logits_are_probabilities_still() -> None:
    assert CrossEncoderReranker(Table()).scores([("why?", [hit("-5000"), hit("5000")])]) == [[0.0, 1.0]]


def test_no_passages_have_no_scores() -> None:
    reranker = CrossEncoderReranker(Table())
    assert (reranker.scores([("why?", [])]), reranker.scores([])) == ([[]], [])


def test_a_model_of_more_than_one_label_is_no_reranker() -> None:
    with pytest.raises(ModelError, match=r"gives 2 \(LABEL_0, LABEL_1\)\. Name another one in rerank\.model"):
        CrossEncoderReranker(Table(("LABEL_0", "LABEL_1")))


def test_both_backends_score_as_sentence_transformers_does(cross_encoder: Callable[[Sequence[str]], Path]) -> None:
    from sentence_transformers import CrossEncoder
    from torch.nn import Sigmoid

    folder = cross_encoder(["relevant"])
    convert(folder)
    question = "fever cough"
    hits = [hit("rash pain"), hit("urate insulin thyroid mosquito"), hit("lemons"), hit("virus 5 12 blood cure")]
    expected = CrossEncoder(str(folder), device="cpu", activation_fn=Sigmoid()).predict(
        [(question, one.passage.titled) for one in hits]
    )
    assert np.ptp(expected) > 0.1
    for backend, off in (("torch", 1e-6), ("openvino", 0.05)):
        reranker = CrossEncoderReranker(open_pairs(folder, "cpu", 64, 4, backend))  # type: ignore[arg-type]
        assert reranker.scores([(question, hits)]) == [pytest.approx(expected.tolist(), abs=off)], backend
