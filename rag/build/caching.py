"""The query cache of an index: its file, and what its entries were shaped by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rag
from rag import index
from rag.build.parts import resolve
from rag.cache import VERSION, Entry, empty, load
from rag.cache.file import PATIENCE
from rag.core import Hits
from rag.files import explaining_storage, only_writer
from rag.progress import quiet
from rag.settings import Loaded

ENDING = ".safetensors"


def remove_files(loaded: Loaded) -> list[Path]:
    """Remove the files of all settings, and what killed processes left of them. Raises `StorageError`."""
    folder = cache_path(loaded).parent
    removed = []
    for name in sorted(
        {path.name.removeprefix(".").partition(ENDING)[0] + ENDING for path in folder.glob(f"*queries-*{ENDING}*")}
    ):
        with only_writer(folder / name, PATIENCE):
            for path in [*folder.glob(name), *folder.glob(f".{name}.*")]:
                if path.suffix != ".lock":
                    with explaining_storage(path):
                        path.unlink(missing_ok=True)
                    removed.append(path)
    return removed


def cache_path(loaded: Loaded) -> Path:
    """Beside the versions of the index; other settings of a search have another file."""
    digest = hashlib.sha256(json.dumps(_sections(loaded), sort_keys=True).encode()).hexdigest()
    return index.versions_of(loaded.settings.index.name).root / f"queries-{digest[:12]}{ENDING}"


def _sections(loaded: Loaded) -> dict[str, Any]:
    """The settings of these stages."""
    return loaded.settings.model_dump(mode="json", include={"embed", "index", "retrieve", "rerank"})


def _by_settings(loaded: Loaded) -> dict[str, Any]:
    """Models, the settings of these stages, and what runs them."""
    names = {"embedding model": loaded.settings.embed.model, "reranker": loaded.settings.rerank.model}
    return {
        **{role: resolve(name, quiet).fingerprint if name is not None else None for role, name in names.items()},
        "settings": _sections(loaded),
        "device": loaded.device,
    }


def shape(loaded: Loaded, version: index.IndexReader | index.CheckedVersion) -> dict[str, Any]:
    """Everything that shaped what a search found: the index to its last byte, models and settings."""
    manifest = json.dumps(asdict(version.manifest), sort_keys=True).encode()
    named = f"{version.name}/{version.version} {hashlib.sha256(manifest).hexdigest()}"
    return {VERSION: named, "version of rag": rag.__version__, **_by_settings(loaded)}


def kept_questions(loaded: Loaded) -> list[Entry[Hits]]:
    """What the file of the index's current version holds and isn't over, in order of its use. Raises `StaleCache` where it won't be
    used, and `IndexMissing` and `SearchIndexError` as `check_index` does."""
    path = cache_path(loaded)
    checked = index.check_current(index.versions_of(loaded.settings.index.name))
    if not path.exists():
        return []  # and no model is built to find that out
    memory = empty(loaded.settings.cache, checked.manifest.dimension)
    memory.join(load(path, shape(loaded, checked), checked.manifest.dimension))
    return memory.entries()
