"""Settings: one frozen section per stage, merged from five layers. Builds nothing.

Precedence: `--set` > environment (`RAG__SECTION__KEY`) > models file > profile > defaults. A profile
is a bundle of techniques; a models file says which weights and sizes. `load` keeps, beside the
merged settings, where each value came from: what a profile asks for and a machine can't do is left
out, and the same thing asked for by hand is refused (`rag.engine.spec`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from rag import paths
from rag.errors import SettingsError

ENV_PREFIX = "RAG__"

INDEX_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Quantization = Literal["fp8", "awq", "gptq", "int8"]
Device = Literal["cpu", "cuda"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Chunk(Section):
    max_chars: int = Field(1000, ge=100, le=20_000, description="longest passage, characters")
    overlap_sentences: int = Field(1, ge=0, le=5, description="sentences that a passage repeats of the one before")


class Embed(Section):
    model: str = Field(
        "all-minilm-l6-v2", min_length=1, description="recipe, folder or hub id of a sentence-transformers model"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="texts per forward pass")
    query_prefix: str = Field("", description="put before each question (E5 and BGE models want one)")
    passage_prefix: str = Field("", description="put before each passage")


class Index(Section):
    name: str = Field("default", pattern=INDEX_NAME, description="which index to use")
    exact_up_to: int = Field(50_000, ge=0, description="passages searched exactly; HNSW above")
    hnsw_m: int = Field(32, ge=4, le=128, description="HNSW links per node")
    hnsw_ef_construction: int = Field(100, ge=8, le=2000, description="HNSW candidates while building")
    hnsw_ef_search: int = Field(64, ge=8, le=2000, description="HNSW candidates while searching")


class Retrieve(Section):
    dense_n: int = Field(20, ge=0, le=1000, description="passages from the dense search; 0 switches it off")
    lexical_n: int = Field(20, ge=0, le=1000, description="passages from BM25; 0 switches it off")
    lexical: Literal["bm25s", "rank_bm25"] = Field("bm25s", description="BM25 implementation; rank_bm25 is V3's")
    rrf_k: int = Field(60, ge=1, le=1000, description="reciprocal rank fusion constant (Cormack et al. 2009)")
    lexical_weight: float = Field(1.0, ge=0, le=10, description="weight of BM25 in the fusion; dense has 1")
    candidates: int = Field(20, ge=1, le=1000, description="fused passages that go on to the reranker")

    @model_validator(mode="after")
    def _something_searches(self) -> Self:
        if self.dense_n == 0 and self.lexical_n == 0:
            raise ValueError("dense_n and lexical_n are both 0: switch one of the two searches on")
        return self


class Rerank(Section):
    model: str | None = Field(None, min_length=1, description="cross-encoder: recipe, folder or hub id; null for none")
    batch_size: int = Field(32, ge=1, le=1024, description="pairs per forward pass")
    max_length: int = Field(512, ge=16, le=8192, description="longest pair, tokens")


class Filter(Section):
    # On dev_60 with MiniLM the lowest cosine of a gold passage is 0.30; questions from outside medicine reach 0.22.
    min_cosine: float = Field(0.25, ge=-1, le=1, description="lowest cosine kept where there is no reranker")
    min_rerank: float = Field(0.05, ge=0, le=1, description="lowest reranker probability kept")


class Context(Section):
    passages: int = Field(3, ge=1, le=100, description="passages in the prompt, at most")
    chars_per_passage: int | None = Field(
        800, ge=50, le=100_000, description="longest passage in the prompt, characters; null for uncut"
    )
    max_tokens: int | None = Field(
        None, ge=64, description="budget for the passages, tokens; null: what the context window leaves"
    )


class Speculation(Section):
    method: Literal["none", "ngram", "draft_model"] = Field("none", description="ngram is prompt lookup")
    tokens: int = Field(4, ge=1, le=16, description="draft tokens per step")
    lookup_min: int = Field(2, ge=1, le=16, description="shortest n-gram looked up in the prompt, tokens")
    lookup_max: int = Field(4, ge=1, le=16, description="longest n-gram looked up in the prompt, tokens")
    draft_model: str | None = Field(None, min_length=1, description="recipe, folder or hub id of the draft model")
    draft_vocab_size: int | None = Field(None, ge=1, description="tokens in the draft model's vocabulary")

    @model_validator(mode="after")
    def _lookup_in_order(self) -> Self:
        if self.lookup_min > self.lookup_max:
            raise ValueError(f"lookup_min ({self.lookup_min}) is above lookup_max ({self.lookup_max})")
        return self


class Generator(Section):
    model: str | None = Field(None, min_length=1, description="recipe, folder or hub id; a models file names it")
    revision: str | None = Field(None, description="hub revision; null for the newest")
    vocab_size: int | None = Field(None, ge=1, description="tokens in the model's vocabulary")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="type of unquantised weights")
    max_model_len: int = Field(8192, ge=256, le=1_048_576, description="prompt and answer together, tokens")
    max_tokens: int = Field(256, ge=1, le=16_384, description="answer, tokens at most")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling mass")
    seed: int | None = Field(0, ge=0, description="sampling seed; null for a random one")
    max_num_seqs: int = Field(16, ge=1, le=4096, description="requests that run at once")
    kv_cache_mb: int | None = Field(None, ge=16, le=4_194_304, description="KV pool, MiB; null: 512 on a CPU")
    gpu_memory_utilization: float = Field(
        0.8, gt=0, le=0.98, description="share of GPU memory; unused with kv_cache_mb"
    )
    block_size: int = Field(
        32, ge=8, le=256, description="KV block, tokens: a shared prefix shorter than this never hits the cache"
    )
    enforce_eager: bool = Field(False, description="skip compilation: quicker start, slower steps")
    cores: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)] = Field(
        "auto",
        pattern=r"^(auto|nobind|[0-9,\-|]+)$",
        description="CPU cores of the engine, e.g. 0-1; auto leaves one free",
    )
    quantization: Quantization | None = Field(None, description="technique: weights of fewer bits")
    quantized: Mapping[Quantization, str] = Field(
        default_factory=dict, description="for each method, the checkpoint that has it"
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field("auto", description="technique: KV cache of 8 bits")
    prefix_caching: bool = Field(True, description="technique: prompts that start alike share their KV blocks")
    attention_backend: str | None = Field(None, description="technique: e.g. FLASHINFER; null lets vLLM choose")
    speculation: Speculation = Speculation()

    @model_validator(mode="after")
    def _draft_fits(self) -> Self:
        spec = self.speculation
        sizes = (self.vocab_size, spec.draft_vocab_size)
        if spec.method == "draft_model" and None not in sizes and sizes[0] != sizes[1]:
            raise ValueError(
                f"vLLM refuses a draft model with another vocabulary: {self.model} has {sizes[0]} tokens, "
                f"{spec.draft_model} {sizes[1]}; use speculation.method=ngram or a draft of the same vocabulary"
            )
        if self.max_tokens >= self.max_model_len:
            raise ValueError(f"max_tokens ({self.max_tokens}) leaves no room in max_model_len ({self.max_model_len})")
        return self


class Cite(Section):
    attribute: bool = Field(True, description="find a source for a sentence that the model didn't cite")
    min_overlap: float = Field(
        0.5, gt=0, le=1, description="share of a sentence's content words that the source must hold"
    )


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
    )

    chunk: Chunk = Chunk()
    embed: Embed = Embed()
    index: Index = Index()
    retrieve: Retrieve = Retrieve()
    rerank: Rerank = Rerank()
    filter: Filter = Filter()
    context: Context = Context()
    generator: Generator = Generator()
    cite: Cite = Cite()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` has merged: it reads the environment itself, to know what came from there."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one origin, nested by section. `explicit`: somebody asked for these by hand."""

    name: str
    values: Mapping[str, Any]
    explicit: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """Merged settings, the names they were loaded by, and the layers, strongest first."""

    settings: Settings
    profile: str
    models: str
    device: Device
    layers: tuple[Layer, ...]

    def origin(self, key: str) -> Layer:
        """The layer that a dotted key's value came from."""
        return _origin(self.layers, key)

    def explicit(self, key: str) -> bool:
        return self.origin(key).explicit

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Every dotted key with its effective value."""
        for key, _ in _annotations():
            value: Any = self.settings
            for part in key.split("."):
                value = getattr(value, part)
            yield key, value


def load(
    profile: str = "auto",
    models: str = "auto",
    assignments: Sequence[str] = (),
    *,
    device: Device | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Merge all layers.

    `profile` and `models` are names of shipped files, paths of YAML files, or "auto" (by device);
    `assignments` are `section.key=value` with a YAML value.

    Raises `SettingsError` for an unknown profile, key or value, naming the nearest known one.
    """
    device = device if device is not None else detect_device()
    profile = profile if profile != "auto" else {"cpu": "auto-cpu", "cuda": "auto-gpu"}[device]
    models = models if models != "auto" else {"cpu": "embedded", "cuda": "qwen3-8b"}[device]
    layers = (
        Layer("--set", _from_assignments(assignments), explicit=True),
        Layer("environment", _from_environment(os.environ if environ is None else environ), explicit=True),
        Layer(f"models file {models}", _from_file("models", models)),
        Layer(f"profile {profile}", _from_file("profiles", profile)),
        Layer("default", {}),
    )
    for layer in layers:
        _check_keys(layer)
    return Loaded(_merge(layers), profile, models, device, layers)


def detect_device() -> Device:
    """ "cuda" where a CUDA build of vLLM is installed and an NVIDIA device is there; else "cpu"."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm")
    except PackageNotFoundError:
        return "cpu"
    return "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"


def shipped_names(kind: Literal["profiles", "models"]) -> list[str]:
    return sorted(path.stem for path in paths.shipped("configs", kind).glob("*.yaml"))


def describe(key: str) -> str:
    """What a dotted key means, with its unit."""
    model: type[BaseModel] = Settings
    *sections, leaf = key.split(".")
    for section in sections:
        annotation = model.model_fields[section].annotation
        assert isinstance(annotation, type)
        model = annotation
    return model.model_fields[leaf].description or ""


# --- layers ------------------------------------------------------------------------------------


def _from_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or "." not in key:
            raise SettingsError(f"--set {assignment}: expected section.key=value, e.g. --set generator.max_tokens=256")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingsError(
                f"--set {assignment}: the value isn't valid YAML ({error.__class__.__name__})"
            ) from error
        *sections, leaf = key.strip().split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise SettingsError(f"--set {assignment}: {section!r} was set to a single value before.")
        target[leaf] = value
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    mine = {name: value for name, value in environ.items() if name.upper().startswith(ENV_PREFIX)}
    for name in mine:
        section = name[len(ENV_PREFIX) :].split("__")[0].lower()
        if section not in Settings.model_fields:
            raise SettingsError(f"Unknown setting {name} in the environment.{nearest(section, Settings.model_fields)}")
    if not mine:
        return {}
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): None if value == "null" else value for name, value in mine.items()}
    try:
        return source()
    except ValueError as error:
        mappings = {key for key, annotation in _annotations() if _is_mapping(annotation)} | set(Settings.model_fields)
        suspects = [f"{n}={v}" for n, v in mine.items() if n[len(ENV_PREFIX) :].lower().replace("__", ".") in mappings]
        raise SettingsError(f"Can't read {', '.join(suspects)} in the environment: a mapping must be JSON.") from error


def _from_file(kind: Literal["profiles", "models"], name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else paths.shipped("configs", kind, f"{name}.yaml")
    what = {"profiles": "profile", "models": "models file"}[kind]
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = shipped_names(kind)
        raise SettingsError(f"Unknown {what} {name!r}.{nearest(name, known)} Known: {', '.join(known)}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"Can't read the {what} {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"The {what} {path} must be a mapping of sections, and is a {type(values).__name__}.")
    return {key: value for key, value in values.items() if key != "description"}


def _merge(layers: Sequence[Layer]) -> Settings:
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        _drop_companions(values, layer.values)
        _overlay(values, layer.values)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_first_problem(error, layers)) from error


def _drop_companions(weak: dict[str, Any], strong: Mapping[str, Any]) -> None:
    """What a weaker layer says of a model isn't true of the one that a stronger layer puts in its place."""
    for model, companions in _COMPANIONS.items():
        *sections, name = model.split(".")
        below: Any = weak
        above: Any = strong
        for section in sections:
            below = below.get(section, {}) if isinstance(below, dict) else {}
            above = above.get(section, {}) if isinstance(above, Mapping) else {}
        if isinstance(above, Mapping) and name in above and below.get(name) != above[name]:
            for companion in companions:
                below.pop(companion, None)


_COMPANIONS = {
    "generator.model": ("revision", "vocab_size", "quantized"),
    "generator.speculation.draft_model": ("draft_vocab_size",),
}


def _overlay(weak: dict[str, Any], strong: Mapping[str, Any]) -> None:
    """Merge mappings entry by entry; an empty one clears what it meets, any other value replaces it."""
    for name, value in strong.items():
        if isinstance(value, Mapping) and value:
            below = weak.get(name)
            weak[name] = dict(below) if isinstance(below, Mapping) else {}
            _overlay(weak[name], value)
        else:
            weak[name] = value


# --- errors ------------------------------------------------------------------------------------


def _first_problem(error: ValidationError, layers: Sequence[Layer]) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    leaf = next((name for name, _ in _annotations() if f"{key}.".startswith(f"{name}.")), None)
    if leaf is None:  # what a section's values say together
        return f"{key}: {message}."
    more = f" ({len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return f"{key}={problem['input']} (from {_origin(layers, key).name}): {message}; {describe(leaf)}.{more}"


def _check_keys(layer: Layer) -> None:
    """Raises `SettingsError` for a key that no section has, and for a section that is no mapping."""
    annotations = dict(_annotations())
    sections = {key.rpartition(".")[0] for key in annotations}
    for key, value in _entries(layer.values):
        if key in sections and value != {}:
            example = next(name for name in annotations if name.startswith(f"{key}."))
            raise SettingsError(f"{key}={value} (from {layer.name}): a section, with keys of its own like {example}.")
        mapping = any(key.startswith(f"{name}.") and _is_mapping(kind) for name, kind in annotations.items())
        if key not in annotations and key not in sections and not mapping:
            raise SettingsError(f"Unknown setting {key!r} (from {layer.name}).{nearest(key, list(annotations))}")


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The beginning of a hint, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f" Did you mean {close[0]!r}?" if close else ""


def _origin(layers: Sequence[Layer], key: str) -> Layer:
    for layer in layers:
        if any(name == key or name.startswith(f"{key}.") for name, _ in _entries(layer.values)):
            return layer
    return layers[-1]


def _entries(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; an empty mapping is a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _annotations(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of all settings and their types."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _annotations(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is Mapping


QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
