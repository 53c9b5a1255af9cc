"""Takes the samples of an index: those that an earlier run with the same settings took stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag import bert, build
from rag.bench import articles, provenance, results
from rag.bench.index.comparing import quality
from rag.bench.index.encoding import Blocks, Float32Encoder, encode
from rag.bench.index.large import build_large, open_large, searches
from rag.bench.index.updating import copy_of, updates
from rag.bench.results import Sample
from rag.core import Document, Passage
from rag.progress import Progress
from rag.settings import Loaded
from rag.training import corpora
from rag.training.datasets import Abstract

if TYPE_CHECKING:
    from rag.core import Encoder

BENCH = "index"
SECTIONS = ("chunk", "embed", "index", "retrieve", "rerank")

OF_BLOCK, OF_QUESTION, OF_BUILD, OF_SEARCH, OF_UPDATE = "block", "question", "build", "search", "update"
KINDS = (OF_BLOCK, OF_QUESTION, OF_BUILD, OF_SEARCH, OF_UPDATE)


@dataclass(frozen=True, slots=True)
class Sizes:
    """`passages` of the articles are encoded, and updated; `largest` are in the one large index, all where it is None."""

    passages: int
    largest: int | None
    questions: int
    updates: int


def measure(loaded: Loaded, folder: Path, root: Path, sizes: Sizes, command: str, progress: Progress) -> None:
    """Take what samples there aren't yet of an earlier run with the same settings. `root` holds the datasets."""
    progress("reading the corpus")
    documents = articles.documents(root, sizes.passages)
    # Nobody asks what the articles answer: the documents that PubMedQA's questions are about have to be among them.
    passages = articles.split([*documents, *corpora.pubmedqa(root)], loaded)
    asked = articles.questions(root, sizes.questions)
    encoder = build.open_encoder(loaded, progress)
    run = _Run(loaded, root, sizes, asked, encoder, results.Samples(folder), progress)
    head = results.header(BENCH, command, settings=_depends_on(loaded, sizes, len(passages)))
    taken = results.by_kind(run.samples.resume(head), KINDS)
    run.encode_and_compare(Blocks(folder, passages), passages, taken[OF_BLOCK], taken[OF_QUESTION])
    run.build_and_search(taken[OF_BUILD], taken[OF_SEARCH])
    run.update(documents, taken[OF_UPDATE])


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the benchmark: what its parts share. Each is given the samples of it that there are."""

    loaded: Loaded
    root: Path
    sizes: Sizes
    asked: Sequence[Abstract]
    encoder: Encoder
    samples: results.Samples
    progress: Progress

    def encode_and_compare(
        self, blocks: Blocks, passages: Sequence[Passage], encoded: Sequence[Sample], compared: Sequence[Sample]
    ) -> None:
        left = self._left(compared)
        if not left and len(encoded) == len(blocks):
            return
        settings = self.loaded.settings.embed
        reference = Float32Encoder(build.resolve(settings.model).path, settings, self.loaded.device)
        self._encode(blocks, reference, {sample["id"] for sample in encoded})
        ours, theirs = blocks.vectors()
        found = quality(self.loaded, self.encoder, reference, passages, ours, theirs, left)
        self._take(OF_QUESTION, found, "searching both", len(self.asked) - len(left), len(self.asked))

    def _encode(self, blocks: Blocks, reference: Float32Encoder, known: set[int]) -> None:
        """A block whose vectors have gone is encoded again, without counting twice."""
        left = [number for number in range(len(blocks)) if number not in known or not blocks.kept(number)]
        if not left:
            return
        done = len(blocks) - len(left)
        self.progress("encoding by both", done, len(blocks))
        for number, sample in enumerate(encode(blocks, left, self.encoder, reference), start=done + 1):
            if sample["id"] not in known:
                self.samples.add({"kind": OF_BLOCK, **sample})
            self.progress("encoding by both", number, len(blocks))

    def build_and_search(self, built: Sequence[Sample], searched: Sequence[Sample]) -> None:
        if not built:
            self.progress("building the large index")
            documents = articles.documents(self.root, self.sizes.largest)
            self.samples.add({"kind": OF_BUILD, **build_large(self.loaded, documents)})
        left = self._left(searched)
        if not left:
            return
        self.progress("opening the large index")
        found = searches(open_large(self.loaded), left)
        self._take(OF_SEARCH, found, "searching the large index", len(self.asked) - len(left), len(self.asked))

    def update(self, documents: Sequence[Document], updated: Sequence[Sample]) -> None:
        rounds = range(len(updated), self.sizes.updates)
        if not rounds:
            return
        base = articles.index(self.loaded, self.root, self.sizes.passages, self.progress)
        with copy_of(base) as copied:
            found = updates(copied, documents, self.encoder, rounds)
            self._take(OF_UPDATE, found, "updates", len(updated), self.sizes.updates)

    def _left(self, taken: Iterable[Sample]) -> list[Abstract]:
        known = {sample["id"] for sample in taken}
        return [one for one in self.asked if one.id not in known]

    def _take(self, kind: str, found: Iterable[Sample], what: str, done: int, total: int) -> None:
        self.samples.take(({"kind": kind, **sample} for sample in found), self.progress, what, done, total)


def _depends_on(loaded: Loaded, sizes: Sizes, passages: int) -> dict[str, Any]:
    import torch

    reranker = loaded.settings.rerank.model
    encoder = build.resolve(loaded.settings.embed.model).path
    return {
        "documents": sizes.passages,
        "passages": passages,
        "largest": sizes.largest,
        "backend": bert.choose(encoder, loaded.device, loaded.settings.embed.backend),
        "torch_threads": torch.get_num_threads(),
        "encoder": provenance.weights(encoder),
        "reranker": provenance.weights(build.resolve(reranker).path) if reranker is not None else None,
        **{name: getattr(loaded.settings, name).model_dump(exclude={"name"}) for name in SECTIONS},
    }
