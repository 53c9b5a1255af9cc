"""What can be set: one frozen section per stage, with bounds and units. Builds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX = "RAG__"

Cores = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    StringConstraints(pattern=r"^(auto|nobind|[0-9,\-|]+)$"),
]
INDEX_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Quantization = Literal["fp8", "awq", "gptq", "int8"]
Device = Literal["cpu", "cuda"]
Backend = Literal["auto", "torch", "openvino"]
Action = Literal["mark", "drop", "withhold"]
Eviction = Literal["lru", "fifo"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def having(self, **values: Any) -> Self:
        """This one with other values. Raises pydantic's `ValidationError`."""
        return type(self)(**{**dict(self), **values})


class Chunk(Section):
    max_chars: int = Field(1000, ge=100, le=20_000, description="longest passage, characters")
    overlap_sentences: int = Field(1, ge=0, le=5, description="sentences that a passage repeats of the one before")


class Embed(Section):
    model: str = Field(
        "all-minilm-l6-v2", min_length=1, description="recipe, folder or hub id of a sentence-transformers model"
    )
    backend: Backend = Field("auto", description="auto: OpenVINO on a CPU where the model was built for it, else torch")
    batch_size: int = Field(32, ge=1, le=4096, description="texts per forward pass")
    query_prefix: str = Field("", description="put before each question (E5 and BGE models want one)")
    passage_prefix: str = Field("", description="put before each passage")


class Index(Section):
    name: str = Field("default", pattern=INDEX_NAME, description="which index to use")
    exact_up_to: int = Field(50_000, ge=0, description="passages searched exactly; HNSW above")
    hnsw_m: int = Field(32, ge=4, le=128, description="HNSW links per node")
    hnsw_ef_construction: int = Field(100, ge=8, le=2000, description="HNSW candidates while building")
    # With 64 a search found 0.92 of FP32's nearest ten, where exact search over the same vectors found 0.99 (`rag bench index`).
    hnsw_ef_search: int = Field(512, ge=8, le=2000, description="HNSW candidates while searching")


class Retrieve(Section):
    dense_n: int = Field(20, ge=0, le=1000, description="passages from the dense search; 0 switches it off")
    lexical_n: int = Field(20, ge=0, le=1000, description="passages from BM25; 0 switches it off")
    lexical: Literal["bm25s", "rank_bm25"] = Field("bm25s", description="BM25 implementation; rank_bm25 is V3's")
    lexical_weight: float = Field(0.25, ge=0, le=1, description="weight of BM25 in the fusion; the cosine has the rest")
    candidates: int = Field(20, ge=1, le=1000, description="fused passages that go on to the reranker")

    @model_validator(mode="after")
    def _something_searches(self) -> Self:
        if self.dense_n == 0 and self.lexical_n == 0:
            raise ValueError("dense_n and lexical_n are both 0: switch one of the two searches on")
        return self


class Rerank(Section):
    model: str | None = Field(None, min_length=1, description="cross-encoder: recipe, folder or hub id; null for none")
    backend: Backend = Field("auto", description="auto: OpenVINO on a CPU where the model was built for it, else torch")
    cosine_weight: float | None = Field(
        None,
        ge=0,
        le=1000,
        description="what the cosine adds to the model's logit; null: as its recipe says, else nothing",
    )
    lexical_weight: float | None = Field(
        None,
        ge=0,
        le=1000,
        description="what BM25 adds to it, as a share of the candidates' best score; null: as its recipe says, else nothing",
    )
    batch_size: int = Field(32, ge=1, le=1024, description="pairs per forward pass")
    max_length: int = Field(512, ge=16, le=8192, description="longest pair, tokens")


class Cache(Section):
    enabled: bool = Field(False, description="technique: what was found for a question serves it again")
    model: str | None = Field(
        None,
        min_length=1,
        description="tells whether another question asks the same: recipe, folder or hub id; null: exact repeats alone are served",
    )
    backend: Backend = Field("auto", description="auto: OpenVINO on a CPU where the model was built for it, else torch")
    min_cosine: float = Field(
        0.3, ge=-1, le=1, description="lowest cosine at which the nearest earlier question is put to cache.model"
    )
    min_same: float | None = Field(
        None, ge=0, le=1, description="lowest probability that it asks the same; null: as the model's recipe says"
    )
    max_wrong_hits: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="what rag cache calibrate keeps the upper 95% bound of the rate of wrong hits under",
    )
    max_entries: int = Field(1000, ge=1, le=1_000_000, description="questions that are kept")
    eviction: Eviction = Field(
        "lru", description="which goes when there are more: the least recently used or the oldest"
    )
    ttl_s: float | None = Field(None, gt=0, description="seconds after which one isn't used any more; null: never")
    answers: bool = Field(False, description="keep finished answers too, and give them again")
    keep: bool = Field(
        True, description="keep it beside the index for the next process: questions and what they found, no answers"
    )

    @model_validator(mode="after")
    def _answers_need_it(self) -> Self:
        if self.answers and not self.enabled:
            raise ValueError("answers are kept only where the cache is: set enabled=true as well")
        return self


class Filter(Section):
    # On dev_60 with MiniLM the lowest best cosine of a gold passage is 0.30; questions from outside medicine reach 0.27.
    min_cosine: float = Field(0.25, ge=-1, le=1, description="lowest cosine kept")
    min_rerank: float = Field(0.0, ge=0, le=1, description="lowest reranker probability kept; 0 keeps all")


class Context(Section):
    passages: int = Field(3, ge=1, le=100, description="passages in the prompt, at most")
    chars_per_passage: int | None = Field(
        800, ge=50, le=100_000, description="longest passage in the prompt, characters; null for uncut"
    )
    sentences: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="sentences of all these passages in the prompt, the best by encoder and reranker; null: whole passages",
    )
    max_tokens: int | None = Field(
        None, ge=64, description="budget for the passages, tokens; null: what the context window leaves"
    )


class Speculation(Section):
    method: Literal["none", "ngram", "draft_model"] = Field("none", description="ngram is prompt lookup")
    tokens: int = Field(4, ge=1, le=16, description="draft tokens per step")
    max_batch_size: int | None = Field(
        None, ge=1, description="requests that run at once up to which tokens are drafted; null: however many"
    )
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
    model: str | None = Field(
        None, min_length=1, description="recipe, folder or hub id, or with base_url what the server calls it"
    )
    revision: str | None = Field(None, description="hub revision; null for the newest")
    vocab_size: int | None = Field(None, ge=1, description="tokens in the model's vocabulary")
    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="type of unquantised weights; float32 on a CPU that has no BF16"
    )
    max_model_len: int = Field(8192, ge=256, le=1_048_576, description="prompt and answer together, tokens")
    max_tokens: int = Field(256, ge=1, le=16_384, description="answer, tokens at most")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling mass")
    seed: int | None = Field(0, ge=0, description="sampling seed; null for a random one")
    max_num_seqs: int = Field(16, ge=1, le=4096, description="requests that run at once")
    kv_cache_mb: int | None = Field(
        None,
        ge=16,
        le=4_194_304,
        description="KV pool, MiB, twice that for float32; null: 512 on a CPU",
    )
    gpu_memory_utilization: float = Field(
        0.8, gt=0, le=0.98, description="share of GPU memory; with kv_cache_mb only what has to be free as it starts"
    )
    block_size: int = Field(
        32, ge=8, le=256, description="KV block, tokens: a shared prefix shorter than this never hits the cache"
    )
    enforce_eager: bool = Field(False, description="skip compilation: quicker start, slower steps")
    cores: Cores = Field(
        "auto",
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
    base_url: str | None = Field(
        None, description="an OpenAI-compatible server's API, e.g. http://127.0.0.1:8000/v1; null: an engine of our own"
    )
    tokenizer: str | None = Field(
        None, min_length=1, description="recipe, folder or hub id of a served model's tokenizer; null: model is one"
    )
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",  # few keys look like this, so a key that is put here by mistake is refused
        description="the NAME of the environment variable that holds the server's key, in capitals",
    )
    connect_timeout_s: float = Field(5.0, ge=0.1, le=600, description="longest wait for a connection, retries included")
    read_timeout_s: float = Field(
        120.0, ge=0.1, le=3600, description="longest silence of the server, before the first piece of an answer too"
    )
    extra_body: Mapping[str, Any] = Field(
        default_factory=dict, description="more fields of a request to the server, e.g. chat_template_kwargs"
    )

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018  (raises for one that is no number)
        except ValueError:
            raise ValueError("it is no URL, which is like http://HOST:PORT/v1 or https://HOST/v1") from None
        if parts.username is not None or parts.password is not None:
            raise ValueError("it holds credentials, which logs would show: put the key where api_key_env names it")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("it should be like http://HOST:PORT/v1 or https://HOST/v1")
        return url.rstrip("/")

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


class Abstain(Section):
    weigh: bool = Field(
        True,
        description="decline by the model's word and the reranker's scores, where the model's recipe says how to weigh them",
    )
    # On dev_60 precision and recall of declining are best together here: all 9 questions without an answer and 5 of 51 others;
    # at 0.5 it is 7 and 3.
    min_confidence: float = Field(0.7, ge=0, le=1, description="decline below this probability that the sources answer")


class Cite(Section):
    attribute: bool = Field(True, description="find a source for a sentence that the model didn't cite")
    min_overlap: float = Field(
        0.5, gt=0, le=1, description="share of a sentence's content words that the source must hold"
    )


class Verify(Section):
    model: str | None = Field(
        None, min_length=1, description="support checker: recipe, folder or hub id; null leaves sentences unchecked"
    )
    backend: Backend = Field("auto", description="auto: OpenVINO on a CPU where the model was built for it, else torch")
    action: Action = Field(
        "mark", description="unsupported sentences: mark them, drop them, or withhold the whole answer for one"
    )
    min_support: float = Field(0.5, ge=0, le=1, description="probability from which on a sentence is supported")
    max_length: int = Field(320, ge=16, le=8192, description="longest pair of sentence and passage, tokens")
    premise_chars: int = Field(
        800,
        ge=50,
        le=100_000,
        description="how much of a passage the checker reads: the sentences most like the one checked, characters",
    )

    @model_validator(mode="after")
    def _something_checks(self) -> Self:
        if self.action != "mark" and self.model is None:
            raise ValueError(f"action is {self.action}, and model is null: nothing would be checked; name a model")
        return self


class Chat(Section):
    rewrite: Literal["rule", "model"] = Field(
        "rule", description="a follow-up is made to stand alone by rule, or by the generator where it can do that"
    )
    turns: int = Field(6, ge=0, le=100, description="questions and answers that are remembered; 0: each stands alone")
    characters: int = Field(
        6000, ge=200, le=1_000_000, description="how much of the conversation is kept, newest turns first, characters"
    )


class Batch(Section):
    at_once: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="questions that are answered at once; null: as many as generator.max_num_seqs, and with together above 1 as "
        "many more as that",
    )
    together: int = Field(
        1,
        ge=1,
        le=4096,
        description="prompts are held back until so many are there, or no other is on its way, for an engine that shares its "
        "cores with the search; 1: none is",
    )
    lookahead: int = Field(
        32, ge=0, le=10_000, description="questions that are searched before they are asked; 0 for none"
    )
    search_batch: int = Field(8, ge=1, le=1000, description="how many of them are searched per batch")
    order: Literal["input", "prefix"] = Field(
        "input",
        description="in which they are asked; prefix: of those searched ahead, ones with the same passages one after the other",
    )
    cores: Cores | None = Field(
        None,
        description="generator.cores for a batch, where that isn't set by hand; null: the same as for one question",
    )

    @model_validator(mode="after")
    def _a_batch_fits(self) -> Self:
        if 0 < self.lookahead < self.search_batch:
            raise ValueError(f"lookahead ({self.lookahead}) is below search_batch ({self.search_batch})")
        if self.order == "prefix" and self.lookahead == 0:
            raise ValueError(
                "order is prefix, and lookahead is 0: which passages questions share is known of those searched ahead; raise lookahead"
            )
        return self


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
    cache: Cache = Cache()
    filter: Filter = Filter()
    context: Context = Context()
    generator: Generator = Generator()
    abstain: Abstain = Abstain()
    cite: Cite = Cite()
    verify: Verify = Verify()
    chat: Chat = Chat()
    batch: Batch = Batch()

    @property
    def at_once(self) -> int:
        """Questions of a batch that are answered at once."""
        if self.batch.at_once is not None:
            return self.batch.at_once
        return self.generator.max_num_seqs + (self.batch.together if self.batch.together > 1 else 0)

    def having(self, section: str, **values: Any) -> Self:
        """These with other values of a section. Raises pydantic's `ValidationError`."""
        return self.model_copy(update={section: getattr(self, section).having(**values)})

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


def describe(key: str) -> str:
    """What a dotted key means, with its unit."""
    model: type[BaseModel] = Settings
    *sections, leaf = key.split(".")
    for section in sections:
        annotation = model.model_fields[section].annotation
        assert isinstance(annotation, type)
        model = annotation
    return model.model_fields[leaf].description or ""


def leaf_types(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of all settings and their types."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaf_types(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation


def is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is Mapping
