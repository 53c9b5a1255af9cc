"""What may never be taken for the same question, judged by the model that ships with the threshold that it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_data import read
from test_data_questions import TOLD_APART

from rag import build, calibrate, settings
from rag.calibrate import Pair
from rag.matching import QuestionMatcher

PAIRS = [Pair(**record, same=False) for record in read(TOLD_APART)]


@pytest.fixture(scope="module")
def opened(real_home: Path) -> Iterator[tuple[QuestionMatcher, list[float]]]:
    """The matcher, and the cosines of the pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        loaded = settings.load(models="embedded", environ={})
        matcher = build.open_matcher(loaded)
        if matcher is None:
            pytest.skip("no matcher ships yet")
        yield matcher, calibrate.cosines(build.open_encoder(loaded), PAIRS)


@pytest.mark.parametrize("row", range(len(PAIRS)), ids=[f"{pair.kind}-{row}" for row, pair in enumerate(PAIRS)])
def test_a_pair_that_differs_in_what_decides_is_told_apart(
    opened: tuple[QuestionMatcher, list[float]], row: int
) -> None:
    matcher, cosines = opened
    pair = PAIRS[row]
    assert not matcher.same(pair.a, pair.b, cosines[row])
    assert not matcher.same(pair.b, pair.a, cosines[row])


def test_a_paraphrase_isn_t(opened: tuple[QuestionMatcher, list[float]]) -> None:
    """Else it would be no feat."""
    matcher, _ = opened
    asked = [("Which mosquito spreads malaria?", "Malaria is spread by which mosquito?", 0.95)]
    asked += [("What causes scurvy?", "What is the cause of scurvy?", 0.97)]
    found = matcher.probabilities([(a, b) for a, b, _ in asked], [cosine for *_, cosine in asked])
    assert np.all(found >= matcher.min_same)
