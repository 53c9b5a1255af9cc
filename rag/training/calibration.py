"""The reranker's logits made probabilities, on the development questions: then a threshold on them means something.

A list-wise loss leaves the logits' scale and zero open. Platt's scaling puts both right without changing any
order, and is folded into the head's weights, so that whoever runs the model has it. The logits are those of the
model as it runs, with its weights of 8 bits where OpenVINO is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag import build, pairs, paths, settings
from rag.core import Trace
from rag.files import replacing_file
from rag.pairs import PairModel

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

HEAD = ("classifier.weight", "classifier.bias")


def on_development(model: Path, adapter: Path, report: build.Report = build.quiet) -> str:
    """Calibrate what an adapter file holds, by the model in the folder `model` that was built with it; a line for the
    record. The sample corpus is indexed where it isn't yet. Raises what searching it raises."""
    loaded = settings.load(assignments=["rerank.model=null", f"index.name={build.SAMPLE}"])
    build.ensure_sample_index(loaded, build.Progress(step=report))
    pairs.convert(model)
    rerank = loaded.settings.rerank
    opened = pairs.open_pairs(model, loaded.device, rerank.max_length, rerank.batch_size)
    logits, relevant = development_pairs(build.open_search(loaded), opened)
    scale, shift = platt(logits, relevant)
    fold(adapter, scale, shift)
    read = f"{len(logits):,} passages found for dev_60, {int(relevant.sum())} of them relevant"
    return f"Platt scaling on {read}: logits times {scale:.4f}, plus {shift:.4f}"


def development_pairs(search: build.Search, model: PairModel) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Logits of every candidate passage of dev_60's questions, and whether its document is one that answers."""
    rows: list[Mapping[str, Any]] = [
        json.loads(line) for line in paths.shipped("eval", "dev_60.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    logits: list[float] = []
    relevant: list[bool] = []
    for row, hits in zip(rows, search.search([row["question"] for row in rows], Trace()), strict=True):
        scores = model.logits([(row["question"], hit.passage.titled) for hit in hits])
        logits += scores[:, 0].tolist()
        relevant += [hit.passage.doc_id in row["gold_doc_ids"] for hit in hits]
    return np.asarray(logits, dtype=np.float64), np.asarray(relevant)


def platt(logits: ArrayLike, relevant: Sequence[bool] | NDArray[np.bool_], rounds: int = 50) -> tuple[float, float]:
    """(scale, shift) so that sigmoid(scale * logit + shift) is the probability of relevance.

    Platt 1999, with his targets, which keep a perfect separation finite; Newton's method, as in Lin, Lin and
    Weng 2007. Raises `ValueError` unless there are both relevant and other passages.
    """
    x, good = np.asarray(logits, dtype=np.float64), np.asarray(relevant, dtype=bool)
    positives, negatives = int(good.sum()), int((~good).sum())
    if not positives or not negatives:
        raise ValueError(f"calibration needs passages of both kinds, got {positives} relevant and {negatives} others")
    targets = np.where(good, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights = np.array([0.0, np.log(positives / negatives)])
    loss = _cross_entropy(design @ weights, targets)
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (p - targets)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-10 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while _cross_entropy(design @ (weights - length * step), targets) > loss and length > 1e-8:
            length /= 2
        weights = weights - length * step
        loss = _cross_entropy(design @ weights, targets)
        if np.abs(gradient).max() < 1e-7 * len(x):
            break
    return float(weights[0]), float(weights[1])


def fold(adapter: Path, scale: float, shift: float) -> None:
    """Put the calibration into the head that an adapter file holds."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter)
    weight, bias = (tensors[name] for name in HEAD)
    tensors |= {HEAD[0]: weight * scale, HEAD[1]: bias * scale + shift}
    with replacing_file(adapter) as temporary:
        save_file(tensors, temporary)


def _cross_entropy(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return float(np.sum(np.logaddexp(0, logits) - targets * logits))
