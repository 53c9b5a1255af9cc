"""The reranker's scores made probabilities, on the development questions: then a threshold on them means something.

First how much the search's cosine and BM25 score count beside the model's logit, by the list-wise loss that the model was
trained with; the recipe says it, since these are another's. That loss leaves the sum's scale and zero open. Platt's
scaling puts both right without changing any order, and is folded into the head's weights, so that whoever runs the model
has it. The logits are those of the model as it runs, with its weights of 8 bits where OpenVINO is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag import bert, build, pairs, paths, questions
from rag.core import Trace
from rag.files import replacing_file
from rag.pairs import PairModel
from rag.progress import Progress, quiet
from rag.rerank import ScoreWeights, lexical_shares
from rag.stats import sigmoid
from rag.training import corpora

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

HEAD = ("classifier.weight", "classifier.bias")


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is known of a question's passages, shape (passages,) each: the model's logits, their cosines, their BM25 scores as
    shares of the best, and whether their documents answer."""

    logits: NDArray[np.float64]
    cosines: NDArray[np.float64]
    lexical: NDArray[np.float64]
    relevant: NDArray[np.bool_]

    def sums(self, weights: ScoreWeights) -> NDArray[np.float64]:
        """What the reranker makes of them."""
        return self.logits + weights.cosine * self.cosines + weights.lexical * self.lexical


def on_development(model: Path, adapter: Path, progress: Progress = quiet) -> tuple[str, ScoreWeights | None]:
    """Calibrate what an adapter file holds, by the model in the folder `model` that was built with it: what the record
    says of that, and the weights of the search's scores. The sample corpus is indexed where it isn't yet. Raises what searching it
    raises."""
    loaded = corpora.embedded(["rerank.model=null", f"index.name={build.SAMPLE}"])
    build.ensure_sample_index(loaded, progress)
    bert.convert(model)
    rerank = loaded.settings.rerank
    opened = pairs.open_pairs(model, loaded.device, rerank.max_length, rerank.batch_size)
    lists = development_lists(build.open_search(loaded), opened)
    weights = score_weights(lists)
    logits = np.concatenate([one.sums(weights) for one in lists])
    relevant = np.concatenate([one.relevant for one in lists])
    scale, shift = platt(logits, relevant)
    fold(adapter, scale, shift)
    read = f"{len(logits):,} passages found for dev_60, {int(relevant.sum())} of them relevant"
    sums = f"logits, {weights.cosine:.2f} times the cosine and {weights.lexical:.2f} times BM25's share of the best"
    said = f"on {read}: {sums}, together times {scale:.4f}, plus {shift:.4f}"
    return said, ScoreWeights(round(scale * weights.cosine, 2), round(scale * weights.lexical, 2))


def development_lists(search: build.Search, model: PairModel) -> list[Candidates]:
    """The candidates of each of dev_60's questions."""
    asked = questions.read(paths.shipped("eval", "dev_60.jsonl")).questions
    lists = []
    for one, hits in zip(asked, search.search([one.question for one in asked], Trace()), strict=True):
        logits = model.logits([(one.question, hit.passage.titled) for hit in hits])[:, 0].astype(np.float64)
        cosines = np.array([hit.dense for hit in hits], dtype=np.float64)
        relevant = np.array([hit.passage.doc_id in one.gold for hit in hits])
        lists.append(Candidates(logits, cosines, lexical_shares(hits), relevant))
    return lists


def score_weights(lists: Sequence[Candidates]) -> ScoreWeights:
    """How much the search's scores count beside a logit of 1, 0 for one that only harms: the ratios of the factors that make
    the list-wise cross-entropy least (ListNet, Cao et al. 2007), by Newton's method.

    Questions none of whose passages answers don't count. Raises `ValueError` where all are such.
    """
    some = [one for one in lists if one.relevant.any()]
    if not some:
        raise ValueError(f"none of {len(lists)} questions has a passage that answers")
    designs = [np.stack([one.logits, one.cosines, one.lexical], axis=1) for one in some]
    kept = [0, 1, 2]
    while True:
        factors = _list_wise([design[:, kept] for design in designs], [one.relevant for one in some])
        harmful = int(factors.argmin())
        if factors[harmful] >= 0 or kept[harmful] == 0:
            break
        del kept[harmful]
    if factors[0] <= 0:  # the model's own word is worth nothing: there is nothing to count beside
        return ScoreWeights()
    ratio = dict(zip(kept, (factors / factors[0]).tolist(), strict=True))
    return ScoreWeights(ratio.get(1, 0.0), ratio.get(2, 0.0))


def _list_wise(designs: Sequence[NDArray[np.float64]], relevant: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Factors of the columns that make the list-wise cross-entropy least."""
    pairs = list(zip(designs, relevant, strict=True))
    columns = designs[0].shape[1]

    def loss(factors: NDArray[np.float64]) -> float:
        scored = ((design @ factors, right) for design, right in pairs)
        return sum(float(np.logaddexp.reduce(scores) - scores[right].mean()) for scores, right in scored)

    def derivatives(factors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        gradient, curvature = np.zeros(columns), 1e-6 * np.eye(columns)
        for design, right in pairs:
            scores = design @ factors
            p = np.exp(scores - np.logaddexp.reduce(scores))
            mean = p @ design
            gradient += mean - design[right].mean(axis=0)
            curvature += (design * p[:, None]).T @ design - np.outer(mean, mean)
        return gradient, curvature

    return _least(loss, derivatives, np.eye(columns)[0], 1e-7 * len(pairs))


def platt(logits: ArrayLike, relevant: Sequence[bool] | NDArray[np.bool_]) -> tuple[float, float]:
    """(scale, shift) so that sigmoid(scale * logit + shift) is the probability of relevance.

    Platt 1999, with his targets, which keep a perfect separation finite; Newton's method, as in Lin, Lin and
    Weng 2007. Raises `ValueError` unless there are both relevant and other passages.
    """
    [scale], shift = logistic(np.asarray(logits, dtype=np.float64)[:, None], relevant)
    return scale, shift


def logistic(
    features: ArrayLike,
    positive: Sequence[bool] | NDArray[np.bool_],
    counts: ArrayLike = 1.0,
) -> tuple[list[float], float]:
    """(weights, shift) so that sigmoid(features @ weights + shift) is the probability of being positive; `features` has
    the shape (examples, features), and `counts` says how much each example counts. As `platt`, with more than one feature.
    Raises `ValueError` unless there are examples of both kinds."""
    x, good = np.asarray(features, dtype=np.float64), np.asarray(positive, dtype=bool)
    positives, negatives = int(good.sum()), int((~good).sum())
    if not positives or not negatives:
        raise ValueError(f"calibration needs examples of both kinds, got {positives} positive and {negatives} others")
    targets = np.where(good, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    much = np.broadcast_to(np.asarray(counts, dtype=np.float64), len(x))

    def loss(weights: NDArray[np.float64]) -> float:
        logits = design @ weights
        return float(np.sum(much * (np.logaddexp(0, logits) - targets * logits)))

    def derivatives(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        p = sigmoid(design @ weights)
        curvature = (design * (much * p * (1 - p))[:, None]).T @ design + 1e-10 * np.eye(len(weights))
        return design.T @ (much * (p - targets)), curvature

    start = np.array([*np.zeros(x.shape[1]), np.log(positives / negatives)])
    *weights, shift = _least(loss, derivatives, start, 1e-7 * len(x)).tolist()
    return weights, shift


def _least(
    loss: Callable[[NDArray[np.float64]], float],
    derivatives: Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]],
    start: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """Where a convex loss is least, by Newton's method in a trust region (Moré and Sorensen 1983); `derivatives` gives gradient and
    curvature. Ends where the gradient is shorter than `tolerance`."""
    from scipy.optimize import minimize

    found: NDArray[np.float64] = minimize(
        loss,
        start,
        method="trust-exact",
        jac=lambda at: derivatives(at)[0],
        hess=lambda at: derivatives(at)[1],
        options={"gtol": tolerance},
    ).x
    return found


def fold(adapter: Path, scale: float, shift: float) -> None:
    """Put the calibration into the head that an adapter file holds."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter)
    weight, bias = (tensors[name] for name in HEAD)
    tensors |= {HEAD[0]: weight * scale, HEAD[1]: bias * scale + shift}
    with replacing_file(adapter) as temporary:
        save_file(tensors, temporary)
