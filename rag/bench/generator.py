"""How well the generator answers from passages: does it quote the right ones, cite them, and decline where none answers?

Held-out prompts of `rag.training.mixture`: questions of MedQuAD's NINDS and NHLBI over 3 to 5 passages of all of it. The
engine that the settings name answers them, several at once and greedily; it declines as in the product, by its word and by
what the reranker says of the passages. The datasets' text isn't ours to publish: it
goes to `texts/`, which git ignores, and the samples hold ids, markers and scores.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from rag import build, files, metrics, paths, prompt
from rag.abstain import Confidence, Weighing, weighed
from rag.bench import Progress, grounding, provenance, results
from rag.bench.results import Figure
from rag.core import GenerationParams, GenerationStats, Generator
from rag.engine import spec
from rag.errors import UsageError
from rag.settings import Loaded
from rag.stats import bootstrap, bootstrap_clusters, ratio
from rag.training import abstention, datasets, examples, found, loop, mixture
from rag.training.grounded import Example

BENCH = "generator"
SEED = 0
MAX_TOKENS = 192
"""Of an answer: three sentences and some room; one that reaches it is counted as truncated."""

TEXTS = "texts"
CURVE_ROWS = 12

Sample = Mapping[str, Any]

OF_A_MODEL = {"model", "revision", "vocab_size", "quantized", "max_tokens"}
"""Settings of the generator that say which one, or that don't hold here."""


# --- prompts -----------------------------------------------------------------------------------


def held_out(folder: Path, root: Path | None, index: str | None, count: int, progress: Progress) -> list[Example]:
    """The prompts, made once: they stay in `folder`, beside the answers. `root` holds the datasets; see `found.medquad`
    for `index`. Raises `UsageError` where prompts have to be made and the datasets aren't there."""
    path = _texts(folder) / f"prompts-{count}-{SEED}.jsonl"
    if not path.is_file():
        root = datasets.folder(root)
        search = found.medquad(root, index, mixture.CANDIDATES, lambda what: progress(what))
        progress("making prompts")
        examples.write(path, mixture.Mixture(root, search).measured(count, SEED))
    return examples.read(path, Example)


def _texts(folder: Path) -> Path:
    return results.unpublished(folder, TEXTS)


# --- samples -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that is measured; `weights` tell two of the same name apart. A `base` stands beside the measured one."""

    loaded: Loaded
    name: str
    weights: str
    base: bool

    def took(self, sample: Sample) -> bool:
        return (sample["model"], sample["weights"], sample["base"]) == (self.name, self.weights, self.base)


def models(loads: Sequence[Loaded], report: build.Report = build.quiet) -> list[Asked]:
    """The models that the settings name, the measured one first. Raises `UsageError` where two of them are the same."""
    store = build.model_store()
    asked: list[Asked] = []
    for loaded in loads:
        name = spec.plan(loaded).model
        if name in [one.name for one in asked]:
            raise UsageError(f"{name} is named twice: the first --model is measured, others stand beside it.")
        if store.is_recipe(name):
            store.build(name, report)
        digests = provenance.weights(store.resolve(name, loaded.settings.generator.revision).path)
        asked.append(Asked(loaded, name, sha256(json.dumps(digests).encode()).hexdigest()[:12], base=len(asked) > 0))
    return asked


async def measure(
    asked: Sequence[Asked], folder: Path, prompts: Sequence[Example], command: str, progress: Progress
) -> None:
    """Take a sample a prompt and model; those of an earlier run with the same prompts, settings and weights stay."""
    samples = results.Samples(folder)
    head = results.header(BENCH, command, settings=_depends_on(asked[0].loaded, prompts))
    taken = _without_stale(samples, samples.resume(head), head, asked)
    for one in asked:
        known = {sample["id"] for sample in taken if one.took(sample)}
        left = [example for example in prompts if example.id not in known]
        if not left:
            continue
        count = len(known)

        def finished(example: Example, answered: Answered, one: Asked = one) -> None:
            nonlocal count
            _add_text(folder, one, example, answered.text)
            samples.add({**_of(one), **sample_of(example, answered)})
            count += 1
            progress(f"answers of {one.name}", count, len(prompts))

        declining = open_declining(one.loaded)
        async with build.open_generator(one.loaded, lambda what: progress(what)) as generator:
            progress(f"answers of {one.name}", count, len(prompts))
            await ask(generator, left, one.loaded.settings.generator.max_num_seqs, finished, declining)


@dataclass(frozen=True, slots=True)
class Declining:
    """How the product decides that the sources don't answer; `judged` scores an example's passages as a search does."""

    weighing: Weighing
    judged: abstention.Judge


def open_declining(loaded: Loaded) -> Declining | None:
    """None where the generator's word alone decides."""
    weighing = build.weighing(loaded.settings)
    return Declining(weighing, abstention.open_judge(loaded)) if weighing is not None else None


def _depends_on(loaded: Loaded, prompts: Sequence[Example]) -> dict[str, Any]:
    text = "".join(json.dumps(asdict(example)) for example in prompts)
    return {
        "prompts": {"count": len(prompts), "seed": SEED, "sha256": sha256(text.encode()).hexdigest()},
        "max_tokens": MAX_TOKENS,
        "generator": loaded.settings.generator.model_dump(mode="json", exclude=OF_A_MODEL),
        "abstain": _declines_by(loaded),
    }


def _declines_by(loaded: Loaded) -> dict[str, Any] | None:
    weighing, reranker = build.weighing(loaded.settings), loaded.settings.rerank.model
    if weighing is None or reranker is None:
        return None
    return {
        "weighing": asdict(weighing),
        "reranker": provenance.weights(build.model_store().build(reranker)),
    }


def _without_stale(
    samples: results.Samples, taken: Sequence[Sample], head: Mapping[str, Any], asked: Sequence[Asked]
) -> list[Sample]:
    """There is one measured model, and one set of weights a name: samples of others go as these are taken."""

    def stale(sample: Sample) -> bool:
        rivals = [one for one in asked if (not one.base and not sample["base"]) or one.name == sample["model"]]
        return bool(rivals) and not any(one.took(sample) for one in rivals)

    fresh = [sample for sample in taken if not stale(sample)]
    if len(fresh) < len(taken):
        samples.replace(head, fresh)
    return fresh


def _of(one: Asked) -> dict[str, Any]:
    return {"model": one.name, "weights": one.weights, "base": one.base}


def _add_text(folder: Path, one: Asked, example: Example, answer: str) -> None:
    row = {**_of(one), "id": example.id, "kind": example.kind, "question": example.question}
    with (_texts(folder) / "texts.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "gold": example.gold, "reference": example.answer, "answer": answer}) + "\n")


@dataclass(frozen=True, slots=True)
class Answered:
    """`confidence` that the sources answer; None where it isn't weighed."""

    text: str
    stats: GenerationStats
    confidence: float | None = None


async def ask(
    generator: Generator,
    prompts: Sequence[Example],
    at_once: int,
    finished: Callable[[Example, Answered], None],
    declining: Declining | None = None,
) -> None:
    """Answer the prompts, `at_once` of them at a time; `finished` is told of each as it ends. Raises what the engine does."""
    waiting = iter(prompts)  # one for all: each worker takes the next

    async def work() -> None:
        for example in waiting:
            finished(example, await _answer(generator, example, declining))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _answer(generator: Generator, example: Example, declining: Declining | None) -> Answered:
    sources = await asyncio.to_thread(declining.judged, example) if declining is not None else example.sources
    weighing = declining.weighing if declining is not None else None
    text, stats, confidence = "", GenerationStats(0), None
    params = GenerationParams(MAX_TOKENS)
    stream = weighed(generator, example.messages, params, sources, prompt.NOT_IN_SOURCES, weighing)
    async with aclosing(stream) as items:
        async for item in items:
            if isinstance(item, GenerationStats):
                stats = item
            elif isinstance(item, Confidence):
                confidence = item.value
            else:
                text += item
    return Answered(text, stats, confidence)


def sample_of(example: Example, answered: Answered) -> dict[str, Any]:
    """No text in it."""
    answer, stats = answered.text, answered.stats
    score = grounding.score(answer, stats.finish_reason == "length", example.answer, example.gold, example.sources)
    return {
        "id": example.id,
        "kind": example.kind,
        "passages": len(example.passages),
        "gold": list(example.gold),
        **asdict(score),
        "markers": list(score.markers),
        "confidence": answered.confidence,
        "finish_reason": stats.finish_reason,
        "prompt_tokens": stats.prompt_tokens,
        "output_tokens": stats.output_tokens,
    }


# --- figures -----------------------------------------------------------------------------------


def keep_curve(folder: Path, curve: Path | None, model: str) -> None:
    """Copy a training's losses beside the samples: `curve`, else what `model`'s recipe has of them, else none. Raises
    `UsageError` where a named one isn't there."""
    source = curve if curve is not None else paths.shipped("data", "models", model, loop.CURVE)
    if source.is_file():
        with files.replacing_file(folder / loop.CURVE) as path:
            shutil.copyfile(source, path)
    elif curve is not None:
        raise UsageError(f"--curve {curve}: no such file. A training writes it into its folder.")
    else:
        (folder / loop.CURVE).unlink(missing_ok=True)


def summarise(folder: Path) -> list[Figure]:
    """Figures from the samples on disk, those of the bases after those of the measured model."""
    head, samples = results.Samples(folder).read()
    groups: dict[tuple[bool, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample["base"], sample["model"]), []).append(sample)
    if not groups:
        raise UsageError(f"No answers in {folder / results.SAMPLES}: run the benchmark, without --report-only.")
    bases = [name for base, name in groups if base]
    figures, notes = [], [NOTE, ""]
    for (base, name), some in sorted(groups.items(), key=lambda group: group[0][0]):
        prefix = "" if not base else "base_" if len(bases) == 1 else f"base_{name}_"
        taken, missing = _figures(some, prefix, goals=not base)
        figures += taken
        notes += [f"## {name}{' (base)' if base else ''}", "", *_unfinished(some, head), *missing, *_table(some), ""]
    curve = folder / loop.CURVE
    if curve.is_file():
        notes += ["## Training", "", *curve_table(loop.read_curve(curve))]
    results.write(folder, head, figures, notes)
    return figures


NOTE = (
    "`citation_exact`: of the prompts that hold an answer, those whose answer carries exactly the markers that it should. "
    "`token_f1`: their words against the reference's, as SQuAD counts; a refusal has 0. `abstention_recall`: of the prompts "
    "without an answer, those declined; `abstention_precision`: of those declined, the ones without an answer. "
    "`confidence_auroc`: how well the probability that a passage answers tells the two kinds of prompts apart. "
    "`supported_sentences`: of the sentences of all answers given, those of which one cited passage, with its title, holds "
    f"every number and at least {grounding.MIN_SHARE:.0%} of the content words. A sentence that was cut at {MAX_TOKENS} tokens "
    "is left out, as a user doesn't see it. Intervals: bootstrap over prompts."
)


def _figures(samples: Sequence[Sample], prefix: str, goals: bool) -> tuple[list[Figure], list[str]]:
    """And what is said of those that there is nothing to take from."""
    answerable = [sample for sample in samples if sample["gold"]]
    declined = [sample for sample in samples if sample["declined"]]
    rows: list[tuple[str, Sequence[Any], Callable[..., Any], str, float | None]] = [
        ("citation_exact", _column(answerable, "citation_exact"), np.mean, "share", 0.75),
        ("token_f1", _column(answerable, "token_f1"), np.mean, "F1", 0.60),
        ("abstention_recall", [float(s["declined"]) for s in samples if not s["gold"]], np.mean, "share", 0.80),
        ("abstention_precision", [float(not s["gold"]) for s in declined], np.mean, "share", 0.80),
        ("supported_sentences", _sentences(samples), ratio(np.sum), "share", 0.95),
        ("truncated", [float(s["finish_reason"] == "length") for s in samples], np.mean, "share", None),
        ("invalid_markers", _column(samples, "invalid_markers"), np.mean, "a prompt", None),
    ]
    figures = [
        results.figure(f"{prefix}{name}", bootstrap(values, statistic), unit, at_least=goal if goals else None)
        for name, values, statistic, unit, goal in rows
        if values
    ]
    sure = [
        (float(sample["confidence"]), bool(sample["gold"])) for sample in samples if sample["confidence"] is not None
    ]
    if sure:
        values, holds = zip(*sure, strict=True)
        auroc = bootstrap_clusters(range(len(sure)), lambda weights: metrics.auroc(values, holds, weights))
        figures.append(results.figure(f"{prefix}confidence_auroc", auroc, "area"))
    return figures, [
        f"No `{prefix}{name}`: there was nothing to take it from.\n" for name, values, *_ in rows if not values
    ]


def _column(samples: Sequence[Sample], name: str) -> list[float]:
    return [float(sample[name]) for sample in samples]


def _sentences(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """(supported, all) of each answer that has any."""
    return [(sample["supported"], sample["sentences"]) for sample in samples if sample["sentences"]]


def _unfinished(samples: Sequence[Sample], head: Mapping[str, Any]) -> list[str]:
    count = head["settings"]["prompts"]["count"]
    return [f"**{len(samples)} of {count} prompts: the run isn't finished.**\n"] if len(samples) < count else []


def _table(samples: Sequence[Sample]) -> list[str]:
    """By whether the prompt holds an answer, and by how many passages."""
    groups = {"with an answer": [s for s in samples if s["gold"]], "without one": [s for s in samples if not s["gold"]]}
    for count in sorted({sample["passages"] for sample in samples}):
        groups[f"{count} passages"] = [sample for sample in samples if sample["passages"] == count]
    rows = [
        "| prompts | n | citation exact | token F1 | declined | supported sentences | truncated | invalid markers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, some in groups.items():
        answerable = [sample for sample in some if sample["gold"]]
        supported, sentences = (
            (sum(column) for column in zip(*_sentences(some), strict=True)) if _sentences(some) else (0, 0)
        )
        cells = [
            _mean(_column(answerable, "citation_exact")),
            _mean(_column(answerable, "token_f1")),
            _mean(_column(some, "declined")),
            f"{supported} of {sentences}",
            str(sum(sample["finish_reason"] == "length" for sample in some)),
            str(sum(sample["invalid_markers"] for sample in some)),
        ]
        rows.append(f"| {name} | {len(some)} | {' | '.join(cells)} |")
    return rows


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else ""


def curve_table(curve: Sequence[Mapping[str, float]]) -> list[str]:
    """The held-out loss over the examples seen, and the mean training loss since the row before; `CURVE_ROWS` rows."""
    held = [number for number, entry in enumerate(curve) if "eval_loss" in entry]
    keep = sorted({held[round(at)] for at in np.linspace(0, len(held) - 1, min(CURVE_ROWS, len(held)))}) if held else []
    rows = ["| examples | loss | held-out loss |", "|---|---|---|"]
    before = 0
    for number in keep:
        losses = [entry["loss"] for entry in curve[before : number + 1] if "loss" in entry]
        rows.append(f"| {curve[number]['examples']:,.0f} | {_mean(losses)} | {curve[number]['eval_loss']:.3f} |")
        before = number + 1
    return rows
