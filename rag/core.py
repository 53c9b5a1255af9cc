"""Types and protocols every stage speaks. Standard library only; imports no sibling.

Seams, in the order a question meets them:

* `Encoder`         text in, unit vectors out
* `Searcher`        a batch of `Query` in, a batch of `Hits` out; caches and prefetchers wrap it and are one
* `Matcher`         two questions in; out: do they ask the same? used by a cache
* `Reranker`        a question's hits in, calibrated scores out; used inside a `Searcher`
* `Generator`       the only asynchronous seam: a prompt in, text deltas out, then `GenerationStats`
* `SupportChecker`  an answer's sentences and its sources in, the sentences with their `support` out
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float32]
    """One unit vector, shape (dimension,)."""
    Matrix: TypeAlias = NDArray[np.float32]
    """Unit vectors, shape (rows, dimension)."""

Clock: TypeAlias = Callable[[], float]
"""Monotonic seconds."""

Metadata: TypeAlias = Mapping[str, str | int | float]
"""What a reader found beside a document's text."""


# --- corpus ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the corpus."""

    id: str
    title: str
    text: str
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Located:
    """A document with its place in the corpus (file and line, for messages) and its size there in bytes."""

    document: Document
    where: str
    size: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A run of whole sentences of a document: `document.text[start:end] == text`. `metadata` is the document's; empty
    until the passage comes out of an index."""

    id: str
    doc_id: str
    title: str
    text: str
    start: int
    end: int
    metadata: Metadata = field(default_factory=dict, hash=False)

    @property
    def titled(self) -> str:
        """What is embedded, indexed and reranked: the text alone may not say what it is about."""
        return f"{self.title}\n{self.text}"


# --- search ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """A question and its unit vector. Made once; nothing downstream embeds again. `where` is a condition that documents
    have to meet (`rag.where`)."""

    text: str
    vector: Vector
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query.

    `dense` is the cosine with the query (-1 to 1) and is always there, also for a passage that only
    the lexical search found. `lexical` is the BM25 score, `fused` what both come to together (0 to 1) and `fused_rank` its
    place by that (from 1), `rerank` the cross-encoder's probability of relevance (0 to 1); None where that stage didn't
    see it.
    """

    passage: Passage
    dense: float
    lexical: float | None = None
    fused: float | None = None
    rerank: float | None = None
    fused_rank: int | None = None

    @property
    def score(self) -> float:
        """Comparable across questions, so fit for a threshold; `fused` only orders one question's passages."""
        return self.rerank if self.rerank is not None else self.dense


Hits: TypeAlias = tuple[Hit, ...]
"""Best first."""


# --- answer ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A passage as it stands in the prompt under the number `marker` (from 1); `quote` is that text."""

    marker: int
    hit: Hit
    quote: str


Message: TypeAlias = Mapping[Literal["role", "content"], str]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Chat messages, and the sources that their `[n]` markers stand for."""

    messages: tuple[Message, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """`max_tokens` output tokens at most; temperature 0 is greedy.

    `watch` is a text whose first token is watched for at the answer's beginning: an `Opening` tells of it. `begin_with` is
    what the answer begins with: the model goes on from there.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    watch: str | None = None
    begin_with: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one request, or answer; None where the backend doesn't report them."""

    prompt: int | None = None
    cached_prompt: int | None = None
    output: int | None = None
    draft: int | None = None
    accepted: int | None = None


@dataclass(frozen=True, slots=True)
class GenerationStats:
    """What the engine reports of one request.

    Seconds are measured from the arrival of the request at the engine, so `ttft` includes `queue`.
    None where the backend doesn't report, never 0 in its place.
    """

    output_tokens: int | None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    draft_tokens: int | None = None
    accepted_tokens: int | None = None
    queue: float | None = None
    ttft: float | None = None
    decode: float | None = None

    @property
    def tokens(self) -> Tokens:
        return Tokens(
            self.prompt_tokens, self.cached_prompt_tokens, self.output_tokens, self.draft_tokens, self.accepted_tokens
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """How an answer begins: with the token that was watched for (`taken`) or not, and the probability that it had.

    `otherwise` is the most probable other token's text. `stats` are those of a request that ends here.
    """

    probability: float
    taken: bool
    otherwise: str
    stats: GenerationStats


Support: TypeAlias = Literal["supported", "contradicted", "not_stated", "unchecked"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of an answer, the markers it carries, and whether one of its passages supports it.

    "unchecked" where there is no `SupportChecker`, and in an abstention.
    """

    text: str
    markers: tuple[int, ...]
    support: Support = "unchecked"


@dataclass(frozen=True, slots=True)
class Citation:
    """A source that the answer uses, with its document's `metadata`. `origin` is "model" where the model wrote the marker itself and
    "attributed" where `rag` found the passage by word overlap; quality figures count "model" only."""

    marker: int
    doc_id: str
    passage_id: str
    title: str
    quote: str
    origin: Literal["model", "attributed"]
    score: float
    metadata: Metadata = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Route:
    """Which model answers, how long at most, and why."""

    tier: Literal["extract", "small", "large"]
    model: str
    max_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """`hit`: what was found for an earlier question served this one too. `similarity` is the cosine of both, 1 for the same words."""

    hit: bool = False
    similarity: float | None = None
    index_version: str | None = None


@dataclass(frozen=True, slots=True)
class Technique:
    """One optimisation: was it asked for, did it engage, what shows it.

    `engaged` is None where the engine gives no evidence either way. `reason` says why a technique
    was left out, did nothing or can't be judged, or what it was had by instead. `numbers` are those that `evidence` tells of, by name.
    """

    asked: bool
    engaged: bool | None = None
    evidence: str | None = None
    reason: str | None = None
    numbers: Mapping[str, int | float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """`backend` is "vllm" in this process, "openai" behind a server's API; then `device` is "remote", and `version` what
    the server says of itself, None where it says nothing.

    `techniques` are judged by one answer, `since_start` by all that the engine has done: in this process since it started, of
    a server since we are connected.
    """

    backend: str
    version: str | None
    device: str
    techniques: Mapping[str, Technique] = field(default_factory=dict)
    since_start: Mapping[str, Technique] = field(default_factory=dict)


Span: TypeAlias = tuple[str, float, float]
"""(stage, start, end), seconds since the question arrived. A stage may have spans of its steps inside its own. In a batch there is
"wait" too, between "route" and "generate": until the engine is given the prompt (`batch.together`)."""


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Seconds, one field a stage; None where a stage didn't run or a backend doesn't report.

    `queue`, `ttft` and `decode` lie inside `generate`. The stages may overlap, so their sum isn't `total`.
    """

    embed: float | None = None
    cache: float | None = None
    retrieve: float | None = None
    rerank: float | None = None
    filter: float | None = None
    context: float | None = None
    route: float | None = None
    generate: float | None = None
    queue: float | None = None
    ttft: float | None = None
    decode: float | None = None
    verify: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one question with everything that shaped it. `rag ask --json` is this, serialised.

    `confidence` is the probability that the sources answer the question, as far as the generator's word and the
    reranker's scores tell (`rag.abstain`); None where it isn't known how to weigh these two.
    `truncated`: it reached its length limit; the sentence that was cut is left out of `answer`.
    `withheld`: one was written, but may not be shown (`verify.action`); it counts as an abstention. `sentences`
    are those that were written: of a withheld answer too, and with those that were dropped from `answer`.
    """

    question: str
    answer: str
    abstained: bool
    confidence: float | None = None
    withheld: bool = False
    truncated: bool = False
    sentences: tuple[Sentence, ...] = ()
    citations: tuple[Citation, ...] = ()
    invalid_markers: int = 0
    route: Route | None = None
    cache: CacheInfo
    timings: StageTimings
    spans: tuple[Span, ...]
    tokens: Tokens
    engine: EngineInfo
    profile: str
    startup_s: float | None = None


# --- time --------------------------------------------------------------------------------------


class Trace:
    """Spans of one question on one monotonic clock. Thread-safe: stages run on worker threads."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._served: dict[tuple[str, str | None], float] = {}
        self.origin = clock()

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            end = self._clock()
            with self._lock:
                self._spans.append((stage, start - self.origin, end - self.origin))

    def served(self, question: str, similarity: float, where: str | None = None) -> None:
        """A cache had what an earlier question found."""
        with self._lock:
            self._served[question, where] = similarity

    def cache_info(self, question: str, index_version: str, where: str | None = None) -> CacheInfo:
        with self._lock:
            similarity = self._served.get((question, where))
        return CacheInfo(similarity is not None, similarity, index_version)

    @property
    def spans(self) -> tuple[Span, ...]:
        """In order of their start."""
        with self._lock:
            return tuple(sorted(self._spans, key=lambda span: span[1]))

    def seconds(self, stage: str) -> float | None:
        """Time spent in a stage over all its spans; None if it never ran."""
        lengths = [end - start for name, start, end in self.spans if name == stage]
        return sum(lengths) if lengths else None

    def timings(self, stats: GenerationStats | None = None) -> StageTimings:
        """Close the trace: `total` runs from its making to now."""
        total = self._clock() - self.origin
        return StageTimings(
            **{stage: self.seconds(stage) for stage in STAGES},
            queue=stats.queue if stats else None,
            ttft=stats.ttft if stats else None,
            decode=stats.decode if stats else None,
            total=total,
        )


STAGES = ("embed", "cache", "retrieve", "rerank", "filter", "context", "route", "generate", "verify")


def covered(spans: Sequence[Span]) -> float:
    """Seconds during which at least one span was open: overlapping spans are counted once."""
    total, reached = 0.0, float("-inf")
    for _, start, end in sorted(spans, key=lambda span: span[1]):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


# --- seams -------------------------------------------------------------------------------------


class Encoder(Protocol):
    """Turns texts into unit vectors. Synchronous, thread-safe."""

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        """Shape (len(texts), dimension), float32, unit length."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> Matrix:
        """Shape (len(texts), dimension), float32, unit length."""
        ...


class Reranker(Protocol):
    """Scores what a search found, of several questions at once. Synchronous, thread-safe."""

    def scores(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[list[float]]:
        """Of each question with its hits: the probability of relevance, 0 to 1, in the order of the hits."""
        ...


class Searcher(Protocol):
    """A batch of queries in, a batch of hits out, in order. Synchronous, thread-safe."""

    @property
    def index_version(self) -> str: ...

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]: ...


class Matcher(Protocol):
    """Tells whether two questions ask the same. Synchronous, thread-safe."""

    def same(self, question: str, earlier: str) -> bool:
        """Is every answer to `earlier` one to `question`?"""
        ...


class Generator(Protocol):
    """A language model behind an engine. `stream` aborts the request when it is closed early."""

    @property
    def model(self) -> str: ...

    @property
    def alive(self) -> bool:
        """False once it can never answer again: its engine is lost, and another one has to be started."""
        ...

    @property
    def generating(self) -> int | None:
        """Requests that the engine works on or holds in its queue, by its own word after its last step; None where it
        doesn't tell."""
        ...

    @property
    def context_window(self) -> int:
        """Prompt and output tokens of one request together."""
        ...

    def count_tokens(self, text: str) -> int: ...

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the messages with the chat template around them."""
        ...

    def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[Opening | str | GenerationStats, None]:
        """Text deltas, then one `GenerationStats` as the last item. Before them an `Opening`, where `params` ask for it
        and the backend can tell.

        Raises `EngineError` where this answer fails, `EngineDied` where the engine is lost on the way.
        """
        ...

    def info(self, stats: GenerationStats | None) -> EngineInfo:
        """The engine, and for each technique whether it engaged: in the request of `stats`, and since the engine started."""
        ...

    async def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache, so that the next prompt is read as the first one was. False where that can't be done: the
        engine isn't ours, or is at work."""
        ...

    async def close(self) -> None: ...


class SupportChecker(Protocol):
    """Judges each sentence of an answer by the passages that it cites. Synchronous, thread-safe."""

    def check(self, sentences: Sequence[Sentence], sources: Sequence[Source]) -> tuple[Sentence, ...]:
        """The sentences, in order, each with the best `support` of the sources that its markers name;
        "not_stated" where it names none."""
        ...
