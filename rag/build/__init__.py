"""The only place that assembles: a pipeline, a search, an index, and the models that they are made of."""

from rag.build.caching import cache_path, kept_questions, remove_files
from rag.build.corpus import SAMPLE, Built, build_index, ensure_sample_index, index_holds, sample_corpus
from rag.build.parts import (
    model_store,
    open_checker,
    open_encoder,
    open_matcher,
    open_reranker,
    resolve,
    weighing,
)
from rag.build.pipeline import Stages, assemble, open_generator, open_parts, open_pipeline
from rag.build.pipelines import engines_of, open_pipelines
from rag.build.search import Search, check_index, newer, open_reader, open_search

__all__ = [
    "SAMPLE",
    "Built",
    "Search",
    "Stages",
    "assemble",
    "build_index",
    "cache_path",
    "check_index",
    "engines_of",
    "ensure_sample_index",
    "index_holds",
    "kept_questions",
    "model_store",
    "newer",
    "open_checker",
    "open_encoder",
    "open_generator",
    "open_matcher",
    "open_parts",
    "open_pipeline",
    "open_pipelines",
    "open_reader",
    "open_reranker",
    "open_search",
    "remove_files",
    "resolve",
    "sample_corpus",
    "weighing",
]
