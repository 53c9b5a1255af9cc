"""What of ours runs inside vLLM's worker, in the engine's process: vLLM makes it of `Extension` too (`worker_extension_cls`).

It mends what the worker for CPUs does wrong. Before draft tokens are checked, vLLM spreads each request's temperature over its
drafts. On a CPU the result is written into a copy of it (0.32: `_expand_kernel_impl` of `cpu_triton_utils`, for all but 64-bit
integers), so that the temperature is what the memory held before: nearly every draft is rejected, and the tokens in their place
are drawn at random. Greedy requests have none.

And it tells of the weights as they lie in memory. What the configuration says of them needn't be so: a GPTQ checkpoint whose
tensors vLLM doesn't find the quantised layers by runs unquantised, without a word (0.24).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

EXTENSION = f"{__name__}.Extension"


class Extension:
    """Its methods are called by their names (`collective_rpc`), and mustn't have those of a worker's."""

    model_runner: Any

    def weigh(self) -> tuple[int, int, int, int]:
        """As `rag.engine.evidence.Weights` has them."""
        from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod

        model = self.model_runner.model
        sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in model.named_parameters()}
        tied = getattr(self.model_runner.vllm_config.model_config.hf_config, "tie_word_embeddings", False)
        tables = sum(size for name, size in sizes.items() if "embed_tokens" in name and not tied)
        layers = [module for module in model.modules() if isinstance(module, LinearBase)]
        plain = [isinstance(layer.quant_method, UnquantizedLinearMethod) for layer in layers]
        packed = sum(_packed(layer, unquantised) for layer, unquantised in zip(layers, plain, strict=True))
        in_all = sum(sizes.values()) + packed
        return in_all, in_all - tables, len(layers), plain.count(False)

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


def _packed(layer: Any, unquantised: bool) -> int:
    """Bytes of a linear layer's weight where a CPU's kernels hold it in a form of their own, and the layer no longer does: of
    quantised ones those of 8 bits are (0.32)."""
    values = layer.input_size * layer.output_size
    if any(tensor.numel() * 8 >= values for tensor in layer.parameters(recurse=False)):  # eight of 4 bits to an integer
        return 0
    return int(values * (layer.params_dtype.itemsize if unquantised else 1))


def expand(x: Tensor, cu_num_tokens: Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0) -> Tensor:
    """As vLLM's `expand_batch_to_tokens`: each value of `x` as often as its request has tokens, of which `cu_num_tokens` are the
    sums up to and with each; one that is `replace_from` becomes `replace_to`."""
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    return x.masked_fill(x == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)
