"""`rag bench cache`: how often the query cache is wrong and how often it serves, what a hit takes, and what it gains on a trace of
questions of which a few are asked again and again.

`pairs` judges pairs of questions that nothing was trained or calibrated on, `latency` times look-ups, `trace` asks the questions of a
trace by the pipeline with the cache and without, and `figures` computes from what they leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag import build, files, paths
from rag.bench import results
from rag.errors import UsageError
from rag.evaluate.runner import depends_on
from rag.progress import Progress
from rag.settings import Loaded
from rag.variants import running
from rag.variants.caching import latency, pairs, trace
from rag.variants.caching.figures import BENCH, summarise

__all__ = ["BENCH", "measure", "require_matcher", "summarise"]


def require_matcher(loaded: Loaded) -> None:
    """Raises `UsageError` where the settings name none: there would be nothing to measure."""
    if loaded.settings.cache.model is None:
        raise UsageError("cache.model is null: there is nothing to measure. Name one: --set cache.model=NAME.")


async def measure(
    loads: Mapping[str, Loaded],
    folder: Path,
    root: Path,
    traced: trace.Plan,
    command: str,
    progress: Progress,
    open_pipelines: running.Open = build.open_pipelines,
) -> None:
    """Take what samples there aren't yet of an earlier run with the same settings. `loads` are the settings without the cache
    ("plain") and with it ("cached"); `root` holds the datasets."""
    loaded = loads["cached"]
    matcher = build.open_matcher(loaded)
    assert matcher is not None
    pairs_sha256 = files.sha256(paths.shipped("eval", "paraphrases.jsonl"))
    settings: dict[str, Any] = {
        "variants": {name: depends_on(one, traced.questions, progress) for name, one in loads.items()},
        "questions": traced.questions.head,
        "pairs_sha256": pairs_sha256,
        "trace": traced.head,
        "entries": latency.ENTRIES,
        "min_same": matcher.min_same,
        "min_cosine": loaded.settings.cache.min_cosine,
    }
    samples = results.Samples(folder)
    taken = samples.resume(results.header(BENCH, command, settings=settings))
    pairs.measure(loaded, root, samples, taken, progress)
    latency.measure(loaded, root, samples, taken, progress)
    await trace.measure(loads, traced, samples, taken, progress, open_pipelines)
