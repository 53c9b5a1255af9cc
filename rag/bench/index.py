"""What an index costs, and what is lost by making it cheaper.

Passages are encoded in turn by the product's encoder and by sentence-transformers with its defaults, in FP32. What both make
of them is kept in `vectors/`, which git ignores, and searched with PubMedQA's questions: ours as the product does, the
reference's exactly. Then a large index is built and searched, and one of as many documents as were encoded is updated.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag import bert, build, files, paths
from rag.bench import Progress, articles, commands, models, provenance, results
from rag.core import Clock, Document, Passage, Trace
from rag.errors import UsageError
from rag.index import Versions, dense
from rag.ingest import chunk
from rag.metrics import ndcg, ranks, recall
from rag.settings import Device, Embed, Loaded
from rag.stats import Floats, ratio
from rag.training import corpora
from rag.training.datasets import Abstract

if TYPE_CHECKING:
    from rag.core import Encoder, Matrix

BENCH = "index"
K = 10
DEPTH = 50
"""Passages that are found for a question: the first `K` of their documents count for nDCG."""

BLOCK = 500
WARM_UP = 64
PAUSE = 0.05
"""Seconds before each timed run: threads of the one before it spin for a while."""

CHANGED = 100
SEED = 0
LARGE, UPDATED = "bench-jats-all", "bench-update"
VECTORS = "vectors"
SECTIONS = ("chunk", "embed", "index", "retrieve", "rerank")

OF_BLOCK, OF_QUESTION, OF_BUILD, OF_SEARCH, OF_UPDATE = "block", "question", "build", "search", "update"

Sample: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """`passages` of the articles are encoded, and updated; `largest` are in the one large index, all where it is None."""

    passages: int
    largest: int | None
    questions: int
    updates: int


class Float32Encoder:
    """sentence-transformers by its defaults, in FP32 whatever the weights are stored in."""

    def __init__(self, folder: Path, settings: Embed, device: Device) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._settings = settings
        self._model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        return self._encode([self._settings.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Matrix:
        return self._encode([self._settings.passage_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Matrix:
        return np.asarray(self._model.encode(texts, show_progress_bar=False), dtype=np.float32)


# --- samples -----------------------------------------------------------------------------------


def measure(loaded: Loaded, folder: Path, root: Path, sizes: Sizes, command: str, progress: Progress) -> None:
    """Take what samples there aren't yet of an earlier run with the same settings. `root` holds the datasets."""
    progress("reading the corpus")
    documents = articles.documents(root, sizes.passages)
    bench = _Run(loaded, folder, root, sizes, documents, progress)
    head = results.header(BENCH, command, settings=_depends_on(loaded, sizes, len(bench.passages)))
    bench.take(head)


class _Run:
    """One run of the benchmark: its parts share the corpus, the encoders and the samples."""

    def __init__(
        self, loaded: Loaded, folder: Path, root: Path, sizes: Sizes, documents: Sequence[Document], progress: Progress
    ) -> None:
        self.loaded, self.root, self.sizes, self.progress = loaded, root, sizes, progress
        self.documents = documents
        # Nobody asks what the articles answer: the documents that PubMedQA's questions are about have to be among them.
        self.passages = split([*documents, *corpora.pubmedqa(root)], loaded)
        self.samples = results.Samples(folder)
        self.vectors = results.unpublished(folder, VECTORS)
        self.asked = articles.questions(root, sizes.questions)
        self.encoder = build.open_encoder(loaded, progress)

    def take(self, head: Mapping[str, Any]) -> None:
        taken = self.samples.resume(head)
        of: dict[str, set[Any]] = {kind: set() for kind in (OF_BLOCK, OF_QUESTION, OF_BUILD, OF_SEARCH, OF_UPDATE)}
        for sample in taken:
            of[sample["kind"]].add(sample["id"])
        self._blocks_and_questions(of[OF_BLOCK], of[OF_QUESTION])
        self._large(of[OF_BUILD], of[OF_SEARCH])
        self._updates(of[OF_UPDATE])

    def _blocks_and_questions(self, blocks: set[int], questions: set[str]) -> None:
        left = [one for one in self.asked if one.id not in questions]
        total = -(-len(self.passages) // BLOCK)
        if not left and len(blocks) == total:
            return
        reference = Float32Encoder(self._model(), self.loaded.settings.embed, self.loaded.device)
        self._encode(reference, blocks, total)
        found = quality(self.loaded, self.encoder, reference, self.passages, *self._both(total), left)
        for number, sample in enumerate(found, start=len(self.asked) - len(left) + 1):
            self.samples.add({"kind": OF_QUESTION, **sample})
            self.progress("searching both", number, len(self.asked))

    def _encode(self, reference: Float32Encoder, known: set[int], total: int) -> None:
        """A block whose vectors have gone is encoded again, without counting twice."""
        left = [number for number in range(total) if number not in known or not self._path(number).is_file()]
        if left:
            warm_up = [passage.titled for passage in self.passages[:WARM_UP]]
            for one in (reference, self.encoder):
                one.encode_passages(warm_up)
        for done, number in enumerate(left, start=total - len(left)):
            self.progress("encoding by both", done, total)
            texts = [passage.titled for passage in self.passages[number * BLOCK : (number + 1) * BLOCK]]
            seconds, vectors = encode_both(self.encoder, reference, texts)
            with files.replacing_file(self._path(number)) as temporary, temporary.open("wb") as file:
                np.savez(file, ours=vectors["ours"], reference=vectors["reference"])
            if number not in known:
                self.samples.add({"kind": OF_BLOCK, "id": number, "passages": len(texts), **seconds})

    def _both(self, total: int) -> tuple[Matrix, Matrix]:
        """Vectors of all passages, ours and the reference's."""
        parts: dict[str, list[Matrix]] = {"ours": [], "reference": []}
        for number in range(total):
            with np.load(self._path(number), allow_pickle=False) as block:
                for name, vectors in parts.items():
                    vectors.append(block[name])
        return np.concatenate(parts["ours"]), np.concatenate(parts["reference"])

    def _path(self, number: int) -> Path:
        return self.vectors / f"{number:06d}.npz"

    def _model(self) -> Path:
        return models.folder(self.loaded.settings.embed.model)

    def _large(self, built: set[str], searched: set[str]) -> None:
        """In a process of its own, so that its memory is its own too."""
        large = corpora.named(self.loaded, LARGE)
        if not built:
            self.progress("building the large index")
            shutil.rmtree(_versions(large).root, ignore_errors=True)  # what a killed build has left would save time
            with tempfile.TemporaryDirectory() as scratch:
                documents = articles.documents(self.root, self.sizes.largest)
                path = corpora.write(Path(scratch, "articles.jsonl"), documents)
                ran = commands.run(commands.rag(self.loaded, "index", str(path), "--index", LARGE, "--json"))
            said = json.loads(ran.output)
            kept = {name: said[name] for name in ("seconds", "bytes", "documents", "passages", "dense")}
            self.samples.add({"kind": OF_BUILD, "id": LARGE, "peak": ran.peak, "process_seconds": ran.seconds, **kept})
        left = [one for one in self.asked if one.id not in searched]
        if not left:
            return
        self.progress("opening the large index")
        search = build.open_search(large)
        for number, sample in enumerate(searches(search, left), start=len(self.asked) - len(left) + 1):
            self.samples.add({"kind": OF_SEARCH, **sample})
            self.progress("searching the large index", number, len(self.asked))

    def _updates(self, known: set[int]) -> None:
        """On a copy, which goes again."""
        rounds = range(len(known), self.sizes.updates)
        if not rounds:
            return
        base = articles.index(self.loaded, self.root, self.sizes.passages, self.progress)
        copied = copy_index(base, UPDATED)
        try:
            for sample in updates(copied, self.documents, self.encoder, rounds):
                self.samples.add({"kind": OF_UPDATE, **sample})
                self.progress("updates", sample["id"] + 1, self.sizes.updates)
        finally:
            _versions(copied).remove()


def _depends_on(loaded: Loaded, sizes: Sizes, passages: int) -> dict[str, Any]:
    import torch

    reranker = loaded.settings.rerank.model
    encoder = models.folder(loaded.settings.embed.model)
    return {
        "documents": sizes.passages,
        "passages": passages,
        "largest": sizes.largest,
        "backend": bert.choose(encoder, loaded.device, loaded.settings.embed.backend),
        "torch_threads": torch.get_num_threads(),
        "encoder": provenance.weights(encoder),
        "reranker": provenance.weights(models.folder(reranker)) if reranker is not None else None,
        **{name: getattr(loaded.settings, name).model_dump(exclude={"name"}) for name in SECTIONS},
    }


def split(documents: Sequence[Document], loaded: Loaded) -> list[Passage]:
    settings = loaded.settings.chunk
    return [
        passage
        for document in documents
        for passage in chunk.split(document, settings.max_chars, settings.overlap_sentences)
    ]


def encode_both(
    ours: Encoder, reference: Float32Encoder, texts: Sequence[str], clock: Clock = time.perf_counter
) -> tuple[dict[str, float], dict[str, Matrix]]:
    """Seconds and vectors: the reference's, ours, and ours again for what two runs of the same differ by."""
    seconds: dict[str, float] = {}
    vectors: dict[str, Matrix] = {}
    encoders: dict[str, Encoder | Float32Encoder] = {"reference": reference, "ours": ours, "ours_again": ours}
    for name, encoder in encoders.items():
        time.sleep(PAUSE)
        began = clock()
        vectors[name] = encoder.encode_passages(texts)
        seconds[name] = clock() - began
    del vectors["ours_again"]
    return seconds, vectors


def quality(
    loaded: Loaded,
    encoder: Encoder,
    reference: Float32Encoder,
    passages: Sequence[Passage],
    ours: Matrix,
    theirs: Matrix,
    asked: Sequence[Abstract],
) -> Iterator[dict[str, Any]]:
    """For each question, how much of the reference's first `K` ours finds, by the index that the product has over so many
    passages and exactly; and where the document stands that the question is about."""
    with tempfile.TemporaryDirectory() as scratch:
        index = _dense_index(Path(scratch), ours, loaded)
        for paper in asked:
            vector, exact = encoder.encode_queries([paper.question])[0], reference.encode_queries([paper.question])[0]
            found = {
                "ours": [int(row) for row in index.search(vector[None], DEPTH)[1][0] if row >= 0],
                "exact": nearest(ours, vector),
                "reference": nearest(theirs, exact),
            }
            yield {
                "id": paper.id,
                "overlap": _overlap(found["ours"], found["reference"]),
                "overlap_exact": _overlap(found["exact"], found["reference"]),
                "ranks": {name: ranks(_documents(found[name], passages), [paper.id]) for name in ("ours", "reference")},
            }


def _dense_index(folder: Path, vectors: Matrix, loaded: Loaded) -> dense.DenseIndex:
    with dense.VectorWriter(folder) as writer:
        writer.add(vectors)
    kind = dense.write_graph(folder, loaded.settings.index)
    return dense.DenseIndex(folder, kind, loaded.settings.index, loaded.device)


def nearest(vectors: Matrix, vector: NDArray[np.float32]) -> list[int]:
    """The `DEPTH` rows with the highest cosines, best first."""
    order: list[int] = np.argsort(-(vectors @ vector), kind="stable")[:DEPTH].tolist()
    return order


def _overlap(found: Sequence[int], wanted: Sequence[int]) -> float:
    return recall(map(str, found[:K]), [str(row) for row in wanted[:K]])


def _documents(rows: Sequence[int], passages: Sequence[Passage]) -> list[str]:
    return list(dict.fromkeys(passages[row].doc_id for row in rows))


def searches(search: build.Search, asked: Sequence[Abstract]) -> Iterator[dict[str, Any]]:
    """Seconds of a search and of its stages, one question after the other."""
    for paper in asked:
        trace = Trace()
        search.search([paper.question], trace)
        times = trace.timings()
        yield {
            "id": paper.id,
            "total": times.total,
            "seconds": {name: getattr(times, name) for name in STAGES if getattr(times, name) is not None},
        }


STAGES = ("embed", "retrieve", "rerank")


def updates(
    copied: Loaded,
    documents: Sequence[Document],
    encoder: Encoder,
    rounds: Sequence[int],
    clock: Clock = time.monotonic,
) -> Iterator[dict[str, Any]]:
    """Seconds of an update of `CHANGED` documents and, before each, of encoding a `BLOCK` of passages: from those, what all
    of the index's would take. The documents of later rounds keep what earlier ones changed."""
    now = list(documents)
    with tempfile.TemporaryDirectory() as scratch:
        for number in rounds:
            chance = random.Random(f"{SEED}-{number}")
            chosen = chance.sample(range(len(now)), min(CHANGED, len(now)))
            for row in chosen:
                now[row] = replace(documents[row], text=f"{documents[row].text} It was revised in round {number}.")
            path = corpora.write(Path(scratch, "articles.jsonl"), now)
            block = [p.titled for p in split(chance.sample(list(documents), min(BLOCK, len(documents))), copied)]
            time.sleep(PAUSE)
            began = clock()
            encoder.encode_passages(block)
            block_seconds = clock() - began
            steps = Steps(clock)
            built = build.build_index(copied, [path], build.Progress(step=steps))
            yield {
                "id": number,
                "changed": built.changes.changed,
                "seconds": built.seconds,
                "steps": steps.seconds(),
                "passages": built.manifest.passages,
                "dense": built.manifest.dense,
                "block": len(block),
                "block_seconds": block_seconds,
            }


class Steps:
    """Told the steps of a build as they begin; a model's are among them where one is built first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: list[tuple[str, float]] = []

    def __call__(self, what: str) -> None:
        self._begun.append((what, self._clock()))

    def seconds(self) -> dict[str, float]:
        """Of each until the next; the last until now."""
        ends = [*(began for _, began in self._begun[1:]), self._clock()]
        return {what: end - began for (what, began), end in zip(self._begun, ends, strict=True)}


def copy_index(loaded: Loaded, name: str) -> Loaded:
    """The settings with a copy of their index, which takes the place of another of that name."""
    copied = corpora.named(loaded, name)
    target = _versions(copied).root
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(_versions(loaded).root, target)
    return copied


def _versions(loaded: Loaded) -> Versions:
    return Versions(paths.indexes_dir(), loaded.settings.index.name)


# --- figures -----------------------------------------------------------------------------------


def summarise(folder: Path) -> list[results.Figure]:
    """Figures from the samples on disk. Raises `UsageError` where there are none."""
    head, samples = results.Samples(folder).read()
    if not samples:
        raise UsageError(f"No samples in {folder / results.SAMPLES}: run the benchmark, without --report-only.")
    figures = results.Figures()
    parts: dict[str, Callable[[results.Figures, Sequence[Sample]], None]] = {
        OF_BLOCK: _of_blocks,
        OF_QUESTION: _of_questions,
        OF_BUILD: _of_build,
        OF_SEARCH: _of_searches,
        OF_UPDATE: _of_updates,
    }
    of = {kind: [sample for sample in samples if sample["kind"] == kind] for kind in parts}
    for kind, add in parts.items():
        if of[kind]:
            add(figures, of[kind])
    results.write(folder, head, figures.all, [*_notes(head, of), *figures.notes])
    return figures.all


def _of_blocks(figures: results.Figures, blocks: Sequence[Sample]) -> None:
    figures.add("index_build_speedup", _columns(blocks, "reference", "ours"), ratio(), "ratio", at_least=3)
    figures.add("ours_over_ours", _columns(blocks, "ours", "ours_again"), ratio(), "ratio")
    figures.add("passages_per_s_ours", _columns(blocks, "passages", "ours"), ratio(), "1/s")
    figures.add("passages_per_s_reference", _columns(blocks, "passages", "reference"), ratio(), "1/s")


def _columns(samples: Sequence[Sample], *names: str) -> list[tuple[float, ...]]:
    return [tuple(sample[name] for name in names) for sample in samples]


def _of_questions(figures: results.Figures, asked: Sequence[Sample]) -> None:
    figures.add("recall_at_10_vs_reference", [s["overlap"] for s in asked], np.mean, "share", at_least=0.97)
    figures.add("recall_at_10_exact", [s["overlap_exact"] for s in asked], np.mean, "share")
    quality = {name: [ndcg(s["ranks"][name], 1, K) for s in asked] for name in ("ours", "reference")}
    for name, values in quality.items():
        figures.add(f"ndcg_{name}", values, np.mean, f"nDCG@{K}")
    figures.add("ndcg_over_reference", list(zip(*quality.values(), strict=True)), ratio(), "ratio")


def _of_build(figures: results.Figures, builds: Sequence[Sample]) -> None:
    figures.add("build_passages", [s["passages"] for s in builds], np.median, "passages")
    figures.add("build_s", [s["seconds"] for s in builds], np.median, "s")
    figures.add("build_size_mb", [s["bytes"] / 1e6 for s in builds], np.median, "MB")
    figures.add("build_peak_mb", [s["peak"] / 1e6 for s in builds if s["peak"] is not None], np.median, "MB")


def _of_searches(figures: results.Figures, searched: Sequence[Sample]) -> None:
    figures.add("search_p50_ms", [1000 * s["total"] for s in searched], np.median, "ms")
    for stage in STAGES:
        times = [1000 * s["seconds"][stage] for s in searched if stage in s["seconds"]]
        if times:
            figures.add(f"search_{stage}_p50_ms", times, np.median, "ms")


def _of_updates(figures: results.Figures, updated: Sequence[Sample]) -> None:
    figures.add("update_over_build", [over_build(s) for s in updated], _mean, "ratio", at_most=0.03)
    figures.add("update_s", [s["seconds"] for s in updated], np.median, "s")


def over_build(update: Sample) -> float:
    """An update's seconds over those that encoding all passages of the index takes."""
    per_passage: float = update["block_seconds"] / update["block"]
    return float(update["seconds"] / (per_passage * update["passages"]))


def _mean(rows: Floats, axis: int) -> Floats:
    found: Floats = np.mean(rows, axis=axis)
    return found


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
