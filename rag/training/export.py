"""A trained adapter as the recipe ships it: `MODULE.lora_A`, `MODULE.lora_B`, and the tensors trained whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rag.files import replacing_file

_LORA = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.(?P<part>lora_[AB])(?:\.\w+)?\.weight$")


def write_adapter(model: Any, path: Path) -> None:
    """Everything that was trained, in BF16 but for what is trained whole: a head is small, and calibrated."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        match = _LORA.match(name)
        if match:
            tensors[f"{match['module']}.{match['part']}"] = weight.detach().to(torch.bfloat16).contiguous()
        else:
            whole = re.sub(r"^base_model\.model\.|\.base_layer", "", name)
            tensors[whole] = weight.detach().float().contiguous()
    with replacing_file(path) as temporary:
        save_file(tensors, temporary)
