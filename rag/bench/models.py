"""Where the models are that a benchmark measures."""

from __future__ import annotations

from pathlib import Path

from rag import build
from rag.progress import Report, quiet


def folder(name: str, revision: str | None = None, report: Report = quiet) -> Path:
    """A recipe is built at its first use. Raises `ModelError`."""
    store = build.model_store()
    if store.is_recipe(name):
        store.build(name, report)
    return store.resolve(name, revision).path
