"""What vLLM's worker for CPUs does wrong, mended inside its process: vLLM makes a worker of `Mending` too, where the engine's
arguments name it (`worker_extension_cls`).

Before draft tokens are checked, vLLM spreads each request's temperature over its drafts. On a CPU the result is written into a
copy of it (0.32: `_expand_kernel_impl` of `cpu_triton_utils`, for all but 64-bit integers), so that the temperature is what the
memory held before: nearly every draft is rejected, and the tokens in their place are drawn at random. Greedy requests have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WORKER_EXTENSION = f"{__name__}.Mending"


class Mending:
    """Its methods are called by their names (`collective_rpc`), and mustn't have those of a worker's."""

    def mend_drafts_temperature(self) -> bool:
        """Was there anything to mend? A vLLM that does it right is left alone."""
        import torch
        from vllm.v1.sample import rejection_sampler

        asked = torch.tensor([0.3125])
        spread = rejection_sampler.expand_batch_to_tokens(asked, torch.tensor([2], dtype=torch.int32), 2)
        if spread.tolist() == [0.3125, 0.3125]:
            return False
        rejection_sampler.expand_batch_to_tokens = expand
        return True


def expand(x: Tensor, cu_num_tokens: Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0) -> Tensor:
    """As vLLM's `expand_batch_to_tokens`: each value of `x` as often as its request has tokens, of which `cu_num_tokens` are the
    sums up to and with each; one that is `replace_from` becomes `replace_to`."""
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    return x.masked_fill(x == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)
