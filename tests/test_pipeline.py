"""The way of one question, on fakes: what reaches the model, and what comes back. The real one: test_whole_path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from indexes import write_index

from rag import settings
from rag.abstain import Weighing
from rag.cache import CacheCounts, CachedSearcher, Memory, QuestionCache
from rag.core import (
    Answer,
    Document,
    GenerationStats,
    Hits,
    Matcher,
    Opening,
    Query,
    SupportChecker,
    Tokens,
    Trace,
    covered,
)
from rag.errors import EngineDied, QuestionError, SettingsError
from rag.index import IndexReader, Versions, check_current, open_index
from rag.ingest import chunk
from rag.pipeline import MAX_QUESTION, WITHHELD, Answers, Caches, Delta, Event, Pipeline, Searched
from rag.prompt import NOT_IN_SOURCES
from rag.search import HybridSearcher
from rag.testing import FakeEncoder, FakeGenerator, FakeReranker, FakeSupportChecker

DOCUMENTS = [
    Document("malaria", "Malaria", "Malaria is caused by Plasmodium parasites. A mosquito carries them."),
    Document("scurvy", "Scurvy", "Scurvy is caused by a lack of vitamin C. Lemons cure it."),
    Document("gout", "Gout", "Gout is caused by crystals of urate. Joints swell."),
]


@pytest.fixture
def index(tmp_path: Path) -> IndexReader:
    loaded = settings.load(environ={}).settings
    encoder, versions = FakeEncoder(), Versions(tmp_path, "test")
    passages = [passage for document in DOCUMENTS for passage in chunk.split(document, 1000)]
    vectors = encoder.encode_passages([f"{p.title}\n{p.text}" for p in passages])
    write_index(
        versions,
        [(DOCUMENTS, passages, vectors)],
        model=encoder.model,
        settings=loaded.index,
        chunking={"max_chars": 1000},
    )
    return open_index(check_current(versions), loaded.index, loaded.retrieve, "cpu")


def make(
    index: IndexReader,
    generator: FakeGenerator,
    *assignments: str,
    checker: SupportChecker | None = None,
    weighing: Weighing | None = None,
) -> Pipeline:
    loaded = settings.load(assignments=assignments, environ={})
    searcher = HybridSearcher(index, loaded.settings.retrieve, FakeReranker() if weighing is not None else None)
    return Pipeline(loaded.settings, loaded.profile, FakeEncoder(), searcher, generator, checker, weighing)


async def test_an_answer_carries_citations_and_a_time_for_every_stage_that_ran(index: IndexReader) -> None:
    pipeline = make(index, FakeGenerator(["Malaria is caused ", "by Plasmodium parasites [1", "]."]))
    answer = await pipeline.answer("  What is malaria caused by?  ")
    assert answer.question == "What is malaria caused by?"
    assert answer.answer == "Malaria is caused by Plasmodium parasites [1]."
    assert [(c.marker, c.doc_id, c.origin) for c in answer.citations] == [(1, "malaria", "model")]
    assert not answer.abstained
    times = answer.timings
    for stage in ("embed", "retrieve", "filter", "context", "route", "generate", "total"):
        assert getattr(times, stage) is not None, stage
    for stage in ("cache", "rerank", "verify", "queue", "ttft", "decode"):
        assert getattr(times, stage) is None, stage
    assert covered(answer.spans) <= (times.total or 0)


async def test_the_model_reads_the_sources_before_the_question_and_is_asked_with_the_settings(
    index: IndexReader,
) -> None:
    generator = FakeGenerator(["Lemons [1]."])
    settings_ = ("generator.max_tokens=7", "generator.temperature=0.5", "context.passages=1")
    await make(index, generator, *settings_).answer("What cures scurvy?")
    (messages, params) = generator.asked[0]
    last = messages[-1]["content"]
    assert last.index("Scurvy is caused by a lack of vitamin C") < last.index("Question: What cures scurvy?")
    assert "Gout" not in last
    assert (params.max_tokens, params.temperature) == (7, 0.5)


async def test_the_model_reads_the_sentences_that_answer_best_where_the_settings_say_how_many(
    index: IndexReader,
) -> None:
    generator = FakeGenerator(["Plasmodium [1]."])
    pipeline = make(index, generator, "context.sentences=1")
    answer = await pipeline.answer("What is malaria caused by?")
    [(messages, _)] = generator.asked
    [quote] = [citation.quote for citation in answer.citations]
    passage = next(document.text for document in DOCUMENTS if "Plasmodium" in document.text)
    assert quote in passage
    assert len(quote) < len(passage)
    assert messages[1]["content"] == f"[1] Malaria\n{quote}\n\nQuestion: What is malaria caused by?"
    spans = {name: (start, end) for name, start, end in answer.spans}
    for inside, around in (("condense", "context"), ("score", "condense")):
        assert spans[around][0] <= spans[inside][0] <= spans[inside][1] <= spans[around][1]


@pytest.mark.parametrize(("window", "counted"), [(4096, 0), (370, 4)])
async def test_sources_and_prompt_are_tokenised_only_where_their_bytes_might_not_fit(
    index: IndexReader, window: int, counted: int
) -> None:
    class Counting(FakeGenerator):
        def count_tokens(self, text: str) -> int:
            if text.startswith("[") and not self.asked:
                tokenised.append(text)
            return super().count_tokens(text)

    tokenised: list[str] = []
    generator = Counting(["Urate [1]."], context_window=window)
    await make(index, generator, "filter.min_cosine=-1", "context.sentences=null").answer("What causes gout?")
    [(messages, _)] = generator.asked
    assert all(f"[{marker}]" in messages[-1]["content"] for marker in (1, 2, 3)), "all of them are read either way"
    assert len(tokenised) == counted


async def test_an_invalid_marker_is_removed_from_the_stream_and_from_the_answer_and_counted(index: IndexReader) -> None:
    pipeline = make(index, FakeGenerator(["Lemons cure scurvy [", "9", "] [1]."]))
    events = [event async for event in pipeline.stream("What cures scurvy?")]
    assert isinstance(events[0], Searched)
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "Lemons cure scurvy [1]."
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.answer, answer.invalid_markers) == ("Lemons cure scurvy [1].", 1)


@pytest.mark.parametrize(("text", "invalid"), [("[9].", 1), ("[1]", 0)])
async def test_an_answer_of_nothing_but_markers_is_none(index: IndexReader, text: str, invalid: int) -> None:
    events = [event async for event in make(index, FakeGenerator(list(text))).stream("What cures scurvy?")]
    assert not any(isinstance(event, Delta) for event in events), "what is shown can't be taken back"
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.answer, answer.abstained, answer.citations) == (NOT_IN_SOURCES, True, ())
    assert (answer.sentences, answer.invalid_markers) == ((), invalid)


async def test_where_nothing_is_close_enough_the_model_is_not_asked(index: IndexReader) -> None:
    generator = FakeGenerator(["never"])
    answer = await make(index, generator, "filter.min_cosine=0.9").answer("Who won the football cup?")
    assert answer.abstained
    assert (answer.citations, answer.route, answer.timings.generate, generator.asked) == ((), None, None, [])


async def test_all_that_was_found_is_told_also_where_nothing_of_it_is_close_enough(index: IndexReader) -> None:
    for closest, sources in (("-1", 2), ("0.9", 0)):
        pipeline = make(index, FakeGenerator(["Lemons [1]."]), f"filter.min_cosine={closest}", "context.passages=2")
        [searched] = [event async for event in pipeline.stream("What cures scurvy?") if isinstance(event, Searched)]
        assert searched.hits[0].passage.doc_id == "scurvy"
        assert len(searched.hits) == 3
        assert len(searched.prompt.sources if searched.prompt is not None else ()) == sources


async def test_a_model_that_declines_makes_an_abstention_without_citations(index: IndexReader) -> None:
    answer = await make(index, FakeGenerator(["None of the sources answers the question."])).answer("What cures gout?")
    assert (answer.abstained, answer.citations) == (True, ())


WEIGHING = Weighing(of_word=1.0, of_relevance=-1.0, shift=0.0, min_confidence=0.5)


async def test_what_the_reranker_says_is_weighed_with_the_model_s_word(index: IndexReader) -> None:
    generator = FakeGenerator(["Lemons cure scurvy [1]."])
    generator.opening = Opening(0.4, taken=False, otherwise="Lemons", stats=GenerationStats(1, prompt_tokens=50))
    pipeline = make(index, generator, weighing=WEIGHING)
    answer = await pipeline.answer("Scurvy is caused by what?")
    assert answer.confidence is not None
    assert (answer.abstained, answer.confidence > 0.5) == (False, True)
    declined = await pipeline.answer("Which tree bears fruit that sailors of old ate against scurvy at sea?")
    assert declined.confidence is not None
    assert (declined.abstained, declined.citations, declined.confidence < 0.5) == (True, (), True)
    assert (declined.answer, declined.tokens.prompt) == (NOT_IN_SOURCES, 50)
    assert generator.aborted == 1


async def test_without_weights_there_is_no_confidence(index: IndexReader) -> None:
    answer = await make(index, FakeGenerator(["Lemons cure scurvy [1]."])).answer("What cures scurvy?")
    assert answer.confidence is None


async def test_an_answer_at_its_length_limit_says_so_and_loses_the_cut_sentence(index: IndexReader) -> None:
    generator = FakeGenerator(["Lemons cure scurvy [1]. ", "It is caused ", "by a lack of vitamin C"])
    answer = await make(index, generator, "generator.max_tokens=2").answer("What cures scurvy?")
    assert (answer.truncated, answer.answer) == (True, "Lemons cure scurvy [1].")


async def test_a_reader_that_goes_away_aborts_the_generation(index: IndexReader) -> None:
    generator = FakeGenerator(["Lemons ", "cure ", "scurvy"])
    stream = make(index, generator).stream("What cures scurvy?")
    async for event in stream:
        if isinstance(event, Delta):
            break
    await stream.aclose()
    assert generator.aborted == 1


async def test_an_engine_that_dies_is_an_error_and_not_an_answer(index: IndexReader) -> None:
    with pytest.raises(EngineDied, match="after 1 tokens"):
        await make(index, FakeGenerator(["Lemons ", "cure "], dies_after=1)).answer("What cures scurvy?")


async def test_a_small_context_window_shortens_the_first_source(index: IndexReader) -> None:
    generator = FakeGenerator(["Lemons [1]."], context_window=242)
    await make(index, generator, "generator.max_tokens=40").answer("What cures scurvy?")
    messages, params = generator.asked[0]
    assert generator.count_prompt_tokens(messages) + params.max_tokens <= 242
    assert "[1] Scurvy" in messages[-1]["content"]


async def test_a_context_window_without_room_for_a_source_is_a_settings_error(index: IndexReader) -> None:
    with pytest.raises(SettingsError, match="90 tokens has no room for a source"):
        await make(index, FakeGenerator(context_window=90), "generator.max_tokens=40").answer("What cures scurvy?")


@pytest.mark.parametrize("question", ["", "   \n\t "])
async def test_a_blank_question_is_refused(index: IndexReader, question: str) -> None:
    with pytest.raises(QuestionError, match="empty"):
        await make(index, FakeGenerator()).answer(question)


async def test_a_question_of_100_000_characters_is_refused_with_both_numbers(index: IndexReader) -> None:
    with pytest.raises(QuestionError, match=f"100,000 characters, at most {MAX_QUESTION:,}"):
        await make(index, FakeGenerator()).answer("why?" * 25_000)


async def test_the_question_is_embedded_once(index: IndexReader) -> None:
    calls: list[Sequence[str]] = []

    class Counting(FakeEncoder):
        def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
            calls.append(texts)
            return super().encode_queries(texts)

    loaded = settings.load(environ={})
    seen: list[Query] = []

    class Watching(HybridSearcher):
        def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
            seen.extend(queries)
            return super().search(queries, trace)

    pipeline = Pipeline(
        loaded.settings, "p", Counting(), Watching(index, loaded.settings.retrieve), FakeGenerator(["Lemons [1]."])
    )
    await pipeline.answer("What cures scurvy?")
    assert calls == [["What cures scurvy?"]]
    assert seen[0].vector.shape == (FakeEncoder.dimension,)


# --- checked against the sources -----------------------------------------------------------------

WRITTEN = [
    "Malaria is caused by Plasmodium ",
    "parasites [1]. A mosquito carries ",
    "not them [1]. Lemons cure it [1].",
]
SUPPORTS = ["supported", "contradicted", "not_stated"]


def checked(index: IndexReader, deltas: Sequence[str], action: str) -> Pipeline:
    chosen = ("verify.model=fake", f"verify.action={action}", "context.passages=1")
    return make(index, FakeGenerator(deltas), *chosen, checker=FakeSupportChecker())


async def run(pipeline: Pipeline) -> tuple[str, Answer]:
    """What was streamed, and the answer."""
    events = [event async for event in pipeline.stream("What is malaria caused by?")]
    answer = events[-1]
    assert isinstance(answer, Answer)
    return "".join(event.text for event in events if isinstance(event, Delta)), answer


async def test_unsupported_sentences_are_marked_and_the_answer_stays(index: IndexReader) -> None:
    streamed, answer = await run(checked(index, WRITTEN, "mark"))
    assert streamed == answer.answer == "".join(WRITTEN)
    assert [one.support for one in answer.sentences] == SUPPORTS
    assert (answer.abstained, answer.withheld) == (False, False)
    assert [one.marker for one in answer.citations] == [1]
    assert answer.timings.verify is not None
    assert [stage for stage, _, _ in answer.spans][-2:] == ["generate", "verify"]


async def test_unsupported_sentences_are_dropped_and_nothing_is_shown_before(index: IndexReader) -> None:
    streamed, answer = await run(checked(index, WRITTEN, "drop"))
    assert streamed == ""
    assert answer.answer == "Malaria is caused by Plasmodium parasites [1]."
    assert [one.support for one in answer.sentences] == SUPPORTS
    assert (answer.abstained, answer.withheld) == (False, False)


async def test_a_citation_of_dropped_sentences_alone_is_dropped_too(index: IndexReader) -> None:
    pipeline = make(
        index,
        FakeGenerator(["Malaria is caused by Plasmodium parasites [1]. Lemons are yellow [2]."]),
        "verify.model=fake",
        "verify.action=drop",
        "filter.min_cosine=-1",
        checker=FakeSupportChecker(),
    )
    _, answer = await run(pipeline)
    assert [one.marker for one in answer.citations] == [1]
    assert [one.markers for one in answer.sentences] == [(1,), (2,)]


@pytest.mark.parametrize(
    ("deltas", "action"),
    [(WRITTEN, "withhold"), (["Lemons cure it [1]."], "drop"), (["Lemons cure it [1]."], "withhold")],
)
async def test_a_withheld_answer_is_an_abstention_that_lists_its_sentences(
    index: IndexReader, deltas: list[str], action: str
) -> None:
    streamed, answer = await run(checked(index, deltas, action))
    assert (streamed, answer.answer) == ("", WITHHELD)
    assert (answer.abstained, answer.withheld, answer.citations) == (True, True, ())
    assert [one.support for one in answer.sentences][-1] == "not_stated"
    assert "".join(deltas).count(".") == len(answer.sentences)


@pytest.mark.parametrize("action", ["drop", "withhold"])
async def test_a_supported_answer_is_given_as_it_is(index: IndexReader, action: str) -> None:
    streamed, answer = await run(checked(index, ["Malaria is caused by Plasmodium parasites [1]."], action))
    assert (streamed, answer.answer) == ("", "Malaria is caused by Plasmodium parasites [1].")
    assert (answer.abstained, answer.withheld, len(answer.citations)) == (False, False, 1)


@pytest.mark.parametrize("action", ["mark", "drop", "withhold"])
async def test_an_abstention_is_not_checked(index: IndexReader, action: str) -> None:
    _, answer = await run(checked(index, ["None of the sources answers the question."], action))
    assert (answer.abstained, answer.withheld, answer.timings.verify) == (True, False, None)
    assert [one.support for one in answer.sentences] == ["unchecked"]


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        (
            "mark",
            "The sources do not mention a cure. However, lemons cure it. Malaria is caused by Plasmodium parasites.",
        ),
        ("drop", "The sources do not mention a cure. Malaria is caused by Plasmodium parasites."),
        ("withhold", "The sources do not mention a cure."),
    ],
)
async def test_what_follows_a_refusal_is_checked_like_any_answer(index: IndexReader, action: str, shown: str) -> None:
    written = "The sources do not mention a cure. However, lemons cure it. Malaria is caused by Plasmodium parasites."
    streamed, answer = await run(checked(index, [written], action))
    assert (answer.abstained, answer.withheld, answer.citations) == (True, False, ())
    assert answer.answer == shown
    assert streamed == (written if action == "mark" else "")
    assert [one.support for one in answer.sentences] == ["unchecked", "not_stated", "supported"]


async def test_a_refusal_that_cites_and_goes_on_is_checked_too(index: IndexReader) -> None:
    written = "None of the sources answers the question. But lemons cure it [1]."
    _, answer = await run(checked(index, [written], "withhold"))
    assert (answer.answer, answer.abstained) == ("None of the sources answers the question.", True)


async def test_without_a_checker_sentences_are_unchecked(index: IndexReader) -> None:
    _, answer = await run(make(index, FakeGenerator(WRITTEN)))
    assert {one.support for one in answer.sentences} == {"unchecked"}
    assert (answer.withheld, answer.timings.verify) == (False, None)


# --- finished answers ----------------------------------------------------------------------------

CAUSE, CAUSE_TOO = "What is malaria caused by?", "Which parasites is malaria caused by?"
SPOKEN = ["Malaria is caused ", "by Plasmodium parasites [1", "]."]


class Searching(HybridSearcher):
    """Keeps what it is asked for."""

    asked: tuple[str, ...] = ()

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        self.asked += tuple(query.text for query in queries)
        return super().search(queries, trace)


class Agreeing:
    """A matcher that takes the nearest question for the same."""

    def same(self, question: str, earlier: str) -> bool:
        del question, earlier
        return True


class Keeping:
    """A pipeline that keeps finished answers, and what it is made of."""

    def __init__(
        self,
        index: IndexReader,
        *assignments: str,
        generator: FakeGenerator | None = None,
        matcher: Matcher | None = None,
        checker: SupportChecker | None = None,
    ) -> None:
        loaded = settings.load(assignments=assignments, environ={})
        self.generator = generator if generator is not None else FakeGenerator(SPOKEN)
        self.searcher = Searching(index, loaded.settings.retrieve)
        self.answers: Answers = QuestionCache(Memory(FakeEncoder.dimension, 10), matcher, 0.5)
        self.pipeline = Pipeline(
            loaded.settings,
            loaded.profile,
            FakeEncoder(),
            self.searcher,
            self.generator,
            checker,
            caches=Caches(answers=self.answers),
            startup_s=12.5,
        )

    async def events(self, question: str, where: str | None = None) -> list[Event]:
        return [event async for event in self.pipeline.stream(question, where)]


async def test_a_repeated_question_gets_its_answer_again_and_nothing_is_searched_or_generated(
    index: IndexReader,
) -> None:
    kept = Keeping(index)
    first = await kept.pipeline.answer(CAUSE)
    again = await kept.pipeline.answer(f"  {CAUSE.lower()} ")
    assert (len(kept.generator.asked), kept.searcher.asked) == (1, (CAUSE,))
    assert again.question == CAUSE.lower()
    assert (again.answer, again.citations, again.sentences) == (first.answer, first.citations, first.sentences)
    assert (again.abstained, again.confidence, again.route, again.profile) == (
        first.abstained,
        first.confidence,
        first.route,
        first.profile,
    )
    assert [citation.doc_id for citation in again.citations] == ["malaria"]
    assert kept.answers.memory.counts == CacheCounts(exact=1, missed=1)


@pytest.mark.parametrize("keeps", ["answers", "hits"])
async def test_a_repeat_is_known_by_its_words_and_not_encoded(
    index: IndexReader, monkeypatch: pytest.MonkeyPatch, keeps: str
) -> None:
    kept = Keeping(index)
    pipeline = kept.pipeline
    if keeps == "hits":
        cached = CachedSearcher(kept.searcher, QuestionCache(Memory(FakeEncoder.dimension, 10)))
        pipeline = pipeline.having(searcher=cached, caches=Caches(hits=cached.cache))
    await pipeline.answer(CAUSE)
    monkeypatch.setattr(FakeEncoder, "encode_queries", None)  # it can't be asked
    assert (await pipeline.answer(f" {CAUSE.lower()} ")).cache.similarity == 1.0


async def test_what_is_given_again_says_so_and_tells_its_own_time(index: IndexReader) -> None:
    kept = Keeping(index)
    first, again = [await kept.pipeline.answer(CAUSE) for _ in range(2)]
    assert (first.cache.hit, first.cache.similarity) == (False, None)
    assert (again.cache.hit, again.cache.similarity, again.cache.index_version) == (True, 1.0, "test/000001")
    assert (again.tokens, again.startup_s) == (Tokens(), 12.5)
    assert first.tokens.output == len(SPOKEN)
    for stage in ("embed", "cache", "total"):
        assert getattr(again.timings, stage) is not None, stage
    for stage in ("retrieve", "filter", "context", "route", "generate", "queue", "ttft", "decode", "verify"):
        assert getattr(again.timings, stage) is None, stage
    assert [stage for stage, _, _ in again.spans] == ["embed", "cache"]
    assert covered(again.spans) <= (again.timings.total or 0)


async def test_a_reader_of_the_stream_sees_the_sources_then_the_text_then_the_answer(index: IndexReader) -> None:
    kept = Keeping(index)
    first, again = [await kept.events(CAUSE) for _ in range(2)]
    assert isinstance(again[0], Searched)
    assert again[0] == first[0]
    assert "".join(event.text for event in again if isinstance(event, Delta)) == "".join(SPOKEN)
    assert [type(event) for event in again[-2:]] == [Delta, Answer]


async def test_another_question_gets_it_where_the_matcher_says_that_it_asks_the_same(index: IndexReader) -> None:
    kept = Keeping(index, matcher=Agreeing())
    first = await kept.pipeline.answer(CAUSE)
    other = await kept.pipeline.answer(CAUSE_TOO)
    assert (other.question, other.answer) == (CAUSE_TOO, first.answer)
    vectors = FakeEncoder().encode_queries([CAUSE, CAUSE_TOO])
    assert other.cache.similarity == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    assert (len(kept.generator.asked), kept.searcher.asked) == (1, (CAUSE,))


async def test_under_another_condition_it_is_another_question(index: IndexReader) -> None:
    kept = Keeping(index, matcher=Agreeing())
    everything = await kept.pipeline.answer(CAUSE)
    nothing = await kept.pipeline.answer(CAUSE, "retracted")
    again = await kept.pipeline.answer(CAUSE, "retracted")
    assert (everything.abstained, nothing.abstained, again.abstained) == (False, True, True)
    assert "retracted" in again.answer
    assert (nothing.cache.hit, again.cache.hit) == (False, True)
    assert (await kept.pipeline.answer(CAUSE)).answer == everything.answer


async def test_over_a_new_version_of_the_index_no_answer_of_the_old_one_is_given(index: IndexReader) -> None:
    kept = Keeping(index)
    before = await kept.pipeline.answer(CAUSE)
    newer = Searching(index, kept.pipeline.settings.retrieve)
    answers: Answers = QuestionCache(Memory(FakeEncoder.dimension, 10))
    other = kept.pipeline.having(searcher=newer, caches=Caches(answers=answers))
    kept.generator.deltas = ["A mosquito carries them [1]."]
    found = await other.answer(CAUSE)
    assert (found.cache.hit, found.answer, newer.asked) == (False, "A mosquito carries them [1].", (CAUSE,))
    again = await other.answer(CAUSE)
    assert (again.cache.hit, again.answer) == (True, found.answer)
    late = await kept.pipeline.answer(CAUSE)  # one that was under way keeps its own
    assert (late.cache.hit, late.answer) == (True, before.answer)


@pytest.mark.parametrize(
    ("assignment", "deltas", "asked"),
    [
        ("filter.min_cosine=0.99", ["never"], 0),
        ("filter.min_cosine=-1", ["None of the sources answers the question."], 1),
    ],
    ids=["nothing is close enough", "the model declines"],
)
async def test_an_abstention_is_kept_too(index: IndexReader, assignment: str, deltas: list[str], asked: int) -> None:
    kept = Keeping(index, assignment, generator=FakeGenerator(deltas))
    first, again = [await kept.pipeline.answer(CAUSE) for _ in range(2)]
    assert (first.abstained, first.cache.hit) == (True, False)
    assert (again.abstained, again.cache.hit) == (True, True)
    assert (again.answer, again.citations) == (first.answer, ())
    assert (len(kept.generator.asked), kept.searcher.asked) == (asked, (CAUSE,))


async def test_where_the_generator_dies_nothing_is_kept(index: IndexReader) -> None:
    kept = Keeping(index, generator=FakeGenerator(SPOKEN, dies_after=1))
    with pytest.raises(EngineDied):
        await kept.pipeline.answer(CAUSE)
    assert kept.answers.memory.entries() == []
    kept.generator.dies_after = None
    answer = await kept.pipeline.answer(CAUSE)
    assert (answer.cache.hit, answer.answer) == (False, "".join(SPOKEN))


async def test_where_the_reader_goes_away_nothing_is_kept(index: IndexReader) -> None:
    kept = Keeping(index)
    stream = kept.pipeline.stream(CAUSE)
    async for event in stream:
        if isinstance(event, Delta):
            break
    await stream.aclose()
    assert (kept.generator.aborted, kept.answers.memory.entries()) == (1, [])


@pytest.mark.parametrize("action", ["drop", "withhold"])
async def test_an_answer_that_was_checked_is_given_again_as_it_was_shown_and_not_streamed(
    index: IndexReader, action: str
) -> None:
    """A pipeline that holds back has no deltas, so a reader prints the answer itself."""
    chosen = ("verify.model=fake", f"verify.action={action}", "context.passages=1")
    kept = Keeping(index, *chosen, generator=FakeGenerator(WRITTEN), checker=FakeSupportChecker())
    first, again = [await kept.events(CAUSE) for _ in range(2)]
    shown, repeated = first[-1], again[-1]
    assert isinstance(shown, Answer)
    assert isinstance(repeated, Answer)
    assert (repeated.answer, repeated.withheld, repeated.sentences) == (shown.answer, shown.withheld, shown.sentences)
    assert (repeated.cache.hit, repeated.timings.verify, len(kept.generator.asked)) == (True, None, 1)
    assert [type(event) for event in again] == [type(event) for event in first] == [Searched, Answer]


async def test_without_a_cache_every_question_is_answered_anew(index: IndexReader) -> None:
    generator = FakeGenerator(SPOKEN)
    pipeline = make(index, generator)
    hits = [(await pipeline.answer(CAUSE)).cache.hit for _ in range(2)]
    assert (hits, len(generator.asked)) == ([False, False], 2)
