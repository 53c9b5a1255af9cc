"""rag/cache/searcher.py over fakes: what is searched, encoded and matched, and what isn't any more; then many threads at once."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rag.cache import CacheCounts, CachedEncoder, CachedSearcher, Memory, QuestionCache
from rag.core import CacheInfo, Hit, Hits, Passage, Query, Trace
from rag.testing import FakeEncoder

if TYPE_CHECKING:
    from rag.core import Matrix, Vector

AXES: list[Vector] = list(np.eye(4, dtype=np.float32))


def near(cosine: float) -> Vector:
    """A unit vector of this cosine with the first axis."""
    vector: Vector = (cosine * AXES[0] + np.sqrt(1 - cosine**2) * AXES[1]).astype(np.float32)
    return vector


CAUSE = Query("What causes malaria?", AXES[0])
CAUSE_TOO = Query("What is malaria caused by?", near(0.9))
CURE = Query("What cures malaria?", near(0.8))
GOUT = Query("What is gout?", AXES[2])
RASH = Query("What is a rash?", AXES[3])


def found_for(text: str, where: str | None = None, revision: int = 0) -> Hits:
    return (Hit(Passage(f"{text}|{where}", "d", "T", "Text.", 0, 5), 0.5, fused_rank=revision),)


class Searching:
    """Finds a passage that names the question. Fails for those in `failing`."""

    index_version = "notes/000007"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failing: set[str] = set()

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        self.batches.append([query.text for query in queries])
        with trace.span("retrieve"):
            if failed := self.failing & {query.text for query in queries}:
                raise RuntimeError(f"can't search for {failed}")
            return [found_for(query.text, query.where, len(self.batches)) for query in queries]


class Table:
    """A matcher that knows which questions are the same. `asked` keeps what it was asked."""

    def __init__(self, *same: tuple[Query, Query]) -> None:
        self.same_ones = {frozenset((one.text, other.text)) for one, other in same}
        self.asked: list[tuple[str, str]] = []

    def same(self, question: str, earlier: str) -> bool:
        self.asked.append((question, earlier))
        return frozenset((question, earlier)) in self.same_ones


class Cached:
    """A cached searcher with everything that it is made of."""

    def __init__(self, matcher: Table | None = None, min_cosine: float = 0.5, max_entries: int = 10) -> None:
        self.memory: Memory[Hits] = Memory(4, max_entries)
        self.searching = Searching()
        self.matcher = matcher
        self.puts = 0
        self.searcher = CachedSearcher(self.searching, QuestionCache(self.memory, matcher, min_cosine), self._put)

    def _put(self, count: int) -> None:
        self.puts += count

    def search(self, *queries: Query) -> list[str]:
        """The passages found first."""
        return [hits[0].passage.id for hits in self.searcher.search(queries, Trace())]

    def info(self, query: Query) -> CacheInfo:
        trace = Trace()
        self.searcher.search([query], trace)
        return trace.cache_info(query.text, self.searcher.index_version)


def passage(query: Query) -> str:
    return f"{query.text}|{query.where}"


# --- what is searched ----------------------------------------------------------------------------


def test_a_question_is_searched_once_and_its_hits_are_given_again() -> None:
    cached = Cached()
    [first] = cached.searcher.search([CAUSE], Trace())
    [again] = cached.searcher.search([Query("what causes malaria", AXES[3])], Trace())
    assert again == first
    assert cached.searching.batches == [[CAUSE.text]]
    assert cached.memory.counts == CacheCounts(exact=1, missed=1)


def test_of_a_batch_only_what_is_missing_is_searched_and_all_come_in_their_order() -> None:
    cached = Cached(Table((CAUSE, CAUSE_TOO)))
    cached.search(CAUSE, GOUT)
    assert cached.search(RASH, GOUT, CURE, CAUSE_TOO, CAUSE) == [
        passage(RASH),
        passage(GOUT),
        passage(CURE),
        passage(CAUSE),
        passage(CAUSE),
    ]
    assert cached.searching.batches == [[CAUSE.text, GOUT.text], [RASH.text, CURE.text]]
    assert cached.memory.counts == CacheCounts(exact=2, matched=1, missed=4, refused=1)


def test_an_empty_batch_finds_nothing_and_searches_nothing() -> None:
    cached = Cached()
    assert cached.searcher.search([], Trace()) == []
    assert (cached.searching.batches, cached.puts) == ([], 0)


def test_the_same_question_twice_in_a_batch_gets_the_same_and_is_one_entry() -> None:
    cached = Cached()
    twice = [CAUSE, GOUT, Query("what causes malaria", AXES[0])]
    first, _, other = cached.searcher.search(twice, Trace())
    assert first[0].passage.title == other[0].passage.title
    assert len(cached.memory) == 2
    assert cached.search(*twice)[1] == passage(GOUT)
    assert len(cached.searching.batches) == 1


def test_a_question_that_finds_nothing_is_kept_too() -> None:
    class Nothing(Searching):
        def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
            super().search(queries, trace)
            return [() for _ in queries]

    searching = Nothing()
    searcher = CachedSearcher(searching, QuestionCache(Memory(4, 10)))
    assert [searcher.search([CAUSE], Trace()) for _ in range(3)] == [[()]] * 3
    assert len(searching.batches) == 1


def test_the_version_of_the_index_is_the_searcher_s() -> None:
    assert Cached().searcher.index_version == "notes/000007"


def test_it_is_told_of_what_is_new_and_of_nothing_else() -> None:
    cached = Cached()
    cached.search(CAUSE)
    cached.search(CAUSE)
    assert cached.puts == 1
    cached.search(CAUSE, GOUT)
    assert cached.puts == 2


def test_an_entry_is_there_before_it_is_told_of() -> None:
    """Else the last one would be missing from the file that is written then."""
    memory: Memory[Hits] = Memory(4, 10)
    seen: list[tuple[int, int]] = []
    searcher = CachedSearcher(Searching(), QuestionCache(memory), lambda count: seen.append((count, len(memory))))
    searcher.search([CAUSE, GOUT], Trace())
    assert seen == [(2, 2)]


def test_what_was_evicted_is_searched_again() -> None:
    cached = Cached(max_entries=2)
    for query in (CAUSE, GOUT, CAUSE, RASH, GOUT):
        cached.search(query)
    assert [batch[0] for batch in cached.searching.batches] == [CAUSE.text, GOUT.text, RASH.text, GOUT.text]
    assert cached.memory.counts == CacheCounts(exact=1, missed=4, evicted=2)


# --- other words ---------------------------------------------------------------------------------


def test_another_question_is_served_where_the_matcher_says_that_it_asks_the_same() -> None:
    table = Table((CAUSE, CAUSE_TOO))
    cached = Cached(table)
    assert cached.search(CAUSE) == cached.search(CAUSE_TOO) == [passage(CAUSE)]
    assert table.asked == [(CAUSE_TOO.text, CAUSE.text)]
    assert cached.memory.counts == CacheCounts(matched=1, missed=1)


def test_one_that_the_matcher_refuses_is_searched_and_counted_as_refused() -> None:
    table = Table()
    cached = Cached(table)
    cached.search(CAUSE)
    assert cached.search(CURE) == [passage(CURE)]
    assert table.asked == [(CURE.text, CAUSE.text)]
    assert cached.searching.batches == [[CAUSE.text], [CURE.text]]
    assert cached.memory.counts == CacheCounts(missed=2, refused=1)


def test_only_the_nearest_is_asked_about() -> None:
    """Each look costs as much as a passage to rerank."""
    table = Table((CURE, CAUSE_TOO))
    cached = Cached(table)
    cached.search(CAUSE, CURE)
    cached.search(Query("asked", near(0.97)))
    assert [earlier for _, earlier in table.asked] == [CAUSE.text]


@pytest.mark.parametrize(("min_cosine", "asked"), [(0.81, 0), (0.79, 1)])
def test_the_matcher_is_not_asked_below_the_lowest_cosine(min_cosine: float, asked: int) -> None:
    table = Table((CAUSE, CURE))
    cached = Cached(table, min_cosine)
    cached.search(CAUSE)
    assert cached.search(CURE) == [passage(CAUSE if asked else CURE)]
    assert len(table.asked) == asked
    assert cached.memory.counts == (CacheCounts(matched=1, missed=1) if asked else CacheCounts(missed=2))


def test_the_matcher_is_not_asked_about_a_repeat_nor_where_there_is_nothing_to_compare_with() -> None:
    table = Table()
    cached = Cached(table, -1.0)
    cached.search(CAUSE)
    cached.search(CAUSE, Query(" what  causes malaria", AXES[3]))
    assert table.asked == []


def test_without_a_matcher_only_repeats_are_served() -> None:
    cached = Cached(None, -1.0)
    cached.search(CAUSE)
    assert cached.search(Query(CAUSE_TOO.text, AXES[0])) == [passage(CAUSE_TOO)]
    assert cached.memory.counts == CacheCounts(missed=2)


def test_a_question_that_was_served_by_another_keeps_that_one_from_going() -> None:
    cached = Cached(Table((CAUSE, CAUSE_TOO)), max_entries=2)
    cached.search(CAUSE)
    cached.search(GOUT)
    cached.search(CAUSE_TOO)
    cached.search(RASH)
    assert [entry.question for entry in cached.memory.entries()] == [CAUSE.text, RASH.text]


def test_another_condition_makes_another_entry() -> None:
    table = Table((CAUSE, CAUSE_TOO))
    cached = Cached(table)
    since = Query(CAUSE.text, CAUSE.vector, "year>2000")
    cached.search(CAUSE)
    assert cached.search(since, CAUSE) == [passage(since), passage(CAUSE)]
    assert cached.search(Query(CAUSE_TOO.text, CAUSE_TOO.vector, "year>2000")) == [passage(since)]
    assert cached.search(Query(CAUSE_TOO.text, CAUSE_TOO.vector, "year>1900")) == [f"{CAUSE_TOO.text}|year>1900"]
    assert table.asked == [(CAUSE_TOO.text, CAUSE.text)]
    assert len(cached.memory) == 3


# --- what is told --------------------------------------------------------------------------------


def test_the_trace_tells_a_hit_and_how_similar_the_earlier_question_is() -> None:
    cached = Cached(Table((CAUSE, CAUSE_TOO)))
    assert cached.info(CAUSE) == CacheInfo(False, None, "notes/000007")
    assert cached.info(CAUSE) == CacheInfo(True, 1.0, "notes/000007")
    matched = cached.info(CAUSE_TOO)
    assert (matched.hit, matched.index_version) == (True, "notes/000007")
    assert matched.similarity == pytest.approx(0.9, abs=1e-6)
    assert cached.info(CURE) == CacheInfo(False, None, "notes/000007")


def test_of_a_batch_it_tells_each_by_itself() -> None:
    cached = Cached(Table((CAUSE, CAUSE_TOO)))
    cached.search(CAUSE)
    trace = Trace()
    cached.searcher.search([GOUT, CAUSE_TOO, CAUSE], trace)
    assert [trace.cache_info(query.text, "v").hit for query in (GOUT, CAUSE_TOO, CAUSE)] == [False, True, True]


def test_a_look_up_has_a_span_and_what_is_served_has_none_of_a_search() -> None:
    cached = Cached()
    spans = []
    for _ in range(2):
        trace = Trace()
        cached.searcher.search([CAUSE], trace)
        spans.append([stage for stage, _, _ in trace.spans])
    assert spans == [["cache", "retrieve", "cache"], ["cache"]]


# --- errors --------------------------------------------------------------------------------------


def test_an_error_of_the_search_is_raised_and_keeps_nothing_of_its_batch() -> None:
    cached = Cached()
    cached.search(CAUSE)
    before = [entry.key for entry in cached.memory.entries()]
    cached.searching.failing = {RASH.text}
    with pytest.raises(RuntimeError, match="What is a rash"):
        cached.search(CAUSE, GOUT, RASH)
    assert [entry.key for entry in cached.memory.entries()] == before
    assert cached.puts == 1
    cached.searching.failing = set()
    assert cached.search(GOUT, RASH) == [passage(GOUT), passage(RASH)]


def test_an_error_of_the_matcher_is_raised_and_keeps_nothing() -> None:
    class Failing(Table):
        def same(self, question: str, earlier: str) -> bool:
            raise RuntimeError(f"can't read {question} and {earlier}")

    cached = Cached(Failing())
    cached.search(CAUSE)
    with pytest.raises(RuntimeError, match="can't read"):
        cached.search(CURE)
    assert [entry.question for entry in cached.memory.entries()] == [CAUSE.text]
    assert cached.search(CAUSE) == [passage(CAUSE)]


# --- the encoder ---------------------------------------------------------------------------------


class Encoding(FakeEncoder):
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.queries: list[list[str]] = []
        self.passages: list[list[str]] = []
        self.fails = False

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        self.queries.append(list(texts))
        if self.fails:
            raise RuntimeError("can't encode")
        rows = [self._encode(text) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), self.dimension)

    def encode_passages(self, texts: Sequence[str]) -> Matrix:
        self.passages.append(list(texts))
        return super().encode_passages(texts)


def plain(*texts: str) -> Matrix:
    return FakeEncoder().encode_queries(texts)


def test_a_repeat_is_not_encoded_again() -> None:
    encoding = Encoding()
    encoder = CachedEncoder(encoding, 10)
    first = encoder.encode_queries(["What causes malaria?"])
    np.testing.assert_array_equal(first, plain("What causes malaria?"))
    np.testing.assert_array_equal(encoder.encode_queries(["What causes malaria?"]), first)
    assert encoding.queries == [["What causes malaria?"]]


def test_another_spelling_has_a_vector_of_its_own() -> None:
    """An encoder reads the mark at the end: with it and without the cosine may be 0.9."""
    encoding = Encoding()
    encoder = CachedEncoder(encoding, 10)
    encoder.encode_queries(["What causes malaria?"])
    encoder.encode_queries(["What causes malaria"])
    assert encoding.queries == [["What causes malaria?"], ["What causes malaria"]]


def test_of_a_batch_only_what_is_new_is_encoded_and_all_come_in_their_order() -> None:
    encoding = Encoding()
    encoder = CachedEncoder(encoding, 10)
    encoder.encode_queries(["gout", "fever"])
    texts = ["rash", "fever", "cough", "gout", "rash"]
    found = encoder.encode_queries(texts)
    np.testing.assert_array_equal(found, plain(*texts))
    assert found.dtype == np.float32
    assert set(encoding.queries[-1]) == {"rash", "cough"}


def test_an_empty_batch_has_no_rows() -> None:
    assert CachedEncoder(Encoding(), 10).encode_queries([]).shape == (0, FakeEncoder.dimension)


def test_no_more_vectors_are_kept_than_it_may_and_the_least_used_go() -> None:
    encoding = Encoding()
    encoder = CachedEncoder(encoding, 2)
    for text in ("a", "b", "a", "c", "a", "b"):
        np.testing.assert_array_equal(encoder.encode_queries([text]), plain(text))
    assert encoding.queries == [["a"], ["b"], ["c"], ["b"]]


def test_more_texts_at_once_than_are_kept_are_all_encoded_right() -> None:
    texts = [f"sign {number}" for number in range(9)]
    encoder = CachedEncoder(Encoding(), 2)
    for _ in range(2):
        np.testing.assert_array_equal(encoder.encode_queries(texts), plain(*texts))


def test_a_vector_that_it_is_told_of_is_used() -> None:
    encoding = Encoding()
    encoder = CachedEncoder(encoding, 10)
    encoder.know("Gout?", plain("told")[0])
    np.testing.assert_array_equal(encoder.encode_queries(["Gout?"]), plain("told"))
    assert encoding.queries == []


def test_passages_are_always_encoded_and_it_is_the_encoder_that_it_wraps() -> None:
    encoding = Encoding()
    encoder = CachedEncoder(encoding, 10)
    encoder.encode_queries(["gout"])
    for _ in range(2):
        np.testing.assert_array_equal(encoder.encode_passages(["gout"]), plain("gout"))
    assert encoding.passages == [["gout"], ["gout"]]
    assert (encoder.model, encoder.dimension) == (FakeEncoder.model, FakeEncoder.dimension)


def test_an_error_of_the_encoder_is_raised_and_nothing_of_its_batch_is_remembered() -> None:
    encoding = Encoding()
    encoder = CachedEncoder(encoding, 10)
    encoder.encode_queries(["gout"])
    encoding.fails = True
    with pytest.raises(RuntimeError, match="can't encode"):
        encoder.encode_queries(["gout", "rash"])
    np.testing.assert_array_equal(encoder.encode_queries(["gout"]), plain("gout"))
    encoding.fails = False
    np.testing.assert_array_equal(encoder.encode_queries(["rash"]), plain("rash"))
    assert encoding.queries == [["gout"], ["rash"], ["rash"]]


# --- many threads --------------------------------------------------------------------------------

THREADS, SECONDS, TOPICS, WORDINGS, MOST = 16, 1.0, 40, 4, 60


class BusySearching:
    """Counts safely, and gives others their turn."""

    index_version = "notes/000001"

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.searched = 0

    def search(self, queries: Sequence[Query], trace: Trace) -> list[Hits]:
        with trace.span("retrieve"):
            time.sleep(0.0005)
        with self.lock:
            self.searched += len(queries)
        return [found_for(query.text, query.where) for query in queries]


class ByTopic:
    """Questions whose second word is the same ask the same."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[bool] = Counter()

    def same(self, question: str, earlier: str) -> bool:
        alike = topic(question) == topic(earlier)
        with self.lock:
            self.counts[alike] += 1
        return alike


def topic(question: str) -> str:
    return question.split()[1]


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns a hundred times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 100)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], Mapping[str, int]]) -> Counter[str]:
    """What so many threads count at the same time. What one of them raises is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        done = [pool.submit(work, number) for number in range(THREADS)]
        counted: Counter[str] = Counter()
        for one in done:
            counted.update(one.result())
    return counted


@pytest.mark.usefixtures("restless")
def test_threads_lose_nothing_and_get_what_they_asked_for() -> None:
    encoder = CachedEncoder(FakeEncoder(), MOST)
    memory: Memory[Hits] = Memory(FakeEncoder.dimension, MOST)
    searching, matcher = BusySearching(), ByTopic()
    puts: list[int] = []
    searcher = CachedSearcher(searching, QuestionCache(memory, matcher, 0.3), puts.append)
    end = time.monotonic() + SECONDS

    def ask(number: int) -> Mapping[str, int]:
        random = np.random.default_rng(number)
        done: Counter[str] = Counter()
        while time.monotonic() < end:
            drawn = random.integers(TOPICS * WORDINGS, size=random.integers(1, 4)) // random.integers(1, 3)
            texts = [f"question topic{row % TOPICS} wording{row // TOPICS}" for row in drawn]
            where = "year>2000" if random.random() < 0.2 else None
            vectors = encoder.encode_queries(texts)
            np.testing.assert_array_equal(vectors, FakeEncoder().encode_queries(texts))
            queries = [Query(text, vector, where) for text, vector in zip(texts, vectors, strict=True)]
            trace = Trace()
            for query, hits in zip(queries, searcher.search(queries, trace), strict=True):
                text, _, condition = hits[0].passage.id.partition("|")
                assert condition == str(where)
                assert topic(text) == topic(query.text)
                assert text == query.text or trace.cache_info(query.text, "v", query.where).hit
            assert len(memory) <= MOST
            done.update(asked=len(texts), searches=1)
            if number == 0 and done["searches"] % 50 == 0:
                assert len(memory.entries()) <= MOST
        return done

    done = together(ask)
    counts = memory.counts
    assert done["asked"] > 100
    assert counts.exact + counts.matched + counts.missed == done["asked"]
    assert counts.missed == searching.searched
    assert (counts.matched, counts.refused) == (matcher.counts[True], matcher.counts[False])
    assert min(counts.exact, counts.matched, counts.missed, counts.refused, counts.evicted) > 0
    assert sum(puts) == counts.missed
    for entry in memory.entries():
        repeat = memory.exact(entry.question, entry.where)
        assert repeat is entry
        nearest = memory.nearest(Query("?", entry.vector, entry.where), 0.999)
        assert nearest is not None
        np.testing.assert_allclose(nearest[0].vector, entry.vector, atol=1e-6)


@pytest.mark.usefixtures("restless")
def test_threads_clear_and_replace_at_the_same_time_and_it_stays_whole() -> None:
    memory: Memory[int] = Memory(4, 8, "fifo", ttl_s=0.002)
    end = time.monotonic() + SECONDS

    def change(number: int) -> Mapping[str, int]:
        random = np.random.default_rng(number)
        used = 0
        while time.monotonic() < end:
            query = Query(f"q{random.integers(12)}", AXES[random.integers(4)])
            match random.integers(6):
                case 0:
                    if random.random() < 0.05:
                        memory.clear()
                case 1 | 2:
                    memory.put(query, number)
                case 3:
                    found = memory.nearest(query, 0.9)
                    if found is not None:
                        assert found[1] == 1.0
                        np.testing.assert_array_equal(found[0].vector, query.vector)
                        memory.use(found[0], matched=True)
                        used += 1
                case 4:
                    repeat = memory.exact(query.text)
                    if repeat is not None:
                        assert repeat.question == query.text
                        memory.use(repeat, matched=False)
                        used += 1
                case _:
                    entries = memory.entries()
                    assert len({entry.key for entry in entries}) == len(entries) <= 8
        return {"used": used}

    done = together(change)
    assert memory.counts.exact + memory.counts.matched == done["used"]
    assert done["used"] > 0
    memory.clear()
    assert memory.nearest(Query("?", AXES[0]), -1.0) is None
