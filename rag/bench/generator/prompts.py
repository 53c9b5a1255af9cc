"""The held-out prompts, and where the datasets' text is kept."""

from __future__ import annotations

from pathlib import Path

from rag.bench import SEED, results
from rag.progress import Progress
from rag.training import datasets, examples, found, mixture
from rag.training.grounded import Example

TEXTS = "texts"


def held_out(folder: Path, root: Path | None, index: str | None, count: int, progress: Progress) -> list[Example]:
    """The prompts, made once: they stay in `folder`, beside the answers. `root` holds the datasets; see `found.medquad`
    for `index`. Raises `UsageError` where prompts have to be made and the datasets aren't there."""
    path = texts_folder(folder) / f"prompts-{count}-{SEED}.jsonl"
    if not path.is_file():
        root = datasets.folder(root)
        search = found.medquad(root, index, mixture.CANDIDATES, progress)
        progress("making prompts")
        examples.write(path, mixture.Mixture(root, search).measured(count, SEED))
    return examples.read(path, Example)


def texts_folder(folder: Path) -> Path:
    """Beside the samples: git ignores it."""
    return results.unpublished(folder, TEXTS)
