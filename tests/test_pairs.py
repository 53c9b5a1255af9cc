"""Cross-encoders: the fast form against torch's, and what both promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rag import bert
from rag.bert import LEAST_FILLED, batches, choose
from rag.bert.graph import buckets, quantize, read_weights
from rag.bert.graph import classifier as build
from rag.errors import ModelError, SettingsError
from rag.pairs import OpenVinoPairs, TorchPairs, open_pairs

Make = Callable[..., Path]
LABELS = ("contradicted", "supported", "not_stated")


@pytest.fixture
def folder(cross_encoder: Make) -> Path:
    made = cross_encoder(LABELS)
    assert bert.convert(made)
    return made


@pytest.fixture
def mpnet(cross_encoder: Make) -> Path:
    made = cross_encoder(LABELS, "mpnet")
    assert bert.convert(made)
    return made


def some_pairs(count: int = 40) -> list[tuple[str, str]]:
    """Of all lengths that fit 64 tokens."""
    random = np.random.default_rng(0)
    return [
        (" ".join(random.choice(WORDS, random.integers(1, 12))), " ".join(random.choice(WORDS, random.integers(1, 45))))
        for _ in range(count)
    ]


# --- the fast form -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["folder", "mpnet"])
def test_the_graph_is_the_network_that_torch_runs(request: pytest.FixtureRequest, architecture: str) -> None:
    import openvino

    folder: Path = request.getfixturevalue(architecture)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    exact = openvino.Core().compile_model(
        build(config, read_weights(folder), "it", int8=False), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    fast = OpenVinoPairs(folder, 64, 8)
    expected = TorchPairs(folder, "cpu", 64, 8).logits(some_pairs())
    assert expected.std(axis=0).min() > 0.1
    inputs = fast._network._pad_together(fast._encode(some_pairs()), 64)  # with padding: its mask counts too
    np.testing.assert_allclose(exact(inputs)["logits"], expected, atol=1e-4)


def test_tokens_stand_apart_as_far_as_transformers_says() -> None:
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    apart = np.arange(-600, 601)
    expected = MPNetEncoder.relative_position_bucket(torch.tensor(apart), num_buckets=32)
    np.testing.assert_array_equal(buckets(apart, 32), expected)


def test_eight_bits_change_little(folder: Path) -> None:
    expected = TorchPairs(folder, "cpu", 64, 8).logits(some_pairs())
    found = OpenVinoPairs(folder, 64, 8).logits(some_pairs())
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.25 * expected.std()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_weights_are_stored_in_eight_bits_and_embeddings_in_sixteen(folder: Path) -> None:
    weights = read_weights(folder)
    matrices = sum(w.size for name, w in weights.items() if w.ndim == 2 and "embeddings" not in name)
    tables = sum(w.size for name, w in weights.items() if "embeddings." in name and w.ndim == 2)
    assert matrices + 2 * tables <= (folder / "openvino" / "model.bin").stat().st_size < 1.2 * (matrices + 2 * tables)


@given(arrays.arrays(np.float32, (4, 7), elements=st.floats(-1e3, 1e3, width=32)))
def test_a_rounded_weight_is_within_half_a_scale(weight: np.ndarray) -> None:
    rounded, scales = quantize(weight)
    assert (rounded.dtype, scales.shape) == (np.int8, (4, 1))
    assert (scales > 0).all()
    assert (np.abs(rounded * scales - weight) <= 0.501 * scales + 1e-30).all()


def test_weights_of_sixteen_bits_are_converted_too(cross_encoder: Make) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    made = cross_encoder(LABELS)
    path = made / "model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}, path)
    assert bert.convert(made)
    assert OpenVinoPairs(made, 64, 8).logits([("fever", "rash")]).shape == (1, 3)


def test_converting_again_replaces_what_was_there(folder: Path) -> None:
    before = OpenVinoPairs(folder, 64, 8).logits(some_pairs())
    (folder / "openvino" / "model.bin").write_bytes(b"")
    assert bert.convert(folder)
    assert sorted(path.name for path in folder.iterdir() if "openvino" in path.name) == ["openvino"]
    np.testing.assert_array_equal(OpenVinoPairs(folder, 64, 8).logits(some_pairs()), before)


@pytest.mark.parametrize("change", [{"model_type": "roberta"}, {"hidden_act": "relu"}])
def test_another_architecture_is_not_converted(cross_encoder: Make, change: dict[str, str]) -> None:
    made = cross_encoder(LABELS)
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    (made / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises(ModelError, match=next(iter(change.values()))):
        bert.convert(made)
    assert not (made / "openvino").exists()


def test_a_model_without_its_head_is_not_converted(cross_encoder: Make) -> None:
    from safetensors.torch import load_file, save_file

    made = cross_encoder(LABELS)
    path = made / "model.safetensors"
    save_file({name: w for name, w in load_file(path).items() if name != "classifier.weight"}, path)
    with pytest.raises(ModelError, match=r"has no weight 'classifier\.weight'"):
        bert.convert(made)
    assert not (made / "openvino").exists()


def test_without_openvino_a_model_stays_as_it_is(cross_encoder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cross_encoder(LABELS)
    monkeypatch.setitem(sys.modules, "openvino", None)  # type: ignore[arg-type]
    assert not bert.convert(made)
    assert choose(made, "cpu", "auto") == "torch"
    with pytest.raises(ModelError, match="OpenVINO, which isn't installed"):
        open_pairs(made, "cpu", 64, 8, "openvino")


# --- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_logits_come_in_the_order_of_the_pairs_whatever_stands_beside_them(folder: Path, backend: str) -> None:
    model = open_pairs(folder, "cpu", 64, 4, backend)  # type: ignore[arg-type]
    assert model.labels == LABELS
    together = model.logits(some_pairs())
    assert together.shape == (40, 3)
    alone = np.concatenate([model.logits([pair]) for pair in some_pairs()])
    np.testing.assert_allclose(together, alone, atol=0.05 * together.std())


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_no_pairs_have_no_logits(folder: Path, backend: str) -> None:
    assert open_pairs(folder, "cpu", 64, 4, backend).logits([]).shape == (0, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_pair_that_is_too_long_loses_the_end_of_its_second_text(folder: Path, backend: str) -> None:
    model = open_pairs(folder, "cpu", 32, 4, backend)  # type: ignore[arg-type]
    question, passage = "fever cough rash", " ".join(["pain", "urate"] * 13)  # 3 + 26 + [CLS], [SEP], [SEP]
    whole, longer, shorter, asked_otherwise = model.logits(
        [
            (question, passage),
            (question, passage + " lemons" * 40),
            (question, passage[: -len(" urate")]),
            ("fever cough virus", passage + " lemons" * 40),
        ]
    )
    noise = 0.01 * model.logits(some_pairs()).std()
    np.testing.assert_allclose(longer, whole, atol=noise)
    assert np.abs(shorter - whole).max() > 2 * noise
    assert np.abs(asked_otherwise - whole).max() > 2 * noise


def test_a_question_keeps_up_to_three_quarters_of_the_room(folder: Path) -> None:
    fast = OpenVinoPairs(folder, 43, 4)
    for words, kept in ((29, 29), (30, 30), (31, 30), (200, 30)):
        (encoded,) = fast._encode([("fever " * words, "rash " * 200)])
        assert (len(encoded.ids), encoded.tokens.count("fever"), encoded.tokens.count("rash")) == (43, kept, 40 - kept)


def test_threads_share_a_model(folder: Path) -> None:
    model = OpenVinoPairs(folder, 64, 4)
    lists = [some_pairs()[start:] for start in range(20)]
    with ThreadPoolExecutor(8) as pool:
        for found, given_ in zip(pool.map(model.logits, lists), lists, strict=True):
            np.testing.assert_array_equal(found, model.logits(given_))


def test_auto_is_openvino_where_a_cpu_finds_the_fast_form(cross_encoder: Make) -> None:
    made = cross_encoder(LABELS)
    assert choose(made, "cpu", "auto") == "torch"
    assert isinstance(open_pairs(made, "cpu", 64, 4), TorchPairs)
    bert.convert(made)
    assert isinstance(open_pairs(made, "cpu", 64, 4), OpenVinoPairs)
    assert [choose(made, "cuda", "auto"), choose(made, "cpu", "torch"), choose(made, "cuda", "openvino")] == [
        "torch",
        "torch",
        "openvino",
    ]


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_more_tokens_than_a_model_reads_are_refused_with_both_numbers(folder: Path, backend: str) -> None:
    with pytest.raises(SettingsError, match=r"max_length is 65, and cross-encoder reads 64 tokens at most.*Lower"):
        open_pairs(folder, "cpu", 65, 4, backend)  # type: ignore[arg-type]


@given(st.lists(st.integers(3, 512), max_size=60), st.integers(1, 16))
def test_batches_hold_every_pair_once_and_little_padding(lengths: list[int], batch_size: int) -> None:
    found = batches(lengths, batch_size)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert 1 <= len(batch) <= batch_size
        assert min(lengths[i] for i in batch) >= LEAST_FILLED * max(lengths[i] for i in batch)


def test_a_batch_is_as_large_as_it_may_be() -> None:
    assert batches([100, 89, 95, 90, 100], 3) == [[0, 4, 2], [3, 1]]


# --- imports and damage --------------------------------------------------------------------------


def test_the_fast_form_needs_no_torch_and_reports_to_nobody(folder: Path, tmp_path: Path) -> None:
    reported = tmp_path / "reported"
    spy = tmp_path / "site" / "openvino_telemetry"
    spy.mkdir(parents=True)
    (spy / "__init__.py").write_text(
        f"""
class Telemetry:
    def __init__(self, **_): pass
    def send_event(self, *_): open({str(reported)!r}, "w").close()
""",
        encoding="utf-8",
    )
    (spy / "backend.py").write_text("backend_ga4 = None\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{spy.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def run(script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60, check=True
        )
        return done.stdout

    script = f"""
import sys
from pathlib import Path
from rag import bert, pairs
print(pairs.open_pairs(Path({str(folder)!r}), "cpu", 64, 4).logits([("fever", "rash")]).shape)
print(sorted({{"torch", "transformers", "sentence_transformers"}} & set(sys.modules)))
bert.convert(Path({str(folder)!r}))
"""
    assert run(script) == "(1, 3)\n[]\n"
    assert not reported.exists()
    run("import openvino")
    assert reported.exists(), "the spy sees nothing: this test can't fail"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "openvino/model.bin": cut,
    "openvino/model.xml": cut,
    "tokenizer.json": cut,
    "config.json": lambda path: path.write_text("{", encoding="utf-8") and None,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_an_error_that_says_how_to_mend_it(folder: Path, name: str) -> None:
    DAMAGES[name](folder / name)
    with pytest.raises(ModelError, match=rf"Remove {folder} and run rag models build cross-encoder\.$") as caught:
        OpenVinoPairs(folder, 64, 4)
    assert "\n" not in str(caught.value)


def test_a_fast_form_that_lost_its_weights_or_its_graph_is_an_error(folder: Path) -> None:
    (folder / "openvino" / "model.bin").unlink()
    with pytest.raises(ModelError, match="rag models build"):
        open_pairs(folder, "cpu", 64, 4)
    (folder / "openvino" / "model.xml").unlink()
    with pytest.raises(ModelError, match=r"model\.xml is missing"):
        open_pairs(folder, "cpu", 64, 4, "openvino")


def test_a_folder_of_somebody_elses_openvino_is_read_by_torch(folder: Path) -> None:
    (folder / "openvino" / "model.xml").rename(folder / "openvino" / "openvino_model.xml")
    assert isinstance(open_pairs(folder, "cpu", 64, 4), TorchPairs)


def test_a_fast_form_of_other_labels_is_an_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "relevant"}}), encoding="utf-8")
    with pytest.raises(ModelError, match="says 1 logits, it gives 3"):
        OpenVinoPairs(folder, 64, 4)
