"""rag/cache/memory.py: which entry a question finds, and which one goes; then both against a list that keeps the rules by hand."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rag.cache import CacheCounts, Entry, Memory, load, normalised, save
from rag.core import Hit, Hits, Passage, Query
from rag.errors import StaleCache
from rag.settings import Eviction

if TYPE_CHECKING:
    from rag.core import Vector

DIMENSION = 8
HISTORIES = int(os.environ.get("RAG_HISTORIES", "200"))
"""`make soak-cache` wants more of them."""

AXES: list[Vector] = list(np.eye(DIMENSION, dtype=np.float32))
EPSILON = 1e-6
"""By which cosines of one pair may differ: float32, added up in another order."""


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def query(text: str, vector: Vector = AXES[0], where: str | None = None) -> Query:
    return Query(text, vector, where)


def leaning(cosine: float) -> Vector:
    """A unit vector of this cosine with the first axis."""
    vector: Vector = (cosine * AXES[0] + math.sqrt(1 - cosine**2) * AXES[1]).astype(np.float32)
    return vector


def filled(texts: Sequence[str], max_entries: int = 100, eviction: Eviction = "lru") -> Memory[str]:
    """Holds each text as the value of itself."""
    memory: Memory[str] = Memory(DIMENSION, max_entries, eviction)
    for number, text in enumerate(texts):
        memory.put(query(text, AXES[number % DIMENSION]), text)
    return memory


def questions(memory: Memory[str]) -> list[str]:
    """The one that would go first stands first."""
    return [entry.question for entry in memory.entries()]


def use(memory: Memory[str], text: str) -> None:
    entry = memory.exact(text)
    assert entry is not None
    memory.use(entry, matched=False)


# --- the same words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        "What causes malaria?",
        "what causes malaria",
        "  What\tcauses\n\nmalaria ?  ",
        "What causes malaria?!?",
        "What causes malaria.",
        "What causes\u00a0malaria\u2009?",
    ],
)
def test_the_first_capital_white_space_and_the_marks_at_the_end_do_not_make_another_question(other: str) -> None:
    assert normalised(other) == normalised("What causes malaria?")


def test_two_ways_to_write_one_letter_are_one() -> None:
    assert normalised("Who was M\u00e9ni\u00e8re?") == normalised("Who was Me\u0301nie\u0300re?")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What causes malaria?", "What cures malaria?"),
        ("Does A cause B?", "Does B cause A?"),
        ("Is it safe?", "Isit safe?"),
        ("Are 5 mg safe?", "Are 50 mg safe?"),
        ("Are 1.5 mg safe?", "Are 15 mg safe?"),
        ("Is a temperature of -5 safe?", "Is a temperature of 5 safe?"),
        ("Is p53 mutated?", "Is p63 mutated?"),
        ("Is 5 mM much?", "Is 5 mm much?"),
        ("What does WHO say?", "What does who say?"),
        ("Is Mg toxic?", "Is mg toxic?"),
        ("Is brucellosis common in Turkey?", "Is brucellosis common in turkey?"),
        ("Are 10\u2075 bacteria per ml an infection?", "Are 105 bacteria per ml an infection?"),
        ("Are 2\u00b3 tablets too many?", "Are 23 tablets too many?"),
        ("Does it take 1\u00bd hours?", "Does it take 11\u20442 hours?"),
    ],
)
def test_other_words_or_numbers_make_another_question(one: str, other: str) -> None:
    """A repeat is served without anybody looking at it twice, so what may mean something else must not be one."""
    assert normalised(one) != normalised(other)


@given(st.text(max_size=60), st.sampled_from(["", " ", "?", " ?", "...", "!\n"]), st.sampled_from(["", " ", "\n\t"]))
def test_no_text_depends_on_what_stands_around_it(text: str, behind: str, before: str) -> None:
    assert normalised(before + text + behind) == normalised(text)


@given(st.lists(st.text("abcXYZ059-", min_size=1, max_size=5), max_size=6))
def test_words_that_are_written_alike_stay_as_many_as_they_are(words: list[str]) -> None:
    assert len(normalised("  ".join(words)).split()) == len(words)


def test_an_exact_repeat_is_found_by_its_words_whatever_its_vector() -> None:
    memory = filled(["What causes malaria?"])
    entry = memory.exact("  what causes malaria")
    assert entry is not None
    assert (entry.question, entry.where, entry.value) == ("What causes malaria?", None, "What causes malaria?")
    np.testing.assert_array_equal(entry.vector, AXES[0])
    assert memory.exact("What causes gout?") is None


def test_the_same_words_under_another_condition_are_another_question() -> None:
    memory: Memory[str] = Memory(DIMENSION, 10)
    for where in (None, "year>2000", "year>2010"):
        memory.put(query("gout?", where=where), f"under {where}")
    assert len(memory) == 3
    for where in (None, "year>2000", "year>2010"):
        entry = memory.exact("Gout", where)
        assert entry is not None
        assert (entry.where, entry.value) == (where, f"under {where}")
    assert memory.exact("gout?", "year>1990") is None


def test_the_same_words_take_the_place_of_what_was_found_before() -> None:
    memory = filled(["one", "two", "three"])
    memory.put(query("One?", AXES[5]), "anew")
    assert questions(memory) == ["two", "three", "One?"]
    entry = memory.exact("one")
    assert entry is not None
    assert entry.value == "anew"
    assert memory.nearest(query("?", AXES[0]), 0.5) is None, "the old vector went too"
    assert memory.counts.evicted == 0


# --- the nearest ---------------------------------------------------------------------------------


def test_the_nearest_is_the_one_with_the_highest_cosine_and_comes_with_it() -> None:
    memory: Memory[str] = Memory(DIMENSION, 10)
    for cosine in (0.2, 0.9, -0.5, 0.6):
        memory.put(query(f"{cosine}", leaning(cosine)), f"{cosine}")
    found = memory.nearest(query("asked"), -1.0)
    assert found is not None
    assert found[0].value == "0.9"
    assert found[1] == pytest.approx(0.9, abs=EPSILON)


@pytest.mark.parametrize(
    ("lowest", "there"), [(0.5, True), (0.4999, True), (0.5001, False), (1.0, False), (-1.0, True)]
)
def test_a_cosine_below_the_lowest_is_none_and_the_lowest_itself_is_one(lowest: float, there: bool) -> None:
    memory: Memory[str] = Memory(4, 10)
    memory.put(query("a", np.full(4, 0.5, np.float32)), "a")  # a half is a half in float32 too
    assert (memory.nearest(query("b", np.eye(4, dtype=np.float32)[0]), lowest) is not None) == there


def test_an_empty_memory_has_no_nearest() -> None:
    assert Memory[str](DIMENSION, 10).nearest(query("a"), -1.0) is None


def test_a_nearer_one_under_another_condition_is_passed_over() -> None:
    memory: Memory[str] = Memory(DIMENSION, 10)
    memory.put(query("free"), "free")
    memory.put(query("near", leaning(0.9), "year>2000"), "near")
    memory.put(query("far", leaning(0.3), "year>2000"), "far")
    found = {
        where: [one[0].value for one in [memory.nearest(query("asked", where=where), 0.1)] if one is not None]
        for where in (None, "year>2000", "year > 2000")
    }
    assert found == {None: ["free"], "year>2000": ["near"], "year > 2000": []}
    assert memory.nearest(query("asked", where="year>2010"), -1.0) is None


def test_of_those_that_are_equally_near_it_is_one_of_them_and_always_the_same() -> None:
    memory: Memory[str] = Memory(DIMENSION, 10)
    for text, vector in (("far", AXES[1]), ("a", leaning(0.8)), ("b", leaning(0.8)), ("c", leaning(0.7))):
        memory.put(query(text, vector), text)
    found = {one[0].value for one in (memory.nearest(query("asked"), 0.5) for _ in range(3)) if one is not None}
    assert found in ({"a"}, {"b"})


def test_looking_for_something_changes_no_order_and_counts_nothing() -> None:
    memory = filled(["a", "b", "c"])
    memory.exact("a")
    memory.nearest(query("asked", AXES[0]), -1.0)
    assert questions(memory) == ["a", "b", "c"]
    assert memory.counts == CacheCounts()


def test_the_nearest_is_right_however_many_came_and_went() -> None:
    """The vectors' table grows, and a row that is freed is taken by the last one."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    memory: Memory[int] = Memory(DIMENSION, 150)
    held: list[int] = []
    for number, vector in enumerate(vectors):
        memory.put(query(f"q{number}", vector), number)
        held = [*held, number][-150:]
        if number % 7 == 0:
            memory.put(query(f"q{held[3 % len(held)]}", vectors[held[3 % len(held)]]), held[3 % len(held)])
            held.append(held.pop(3 % len(held)))
    assert [entry.value for entry in memory.entries()] == held
    for asked in vectors:
        found = memory.nearest(query("asked", asked), -1.0)
        assert found is not None
        entry, cosine = found
        assert cosine == pytest.approx(float((vectors[held] @ asked).max()), abs=EPSILON)
        assert entry.vector @ asked == pytest.approx(cosine, abs=EPSILON)
        np.testing.assert_array_equal(entry.vector, vectors[entry.value])


# --- which one goes ------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first() -> None:
    memory = filled(["a", "b", "c"], 3)
    use(memory, "a")
    memory.put(query("d"), "d")
    assert questions(memory) == ["c", "a", "d"]
    matched = memory.exact("c")
    assert matched is not None
    memory.use(matched, matched=True)
    memory.put(query("e"), "e")
    assert questions(memory) == ["d", "c", "e"]
    assert memory.counts == CacheCounts(exact=1, matched=1, evicted=2)


def test_the_oldest_goes_first_however_often_it_was_used() -> None:
    memory = filled(["a", "b", "c"], 3, "fifo")
    for _ in range(5):
        use(memory, "a")
    memory.put(query("d"), "d")
    assert questions(memory) == ["b", "c", "d"]
    memory.put(query("B!"), "anew")
    memory.put(query("e"), "e")
    assert questions(memory) == ["d", "B!", "e"], "what was found anew is new"
    assert memory.counts == CacheCounts(exact=5, evicted=2)


def test_what_was_evicted_is_found_neither_by_its_words_nor_by_its_vector() -> None:
    memory = filled(["a", "b"], 1)
    assert (len(memory), memory.exact("a")) == (1, None)
    assert memory.nearest(query("asked", AXES[0]), 0.5) is None


def test_one_that_went_meanwhile_may_still_be_put_to_use() -> None:
    """Between a look-up and its use another thread may have put something in its place."""
    memory = filled(["a"], 1)
    entry = memory.exact("a")
    assert entry is not None
    memory.put(query("b"), "b")
    memory.use(entry, matched=True)
    assert (questions(memory), memory.counts) == (["b"], CacheCounts(matched=1, evicted=1))


@pytest.mark.parametrize(("eviction", "order"), [("lru", ["b", "c", "a"]), ("fifo", ["a", "b", "c"])])
def test_a_clock_that_is_set_back_changes_no_order(eviction: Eviction, order: list[str]) -> None:
    clock = Clock()
    memory: Memory[str] = Memory(DIMENSION, 3, eviction, clock=clock)
    memory.put(query("a"), "a")
    clock.now -= 1000
    memory.put(query("b"), "b")
    memory.put(query("c"), "c")
    use(memory, "a")
    assert questions(memory) == order
    memory.join([])
    assert questions(memory) == order
    later: Memory[str] = Memory(DIMENSION, 3, eviction, clock=clock)
    later.join(reversed(memory.entries()))
    later.put(query("d"), "d")
    assert questions(later) == [*order[1:], "d"]


def test_what_is_joined_keeps_no_matrix_that_it_was_a_row_of() -> None:
    matrix = np.eye(DIMENSION, dtype=np.float32)
    memory: Memory[str] = Memory(DIMENSION, 3)
    memory.put(query("a"), "old")
    memory.join([Entry("a", None, matrix[1], "new", memory.entries()[0].added + 1)])
    [entry] = memory.entries()
    assert (entry.value, entry.vector.base, memory.nearest(query("b", matrix[1]), 0.9)) == ("new", None, (entry, 1.0))


@pytest.mark.parametrize("eviction", ["lru", "fifo"])
def test_of_more_than_there_is_room_for_the_last_are_kept(eviction: Eviction) -> None:
    memory: Memory[str] = Memory(DIMENSION, 3, eviction)
    memory.add(filled([f"q{number}" for number in range(10)]).entries())
    assert questions(memory) == ["q7", "q8", "q9"]


# --- time ----------------------------------------------------------------------------------------


def test_after_its_time_an_entry_is_none_any_more() -> None:
    clock = Clock()
    memory: Memory[str] = Memory(DIMENSION, 10, ttl_s=60, clock=clock)
    memory.put(query("old", AXES[0]), "old")
    clock.now += 30
    memory.put(query("young", AXES[1]), "young")
    clock.now += 29.5
    assert questions(memory) == ["old", "young"]
    use(memory, "old")  # which makes it no younger
    clock.now += 0.5
    assert memory.exact("old") is None
    assert memory.nearest(query("asked", AXES[0]), 0.5) is None
    assert questions(memory) == ["young"]
    assert len(memory) == 1
    clock.now += 1e9
    assert memory.nearest(query("asked", AXES[1]), -1.0) is None
    assert questions(memory) == []
    assert memory.counts == CacheCounts(exact=1, expired=2)


def test_the_nearest_that_is_over_does_not_hide_the_one_behind_it() -> None:
    clock = Clock()
    memory: Memory[str] = Memory(DIMENSION, 10, ttl_s=60, clock=clock)
    memory.put(query("near", AXES[0]), "near")
    clock.now += 30
    memory.put(query("far", leaning(0.7)), "far")
    clock.now += 40
    found = memory.nearest(query("asked", AXES[0]), 0.5)
    assert found is not None
    assert found[0].value == "far"


def test_what_is_put_again_begins_anew() -> None:
    clock = Clock()
    memory: Memory[str] = Memory(DIMENSION, 10, ttl_s=60, clock=clock)
    memory.put(query("a"), "first")
    clock.now += 50
    memory.put(query("a"), "second")
    clock.now += 50
    entry = memory.exact("a")
    assert entry is not None
    assert (entry.value, entry.added) == ("second", clock.now - 50)


def test_an_entry_that_is_added_keeps_the_time_that_it_has() -> None:
    """So that it isn't young again after each restart."""
    clock = Clock()
    memory: Memory[str] = Memory(DIMENSION, 10, ttl_s=60, clock=clock)
    memory.add([Entry("a", None, AXES[0], "a", clock.now - 61), Entry("b", None, AXES[1], "b", clock.now - 59)])
    assert questions(memory) == ["b"]


def test_without_a_limit_nothing_is_ever_over() -> None:
    clock = Clock()
    memory: Memory[str] = Memory(DIMENSION, 10, clock=clock)
    memory.put(query("a"), "a")
    clock.now += 1e12
    assert questions(memory) == ["a"]


def test_what_is_over_makes_room_before_anything_that_is_not() -> None:
    clock = Clock()
    memory: Memory[str] = Memory(DIMENSION, 2, ttl_s=60, clock=clock)
    memory.put(query("old", AXES[0]), "old")
    clock.now += 30
    memory.put(query("young", AXES[1]), "young")
    use(memory, "old")  # so that it would be the last to go
    clock.now += 40
    memory.put(query("new", AXES[2]), "new")
    assert questions(memory) == ["young", "new"]
    assert memory.counts == CacheCounts(exact=1, expired=1)


# --- all of them ---------------------------------------------------------------------------------


def test_nothing_is_left_after_a_clear_and_what_comes_then_is_found() -> None:
    memory = filled(["a", "b"])
    memory.clear()
    assert (len(memory), questions(memory), memory.exact("a")) == (0, [], None)
    assert memory.nearest(query("asked", AXES[0]), -1.0) is None
    memory.put(query("c", AXES[2]), "c")
    found = memory.nearest(query("asked", AXES[2]), 0.5)
    assert found is not None
    assert (found[0].value, questions(memory)) == ("c", ["c"])


def test_a_vector_of_another_dimension_is_refused_and_what_is_there_stays() -> None:
    memory = filled(["a", "b"])
    shapes: list[tuple[int, ...]] = [(DIMENSION + 1,), (DIMENSION - 1,), (1, DIMENSION), ()]
    for wrong in (np.ones(shape, np.float32) for shape in shapes):
        with pytest.raises(ValueError, match=rf"a vector of shape .*, not \({DIMENSION},\)"):
            memory.put(query("a", wrong), "wrong")
    assert [entry.value for entry in memory.entries()] == ["a", "b"]
    found = memory.nearest(query("asked", AXES[0]), 0.5)
    assert found is not None
    assert found[0].value == "a"


def test_counts_tell_what_was_looked_for_and_what_came_of_it() -> None:
    memory = filled(["a", "b"], 1)
    [entry] = memory.entries()
    memory.use(entry, matched=False)
    memory.use(entry, matched=True)
    memory.use(entry, matched=True)
    memory.miss(refused=0)
    memory.miss(refused=1)
    assert memory.counts == CacheCounts(exact=1, matched=2, missed=2, refused=1, evicted=1)


# --- anything, in any order ----------------------------------------------------------------------

DIRECTIONS = np.random.default_rng(1).normal(size=(12, DIMENSION)).astype(np.float32)
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
DIRECTIONS[7] = DIRECTIONS[3]  # a tie

WORDS = [
    ("gout", "GOUT?"),
    ("malaria", " Malaria "),
    ("scurvy", "scurvy."),
    ("a rash", "A  rash"),
    ("fever", "Fever !"),
]
CONDITIONS = (None, "year>2000")
TTL = 100.0

asked = st.builds(
    lambda words, spelling, direction, where: Query(words[spelling], DIRECTIONS[direction], where),
    st.sampled_from(WORDS),
    st.integers(0, 1),
    st.integers(0, len(DIRECTIONS) - 1),
    st.sampled_from(CONDITIONS),
)


@dataclass
class Reference:
    """What a memory has to be, as plainly as it can be written: a list, the one that goes first at its head."""

    most: int
    eviction: Eviction
    ttl: float | None
    entries: list[Entry[Hits]] = field(default_factory=list)

    def valid(self, now: float) -> list[Entry[Hits]]:
        return [entry for entry in self.entries if self.ttl is None or now - entry.added < self.ttl]

    def put(self, entry: Entry[Hits]) -> int:
        """How many had to go."""
        self.entries = [one for one in self.entries if one.key != entry.key] + [entry]
        gone = max(0, len(self.entries) - self.most)
        self.entries = self.entries[gone:]
        return gone

    def use(self, key: tuple[str, str | None]) -> None:
        if self.eviction == "lru":
            self.entries.sort(key=lambda one: one.key == key)  # stable: only that one goes to the end

    def exact(self, query: Query, now: float) -> Entry[Hits] | None:
        return next((one for one in self.valid(now) if one.key == (normalised(query.text), query.where)), None)

    def nearest(self, query: Query, now: float) -> float:
        """The highest cosine, -inf where there is none."""
        same = [one for one in self.valid(now) if one.where == query.where]
        return max((float(one.vector @ query.vector) for one in same), default=-math.inf)


def same_entry(one: Entry[Hits], other: Entry[Hits]) -> bool:
    plain = [(entry.question, entry.where, entry.value, entry.added) for entry in (one, other)]
    return plain[0] == plain[1] and np.array_equal(one.vector, other.vector)


class MemoryAgainstAList(RuleBasedStateMachine):
    """Puts, look-ups, uses, time, clears, restarts with and without a save, and new versions of the index."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "queries"
        self.clock = Clock()
        self.version = 1
        self.serial = 0
        self.saved: tuple[int, list[Entry[Hits]]] | None = None
        self.counts = CacheCounts()

    @initialize(
        most=st.integers(1, 6), eviction=st.sampled_from(["lru", "fifo"]), ttl=st.sampled_from([None, TTL, 2.5 * TTL])
    )
    def begin(self, most: int, eviction: Eviction, ttl: float | None) -> None:
        self.reference = Reference(most, eviction, ttl)
        self.memory: Memory[Hits] = Memory(DIMENSION, most, eviction, ttl, self.clock)

    def teardown(self) -> None:
        self.folder.cleanup()

    # --- what happens ---

    @rule(query=asked)
    def put(self, query: Query) -> None:
        known = any(one.key == (normalised(query.text), query.where) for one in self.reference.entries)
        if len(self.reference.entries) - known >= self.reference.most:
            self.forget_what_is_over()
        self.serial += 1
        found = self.found()
        self.memory.put(query, found)
        self.counts.evicted += self.reference.put(Entry(query.text, query.where, query.vector, found, self.clock.now))

    @precondition(lambda self: self.reference.entries)
    @rule(place=st.integers(0, 5), spelling=st.integers(0, 1), use=st.booleans())
    def repeat(self, place: int, spelling: int, use: bool) -> None:
        entry = self.reference.entries[place % len(self.reference.entries)]
        words = next(words for words in WORDS if entry.question in words)
        self.ask_in_the_same_words(Query(words[spelling], DIRECTIONS[0], entry.where), use)

    @rule(query=asked, use=st.booleans())
    def ask_in_the_same_words(self, query: Query, use: bool) -> None:
        found, expected = self.memory.exact(query.text, query.where), self.reference.exact(query, self.clock.now)
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert same_entry(found, expected)
            self.check_fresh(found)
            if use:
                self.use(found, matched=False)

    @rule(query=asked, lowest=st.sampled_from([-1.0, -1.0, 0.0, 0.31, 0.77, 0.999]), use=st.booleans())
    def ask_in_other_words(self, query: Query, lowest: float, use: bool) -> None:
        found, highest = self.memory.nearest(query, lowest), self.reference.nearest(query, self.clock.now)
        assert abs(highest - lowest) > EPSILON, "a case that rounding decides tells nothing: choose other thresholds"
        assert (found is not None) == (highest >= lowest)
        if found is not None:
            entry, cosine = found
            assert cosine == pytest.approx(highest, abs=EPSILON)
            assert float(entry.vector @ query.vector) == pytest.approx(highest, abs=EPSILON)
            assert entry.where == query.where
            assert any(same_entry(entry, one) for one in self.reference.valid(self.clock.now))
            self.check_fresh(entry)
            if use:
                self.use(entry, matched=True)

    @rule(seconds=st.sampled_from([0.5, TTL / 3, TTL, 2 * TTL]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.reference.ttl is None)
    @rule()
    def set_the_clock_back(self) -> None:
        self.clock.now -= 3 * TTL

    @rule()
    def list_all(self) -> None:
        self.check_list(self.memory.entries())

    @rule(what=st.sampled_from(["keep", "keep", "restart", "update", "clear"]), most=st.integers(1, 6))
    def live_on(self, what: str, most: int) -> None:
        """Together one rule, or hardly an entry would live long enough to be used."""
        match what:
            case "keep":
                entries = self.memory.entries()
                self.check_list(entries)
                save(self.path, entries, self.shaped_by(), DIMENSION)
                self.saved = (self.version, entries)
            case "restart":
                self.restart(most)
            case "update":
                self.version += 1
                self.memory = self.memory_of(self.reference.most)
                self.reference.entries, self.counts = [], CacheCounts()
            case "clear":
                self.memory.clear()
                self.reference.entries = []

    def restart(self, most: int) -> None:
        """Only what was kept is there, and that only for the version of the index that it was found in."""
        version, kept = self.saved if self.saved is not None else (self.version, [])
        if version != self.version:
            with pytest.raises(StaleCache, match=r"written: version of the index$"):
                load(self.path, self.shaped_by(), DIMENSION)
            kept = []
        self.reference.entries = kept
        if len(self.reference.valid(self.clock.now)) < len(kept):
            most = max(most, len(kept))
        self.reference.most = most
        self.memory = self.memory_of(most)
        if version == self.version:
            self.memory.join(load(self.path, self.shaped_by(), DIMENSION))
        self.counts = CacheCounts(evicted=max(0, len(kept) - most))
        self.reference.entries = kept[-most:]

    def memory_of(self, most: int) -> Memory[Hits]:
        return Memory(DIMENSION, most, self.reference.eviction, self.reference.ttl, self.clock)

    # --- what has to hold ---

    @invariant()
    def never_too_many(self) -> None:
        if hasattr(self, "memory"):
            assert len(self.memory) <= self.reference.most

    @invariant()
    def nothing_is_counted_twice_or_lost(self) -> None:
        if hasattr(self, "memory"):
            counts = self.memory.counts
            assert (counts.exact, counts.matched) == (self.counts.exact, self.counts.matched)
            assert counts.evicted == self.counts.evicted

    def shaped_by(self) -> dict[str, str]:
        return {"version of the index": f"notes/{self.version:06d}", "embedding model": "fake@1"}

    def found(self) -> Hits:
        passage = Passage(f"v{self.version}", "d", "T", "Text.", 0, 5)
        return (Hit(passage, self.serial / 1000),)

    def check_fresh(self, entry: Entry[Hits]) -> None:
        assert entry.value[0].passage.id == f"v{self.version}", "of an index that isn't in use any more"
        assert self.reference.ttl is None or self.clock.now - entry.added < self.reference.ttl

    def check_list(self, entries: Sequence[Entry[Hits]]) -> None:
        expected = self.reference.valid(self.clock.now)
        assert [entry.key for entry in entries] == [entry.key for entry in expected]
        assert all(same_entry(one, other) for one, other in zip(entries, expected, strict=True))
        for entry in entries:
            self.check_fresh(entry)
        self.reference.entries = expected

    def use(self, entry: Entry[Hits], matched: bool) -> None:
        self.memory.use(entry, matched)
        self.reference.use(entry.key)
        self.counts.matched += matched
        self.counts.exact += not matched

    def forget_what_is_over(self) -> None:
        """Before there is no room: which of them goes is a test of its own (`what_is_over_makes_room`)."""
        if len(self.reference.valid(self.clock.now)) < len(self.reference.entries):
            self.list_all()


def test_whatever_happens_it_holds_what_a_plain_list_would() -> None:
    run_state_machine_as_test(
        MemoryAgainstAList, settings=settings(max_examples=HISTORIES, stateful_step_count=40, deadline=None)
    )


def broken_memories() -> dict[str, Callable[[pytest.MonkeyPatch], None]]:
    """Defects that a cache may have, planted."""

    def never_over(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Memory, "_is_over", lambda *_: False)

    def any_condition(patch: pytest.MonkeyPatch) -> None:
        real = Memory.exact
        patch.setattr(Memory, "exact", lambda self, text, where=None: real(self, text, where) or real(self, text))

    def used_is_not_newer(patch: pytest.MonkeyPatch) -> None:
        def use(self: Memory[Hits], entry: Entry[Hits], matched: bool) -> None:
            del entry
            self.counts.matched += matched
            self.counts.exact += not matched

        patch.setattr(Memory, "use", use)

    def rows_stay(patch: pytest.MonkeyPatch) -> None:
        def drop(self: Memory[Hits], key: tuple[str, str | None]) -> None:
            if self._entries.pop(key, None) is not None:
                row, last = self._rows.pop(key), self._keys.pop()
                if last != key:
                    self._keys[row], self._rows[last] = last, row  # and the vector isn't moved

        patch.setattr(Memory, "_drop", drop)

    def of_any_version(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("rag.cache.file._canonical", lambda _: "{}")

    return {one.__name__: one for one in (never_over, any_condition, used_is_not_newer, rows_stay, of_any_version)}


@pytest.mark.parametrize("defect", broken_memories())
def test_a_planted_defect_is_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the machine would be one that sees nothing."""
    broken_memories()[defect](monkeypatch)
    with pytest.raises((AssertionError, KeyError, pytest.fail.Exception)):
        run_state_machine_as_test(
            MemoryAgainstAList,
            settings=settings(
                max_examples=1000,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
            ),
        )
