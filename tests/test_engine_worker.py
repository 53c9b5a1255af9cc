"""rag/engine/worker.py: what is put right in vLLM's worker, and what it tells of the weights, on real engines."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rag import build, settings
from rag.core import GenerationParams, GenerationStats
from rag.engine.worker import Extension, expand
from rag.settings import Loaded


def load(profile: str, *assignments: str, device: Any = "cpu") -> Loaded:
    models = "embedded" if device == "cpu" else "qwen3-8b"
    return settings.load(profile, models, assignments, device=device, environ={})


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


@pytest.mark.usefixtures("in_real_home")
async def test_drafts_are_accepted_at_a_temperature_too_where_the_answer_repeats_the_prompt() -> None:
    chat = ({"role": "user", "content": "Repeat after me, ten times over: the mosquito carries the parasite. " * 8},)
    params = GenerationParams(60, temperature=0.1, seed=0, ignore_eos=True)
    async with build.open_generator(load("v3_2")) as generator:
        *_, stats = [item async for item in generator.stream(chat, params)]
    assert isinstance(stats, GenerationStats)
    assert stats.draft_tokens is not None
    assert stats.accepted_tokens is not None
    assert stats.draft_tokens > 20
    assert stats.accepted_tokens / stats.draft_tokens > 0.3
