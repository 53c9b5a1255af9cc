"""Recipes with layers, a head and an adapter, from the wheel to the loaded model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from rag import bert, build, paths
from rag.errors import ModelError
from rag.models import Finish, ModelStore
from rag.models import base as bases
from rag.models.store import STAMP

LABELS = ["supported", "contradicted", "not_stated"]
LAYERS = [0, 2, 3]
RANK, ALPHA = 4, 6.0
HIDDEN = 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "malaria", "is", "caused", "by", "a", "parasite"]
SENTENCES = dict.fromkeys(("1_Pooling/config.json", "modules.json", "sentence_bert_config.json"), b"{}\n")

KILLED_WRITING = """
import os, signal, sys
from pathlib import Path
import safetensors.torch
from rag.models import ModelStore

def write_half(tensors, path, metadata=None):
    content = safetensors.torch.save(tensors, metadata)
    Path(path).write_bytes(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

safetensors.torch.save_file = write_half
root = Path(sys.argv[1])
ModelStore(root / "recipes", root / "store").build("tiny")
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_bert(folder: Path) -> None:
    """A wheel's sentence encoder of four layers: names without `bert.`, and the buffer that older files have."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=HIDDEN,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    for name, content in SENTENCES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    path = folder / "model.safetensors"
    save_file({**load_file(path), "embeddings.position_ids": torch.arange(40)[None]}, path, metadata={"format": "pt"})


def trained() -> dict[str, Tensor]:
    """An adapter to every linear layer of the three layers that are kept, and a head. In BF16, as it ships."""
    random = torch.Generator().manual_seed(1)
    shapes = {
        "attention.self.query": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (32, HIDDEN),
        "output.dense": (HIDDEN, 32),
    }
    tensors = {"classifier.weight": torch.randn(3, HIDDEN, generator=random), "classifier.bias": torch.ones(3)}
    for layer in range(len(LAYERS)):
        for module, (out, into) in shapes.items():
            full = f"bert.encoder.layer.{layer}.{module}"
            tensors[f"{full}.lora_A"] = torch.randn(RANK, into, generator=random)
            tensors[f"{full}.lora_B"] = torch.randn(out, RANK, generator=random)
    return {name: tensor.bfloat16() for name, tensor in tensors.items()}


def write_recipe(root: Path, weights: Mapping[str, Tensor] | None = None, **changes: object) -> None:
    folder = root / "recipes" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    content = save(dict(weights if weights is not None else trained()))
    (folder / "adapter.safetensors").write_bytes(content)
    base = root / "site" / "tiny_bert" / "model"
    recipe: dict[str, object] = {
        "description": "a tiny checker",
        "kind": "support",
        "licence": "Apache-2.0",
        "origin": "rag/tiny",
        "base": {"wheel": "tiny-bert", "package": "tiny_bert", "path": "model"},
        "format": "folder",
        "files": {
            p.relative_to(base).as_posix(): sha256(p.read_bytes()) for p in sorted(base.rglob("*")) if p.is_file()
        },
        "layers": LAYERS,
        "adapter": {"file": "adapter.safetensors", "sha256": sha256(content), "rank": RANK, "alpha": ALPHA},
        "head": {"labels": LABELS},
        "training": {"data": ["claims.jsonl", "notes.jsonl"], "seed": 7},
        "disk_mb": 1,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | changes), encoding="utf-8")


def store_of(root: Path, **options: Any) -> ModelStore:
    return ModelStore(root / "recipes", root / "store", **options)


def left_in_store(root: Path) -> list[str]:
    store = root / "store"
    return sorted(path.name for path in store.iterdir() if path.suffix != ".lock") if store.is_dir() else []


def refused(root: Path) -> str:
    with pytest.raises(ModelError) as caught:
        store_of(root).build("tiny")
    assert left_in_store(root) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-bert")
    write_bert(folder)
    return folder


@pytest.fixture
def root(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe `tiny` with everything that a recipe may have, its base on `sys.path`, an empty store."""
    package = tmp_path / "site" / "tiny_bert"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copytree(tiny_bert, package / "model")
    write_recipe(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def base_of(root: Path) -> dict[str, Tensor]:
    return load_file(root / "site" / "tiny_bert" / "model" / "model.safetensors")


# --- what is built -------------------------------------------------------------------------------


def test_the_weights_are_the_kept_layers_with_the_adapter_merged_and_the_head(root: Path) -> None:
    built = load_file(store_of(root).build("tiny") / "model.safetensors")
    base, adapter = base_of(root), trained()
    expected = {f"bert.{name}": tensor for name, tensor in base.items() if not name.startswith("encoder.")}
    del expected["bert.embeddings.position_ids"]
    for new, old in enumerate(LAYERS):
        for name, tensor in base.items():
            if name.startswith(f"encoder.layer.{old}."):
                expected["bert." + name.replace(f".{old}.", f".{new}.", 1)] = tensor
    for name in [name for name in adapter if name.endswith(".lora_A")]:
        module = name.removesuffix(".lora_A")
        product = adapter[f"{module}.lora_B"].double() @ adapter[name].double()
        expected[f"{module}.weight"] = (expected[f"{module}.weight"].double() + ALPHA / RANK * product).float()
    expected |= {name: adapter[name].float() for name in ("classifier.weight", "classifier.bias")}
    assert set(built) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(built[name], tensor, rtol=1e-6, atol=1e-7)


def test_transformers_loads_a_whole_classifier_with_its_labels(root: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = store_of(root).build("tiny")
    model, found = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert {kind: list(names) for kind, names in found.items() if names} == {}
    assert type(model).__name__ == "BertForSequenceClassification"
    assert (model.config.num_hidden_layers, len(model.bert.encoder.layer)) == (3, 3)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {label: number for number, label in enumerate(LABELS)}
    assert model.config.num_labels == 3
    tokens = AutoTokenizer.from_pretrained(folder)("malaria is caused", "by a parasite", return_tensors="pt")
    assert tokens["input_ids"].tolist() == [[2, 5, 6, 7, 3, 8, 9, 10, 3]]
    with torch.inference_mode():
        assert model(**tokens).logits.shape == (1, 3)


def test_sentence_transformers_reads_pairs_with_it(root: Path) -> None:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(store_of(root).build("tiny")), device="cpu", local_files_only=True)
    assert model.predict([("malaria is caused", "by a parasite")]).shape == (1, 3)


def test_what_only_a_sentence_encoder_needs_is_left_out(root: Path) -> None:
    folder = store_of(root).build("tiny")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    base = root / "site" / "tiny_bert" / "model"
    there = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}
    assert found == there - set(SENTENCES) | {STAMP}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} <= found
    assert set(json.loads((folder / STAMP).read_text())["files"]) == found - {STAMP}


def test_an_encoder_with_an_adapter_and_no_head_stays_one(root: Path) -> None:
    plain = {n.removeprefix("bert."): t for n, t in trained().items() if not n.startswith("classifier.")}
    write_recipe(root, plain, kind="encoder", head=None)
    folder = store_of(root).build("tiny")
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["num_hidden_layers"]) == (["BertModel"], 3)
    assert all((folder / name).read_bytes() == content for name, content in SENTENCES.items())
    assert "embeddings.position_ids" in load_file(folder / "model.safetensors")


def test_a_base_in_several_files_becomes_one(root: Path) -> None:
    whole = load_file(store_of(root).build("tiny") / "model.safetensors")
    folder = root / "site" / "tiny_bert" / "model"
    tensors = sorted(base_of(root).items())
    save_file(dict(tensors[::2]), folder / "model-00001-of-00002.safetensors")
    save_file(dict(tensors[1::2]), folder / "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "model.safetensors").unlink()
    write_recipe(root)
    built = store_of(root).build("tiny")
    assert sorted(path.name for path in built.glob("model*")) == ["model.safetensors"]
    again = load_file(built / "model.safetensors")
    assert set(again) == set(whole)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_two_builds_are_the_same_to_the_bit_and_produces_holds_them_to_it(root: Path) -> None:
    folder = store_of(root).build("tiny")
    digest = sha256((folder / "model.safetensors").read_bytes())
    write_recipe(root, produces={"model.safetensors": digest})
    assert not store_of(root).status("tiny").built
    store_of(root).build("tiny")
    store_of(root).verify("tiny")
    write_recipe(root, produces={"model.safetensors": "0" * 64})
    with pytest.raises(ModelError, match=r"^model\.safetensors .*what tiny was built to"):
        store_of(root).build("tiny")


def test_another_adapter_asks_for_a_new_build(root: Path) -> None:
    store_of(root).build("tiny")
    adapter = trained()
    write_recipe(root, {**adapter, "classifier.bias": adapter["classifier.bias"] + 1})
    assert not store_of(root).status("tiny").built
    built = load_file(store_of(root).build("tiny") / "model.safetensors")
    assert built["classifier.bias"].tolist() == [2.0, 2.0, 2.0]


# --- what is refused -----------------------------------------------------------------------------


def test_a_missing_adapter_is_named_with_its_place(root: Path) -> None:
    (root / "recipes" / "tiny" / "adapter.safetensors").unlink()
    folder = root / "recipes" / "tiny"
    assert refused(root) == f"adapter.safetensors is missing: the adapter in {folder} (reinstall rag)."


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_an_adapter_that_is_changed_by_one_byte_is_refused(root: Path, position: int) -> None:
    path = root / "recipes" / "tiny" / "adapter.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    message = refused(root)
    assert message.startswith("adapter.safetensors isn't the file that the recipe names: the adapter in ")
    assert "reinstall rag" in message
    assert sha256(bytes(content))[:12] in message


def test_an_adapter_that_is_no_safetensors_is_refused(root: Path) -> None:
    content = b"\x80\x04 a pickle"
    adapter = {"file": "adapter.safetensors", "sha256": sha256(content), "rank": RANK, "alpha": ALPHA}
    write_recipe(root, adapter=adapter)
    (root / "recipes" / "tiny" / "adapter.safetensors").write_bytes(content)
    assert "adapter.safetensors is no safetensors file: " in refused(root)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"layers": [0, 4]}, "The recipe keeps layer 4, and the base's are 0 to 3."),
        ({"layers": [0, 2]}, "it adapts bert.encoder.layer.2.attention.output.dense.weight, which the base hasn't"),
        ({"head": {"labels": ["relevant"]}}, "it sets classifier.bias of shape (3,), and the model's is (1,)"),
        ({"adapter": None}, "The head needs classifier.weight of shape (3, 16), and it is missing"),
        ({"kind": "encoder", "head": None}, "it adapts bert.encoder.layer.0.attention.output.dense.weight, which"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_the_models_name(
    root: Path, changes: dict[str, object], problem: str
) -> None:
    write_recipe(root, **changes)
    message = refused(root)
    assert message.startswith("Model tiny can't be built. ")
    assert problem in message


def test_a_rank_other_than_the_recipes_is_refused(root: Path) -> None:
    content = (root / "recipes" / "tiny" / "adapter.safetensors").read_bytes()
    adapter = {"file": "adapter.safetensors", "sha256": sha256(content), "rank": 8, "alpha": ALPHA}
    write_recipe(root, adapter=adapter)
    assert "and its recipe rank 8" in refused(root)


def test_a_base_that_is_not_installed_is_named(root: Path) -> None:
    write_recipe(root, base={"wheel": "absent-bert", "package": "absent_bert", "path": "model"})
    assert refused(root).endswith("Install it: pip install --no-deps absent-bert.")


# --- finishing -----------------------------------------------------------------------------------


def test_a_kinds_finish_sees_the_weights_and_what_it_adds_is_stamped(root: Path) -> None:
    def finish(folder: Path) -> None:
        assert load_file(folder / "model.safetensors")["classifier.bias"].tolist() == [1.0, 1.0, 1.0]
        (folder / "openvino").mkdir()
        (folder / "openvino" / "model.xml").write_bytes(b"<net/>")

    store = store_of(root, finish={"support": Finish("1", finish)})
    folder = store.build("tiny")
    assert json.loads((folder / STAMP).read_text())["files"]["openvino/model.xml"]["sha256"] == sha256(b"<net/>")
    store.verify("tiny")
    (folder / "openvino" / "model.xml").unlink()
    assert not store.status("tiny").built


def test_a_folder_of_another_form_is_built_anew(root: Path) -> None:
    def store(form: str) -> ModelStore:
        return store_of(root, finish={"support": Finish(form, lambda folder: (folder / f"form-{form}").touch())})

    store_of(root).build("tiny")
    assert not store("1").status("tiny").built  # as of stores that were made before there were forms
    store("1").build("tiny")
    assert store("1").status("tiny").built
    assert store_of(root).status("tiny").built  # which only looks
    assert not store("2").status("tiny").built
    folder = store("2").build("tiny")
    assert [path.name for path in folder.glob("form-*")] == ["form-2"]


def test_a_finish_of_another_kind_is_not_called(root: Path) -> None:
    def finish(_: Path) -> None:
        raise AssertionError

    store_of(root, finish={"reranker": Finish("1", finish)}).build("tiny")


def test_a_finish_that_fails_leaves_nothing_behind(root: Path) -> None:
    def finish(_: Path) -> None:
        raise ModelError("no")

    with pytest.raises(ModelError, match=r"^no$"):
        store_of(root, finish={"support": Finish("1", finish)}).build("tiny")
    assert left_in_store(root) == []


@pytest.mark.parametrize("kind", ["support", "reranker", "matcher"])
def test_the_store_that_builds_gives_classifiers_their_fast_form(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def convert(folder: Path) -> None:
        assert (folder / "model.safetensors").is_file()
        (folder / "openvino").mkdir()

    monkeypatch.setattr(bert, "convert", convert)
    monkeypatch.setattr(paths, "shipped", lambda *_: root / "recipes")
    monkeypatch.setenv("RAG_HOME", str(root / "home"))
    write_recipe(root, kind=kind)
    assert (build.model_store().build("tiny") / "openvino").is_dir()


# --- kill -9 -------------------------------------------------------------------------------------


def test_a_build_that_is_killed_while_it_writes_leaves_no_model_and_the_next_one_no_rest(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "site"), *sys.path])}
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITING, str(root)], env=environment, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    (rest,) = left_in_store(root)
    assert rest.startswith(".tiny.")
    half = (root / "store" / rest / "model.safetensors").stat().st_size
    assert not store_of(root).status("tiny").built
    with pytest.raises(ModelError, match="isn't built on this machine"):
        store_of(root).resolve("tiny")
    folder = store_of(root).build("tiny")
    assert left_in_store(root) == ["tiny"]
    assert (folder / "model.safetensors").stat().st_size // 2 == half
    store_of(root).verify("tiny")


# --- generators ----------------------------------------------------------------------------------


def write_gguf(path: Path) -> None:
    """A llama of two layers in F32, with a byte-level tokenizer."""
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    numbers = torch.Generator().manual_seed(0)
    tokens = ["<|endoftext|>", *sorted(ByteLevel.alphabet()), "th"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])
    writer.add_token_merges(["t h"])
    for name in ("bos", "eos", "unk", "pad"):
        getattr(writer, f"add_{name}_token_id")(0)
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,)}
    for layer in range(2):
        block = {"attn_norm": (32,), "ffn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32)}
        block |= {"attn_output": (32, 32), "ffn_gate": (48, 32), "ffn_up": (48, 32), "ffn_down": (32, 48)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.randn(shape, generator=numbers).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def of_gguf(root: Path) -> dict[str, Any]:
    """What a recipe says of such a base, which is written."""
    path = root / "site" / "tiny_bert" / "tiny.gguf"
    write_gguf(path)
    return {
        "kind": "generator",
        "base": {"wheel": "tiny-bert", "package": "tiny_bert", "path": "."},
        "format": "gguf",
        "files": {path.name: sha256(path.read_bytes())},
        "head": None,
    }


def test_a_generator_of_gguf_is_converted_and_merged_at_once(root: Path) -> None:
    from transformers import AutoModelForCausalLM

    gguf = of_gguf(root)
    write_recipe(root, **gguf, layers=None, adapter=None)
    plain = load_file(store_of(root).build("tiny") / "model.safetensors")
    module = "model.layers.0.mlp.down_proj"
    adapter = {f"{module}.lora_A": torch.randn(RANK, 48), f"{module}.lora_B": torch.randn(32, RANK)}
    write_recipe(root, adapter, **gguf, layers=[1])
    folder = store_of(root).build("tiny")
    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert {kind: list(names) for kind, names in found.items() if names} == {}
    assert model.config.num_hidden_layers == 1
    assert model.config.architectures == ["LlamaForCausalLM"]
    product = adapter[f"{module}.lora_B"].double() @ adapter[f"{module}.lora_A"].double()
    base = plain["model.layers.1.mlp.down_proj.weight"]
    expected = (base.double() + ALPHA / RANK * product).bfloat16()
    built = load_file(folder / "model.safetensors")
    assert built[f"{module}.weight"].dtype == torch.bfloat16
    torch.testing.assert_close(built[f"{module}.weight"], expected, rtol=2**-8, atol=0)
    assert not torch.equal(built[f"{module}.weight"], base)
    assert torch.equal(built["model.layers.0.mlp.up_proj.weight"], plain["model.layers.1.mlp.up_proj.weight"])
    assert "lm_head.weight" not in built
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= {p.name for p in folder.iterdir()}


def test_a_base_of_gguf_that_is_built_is_not_converted_again_and_gives_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str) -> dict[str, bytes]:
        shutil.rmtree(root / "store" / name, ignore_errors=True)
        folder = store_of(root).build(name)
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != STAMP}

    gguf = of_gguf(root)
    write_recipe(root, **gguf, layers=None, adapter=None)
    shutil.copytree(root / "recipes" / "tiny", root / "recipes" / "plain")
    module = "model.layers.0.mlp.down_proj"
    adapter = {f"{module}.lora_A": torch.randn(RANK, 48), f"{module}.lora_B": torch.randn(32, RANK)}
    write_recipe(root, adapter, **gguf, layers=[1])
    alone = build("tiny")
    build("plain")
    converted: list[Path] = []
    really = bases.convert_gguf

    def convert(source: Path, name: str, folder: Path) -> dict[str, Tensor]:
        converted.append(folder)
        return really(source, name, folder)

    monkeypatch.setattr(bases, "convert_gguf", convert)
    assert build("tiny") == alone
    assert converted == []
    weights = root / "store" / "plain" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert build("tiny") == alone, "not of one that has changed since"
    assert len(converted) == 1


# --- what is said of them ------------------------------------------------------------------------


def shown(name: str, capsys: pytest.CaptureFixture[str], as_json: bool = False) -> str:
    from rag.cli.models import info

    info(name, as_json)
    return capsys.readouterr().out


def test_info_shows_adapter_layers_head_training_and_the_card(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "shipped", lambda *_: root / "recipes")
    monkeypatch.setenv("RAG_HOME", str(root / "home"))
    assert "model card" not in shown("tiny", capsys)
    assert json.loads(shown("tiny", capsys, as_json=True))["model_card"] is None
    card = root / "recipes" / "tiny" / "MODEL_CARD.md"
    card.write_text("# Tiny\n")
    digest = sha256((card.parent / "adapter.safetensors").read_bytes())
    lines = shown("tiny", capsys).splitlines()
    for line in (
        f"model card   {card}",
        "base         model of the wheel tiny-bert",
        "layers       0, 2, 3 of the base",
        "adapter      adapter.safetensors, rank 4, alpha 6",
        f"adapter      {digest}  adapter.safetensors",
        "head         supported, contradicted, not_stated",
        "training     data: claims.jsonl, notes.jsonl",
        "training     seed: 7",
    ):
        assert line in lines
    facts = json.loads(shown("tiny", capsys, as_json=True))
    assert facts["model_card"] == str(card)
    assert facts["layers"] == LAYERS
    assert facts["head"] == {"labels": LABELS, "cosine_weight": None, "lexical_weight": None}
    assert facts["adapter"] == {"file": "adapter.safetensors", "sha256": digest, "rank": 4, "alpha": 6.0}
    assert facts["training"] == {"data": ["claims.jsonl", "notes.jsonl"], "seed": 7}
