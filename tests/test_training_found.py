"""What stands near a question."""

from __future__ import annotations

from collections.abc import Sequence

from rag.core import Hit, Hits, Passage, Query, Trace
from rag.testing import FakeEncoder
from rag.training.found import nearest, searching


class OnePassage:
    """Finds the question itself, and counts how often it was asked."""

    index_version = "1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:  # noqa: ARG002
        self.asked += [query.text for query in queries]
        return [(Hit(Passage("p", "d", "", query.text, 0, len(query.text)), 1.0),) for query in queries]


def test_a_question_is_searched_once() -> None:
    searcher = OnePassage()
    found = searching(FakeEncoder(), searcher)
    assert [found(question)[0].text for question in ("Why?", "How?", "Why?")] == ["Why?", "How?", "Why?"]
    assert searcher.asked == ["Why?", "How?"]


def test_the_nearest_come_first_and_no_more_than_asked_for() -> None:
    texts = {
        "gout": "urate crystals in a joint",
        "mumps": "a virus in a gland",
        "stone": "urate crystals, urate stones",
    }
    assert nearest(texts)("urate in the joint")[0] == "gout"
    assert sorted(nearest(texts)("urate")) == sorted(texts)
    assert len(nearest(texts, 2)("urate crystals")) == 2
    assert set(nearest(texts, 2)("urate crystals")) == {"gout", "stone"}
