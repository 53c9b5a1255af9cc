"""Computes the figures of an index, and what the report says of them, from the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag.bench import results
from rag.bench.index.comparing import K
from rag.bench.index.encoding import BLOCK
from rag.bench.index.large import STAGES
from rag.bench.index.samples import BENCH, KINDS, OF_BLOCK, OF_BUILD, OF_QUESTION, OF_SEARCH, OF_UPDATE
from rag.bench.results import Figures, Sample, columns
from rag.figures import Figure
from rag.metrics import ranked_at
from rag.stats import ratio


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk. Raises `UsageError` where there are none."""
    head, samples = results.Samples(folder).of(BENCH)
    if not samples:
        raise results.lacking("samples", folder / results.SAMPLES)
    figures = Figures()
    parts: dict[str, Callable[[Figures, Sequence[Sample]], None]] = {
        OF_BLOCK: _of_blocks,
        OF_QUESTION: _of_questions,
        OF_BUILD: _of_build,
        OF_SEARCH: _of_searches,
        OF_UPDATE: _of_updates,
    }
    of = results.by_kind(samples, KINDS)
    for kind, add in parts.items():
        if of[kind]:
            add(figures, of[kind])
    results.write(folder, head, figures.all, [*_notes(head, of), *figures.notes])
    return figures.all


def _of_blocks(figures: Figures, blocks: Sequence[Sample]) -> None:
    figures.add("index_build_speedup", columns(blocks, "reference", "ours"), ratio(), "ratio", at_least=3)
    figures.add("ours_over_ours", columns(blocks, "ours", "ours_again"), ratio(), "ratio")
    figures.add("passages_per_s_ours", columns(blocks, "passages", "ours"), ratio(), "1/s")
    figures.add("passages_per_s_reference", columns(blocks, "passages", "reference"), ratio(), "1/s")


def _of_questions(figures: Figures, asked: Sequence[Sample]) -> None:
    figures.add("recall_at_10_vs_reference", [s["overlap"] for s in asked], np.mean, "share", at_least=0.97)
    figures.add("recall_at_10_exact", [s["overlap_exact"] for s in asked], np.mean, "share")
    ndcg = f"nDCG@{K}"
    quality = {name: [ranked_at(s["ranks"][name], 1, ndcg) for s in asked] for name in ("ours", "reference")}
    for name, values in quality.items():
        figures.add(f"ndcg_{name}", values, np.mean, ndcg)
    figures.add("ndcg_over_reference", list(zip(*quality.values(), strict=True)), ratio(), "ratio")


def _of_build(figures: Figures, builds: Sequence[Sample]) -> None:
    figures.add("build_passages", [s["passages"] for s in builds], np.median, "passages")
    figures.add("build_s", [s["seconds"] for s in builds], np.median, "s")
    figures.add("build_size_mb", [s["bytes"] / 1e6 for s in builds], np.median, "MB")
    figures.add("build_peak_mb", [s["peak"] / 1e6 for s in builds if s["peak"] is not None], np.median, "MB")


def _of_searches(figures: Figures, searched: Sequence[Sample]) -> None:
    figures.ms("search_p50_ms", [s["total"] for s in searched])
    for stage in STAGES:
        times = [s["seconds"][stage] for s in searched if stage in s["seconds"]]
        if times:
            figures.ms(f"search_{stage}_p50_ms", times)


def _of_updates(figures: Figures, updated: Sequence[Sample]) -> None:
    figures.add("update_over_build", [over_build(s) for s in updated], np.mean, "ratio", at_most=0.03)
    figures.add("update_s", [s["seconds"] for s in updated], np.median, "s")


def over_build(update: Sample) -> float:
    """An update's seconds over those that encoding all passages of the index takes."""
    per_passage: float = update["block_seconds"] / update["block"]
    return float(update["seconds"] / (per_passage * update["passages"]))


def _notes(head: Mapping[str, Any], of: Mapping[str, Sequence[Sample]]) -> list[str]:
    settings = head["settings"]
    notes = [
        f"{settings['passages']:,} passages of the open articles and of PubMedQA, in blocks of {BLOCK}: "
        f"sentence-transformers' `encode` by its defaults (FP32, {settings['torch_threads']} threads), then the product's "
        f"encoder on {settings['backend']}, twice; `ours_over_ours` is what two runs of the same show. Bootstrap over blocks.",
        "",
        "`recall_at_10_vs_reference`: of the ten passages whose FP32 vectors are nearest to a question's, the share that the "
        "product's dense index finds among its ten; `recall_at_10_exact` searches our vectors exactly, so what lies between "
        "the two is the graph's. nDCG: over documents, one answers. Bootstrap over questions.",
    ]
    for built in of[OF_BUILD]:
        notes += [
            "",
            f"`build_*`: one `rag index` of {built['documents']:,} documents ({built['passages']:,} passages, "
            f"{built['dense']}), a process of its own; the peak is its VmHWM. `search_*`: a question at a time, warm.",
        ]
    if of[OF_UPDATE]:
        first = of[OF_UPDATE][0]
        times = {step: float(np.median([s["steps"].get(step, 0.0) for s in of[OF_UPDATE]])) for step in first["steps"]}
        notes += [
            "",
            f"`update_over_build`: all of `build_index` with {first['changed']} changed documents among {first['passages']:,} "
            f"passages ({first['dense']}), over the time that encoding all passages takes by a block of {first['block']} "
            f"encoded before each. Median seconds of its steps: {', '.join(f'{k} {v:.2f}' for k, v in times.items())}.",
        ]
    return notes
