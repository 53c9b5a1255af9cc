"""What may never be taken for the same question, judged by the model that ships with the threshold that it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_data import read
from test_data_questions import TOLD_APART

from rag import build, calibrate, paths, settings
from rag.calibrate import Pair
from rag.matching import QuestionMatcher

PAIRS = [Pair(**record, same=False) for record in read(TOLD_APART)]


@pytest.fixture(scope="module")
def matcher(real_home: Path) -> Iterator[QuestionMatcher]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        loaded = settings.load(models="embedded", assignments=["cache.model=minilm-same-question"], environ={})
        opened = build.open_matcher(loaded)
        assert opened is not None
        yield opened


@pytest.mark.parametrize("row", range(len(PAIRS)), ids=[f"{pair.kind}-{row}" for row, pair in enumerate(PAIRS)])
def test_a_pair_that_differs_in_what_decides_is_told_apart(matcher: QuestionMatcher, row: int) -> None:
    pair = PAIRS[row]
    assert not matcher.same(pair.a, pair.b)
    assert not matcher.same(pair.b, pair.a)


def test_the_figures_are_of_what_serves(matcher: QuestionMatcher) -> None:
    pairs = calibrate.read_pairs(paths.shipped("eval", "paraphrases.jsonl"))
    served = matcher.probabilities([(pair.a, pair.b) for pair in pairs]) >= matcher.min_same
    assert [matcher.same(pair.a, pair.b) for pair in pairs] == served.tolist()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Which mosquito spreads malaria?", "Malaria is spread by which mosquito?"),
        ("What causes scurvy?", "What is the cause of scurvy?"),
    ],
)
def test_a_paraphrase_isn_t(matcher: QuestionMatcher, a: str, b: str) -> None:
    """Else it would be no feat."""
    assert matcher.same(a, b)
