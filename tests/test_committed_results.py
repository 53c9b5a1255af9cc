"""What is committed under eval/results follows from the samples that are committed beside it."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from rag.bench import results, soak

ROOT = Path(__file__).parents[1] / "eval" / "results"
SUMMARISING = {
    **{
        name: f"rag.bench.{name}"
        for name in ("generator", "index", "reranker", "retrieval", "serve", "start", "support")
    },
    **{name: f"rag.variants.{name}" for name in ("breakdown", "engines", "sweep")},
    "batch": "rag.variants.batching",
    "cache": "rag.variants.caching",
    "eval": "rag.evaluate",
    "soak": "rag.bench.soak",
}
SAMPLES = (results.SAMPLES, soak.SAMPLES)
FILES = sorted(path.relative_to(ROOT) for name in SAMPLES for path in ROOT.glob(f"*/**/{name}"))


def test_there_are_committed_results() -> None:
    assert len(FILES) > 10


@pytest.mark.parametrize("samples", FILES, ids=str)
def test_a_report_is_computed_again_from_its_samples(samples: Path, tmp_path: Path) -> None:
    committed, again = ROOT / samples.parent, tmp_path / "again"
    again.mkdir()
    for path in committed.iterdir():
        if path.is_file():  # folders are scratch that git ignores
            shutil.copy(path, again)
    bench = json.loads((again / samples.name).open(encoding="utf-8").readline())["bench"]
    import_module(SUMMARISING[bench]).summarise(again)
    for path in again.iterdir():
        assert content(path) == content(committed / path.name), path.name


def content(path: Path) -> object:
    """To the byte; but for floats of JSON, whose last digits may be another CPU's."""
    if path.suffix != ".json":
        return path.read_bytes()
    return json.loads(path.read_text(encoding="utf-8"), parse_float=lambda digits: f"{float(digits):.9g}")
