from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rag.errors import ModelError
from rag.models.merge import add_head, apply_adapter, keep_layers, require_head

BERT = {"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 3, "architectures": ["BertModel"]}
LABELS = ["supported", "contradicted", "not_stated"]
HEAD = {
    "bert.pooler.dense.weight": (4, 4),
    "bert.pooler.dense.bias": (4,),
    "classifier.weight": (3, 4),
    "classifier.bias": (3,),
}

ELSEWHERE = """
import hashlib, numpy, torch
from rag.models.merge import apply_adapter
random = numpy.random.default_rng(0)
weight, a, b = (torch.from_numpy(random.random(shape) - 0.5).float() for shape in ((200, 384), (24, 384), (200, 24)))
adapter = {"m.lora_A": a, "m.lora_B": b}
for type in (torch.float32, torch.bfloat16):
    merged = apply_adapter({"m.weight": weight.to(type)}, adapter, 24, 48.0, {})["m.weight"]
    print(hashlib.sha256(merged.view(torch.uint8).numpy().tobytes()).hexdigest())
"""


def encoder(layers: int = 3) -> dict[str, Tensor]:
    """Named as in a `BertModel`'s file; each layer's weights hold its number."""
    tensors = {
        "embeddings.word_embeddings.weight": torch.ones(8, 4),
        "embeddings.position_ids": torch.arange(8)[None],
        "pooler.dense.weight": torch.ones(4, 4),
        "pooler.dense.bias": torch.ones(4),
    }
    for number in range(layers):
        tensors[f"encoder.layer.{number}.output.dense.weight"] = torch.full((4, 6), float(number))
        tensors[f"encoder.layer.{number}.output.dense.bias"] = torch.full((4,), float(number))
    return tensors


def pair(module: str, out: int, into: int, rank: int = 2) -> dict[str, Tensor]:
    return {f"{module}.lora_A": torch.ones(rank, into), f"{module}.lora_B": torch.ones(out, rank)}


def apply(tensors: Mapping[str, Tensor], adapter: Mapping[str, Tensor], rank: int = 2, alpha: float = 4.0) -> Any:
    return apply_adapter(tensors, adapter, rank, alpha, {})


# --- layers --------------------------------------------------------------------------------------


def test_kept_layers_are_numbered_anew_in_their_order() -> None:
    base = encoder()
    tensors, config = keep_layers(base, BERT, [0, 2])
    assert {name.split(".")[2] for name in tensors if name.startswith("encoder.")} == {"0", "1"}
    assert tensors["encoder.layer.1.output.dense.weight"].unique().tolist() == [2.0]
    assert tensors["encoder.layer.1.output.dense.bias"].unique().tolist() == [2.0]
    assert {name for name in tensors if not name.startswith("encoder.")} == {
        name for name in base if not name.startswith("encoder.")
    }
    assert config == {**BERT, "num_hidden_layers": 2}


def test_more_than_ten_layers_are_told_apart_and_lists_of_one_entry_a_layer_follow() -> None:
    base = {f"model.layers.{n}.mlp.weight": torch.tensor([[float(n)]]) for n in range(12)}
    types = ["sliding", "full"] * 6
    tensors, config = keep_layers(base, {"num_hidden_layers": 12, "layer_types": types}, [1, 10, 11])
    assert [tensors[f"model.layers.{n}.mlp.weight"].item() for n in range(3)] == [1, 10, 11]
    assert len(tensors) == 3
    assert config == {"num_hidden_layers": 3, "layer_types": ["full", "sliding", "full"]}


def test_a_layer_that_the_base_has_not_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^The recipe keeps layer 3, and the base's are 0 to 2\.$"):
        keep_layers(encoder(), BERT, [0, 3])


@pytest.mark.parametrize("count", [None, 6])
def test_a_base_whose_layers_are_not_those_of_its_configuration_is_refused(count: int | None) -> None:
    with pytest.raises(ModelError, match=rf"has 3 by their names, {count} by its config\.json"):
        keep_layers(encoder(), {**BERT, "num_hidden_layers": count}, [0])


# --- head ----------------------------------------------------------------------------------------


def test_a_head_names_the_encoder_as_a_classifier_does() -> None:
    tensors, config, shapes = add_head(encoder(1), BERT, LABELS)
    assert set(tensors) == {f"bert.{name}" for name in encoder(1)} - {"bert.embeddings.position_ids"}
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "supported", "1": "contradicted", "2": "not_stated"}
    assert config["label2id"] == {"supported": 0, "contradicted": 1, "not_stated": 2}
    assert config["num_labels"] == 3
    assert shapes == HEAD


def test_a_base_that_has_a_head_keeps_the_classifier_alone() -> None:
    base = {f"bert.{name}": tensor for name, tensor in encoder(1).items()}
    base |= {"classifier.weight": torch.ones(3, 4), "cls.predictions.bias": torch.ones(8)}
    assert set(add_head(base, BERT, LABELS)[0]) == set(base) - {"bert.embeddings.position_ids", "cls.predictions.bias"}


def test_mpnet_s_head_has_a_pooler_of_its_own() -> None:
    tensors, config, shapes = add_head(encoder(1), {**BERT, "model_type": "mpnet"}, LABELS)
    gone = {"mpnet.embeddings.position_ids", "mpnet.pooler.dense.weight", "mpnet.pooler.dense.bias"}
    assert set(tensors) == {f"mpnet.{name}" for name in encoder(1)} - gone
    assert config["architectures"] == ["MPNetForSequenceClassification"]
    assert shapes == {
        "classifier.dense.weight": (4, 4),
        "classifier.dense.bias": (4,),
        "classifier.out_proj.weight": (3, 4),
        "classifier.out_proj.bias": (3,),
    }


def test_a_head_on_another_architecture_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^A head needs a base of the type bert or mpnet, and this is 'llama'\.$"):
        add_head(encoder(), {**BERT, "model_type": "llama"}, LABELS)


def test_a_head_needs_all_its_tensors() -> None:
    tensors, _, shapes = add_head(encoder(1), BERT, LABELS)
    with pytest.raises(ModelError, match=r"needs classifier\.weight of shape \(3, 4\), and it is missing"):
        require_head(tensors, shapes)
    tensors |= {"classifier.weight": torch.ones(1, 4), "classifier.bias": torch.ones(3)}
    with pytest.raises(ModelError, match=r"needs classifier\.weight of shape \(3, 4\), and it is of shape \(1, 4\)"):
        require_head(tensors, shapes)
    tensors |= {"classifier.weight": torch.ones(3, 4)}
    require_head(tensors, shapes)
    del tensors["bert.pooler.dense.bias"]
    with pytest.raises(ModelError, match=r"needs bert\.pooler\.dense\.bias of shape \(4,\), and it is missing"):
        require_head(tensors, shapes)


# --- adapter -------------------------------------------------------------------------------------


def test_an_adapted_weight_gains_alpha_over_rank_times_b_a() -> None:
    random = torch.Generator().manual_seed(0)
    base = {"m.weight": torch.randn(150, 40, generator=random), "other.weight": torch.randn(3, 3, generator=random)}
    a, b = torch.randn(8, 40, generator=random), torch.randn(150, 8, generator=random)
    before = {name: tensor.clone() for name, tensor in base.items()}
    merged = apply(base, {"m.lora_A": a, "m.lora_B": b}, rank=8, alpha=12.0)
    expected = base["m.weight"].double() + 1.5 * b.double() @ a.double()
    assert merged["m.weight"].dtype == torch.float32
    torch.testing.assert_close(merged["m.weight"].double(), expected, rtol=2**-24, atol=1e-12)
    assert merged["other.weight"] is base["other.weight"]
    assert all(torch.equal(base[name], before[name]) for name in base)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("type_", [torch.float32, torch.bfloat16, torch.float16])
def test_a_merged_weight_keeps_the_bases_type_whatever_the_adapters(type_: torch.dtype, stored: torch.dtype) -> None:
    adapter = {name: tensor.to(stored) for name, tensor in pair("m", 3, 5).items()}
    merged = apply({"m.weight": torch.ones(3, 5, dtype=type_)}, adapter)["m.weight"]
    assert merged.dtype == type_
    assert merged.unique().tolist() == [5.0]  # 1 + 4/2 * (1*1 + 1*1)


def test_the_product_is_summed_in_the_order_of_the_rank() -> None:
    """Float64 has 53 bits: 1 is lost beside 2**60, and kept after 2**60 - 2**60."""
    large = 2.0**60
    a = torch.tensor([[large, 1.0], [-large, large], [1.0, -large]])
    merged = apply({"m.weight": torch.zeros(70, 2)}, {"m.lora_A": a, "m.lora_B": torch.ones(70, 3)}, 3, 3.0)["m.weight"]
    assert merged.tolist() == [[1.0, 0.0]] * 70


def test_every_element_is_what_plain_python_floats_give_to_the_bit() -> None:
    numbers = random.Random(0)
    rank, scale = 5, 7.0 / 5
    w, b = ([[numbers.gauss(0, 1) for _ in range(n)] for _ in range(66)] for n in (9, rank))
    a = [[numbers.gauss(0, 1) for _ in range(9)] for _ in range(rank)]
    merged = apply(
        {"m.weight": torch.tensor(w, dtype=torch.float32)},
        {"m.lora_A": torch.tensor(a, dtype=torch.float32), "m.lora_B": torch.tensor(b, dtype=torch.float32)},
        rank,
        7.0,
    )["m.weight"]
    w32, a32, b32 = (np.asarray(x, np.float32).astype(float).tolist() for x in (w, a, b))
    for i in range(66):
        for j in range(9):
            delta = 0.0
            for r in range(rank):
                delta += b32[i][r] * a32[r][j]
            assert merged[i, j].item() == float(np.float32(w32[i][j] + scale * delta))


def test_the_result_is_the_same_on_a_machine_with_other_instructions_and_threads() -> None:
    def digests(**machine: str) -> str:
        environment = {**os.environ, **machine}
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=60, env=environment, check=True
        )
        return done.stdout

    plain = {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F", "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    assert len(set(digests(**plain).split())) == 2
    assert digests(**plain) == digests(OMP_NUM_THREADS="2")


def nearest_bfloat16(value: float) -> float:
    """By exact arithmetic: of the two neighbours the nearer, of equally near ones the even."""
    if value == 0:
        return 0.0
    exact = Fraction(value)
    exponent = max(np.frexp(abs(value))[1] - 8, -133)  # 8 bits; below 2**-126 fewer
    unit = Fraction(2) ** int(exponent)
    return float(round(exact / unit) * unit)  # Python rounds halves to even


def test_bfloat16_is_rounded_once() -> None:
    numbers = random.Random(0)
    values = [numbers.gauss(0, 1) * 10 ** numbers.randint(-8, 8) for _ in range(2000)]
    near_ties = [
        sign * (1 + k * 2.0**-8 + nudge)
        for sign in (1, -1)
        for k in range(8)
        for nudge in (0.0, 2.0**-24, -(2.0**-24), 2.0**-40, -(2.0**-40), 2.0**-52)
    ]
    tiny = [2.0**-130 + 2.0**-134, 2.0**-133 * 1.5, 2.0**-134, 3e-39]
    values = [*values, *near_ties, *tiny, 0.0]
    weight = torch.zeros(len(values), 1, dtype=torch.bfloat16)
    # A float64 in the place of both factors: only the result's rounding is left.
    adapter = {"m.lora_A": torch.ones(1, 1), "m.lora_B": torch.tensor(values, dtype=torch.float64)[:, None]}
    merged = apply({"m.weight": weight}, adapter, 1, 1.0)["m.weight"]
    assert merged.flatten().tolist() == [nearest_bfloat16(value) for value in values]
    twice = torch.tensor(values, dtype=torch.float64).bfloat16()
    assert (twice != merged.flatten()).any()  # which is what would have been wrong


def test_other_tensors_are_set_as_they_are_in_the_type_of_what_they_replace() -> None:
    base = {"norm.weight": torch.ones(4, dtype=torch.bfloat16)}
    merged = apply(base, {"norm.weight": torch.tensor([1.5, 2.0, -3.0, 0.1])})["norm.weight"]
    assert torch.equal(merged, torch.tensor([1.5, 2.0, -3.0, 0.1]).bfloat16())


def test_a_heads_tensors_are_added_in_the_type_of_the_embeddings() -> None:
    tensors, _, shapes = add_head({n: t.half() for n, t in encoder(1).items()}, BERT, LABELS)
    head = {"classifier.weight": torch.full((3, 4), 0.25), "classifier.bias": torch.zeros(3)}
    merged = apply_adapter(tensors, head, 2, 4.0, shapes)
    assert torch.equal(merged["classifier.weight"], torch.full((3, 4), 0.25, dtype=torch.float16))
    require_head(merged, shapes)


BASE = {"m.weight": torch.ones(3, 5), "norm.weight": torch.ones(5)}


@pytest.mark.parametrize(
    ("adapter", "problem"),
    [
        (pair("n", 3, 5), "it adapts n.weight, which the base hasn't"),
        ({"lora_A": torch.ones(2, 5), "lora_B": torch.ones(3, 2)}, "it sets lora_A, which the model hasn't"),
        (pair("m", 3, 6), "m.lora_B @ lora_A is (3, 6), m.weight (3, 5)"),
        (pair("m", 4, 5), "m.lora_B @ lora_A is (4, 5), m.weight (3, 5)"),
        (pair("norm", 5, 5), "norm.lora_B @ lora_A is (5, 5), norm.weight (5,)"),
        (pair("m", 3, 5, 4), "m has lora_A (4, 5) and lora_B (3, 4), and its recipe rank 2"),
        ({"m.lora_A": torch.ones(2, 5), "m.lora_B": torch.ones(3, 4)}, "lora_B (3, 4), and its recipe rank 2"),
        ({"m.lora_A": torch.ones(2), "m.lora_B": torch.ones(3, 2)}, "m has lora_A (2,) and"),
        ({"m.lora_A": torch.ones(2, 5)}, "m has a lora_A and no lora_B"),
        ({"m.lora_B": torch.ones(3, 2)}, "m has a lora_B and no lora_A"),
        ({**pair("m", 3, 5), "m.weight": torch.ones(3, 5)}, "it both adapts and sets m.weight"),
        ({"classifier.weight": torch.ones(1, 5)}, "it sets classifier.weight, which the model hasn't"),
        ({"norm.weight": torch.ones(6)}, "it sets norm.weight of shape (6,), and the model's is (5,)"),
        ({"norm.weight": torch.full((5,), torch.nan)}, "norm.weight gets values that aren't finite"),
        ({"m.lora_A": torch.full((2, 5), torch.inf), "m.lora_B": torch.ones(3, 2)}, "m.weight gets values that aren't"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_with_what_does_not(adapter: dict[str, Tensor], problem: str) -> None:
    with pytest.raises(ModelError) as caught:
        apply(BASE, adapter)
    message = str(caught.value)
    assert message.startswith("The adapter doesn't fit: ")
    assert problem in message
    assert message.endswith("Recipe, base and adapter must be of one training.")
    assert "\n" not in message


def test_a_quantised_base_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^m\.weight of the base is torch\.int8: .* float32, float16 and bfloat16\.$"):
        apply({"m.weight": torch.ones(3, 5, dtype=torch.int8)}, pair("m", 3, 5))
