"""The way of one question: embed, search, filter, fit, route, generate, cite, verify.

Stages run on one worker thread, so that a server's event loop stays free; only generation, and waiting for one's turn in a batch,
are asynchronous.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias, TypeVar

from rag import prompt as prompts
from rag.abstain import Confidence, Weighing, weighed
from rag.cache import QuestionCache, QuestionCaches
from rag.context import Excerpt, condensed, filter_hits, fit, passages
from rag.core import (
    Answer,
    Citation,
    Encoder,
    EngineInfo,
    GenerationParams,
    GenerationStats,
    Generator,
    Hit,
    Hits,
    Prompt,
    Query,
    Reranker,
    Route,
    Searcher,
    Sentence,
    Source,
    SupportChecker,
    Tokens,
    Trace,
)
from rag.errors import EngineDied, QuestionError, SettingsError
from rag.prefetch import QuestionKey
from rag.rerank import scored
from rag.route import route
from rag.settings import Context, Settings
from rag.verify import shown

MAX_QUESTION = 2000
"""Characters. The encoder reads the first few hundred words; a longer text isn't a question."""

NOTHING_FOUND = "Nothing in the index is close enough to this question to answer it from."

WITHHELD = "An answer was written, but it is withheld: its sources don't support it."


@dataclass(frozen=True, slots=True)
class Searched:
    """First event of a stream: what the model will read (None where nothing is close enough), and all that was found."""

    prompt: Prompt | None
    hits: Hits


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer's text, without markers that point nowhere."""

    text: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What the model wrote, cited; then, checked, what of it is shown."""

    text: str
    sentences: tuple[Sentence, ...]
    citations: tuple[Citation, ...]
    invalid_markers: int
    abstained: bool
    truncated: bool
    withheld: bool = False


Event: TypeAlias = Searched | Delta | Answer
Answers: TypeAlias = QuestionCache[tuple[Searched, Answer]]
Caches: TypeAlias = QuestionCaches[tuple[Searched, Answer]]
Arrival: TypeAlias = Callable[[QuestionKey], Awaitable[None]]
"""Waits until a question can be searched without holding up others."""
Departure: TypeAlias = Callable[[], Awaitable[None]]
"""Waits until a question's prompt may go on to the engine."""

T = TypeVar("T")


class Pipeline:
    """Use it through `rag.build.open_pipeline`, which also closes it."""

    def __init__(
        self,
        settings: Settings,
        profile: str,
        encoder: Encoder,
        searcher: Searcher,
        generator: Generator,
        checker: SupportChecker | None = None,
        weighing: Weighing | None = None,
        reranker: Reranker | None = None,
        caches: Caches | None = None,
        startup_s: float | None = None,
    ) -> None:
        """`reranker` scores sentences where the prompt is condensed to some; the `searcher` has its own. `caches` are
        those that `encoder` and `searcher` look into, and that of finished answers of this pipeline."""
        self.settings = settings
        self.profile = profile
        self.startup_s = startup_s
        self.encoder = encoder
        self.searcher = searcher
        self._generator = generator
        self._checker = checker
        self._weighing = weighing
        self._reranker = reranker
        self.caches = caches if caches is not None else Caches()
        self._arrival: Arrival | None = None
        self._departure: Departure | None = None
        self._frame: int | None = None
        """Tokens of a prompt without question and sources, once they are known."""
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rag-stages")

    def having(
        self,
        *,
        searcher: Searcher | None = None,
        encoder: Encoder | None = None,
        caches: Caches | None = None,
        arrival: Arrival | None = None,
        departure: Departure | None = None,
    ) -> Pipeline:
        """The same pipeline, worker thread included, with these parts in place of its own; what is under way keeps those."""
        other = copy.copy(self)
        other.searcher = searcher if searcher is not None else self.searcher
        other.encoder = encoder if encoder is not None else self.encoder
        other.caches = caches if caches is not None else self.caches
        other._arrival = arrival if arrival is not None else self._arrival
        other._departure = departure if departure is not None else self._departure
        return other

    @property
    def alive(self) -> bool:
        """False once its engine is lost."""
        return self._generator.alive

    def lost(self, error: Exception) -> bool:
        """Does this error of it tell that its engine is lost?"""
        return isinstance(error, EngineDied) or not self.alive

    @property
    def engine(self) -> EngineInfo:
        return self._generator.info(None)

    @property
    def index_version(self) -> str:
        return self.searcher.index_version

    @property
    def generator(self) -> Generator:
        return self._generator

    @property
    def holds_back(self) -> bool:
        """Must an answer be checked before any of it is shown?"""
        return self._checker is not None and self.settings.verify.action != "mark"

    async def answer(self, question: str, where: str | None = None) -> Answer:
        """Raises what `stream` raises."""
        async for event in self.stream(question, where):
            if isinstance(event, Answer):
                return event
        raise AssertionError("a stream ends with its answer")

    async def stream(self, question: str, where: str | None = None) -> AsyncGenerator[Event, None]:
        """`Searched`, then `Delta`s (none where the pipeline `holds_back`), then the `Answer`. Closing it early
        aborts the generation. `where` is a condition that the sources' documents have to meet (`rag.where`).

        Raises `UsageError` for a condition that is none or asks for what no document has, `QuestionError`,
        `SettingsError` where the context window holds no source, and `EngineError` where the engine is lost.
        """
        question = check_question(question)
        trace = Trace()
        if self._arrival is not None:
            with trace.span("retrieve"):  # not on the worker thread, which others have work for
                await self._arrival((question, where))
        with trace.span("embed"):
            query = await self._run(self._embed, question, where)
        if (answers := self.caches.answers) is not None:
            kept_answer = await self._run(self._given_before, answers, query, trace)
            if kept_answer is not None:
                for event in kept_answer:
                    yield event
                return
        hits = await self._run(self._search, query, trace)
        with trace.span("filter"):
            kept = filter_hits(hits, self.settings.filter)
        if not kept:
            searched = Searched(None, hits)
            yield searched
            yield self._keep(query, searched, self._abstention(query, trace))
            return
        with trace.span("context"):
            prompt, prompt_tokens = await self._run(self._fit, query, kept, trace)
        with trace.span("route"):
            chosen = route(
                self.settings.generator, self._generator.model, prompt_tokens, self._generator.context_window
            )
        searched = Searched(prompt, hits)
        yield searched

        if self._departure is not None:
            with trace.span("wait"):
                await self._departure()
        text, stats, confidence = "", GenerationStats(output_tokens=0), None
        visible = prompts.MarkerFilter(len(prompt.sources))
        with trace.span("generate"):
            async with aclosing(self._generate(prompt, self._params(chosen))) as items:
                async for item in items:
                    if isinstance(item, GenerationStats):
                        stats = item
                    elif isinstance(item, Confidence):
                        confidence = item.value
                    else:
                        text += item
                        if not self.holds_back and (piece := visible.feed(item)):
                            yield Delta(piece)
        if rest := visible.rest():
            yield Delta(rest)
        draft = self._cite(text, prompt.sources, stats)
        if self._checker is not None and (not draft.abstained or len(draft.sentences) > 1):
            with trace.span("verify"):
                draft = await self._run(self._verify, self._checker, draft, prompt.sources)
        yield self._keep(query, searched, self._finish(query, draft, chosen, stats, confidence, trace))

    async def warm_up(self) -> None:
        """One short request: the first costs a second more, and leaves the system prompt in the prefix cache."""
        async for _ in self._generator.stream(prompts.overhead("?"), GenerationParams(max_tokens=1)):
            pass

    def close(self) -> None:
        """End the worker thread. Encoder, searcher and generator belong to whoever made them."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    # --- stages -----------------------------------------------------------------------------

    def _embed(self, question: str, where: str | None) -> Query:
        vector = self.caches.vector(question, where)
        return Query(question, vector if vector is not None else self.encoder.encode_queries([question])[0], where)

    def _given_before(self, answers: Answers, query: Query, trace: Trace) -> tuple[Event, ...] | None:
        """The events of an earlier answer, with the time of this one: nothing is generated for it."""
        with trace.span("cache"):
            found = answers.find(query)
        if found is None:
            return None
        entry, similarity = found
        searched, answer = entry.value
        trace.served(query.text, similarity, query.where)
        again = replace(answer, **self._circumstances(query, trace))
        streamed = searched.prompt is not None and not self.holds_back
        return (searched, Delta(answer.answer), again) if streamed else (searched, again)

    def _keep(self, query: Query, searched: Searched, answer: Answer) -> Answer:
        if self.caches.answers is not None:
            self.caches.answers.memory.put(query, (searched, answer))
        return answer

    def _search(self, query: Query, trace: Trace) -> Hits:
        return self.searcher.search([query], trace)[0]

    def _fit(self, query: Query, hits: Hits, trace: Trace) -> tuple[Prompt, int]:
        """The prompt, and how many tokens it has at most."""
        generator, settings = self._generator, self.settings.context
        with trace.span("condense") if settings.sentences is not None else nullcontext():
            excerpts = condense(query, hits, settings, self.encoder, self._reranker, trace)
        if sources := self._surely_fitting(query, excerpts):
            return prompts.build(query.text, sources), generator.context_window - self.settings.generator.max_tokens
        fixed = generator.count_prompt_tokens(prompts.overhead(query.text)) + self.settings.generator.max_tokens
        sources = fit(excerpts, settings, generator.context_window - fixed, generator.count_tokens)
        if not sources:
            raise SettingsError(
                f"The context window of {generator.context_window} tokens has no room for a source: instructions, question "
                f"and answer take {fixed}. Raise generator.max_model_len or lower generator.max_tokens."
            )
        prompt = prompts.build(query.text, sources)
        return prompt, generator.count_prompt_tokens(prompt.messages)

    def _surely_fitting(self, query: Query, excerpts: Sequence[Excerpt]) -> tuple[Source, ...]:
        """All excerpts uncut if their byte count leaves a whole answer its room (a token is at least one byte), which saves
        tokenising, most of what the way to the prompt takes; else ()."""
        if self._frame is None:
            self._frame = self._generator.count_prompt_tokens(prompts.overhead(""))
        budget = self._generator.context_window - self.settings.generator.max_tokens - self._frame - octets(query.text)
        sources = fit(excerpts, self.settings.context, budget, octets)
        return sources if [source.quote for source in sources] == [excerpt.text for excerpt in excerpts] else ()

    def _params(self, chosen: Route) -> GenerationParams:
        settings = self.settings.generator
        return GenerationParams(chosen.max_tokens, settings.temperature, settings.top_p, settings.seed)

    def _generate(
        self, prompt: Prompt, params: GenerationParams
    ) -> AsyncGenerator[Confidence | str | GenerationStats, None]:
        return weighed(
            self._generator,
            prompt.messages,
            params,
            prompt.sources,
            prompts.NOT_IN_SOURCES,
            self._weighing,
        )

    def _cite(self, raw: str, sources: tuple[Source, ...], stats: GenerationStats) -> Draft:
        abstained = prompts.declines(raw)
        truncated = stats.finish_reason == "length"
        if truncated:
            raw = prompts.whole_sentences(raw)
        text, sentences, citations, invalid = prompts.cite(raw, sources, self.settings.cite)
        if not prompts.says_something(text):
            return Draft("", (), (), invalid, True, truncated)
        return Draft(text, sentences, () if abstained else citations, invalid, abstained, truncated)

    def _verify(self, checker: SupportChecker, draft: Draft, sources: tuple[Source, ...]) -> Draft:
        checked = replace(draft, sentences=checker.check(draft.sentences, sources))
        if draft.abstained:
            return self._rest_checked(draft, checked)
        kept = shown(checked.sentences, self.settings.verify.action)
        if all(kept):
            return checked
        if not any(kept):
            return replace(checked, text=WITHHELD, citations=(), abstained=True, withheld=True)
        text, citations = prompts.keep(draft.text, draft.sentences, draft.citations, kept)
        return replace(checked, text=text, citations=citations)

    def _rest_checked(self, draft: Draft, checked: Draft) -> Draft:
        """A text that declines, and goes on: "The sources don't say. However, …". What it declines with is nothing to check."""
        declining = [number == 0 or prompts.declines(one.text) for number, one in enumerate(draft.sentences)]
        pairs = zip(draft.sentences, checked.sentences, declining, strict=True)
        sentences = tuple(before if declines else after for before, after, declines in pairs)
        said = [one for one, declines in zip(sentences, declining, strict=True) if not declines]
        rest = iter(shown(said, self.settings.verify.action))
        kept = [declines or next(rest) for declines in declining]
        text, _ = prompts.keep(draft.text, [replace(one, markers=()) for one in sentences], (), kept)
        return replace(draft, text=text, sentences=sentences)

    # --- endings ----------------------------------------------------------------------------

    def _finish(
        self,
        query: Query,
        draft: Draft,
        chosen: Route,
        stats: GenerationStats,
        confidence: float | None,
        trace: Trace,
    ) -> Answer:
        return Answer(
            answer=draft.text if draft.text else prompts.NOT_IN_SOURCES,
            abstained=draft.abstained,
            confidence=confidence,
            withheld=draft.withheld,
            truncated=draft.truncated,
            sentences=draft.sentences,
            citations=draft.citations,
            invalid_markers=draft.invalid_markers,
            route=chosen,
            **self._circumstances(query, trace, stats),
        )

    def _abstention(self, query: Query, trace: Trace) -> Answer:
        nothing = NOTHING_FOUND if query.where is None else f"{NOTHING_FOUND[:-1]}, of what meets {query.where}."
        return Answer(answer=nothing, abstained=True, **self._circumstances(query, trace))

    def _circumstances(self, query: Query, trace: Trace, stats: GenerationStats | None = None) -> dict[str, Any]:
        """The fields of an `Answer` that tell how it came about; without `stats` nothing was generated for it."""
        return {
            "question": query.text,
            "cache": trace.cache_info(query.text, self.index_version, query.where),
            "tokens": stats.tokens if stats is not None else Tokens(),
            "engine": self._generator.info(stats),
            "profile": self.profile,
            "startup_s": self.startup_s,
            "spans": trace.spans,
            "timings": trace.timings(stats),
        }

    async def _run(self, stage: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, stage, *arguments)


def condense(
    query: Query, hits: Sequence[Hit], settings: Context, encoder: Encoder, reranker: Reranker | None, trace: Trace
) -> list[Excerpt]:
    """What of the hits is for the prompt: whole passages, or the sentences that answer best by encoder and reranker, whose time has
    the span "score"."""
    if settings.sentences is None:
        return passages(hits, settings)

    def score(parts: Sequence[Hit]) -> list[float]:
        with trace.span("score"):
            return [part.score for part in scored(query, parts, encoder, reranker)]

    return condensed(hits, settings, settings.sentences, score)


def octets(text: str) -> int:
    return len(text.encode())


def check_question(question: str) -> str:
    """The question without the white space around it. Raises `QuestionError` where there is none or too much, or it isn't text."""
    question = question.strip()
    if not question:
        raise QuestionError('The question is empty. Ask something, e.g. rag ask "What causes malaria?"')
    if any("\ud800" <= letter <= "\udfff" for letter in question):  # what Python makes of bytes that aren't UTF-8
        raise QuestionError("The question isn't UTF-8. Set the terminal, or convert the file, to UTF-8.")
    if len(question) > MAX_QUESTION:
        raise QuestionError(
            f"The question has {len(question):,} characters, at most {MAX_QUESTION:,} are read. "
            "Shorten it; a text to search in belongs in the index (rag index PATH)."
        )
    return question


def answer_json(answer: Answer, prompt: Prompt | None, wanted: bool) -> dict[str, object]:
    """What `rag ask --json` prints, with `--show-prompt` if `wanted`."""
    messages = prompt.messages if prompt is not None else ()
    return {**asdict(answer), **({"prompt": messages} if wanted else {})}
