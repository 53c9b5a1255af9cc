"""Names to folders, and the folders themselves: a recipe's is built once and stamped with its files' SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from rag import files, paths
from rag.errors import ModelError
from rag.models import base, merge
from rag.models.recipe import ArchiveBase, Kind, Recipe, RecipeBase, TensorFile, read
from rag.progress import Report, quiet

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES, SAMPLE = 64, 4096
"""Pieces of a local weight file, and their bytes."""

STAMP = "built.json"
RECIPE = "recipe.yaml"
CARD = "MODEL_CARD.md"


@dataclass(frozen=True, slots=True)
class Finish:
    """`add` puts into a built folder what models of a kind need beside their weights. A folder that was given another `form`
    of it counts as not built."""

    form: str
    add: Callable[[Path], object]


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
    card: Path | None


class ModelStore:
    """`finish`, by kind, adds to a model's folder once its weights are written; what it adds is stamped too."""

    def __init__(
        self, recipes: Path | None = None, store: Path | None = None, finish: Mapping[Kind, Finish] | None = None
    ) -> None:
        self._recipes = recipes if recipes is not None else paths.shipped("data", "models")
        self._store = store if store is not None else paths.models_dir()
        self._finish = finish if finish is not None else {}

    def list(self) -> list[ModelStatus]:
        return [self.status(path.parent.name) for path in sorted(self._recipes.glob(f"*/{RECIPE}"))]

    def is_recipe(self, name: str) -> bool:
        return "/" not in name and (self._recipes / name / RECIPE).is_file()

    def status(self, name: str) -> ModelStatus:
        """Raises `ModelError` for an unknown or unreadable recipe."""
        if not self.is_recipe(name):
            known = ", ".join(folder.parent.name for folder in sorted(self._recipes.glob(f"*/{RECIPE}")))
            raise ModelError(f"No recipe named {name!r}. Known: {known}.")
        recipe = read(self._recipes / name / RECIPE)
        folder, card = self._store / name, self._recipes / name / CARD
        built = _is_built(folder, recipe.digest, self._finish.get(recipe.kind))
        return ModelStatus(name, recipe, folder, built, card if card.is_file() else None)

    def resolve(self, name: str, revision: str | None = None) -> ResolvedModel:
        """Raises `ModelError` where the model isn't there, saying how to get it."""
        if self.is_recipe(name):
            status = self.status(name)
            if not status.built:
                raise ModelError(f"Model {name!r} isn't built on this machine. Build it: rag models build {name}.")
            return ResolvedModel(name, status.folder, f"{name}@{status.recipe.digest[:12]}")
        local = _local(name)
        if local.is_dir():
            return ResolvedModel(name, _with_safetensors(local.resolve(), name), f"{name}@{_folder_digest(local)[:12]}")
        if _is_hub_id(name):
            snapshot = base.download(name, revision, base.HUB_FILES, needed=("*.safetensors",))
            return ResolvedModel(name, snapshot, f"{name}@{snapshot.name[:12]}")
        known = ", ".join(status.name for status in self.list())
        raise ModelError(f"Unknown model {name!r}: no such folder, and not a hub id (org/name) or a recipe ({known}).")

    def resolve_tokenizer(self, name: str, revision: str | None = None) -> Path:
        """The folder of a model's tokenizer, which may hold no weights; of a hub's model no others are fetched.

        Raises what `resolve` raises.
        """
        if not self.is_recipe(name):
            if _local(name).is_dir():
                return _local(name).resolve()
            if _is_hub_id(name):
                return base.download(name, revision, base.TOKENIZER_FILES, needed=(base.TOKENIZER,))
        return self.resolve(name, revision).path

    def left_out(self, name: str) -> str | None:
        """Why a recipe isn't built along with all others: its base is large, and only there where somebody has installed it."""
        made_of = self.status(name).recipe.base
        absent = base.not_installed(made_of) if isinstance(made_of, ArchiveBase) else []
        return f"not built, since it needs pip install --no-deps {' '.join(absent)}" if absent else None

    def build(self, name: str, report: Report = quiet) -> Path:
        """Build a recipe into the store; does nothing where that is done already.

        Raises `ModelError` where the base is missing or anything's SHA-256 differs, `StorageError` where
        there is no room.
        """
        status = self.status(name)
        if status.built:
            return status.folder
        files.require_room(status.folder, status.recipe.disk_mb * 1_000_000)
        with self._building(name):
            for rest in self._store.glob(f".{name}.*/"):  # of a build that was killed
                shutil.rmtree(rest, ignore_errors=True)
            if not self.status(name).built:  # by the process that held the lock
                with self._source(status, report) as source:
                    self._write(status, source, report)
        return status.folder

    def _source(self, status: ModelStatus, report: Report) -> AbstractContextManager[Path]:
        """The folder of a recipe's base, which is built where it is another recipe's model."""
        made_of = status.recipe.base
        if not isinstance(made_of, RecipeBase):
            return base.located(made_of, status.recipe.files, self._store / f".{status.name}.archive")
        if isinstance(self.status(made_of.recipe).recipe.base, RecipeBase):
            raise ModelError(f"The base of model {status.name}, {made_of.recipe}, is made of another recipe's itself.")
        return nullcontext(self.build(made_of.recipe, report))

    def _write(self, status: ModelStatus, source: Path, report: Report) -> None:
        name, recipe = status.name, status.recipe
        whose = base.mending(recipe.base)
        report(f"checking {whose.partition(' ')[0]}")
        base.check(source, recipe.files, whose)
        adapter = self._read_beside(status, recipe.adapter)
        smoothing = self._read_beside(status, recipe.quantize.smoothing if recipe.quantize is not None else None)
        converted = source if isinstance(recipe.base, RecipeBase) else self._converted(recipe)
        with files.replacing_folder(status.folder) as folder:
            report(f"building model {name} (once)")
            _make(status, source, adapter, smoothing, converted, folder)
            base.check(
                folder, recipe.produces, f"what {name} was built to (this machine's libraries differ from the lock)"
            )
            finish = self._finish.get(recipe.kind)
            if finish is not None:
                finish.add(folder)
            produced = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
            stamp = {
                "recipe": recipe.digest,
                "form": finish.form if finish is not None else None,
                "files": {n: {"size": p.stat().st_size, "sha256": files.sha256(p)} for n, p in produced.items()},
            }
            (folder / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")

    def _converted(self, recipe: Recipe) -> Path | None:
        """A model of this store that is the recipe's base as it is: what converting it, which takes a while, would give again."""
        if recipe.format != "gguf" or not recipe.changes_weights:
            return None
        for path in sorted(self._recipes.glob(f"*/{RECIPE}")):
            with suppress(ModelError):  # a recipe or a model that is damaged: then it is converted
                other = self.status(path.parent.name)
                same = (other.recipe.base, other.recipe.files) == (recipe.base, recipe.files)
                if same and other.built and not other.recipe.changes_weights:
                    self.verify(other.name)
                    return other.folder
        return None

    def _read_beside(self, status: ModelStatus, part: TensorFile | None) -> dict[str, Tensor]:
        """What lies beside a recipe."""
        if part is None:
            return {}
        folder = self._recipes / status.name
        base.check(folder, {part.file: part.sha256}, f"the {Path(part.file).stem} in {folder} (reinstall rag)")
        return base.read_safetensors(folder, [part.file])

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
        base.check(folder, hashes, f"{folder} (remove it and run rag models build {name})")


def _make(
    status: ModelStatus,
    source: Path,
    adapter: Mapping[str, Tensor],
    smoothing: Mapping[str, Tensor],
    converted: Path | None,
    folder: Path,
) -> None:
    """Write a recipe's model to `folder`, its weights once. `converted` is its base as a model of this store, where it is one."""
    recipe = status.recipe
    if recipe.format == "folder" and not recipe.changes_weights:
        base.copy(source, recipe.files, folder)
        return
    if converted is not None:
        names = [path.name for path in converted.iterdir() if path.is_file() and path.name != STAMP]
        tensors = base.read_safetensors(converted, [name for name in names if name.endswith(".safetensors")])
        base.copy(converted, base.non_weight_files(names, encoder=False), folder)
    elif recipe.format == "gguf":
        tensors = base.convert_gguf(source, next(iter(recipe.files)), folder)
    else:
        tensors = base.read_safetensors(source, recipe.weights)
        base.copy(source, base.non_weight_files(recipe.files, encoder=recipe.head is None), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        tensors, changed = merge.assemble(recipe, tensors, config, adapter, smoothing)
    except ModelError as error:
        raise ModelError(f"Model {status.name} can't be built. {error}") from error
    if changed != config:
        text = json.dumps(changed, indent=2, sort_keys=True)
        (folder / "config.json").write_text(f"{text}\n", encoding="utf-8")
    base.write_safetensors(tensors, folder)


def _local(name: str) -> Path:
    return Path(os.path.expanduser(name))  # noqa: PTH111  (Path.expanduser raises for an unknown user)


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _is_built(folder: Path, digest: str, finish: Finish | None) -> bool:
    """By the stamp and the sizes: cheap enough for every start. `verify` reads the files. A store without a `finish`, which
    only looks, takes any form."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        current = stamp["recipe"] == digest and (finish is None or stamp.get("form") == finish.form)
        return current and all(
            (folder / name).stat().st_size == entry["size"] for name, entry in stamp["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _folder_digest(folder: Path) -> str:
    """Of a local model's configuration and of samples of its weights, which any training changes all of: reading 16 GB would take too
    long."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in {".json", ".safetensors"}):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes() if path.suffix == ".json" else b"".join(_samples(path)))
    return digest.hexdigest()


def _samples(path: Path) -> Iterator[bytes]:
    """A file's size, and `SAMPLES` pieces of it at equal distances."""
    size = path.stat().st_size
    yield str(size).encode()
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(size * number // SAMPLES)
            yield file.read(SAMPLE)


def _with_safetensors(folder: Path, name: str) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"Model {name} has no *.safetensors in {folder}. Pickled weights are never loaded: convert it."
        )
    return folder
