"""What pipelines and searches are made of, opened as the settings name it: models, and how their scores are weighed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag.abstain import Weighing
from rag.core import Encoder, Hit, Passage, Sentence, Source
from rag.errors import ModelError, SettingsError
from rag.matching import MATCHED_TOKENS, QuestionMatcher
from rag.models import Finish, ModelStore, ResolvedModel
from rag.models.recipe import CLASSIFIERS
from rag.progress import Report, quiet
from rag.rerank import CrossEncoderReranker, ScoreWeights
from rag.settings import Loaded, Rerank, Settings

if TYPE_CHECKING:
    from rag.verify import CrossEncoderChecker


def open_encoder(loaded: Loaded, report: Report = quiet) -> Encoder:
    from rag import embed

    model = resolve(loaded.settings.embed.model, report)
    stay_offline()
    return embed.open_encoder(model.path, model.fingerprint, loaded.settings.embed, loaded.device)


def made_by(loaded: Loaded, report: Report = quiet) -> str:
    """What the vectors of an index depend on beside its passages: the encoder, and what is put before each of them."""
    fingerprint = resolve(loaded.settings.embed.model, report).fingerprint
    prefix = loaded.settings.embed.passage_prefix
    return f"{fingerprint} with {prefix!r} before each passage" if prefix else fingerprint


def open_reranker(loaded: Loaded, report: Report = quiet) -> CrossEncoderReranker | None:
    """None where the settings name no model."""
    from rag.pairs import open_pairs

    settings = loaded.settings.rerank
    if settings.model is None:
        return None
    folder = resolve(settings.model, report).path
    model = open_pairs(folder, loaded.device, settings.max_length, settings.batch_size, settings.backend)
    return CrossEncoderReranker(model, _score_weights(settings))


def _score_weights(settings: Rerank) -> ScoreWeights:
    """As the settings have it, else as the model's recipe does."""
    store = model_store()
    name = settings.model
    head = store.status(name).recipe.head if name is not None and store.is_recipe(name) else None
    calibrated = (head.cosine_weight, head.lexical_weight) if head is not None else (None, None)
    asked = settings.cosine_weight, settings.lexical_weight
    return ScoreWeights(*(own if own is not None else its or 0.0 for own, its in zip(asked, calibrated, strict=True)))


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
    folder = resolve(settings.model, report).path
    # A batch holds an answer's sentences: few, and all at once.
    checker = CrossEncoderChecker(
        open_pairs(folder, loaded.device, settings.max_length, 32, settings.backend), settings
    )
    passage = Passage("", "", "Malaria", "Malaria is caused by Plasmodium parasites.", 0, 42)
    checker.check([Sentence(passage.text, (1,))], [Source(1, Hit(passage, 1.0), passage.text)])  # warms it
    return checker


def open_matcher(loaded: Loaded, report: Report = quiet, anyhow: bool = False) -> QuestionMatcher | None:
    """Warm; None where the settings name no model. Raises `SettingsError` where neither they nor the model's recipe say from which
    probability on two questions are the same, unless `anyhow`: then none is."""
    from rag.pairs import open_pairs

    settings, store = loaded.settings.cache, model_store()
    if settings.model is None:
        return None
    recipe = store.status(settings.model).recipe if store.is_recipe(settings.model) else None
    known = recipe.matching if recipe is not None else None
    min_same = settings.min_same if settings.min_same is not None else known.min_same if known is not None else None
    if min_same is None and anyhow:
        min_same = math.inf
    if min_same is None:
        raise SettingsError(
            f"From which probability on {settings.model} takes two questions for the same isn't known. "
            "Set cache.min_same to what rag cache calibrate finds, or cache.model=null."
        )
    folder = resolve(settings.model, report).path
    model = open_pairs(folder, loaded.device, MATCHED_TOKENS, 2, settings.backend)
    matcher = QuestionMatcher(model, min_same)
    matcher.same("What causes malaria?", "What is the cause of malaria?")  # warms it
    return matcher


def fetch(names: Sequence[str | None], report: Report) -> None:
    """Have these models on this machine before `stay_offline`, and before the engine's long start."""
    for name in names:
        if name is not None:
            resolve(name, report)


def model_store() -> ModelStore:
    """The store to build with; one that only looks needs none of this."""
    from rag import bert

    return ModelStore(finish=dict.fromkeys(("encoder", *CLASSIFIERS), Finish(bert.form(), bert.convert)))


def resolve(name: str, report: Report = quiet, revision: str | None = None) -> ResolvedModel:
    """A recipe is built at its first use. Raises `ModelError`."""
    return _store_with(name, report).resolve(name, revision)


def resolve_tokenizer(name: str, loaded: Loaded, report: Report) -> Path:
    models = _store_with(name, report)
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


def _store_with(name: str, report: Report) -> ModelStore:
    """The store, in which a recipe of this name is built."""
    models = model_store()
    if models.is_recipe(name):
        models.build(name, report)
    return models


def stay_offline() -> None:
    """Every model is on this machine by now: no library needs to ask a hub, or wait for one."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
