"""What the search's scores count beside a logit; Platt scaling, and that folding it in changes the head alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from rag.rerank import ScoreWeights
from rag.training.calibration import Candidates, fold, platt, score_weights


def lists(weights: ScoreWeights, questions: int = 3000, scale: float = 0.8) -> list[Candidates]:
    """One passage of ten answers, drawn by the softmax of `scale` times what the reranker makes of it."""
    chance = np.random.default_rng(0)
    found = []
    for _ in range(questions):
        logits, cosines, lexical = chance.normal(3, 2, 10), chance.uniform(0.1, 0.8, 10), chance.uniform(0, 1, 10)
        one = Candidates(logits, cosines, lexical, np.zeros(10, dtype=bool))
        powers = np.exp(scale * one.sums(weights))
        answer = chance.choice(10, p=powers / powers.sum())
        found.append(replace(one, relevant=np.arange(10) == answer))
    return found


@pytest.mark.parametrize("known", [ScoreWeights(0.5, 2.0), ScoreWeights(9.0, 0.7)])
def test_known_weights_of_the_searchs_scores_are_found_again(known: ScoreWeights) -> None:
    found = score_weights(lists(known))
    assert found.cosine == pytest.approx(known.cosine, abs=0.5)
    assert found.lexical == pytest.approx(known.lexical, abs=0.3)


@pytest.mark.parametrize(("harmful", "kept"), [(ScoreWeights(-5.0, 3.0), 3.0), (ScoreWeights(-5.0, -3.0), 0.0)])
def test_a_score_that_only_harms_counts_nothing_and_the_others_are_weighed_without_it(
    harmful: ScoreWeights, kept: float
) -> None:
    found = score_weights(lists(harmful, questions=1500))
    assert found.cosine == 0
    assert found.lexical == pytest.approx(kept, abs=0.4)


def test_questions_that_no_passage_answers_change_nothing() -> None:
    some = lists(ScoreWeights(2.0, 1.0), questions=200)
    empty = Candidates(np.array([9.0, 1.0]), np.array([0.1, 0.9]), np.array([1.0, 0.0]), np.array([False, False]))
    assert score_weights([empty, *some, empty]) == score_weights(some)
    with pytest.raises(ValueError, match="none of 1 questions has a passage that answers"):
        score_weights([empty])


def test_known_probabilities_are_found_again() -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 3, 40_000)
    relevant = chance.random(40_000) < 1 / (1 + np.exp(-(0.7 * logits - 1.5)))
    assert platt(logits, relevant) == pytest.approx((0.7, -1.5), abs=0.05)


def test_probabilities_of_the_fit_add_up_to_what_was_relevant() -> None:
    """The first-order condition of the likelihood, but for Platt's targets."""
    chance = np.random.default_rng(1)
    logits = np.concatenate([chance.normal(40, 9, 60), chance.normal(10, 9, 900)])
    relevant = np.arange(960) < 60
    scale, shift = platt(logits, relevant)
    assert (1 / (1 + np.exp(-(scale * logits + shift)))).sum() == pytest.approx(60, abs=1)


def test_a_perfect_separation_stays_finite() -> None:
    scale, shift = platt([-2.0, -1.0, 1.0, 2.0], [False, False, True, True])
    assert np.isfinite([scale, shift]).all()
    assert scale > 0


@pytest.mark.parametrize("relevant", [[True, True], [False, False]])
def test_one_kind_alone_can_not_be_calibrated_on(relevant: list[bool]) -> None:
    with pytest.raises(ValueError, match="both kinds"):
        platt([0.0, 1.0], relevant)


def test_folding_changes_the_logit_and_nothing_but_the_head(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "adapter.safetensors"
    weight, bias, other = torch.randn(1, 8), torch.randn(1), torch.randn(3, 3)
    save_file({"classifier.weight": weight, "classifier.bias": bias, "bert.x.lora_A": other}, path)
    fold(path, 0.5, -1.0)
    folded, pooled = load_file(path), torch.randn(8)
    before = weight @ pooled + bias
    after = folded["classifier.weight"] @ pooled + folded["classifier.bias"]
    assert torch.allclose(after, 0.5 * before - 1.0, atol=1e-6)
    assert torch.equal(folded["bert.x.lora_A"], other)
