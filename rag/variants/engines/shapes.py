"""Models without weights: a published model's configuration, and a tokenizer with as many tokens as it has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import UsageError

_QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
_GPTQ = {
    "quant_method": "gptq",
    "group_size": 128,
    "desc_act": False,
    "sym": True,
    "true_sequential": True,
    "damp_percent": 0.01,
    # Not there: vLLM 0.24 finds by the checkpoint's tensors which layers are quantised, and would find none.
    "modules_in_block_to_quantize": [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    ],
}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen2.5-7B-Instruct": _QWEN,
    "Qwen/Qwen2.5-7B-Instruct-AWQ": {**_QWEN, "quantization_config": _AWQ},
    "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4": {**_QWEN, "quantization_config": {**_GPTQ, "bits": 4}},
    "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8": {**_QWEN, "quantization_config": {**_GPTQ, "bits": 8}},
}
"""By the name on the hub the `config.json` there, but for what is said."""

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class ModelFolders:
    """Two folders: beside a model's configuration transformers would make its tokenizer of another class than the file says,
    which splits words in its own way."""

    model: Path
    tokenizer: Path


def write(folder: Path, config: Mapping[str, Any], tokenizer: Path) -> ModelFolders:
    """A model that vLLM loads with `load_format="dummy"`. Text and chat template are those of the folder `tokenizer`; the tokens
    that it lacks to the configuration's vocabulary stand for nothing, and no text contains them.

    Raises `UsageError` where it has no fast tokenizer, or more tokens than the configuration.
    """
    source = tokenizer / TOKENIZER
    if not source.is_file():
        raise UsageError(f"{source} is missing: prompts are made with it. Run rag models build, or name a --tokenizer.")
    content = json.loads(source.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    known = {*vocabulary.values(), *(token["id"] for token in content.get("added_tokens", []))}
    wanted = range(config["vocab_size"])
    if max(known) not in wanted:
        raise UsageError(
            f"{source} has {max(known) + 1:,} tokens, the model {len(wanted):,}. Name a --tokenizer of no more than that."
        )
    vocabulary.update({f"<|nothing {number}|>": number for number in wanted if number not in known})
    folders = ModelFolders(folder / "model", folder / "tokenizer")
    for path in (folders.model, folders.tokenizer):
        path.mkdir(parents=True, exist_ok=True)
    for path in tokenizer.iterdir():
        if path.name.startswith(("tokenizer_config", "chat_template", "special_tokens")):
            shutil.copyfile(path, folders.tokenizer / path.name)
    (folders.tokenizer / TOKENIZER).write_text(json.dumps(content), encoding="utf-8")
    (folders.model / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folders
