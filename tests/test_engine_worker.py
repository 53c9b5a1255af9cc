"""rag/engine/worker.py: what is put right in vLLM's worker; what that does on a real engine: test_engine_local."""

from __future__ import annotations

import pytest
import torch

from rag.engine.worker import Extension, expand


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64])
def test_each_value_stands_as_often_as_its_request_has_tokens(dtype: torch.dtype) -> None:
    """The example of vLLM's own docstring, and a request without a draft."""
    found = expand(torch.tensor([1, 2, 3, 4], dtype=dtype), torch.tensor([2, 5, 5, 6], dtype=torch.int32), 6)
    assert (found.tolist(), found.dtype) == ([1, 1, 2, 2, 2, 4], dtype)


def test_a_greedy_request_among_others_gets_the_temperature_that_changes_nothing() -> None:
    temperatures = torch.tensor([0.5, 0.0])
    assert expand(temperatures, torch.tensor([1, 3]), 3, replace_from=0, replace_to=1).tolist() == [0.5, 1.0, 1.0]
    assert temperatures.tolist() == [0.5, 0.0]


def test_a_worker_that_does_it_wrong_is_mended_and_one_that_does_it_right_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vllm.v1.sample import rejection_sampler

    def wrong(x: torch.Tensor, cu_num_tokens: torch.Tensor, num_tokens: int, *_: object) -> torch.Tensor:
        del cu_num_tokens
        return x.new_full((num_tokens,), 7.25)

    monkeypatch.setattr(rejection_sampler, "expand_batch_to_tokens", wrong)
    assert Extension().mend_drafts_temperature()
    assert rejection_sampler.expand_batch_to_tokens is expand
    assert not Extension().mend_drafts_temperature()
    assert rejection_sampler.expand_batch_to_tokens is expand
