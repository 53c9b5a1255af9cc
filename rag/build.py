"""The only place that assembles: a pipeline, a search, an index."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rag import index, paths
from rag.abstain import Weighing
from rag.core import (
    Document,
    Encoder,
    Generator,
    Hit,
    Hits,
    Passage,
    Query,
    Reranker,
    Searcher,
    Sentence,
    Source,
    SupportChecker,
    Trace,
)
from rag.engine import spec as engine_spec
from rag.errors import ModelError, SearchIndexError
from rag.files import require_room
from rag.index import manifest
from rag.ingest import File, LeftOut, chunk, find_files, read_corpus
from rag.models import ModelStore, ResolvedModel
from rag.pipeline import Pipeline
from rag.settings import Loaded, Settings

if TYPE_CHECKING:
    from rag.core import Matrix
    from rag.rerank import CrossEncoderReranker
    from rag.verify import CrossEncoderChecker

SAMPLE = "sample"
"""Name of the index of the corpus that ships with `rag`."""

BATCH = 512
"""Passages that are read, encoded and written together: neither texts nor vectors pile up, and a kill loses no more."""

INDEX_PER_SOURCE = 4
"""Bytes of an index for each byte of its corpus: a vector is twice as large as the passage it stands for."""

Report = Callable[[str], None]
"""Told what is being done, in a few words."""


def quiet(_: str) -> None:
    pass


# --- a pipeline --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stages:
    """All of a pipeline but its generator."""

    search: Search
    checker: SupportChecker | None


@asynccontextmanager
async def open_pipeline(loaded: Loaded, report: Report = quiet) -> AsyncIterator[Pipeline]:
    """A warm pipeline; its engine's processes end with the block."""
    began = time.monotonic()
    async with open_parts(loaded, report) as (stages, generator):
        pipeline = assemble(loaded, stages, generator)
        try:
            await pipeline.warm_up()
            pipeline.startup_s = time.monotonic() - began
            yield pipeline
        finally:
            pipeline.close()


@asynccontextmanager
async def open_parts(loaded: Loaded, report: Report = quiet) -> AsyncIterator[tuple[Stages, Generator]]:
    """What `assemble` makes a pipeline of; the engine's processes end with the block.

    Everything that can fail quickly is looked at first. Then the encoder, the index and the cross-encoders load
    while the engine's processes start, which spend their time in imports on another core.
    """
    engine_spec.check(loaded)
    checked = await asyncio.to_thread(check_index, loaded, report)  # in a thread: a server answers meanwhile
    await asyncio.to_thread(_fetch, [loaded.settings.rerank.model, loaded.settings.verify.model], report)
    opened: list[Stages] = []

    def open_stages() -> Stages:
        return Stages(_open_search(loaded, checked, quiet), open_checker(loaded, quiet))

    async def meanwhile() -> None:
        opened.append(await asyncio.to_thread(open_stages))

    async with open_generator(loaded, report, meanwhile) as generator:
        [stages] = opened
        yield stages, generator


def assemble(loaded: Loaded, stages: Stages, generator: Generator) -> Pipeline:
    """Not warm yet, and the caller's to close."""
    search = stages.search
    return Pipeline(
        loaded.settings,
        loaded.profile,
        search.encoder,
        search.searcher,
        generator,
        stages.checker,
        weighing(loaded.settings),
    )


@asynccontextmanager
async def open_generator(
    loaded: Loaded, report: Report = quiet, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[Generator]:
    """The engine alone, or the server in its place. `meanwhile` runs before it is ready to generate."""
    opened = _open_local if loaded.settings.generator.base_url is None else _open_remote
    async with opened(loaded, report, meanwhile if meanwhile is not None else _nothing) as generator:
        yield generator


@asynccontextmanager
async def _open_remote(
    loaded: Loaded, report: Report, meanwhile: Callable[[], Awaitable[None]]
) -> AsyncIterator[Generator]:
    """The server is asked first: that takes milliseconds, and is what may fail."""
    from rag.engine.remote import RemoteGenerator

    spec = engine_spec.plan_remote(loaded)
    tokenizer = await asyncio.to_thread(_resolve_tokenizer, spec.tokenizer, loaded, report)
    report(f"asking {spec.base_url}")
    generator = await RemoteGenerator.connect(spec, loaded, tokenizer)
    try:
        await meanwhile()
        yield generator
    finally:
        await generator.close()


@asynccontextmanager
async def _open_local(
    loaded: Loaded, report: Report, meanwhile: Callable[[], Awaitable[None]]
) -> AsyncIterator[Generator]:
    """`meanwhile` runs once the engine's processes are starting, and not before: until then this process imports
    vLLM, and two imports in one process only take turns."""
    from rag.engine.local import LocalGenerator, configure

    spec = engine_spec.plan(loaded)
    model = await asyncio.to_thread(_resolve, spec.model, report, loaded.settings.generator.revision)
    draft = await asyncio.to_thread(_resolve, spec.draft_model, report) if spec.draft_model is not None else None
    if draft is not None:
        engine_spec.require_same_vocabulary(model.path, draft.path)
    _stay_offline()
    report("starting the engine")
    config = await asyncio.to_thread(configure, spec, model.path, draft.path if draft else None, loaded.device)
    starting = asyncio.create_task(LocalGenerator.start(spec, config, loaded.device))
    try:
        await meanwhile()
        generator = await starting
    except BaseException:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        raise
    try:
        yield generator
    finally:
        await generator.close()


async def _nothing() -> None:
    pass


# --- a search ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Search:
    """Everything before the generator: what answers `rag search`."""

    encoder: Encoder
    searcher: Searcher
    index: index.IndexReader
    reranker: Reranker | None = None

    def search(self, questions: Sequence[str], trace: Trace, where: str | None = None) -> list[Hits]:
        with trace.span("embed"):
            vectors = self.encoder.encode_queries(questions)
        queries = [Query(question, vector, where) for question, vector in zip(questions, vectors, strict=True)]
        return self.searcher.search(queries, trace)


def open_search(loaded: Loaded, report: Report = quiet) -> Search:
    """Encoder, index and reranker, warm. Raises what `check_index` raises."""
    checked = check_index(loaded, report)
    _fetch([loaded.settings.rerank.model], report)
    return _open_search(loaded, checked, report)


def check_index(loaded: Loaded, report: Report = quiet) -> index.CheckedVersion:
    """The current version of the index that the settings name, before anything heavy is loaded.

    Raises `IndexMissing` where there is none, `SearchIndexError` where it is damaged or was built with
    another encoder.
    """
    checked = index.check_current(_versions(loaded))
    encoder = _resolve(loaded.settings.embed.model, report)
    if checked.manifest.model != encoder.fingerprint:
        raise SearchIndexError(
            f"Index {checked.name!r} was built with the embedding model {checked.manifest.model}, the settings name "
            f"{encoder.fingerprint}. Build it again (rag index PATH), or set embed.model to the one it was built with."
        )
    return checked


def _open_search(loaded: Loaded, checked: index.CheckedVersion, report: Report) -> Search:
    from rag.search import HybridSearcher

    settings = loaded.settings
    reader = open_reader(loaded, checked)
    encoder, reranker = open_encoder(loaded, report), open_reranker(loaded, report)
    search = Search(encoder, HybridSearcher(reader, settings.retrieve, reranker), reader, reranker)
    _warm_up(search)
    return search


def newer(loaded: Loaded, search: Search) -> Search | None:
    """The same encoder and reranker over the index's current version, warm; None where `search` has that one.

    Raises what `check_index` raises.
    """
    from rag.search import HybridSearcher

    version, _ = _versions(loaded).current()
    if version == search.index.version:
        return None
    reader = open_reader(loaded, check_index(loaded))
    opened = replace(search, searcher=HybridSearcher(reader, loaded.settings.retrieve, search.reranker), index=reader)
    _warm_up(opened)
    return opened


def _warm_up(search: Search) -> None:
    """Each library's first call pays for its set-up."""
    search.search(["What causes it, and how is it treated?"], Trace())


def open_reader(loaded: Loaded, checked: index.CheckedVersion) -> index.IndexReader:
    """The version that was checked; the newest one where that went meanwhile, as while an engine starts."""
    while True:
        try:
            return index.open_index(checked, loaded.settings.index, loaded.settings.retrieve, loaded.device)
        except (OSError, RuntimeError):  # FAISS raises the latter
            if checked.folder.is_dir():
                raise
            checked = check_index(loaded)


# --- an index ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Built:
    name: str
    version: str
    manifest: manifest.Manifest
    changes: index.Changes
    left_out: LeftOut
    pruned: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Told as an index grows: bytes of the corpus done and in all, passages done, and the step under way."""

    update: Callable[[int, int, int], None] = lambda *_: None
    step: Report = quiet


def build_index(
    loaded: Loaded,
    sources: Sequence[Path],
    progress: Progress = Progress(),
    *,
    prune: bool = False,
    rebuild: bool = False,
    wait: bool = False,
) -> Built:
    """Read a corpus into a new version of the index that the settings name.

    Documents that the index has as they are aren't encoded again; others of the same id are replaced. Those that no source
    has stay, unless `prune` and nothing had to be skipped; those that a source deletes go. `rebuild` begins with nothing.
    What was encoded outlives a kill, for the next call. Another writer is waited for, if `wait`. What can't be read is left
    out, and told in the result.

    Raises `CorpusError`, `StorageError` or `SearchIndexError`; the version before it stays in use then.
    """
    began = time.monotonic()
    settings = loaded.settings
    versions = _versions(loaded)
    left_out = LeftOut()
    files = find_files(sources, left_out)
    total = sum(file.size for file in files)
    require_room(versions.root, INDEX_PER_SOURCE * total)
    shape = index.Shape(_resolve(settings.embed.model, progress.step).fingerprint, settings.chunk.model_dump())
    with index.updating(versions, shape, settings.index, rebuild=rebuild, wait=wait) as update:
        progress.step("reading and encoding")
        for batch in _batches(files, left_out, update, loaded, progress, total):
            update.add(*batch)
        for identity in left_out.deleted:
            update.delete(identity)
        prune = prune and not left_out.skipped  # what can't be read today may be there tomorrow
        contents, changes = update.finish(prune, progress.step)
        version, _ = versions.current()
    return Built(versions.name, version, contents, changes, left_out, prune, time.monotonic() - began)


def ensure_sample_index(loaded: Loaded, progress: Progress = Progress()) -> Built | None:
    """Build the index of the shipped corpus where it isn't there, or isn't of this corpus and these settings."""
    left_out = LeftOut()
    documents = (located.document for located in read_corpus(find_files(sample_corpus(), left_out), left_out))
    if index_holds(loaded, documents, progress.step):
        return None
    return build_index(loaded, sample_corpus(), progress, rebuild=True, wait=True)


def index_holds(loaded: Loaded, documents: Iterable[Document], report: Report = quiet) -> bool:
    """Is the index that the settings name there, whole, and of these documents and settings?"""
    try:
        contents = check_index(loaded, report).manifest
    except SearchIndexError:
        return False
    wanted = (loaded.settings.chunk.model_dump(), index.corpus_sha256(documents))
    return (dict(contents.chunking), contents.documents_sha256) == wanted


def sample_corpus() -> list[Path]:
    return [paths.shipped("data", "corpus")]


def _batches(
    files: Sequence[File],
    left_out: LeftOut,
    update: index.Update,
    loaded: Loaded,
    progress: Progress,
    total: int,
) -> Iterator[tuple[list[Document], list[Passage], Matrix]]:
    """What the index doesn't hold, encoded. The encoder is loaded where there is any."""
    settings = loaded.settings.chunk
    encoder: Encoder | None = None
    documents: list[Document] = []
    passages: list[Passage] = []
    read = encoded = 0
    for located in chain(read_corpus(files, left_out), [None]):
        if located is not None:
            read += located.size
            if not update.holds(located.document):
                documents.append(located.document)
                passages += chunk.split(located.document, settings.max_chars, settings.overlap_sentences)
        if len(passages) >= BATCH or (located is None and documents):
            if encoder is None:
                encoder = open_encoder(loaded)
            yield documents, passages, encoder.encode_passages([passage.titled for passage in passages])
            encoded += len(passages)
            documents, passages = [], []
        progress.update(read, total, encoded)


# --- parts -------------------------------------------------------------------------------------


def _versions(loaded: Loaded) -> index.Versions:
    return index.Versions(paths.indexes_dir(), loaded.settings.index.name)


def open_encoder(loaded: Loaded, report: Report = quiet) -> Encoder:
    from rag import embed

    model = _resolve(loaded.settings.embed.model, report)
    _stay_offline()
    return embed.open_encoder(model.path, model.fingerprint, loaded.settings.embed, loaded.device)


def open_reranker(loaded: Loaded, report: Report = quiet) -> CrossEncoderReranker | None:
    """None where the settings name no model."""
    from rag.pairs import open_pairs
    from rag.rerank import CrossEncoderReranker

    settings = loaded.settings.rerank
    if settings.model is None:
        return None
    folder = _resolve(settings.model, report).path
    model = open_pairs(folder, loaded.device, settings.max_length, settings.batch_size, settings.backend)
    weight = settings.cosine_weight if settings.cosine_weight is not None else _recipe_cosine_weight(settings.model)
    return CrossEncoderReranker(model, weight)


def _recipe_cosine_weight(name: str) -> float:
    store = model_store()
    head = store.status(name).recipe.head if store.is_recipe(name) else None
    return head.cosine_weight if head is not None and head.cosine_weight is not None else 0.0


def weighing(settings: Settings) -> Weighing | None:
    """How the generator's word and the reranker's are weighed; None where that is switched off, or the generator's recipe
    doesn't say it for this reranker."""
    model, store = settings.generator.model, model_store()
    known = store.status(model).recipe.abstention if model is not None and store.is_recipe(model) else None
    if known is None or not settings.abstain.weigh or known.reranker != settings.rerank.model:
        return None
    return Weighing(known.of_word, known.of_relevance, known.shift, settings.abstain.min_confidence)


def open_checker(loaded: Loaded, report: Report = quiet) -> CrossEncoderChecker | None:
    """Warm; None where the settings name no model."""
    from rag.pairs import open_pairs
    from rag.verify import CrossEncoderChecker

    settings = loaded.settings.verify
    if settings.model is None:
        return None
    folder = _resolve(settings.model, report).path
    # A batch holds an answer's sentences: few, and all at once.
    checker = CrossEncoderChecker(
        open_pairs(folder, loaded.device, settings.max_length, 32, settings.backend), settings
    )
    passage = Passage("", "", "Malaria", "Malaria is caused by Plasmodium parasites.", 0, 42)
    checker.check([Sentence(passage.text, (1,))], [Source(1, Hit(passage, 1.0), passage.text)])  # warms it
    return checker


def _fetch(names: Sequence[str | None], report: Report) -> None:
    """Have these models on this machine before `_stay_offline`, and before the engine's long start."""
    for name in names:
        if name is not None:
            _resolve(name, report)


def model_store() -> ModelStore:
    """The store to build with; one that only looks needs none of this."""
    return ModelStore(finish=dict.fromkeys(("encoder", "reranker", "support"), _add_fast_form))


def _add_fast_form(folder: Path) -> None:
    """What encoders run as on a CPU."""
    from rag import bert

    bert.convert(folder)


def _resolve(name: str, report: Report, revision: str | None = None) -> ResolvedModel:
    """A recipe is built at its first use."""
    models = model_store()
    if models.is_recipe(name):
        models.build(name, report)
    return models.resolve(name, revision)


def _resolve_tokenizer(name: str, loaded: Loaded, report: Report) -> Path:
    models = model_store()
    if models.is_recipe(name):
        models.build(name, report)
    settings = loaded.settings.generator
    try:
        return models.resolve_tokenizer(name, settings.revision if settings.tokenizer is None else None)
    except ModelError as error:
        if settings.tokenizer is not None:
            raise
        raise ModelError(
            f"The prompts for {settings.base_url} are counted by their model's tokenizer: name it with "
            f"generator.tokenizer, since generator.model is none. {error}"
        ) from error


def _stay_offline() -> None:
    """Every model is on this machine by now: no library needs to ask a hub, or wait for one."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
