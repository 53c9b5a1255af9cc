"""How the weights of declining are fitted."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from rag.core import Hit
from rag.testing import FakeEncoder
from rag.training.abstention import WITHOUT_ANSWER, Observed, scoring, weigh
from rag.training.grounded import Example, Piece

WORD, RELEVANCE, SHIFT = 0.6, -0.4, 0.3


@pytest.fixture(scope="module")
def observed() -> Sequence[Observed]:
    """Of a known model, in which half of the questions have no answer."""
    chance = random.Random(0)
    seen = []
    for _ in range(6000):
        word, relevance = chance.gauss(0, 3), chance.gauss(0, 3)
        odds = WORD * word + RELEVANCE * relevance + SHIFT
        seen.append(Observed(word, relevance, chance.random() > 1 / (1 + math.exp(-odds))))
    return seen


def test_known_weights_are_found_again_at_the_share_that_is_asked(observed: Sequence[Observed]) -> None:
    without = sum(not one.answered for one in observed) / len(observed)
    moved = math.log(WITHOUT_ANSWER / (1 - WITHOUT_ANSWER)) - math.log(without / (1 - without))
    found = weigh({"all": observed}, "a-reranker")
    assert found.reranker == "a-reranker"
    assert (found.of_word, found.of_relevance) == pytest.approx((WORD, RELEVANCE), abs=0.06)
    assert found.shift == pytest.approx(SHIFT + moved, abs=0.15)


def test_neither_the_share_of_the_prompts_nor_how_many_a_kind_has_counts(observed: Sequence[Observed]) -> None:
    unanswered = [one for one in observed if not one.answered]
    once, twice = weigh({"all": observed}, "r"), weigh({"all": [*observed, *unanswered]}, "r")
    assert (twice.of_word, twice.of_relevance, twice.shift) == pytest.approx(
        (once.of_word, once.of_relevance, once.shift), abs=0.01
    )
    both = weigh({"many": observed, "few": observed[:300]}, "r")
    swapped = weigh({"many": [*observed, *observed], "few": observed[:300]}, "r")
    assert (swapped.of_word, swapped.shift) == pytest.approx((both.of_word, both.shift), abs=0.01)


def test_what_says_nothing_or_one_kind_alone_is_refused(observed: Sequence[Observed]) -> None:
    with pytest.raises(ValueError, match="no sign of it"):
        weigh({"all": [Observed(-one.word, one.relevance, one.answered) for one in observed]}, "r")
    with pytest.raises(ValueError, match="examples of both kinds"):
        weigh({"all": [one for one in observed if one.answered]}, "r")


PIECES = (Piece("Malaria", "Malaria is caused by Plasmodium."), Piece("Gout", "Urate forms crystals."))


class Noting:
    """A reranker that keeps what it was given."""

    def scores(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[list[float]]:
        [(_, self.given)] = found
        return [[0.5] * len(self.given)]


@pytest.mark.parametrize(
    ("question", "found"),
    [("What causes malaria?", [True, False]), ("Are there zebras?", [False, False]), ("What is it?", [False, False])],
)
def test_passages_of_a_prompt_have_bm25_scores_as_those_of_a_search_do(question: str, found: Sequence[bool]) -> None:
    example = Example("m1", "one", question, PIECES, "Plasmodium [1].", (1,))
    encoder, reranker = FakeEncoder(), Noting()
    sources = scoring(encoder, reranker)(example)
    assert [bool(source.hit.lexical) for source in sources] == found
    assert [hit.lexical for hit in reranker.given] == [source.hit.lexical for source in sources]
    assert [source.hit.rerank for source in sources] == [0.5, 0.5]
