"""Bases of a hub: the cache is a real one, laid out by hand, and the process is kept off the network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

from rag.models.base import non_weight_files

REVISION = "a" * 40
FILES = {
    "config.json": b'{"hidden": 4}\n',
    "model.safetensors": save({"weight": np.arange(4, dtype=np.float32)}),
    "1_Pooling/config.json": b"{}\n",
}

BUILD = """
import sys
from pathlib import Path
from rag.errors import RagError
from rag.models import ModelStore

root = Path(sys.argv[1])
try:
    print(ModelStore(root / "recipes", root / "store").build("tiny"))
except RagError as error:
    print(type(error).__name__ + ":", error)
"""


def write_recipe(root: Path, contents: Mapping[str, bytes]) -> None:
    recipe = {
        "description": "a tiny encoder",
        "kind": "encoder",
        "licence": "Apache-2.0",
        "origin": "org/tiny",
        "base": {"hub": "org/tiny", "revision": REVISION},
        "format": "folder",
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "disk_mb": 1,
    }
    folder = root / "recipes" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def write_cache(root: Path, contents: Mapping[str, bytes], revision: str = REVISION) -> None:
    snapshot = root / "hub" / "hub" / "models--org--tiny" / "snapshots" / revision
    for name, content in contents.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(content)


def build_offline(root: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
    )
    return done.stdout.strip()


def test_a_base_of_the_hub_that_is_on_this_machine_is_built_from(tmp_path: Path) -> None:
    write_recipe(tmp_path, FILES)
    write_cache(tmp_path, {**FILES, "pytorch_model.bin": b"pickle"})
    folder = tmp_path / "store" / "tiny"
    assert build_offline(tmp_path) == str(folder)
    stamp = json.loads((folder / "built.json").read_text())
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found.pop("built.json")
    assert found == FILES
    assert set(stamp["files"]) == set(FILES)


@pytest.mark.parametrize("there", ["nothing", "another revision", "a part"])
def test_a_base_of_the_hub_that_is_not_here_and_cannot_be_fetched_says_so(tmp_path: Path, there: str) -> None:
    write_recipe(tmp_path, FILES)
    if there == "another revision":
        write_cache(tmp_path, FILES, "b" * 40)
    if there == "a part":
        write_cache(tmp_path, {"config.json": FILES["config.json"]})
    message = build_offline(tmp_path)
    assert message.startswith("ModelError: Model org/tiny isn't on this machine and can't be fetched (")
    assert "Check the name and the network" in message
    assert not (tmp_path / "store" / "tiny").exists()


def test_a_file_of_the_hub_with_another_sha256_is_named(tmp_path: Path) -> None:
    write_recipe(tmp_path, FILES)
    write_cache(tmp_path, {**FILES, "config.json": b"{}"})
    message = build_offline(tmp_path)
    assert message.startswith("ModelError: config.json isn't the file that the recipe names: org/tiny (remove it from")
    assert not (tmp_path / "store" / "tiny").exists()


def test_what_stands_beside_the_weights_and_what_only_a_sentence_encoder_needs() -> None:
    tokenizer = ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
    weights = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    sentences = ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"]
    names = [*tokenizer, *weights, *sentences, "config_sentence_transformers.json"]
    assert non_weight_files(names, encoder=False) == tokenizer
    assert non_weight_files(names, encoder=True) == [*tokenizer, *sentences, "config_sentence_transformers.json"]
