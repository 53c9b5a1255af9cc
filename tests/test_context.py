"""Which passages reach the prompt, and how much of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rag.context import GAP, condensed, filter_hits, fit, passages, render
from rag.core import Hit, Hits, Passage, Source
from rag.settings import Context, Filter
from rag.testing import FakeGenerator
from rag.text import cut

words = FakeGenerator().count_tokens
UNCUT = Context(passages=100, chars_per_passage=None)


def hit(name: str, text: str = "Text.", dense: float = 0.5, rerank: float | None = None) -> Hit:
    return Hit(Passage(f"{name}#0", name, name.capitalize(), text, 0, len(text)), dense, rerank=rerank)


def prose(count: int) -> str:
    """A text of `count` words in sentences of ten."""
    sentences = [" ".join(f"word{n}" for n in range(start, min(start + 10, count))) for start in range(0, count, 10)]
    return " ".join(f"{sentence.capitalize()}." for sentence in sentences)


def names(hits: Hits) -> list[str]:
    return [one.passage.doc_id for one in hits]


def cost(sources: tuple[Source, ...]) -> int:
    return sum(words(render(source.marker, source.hit.passage.title, source.quote)) for source in sources)


# --- filter ------------------------------------------------------------------------------------


def test_without_a_reranker_the_cosine_decides() -> None:
    hits = (hit("a", dense=0.9), hit("b", dense=0.25), hit("c", dense=0.2499), hit("d", dense=0.3), hit("e", dense=-1))
    assert names(filter_hits(hits, Filter(min_cosine=0.25))) == ["a", "b", "d"]


def test_with_a_reranker_both_thresholds_have_to_be_reached() -> None:
    """The probability alone can be high for what has nothing to do with the question."""
    hits = (
        hit("a", dense=-0.5, rerank=0.9),
        hit("b", dense=0.9, rerank=0.04),
        hit("c", dense=0.25, rerank=0.05),
        hit("d", dense=0.24, rerank=1.0),
    )
    assert names(filter_hits(hits, Filter(min_cosine=0.25, min_rerank=0.05))) == ["c"]


def test_the_lowest_thresholds_let_everything_pass() -> None:
    hits = (hit("a", dense=-1.0), hit("b", rerank=0.0))
    assert filter_hits(hits, Filter(min_cosine=-1, min_rerank=0)) == hits


def test_nothing_may_be_left() -> None:
    assert filter_hits((hit("a", dense=0.1),), Filter()) == filter_hits((), Filter()) == ()


# --- fit ---------------------------------------------------------------------------------------


def fitted(hits: Hits, settings: Context, budget: int, count_tokens: Callable[[str], int]) -> tuple[Source, ...]:
    return fit(passages(hits, settings), settings, budget, count_tokens)


def test_sources_are_numbered_from_one_best_first() -> None:
    hits = tuple(hit(name, f"Text of {name}.") for name in "cab")
    assert fitted(hits, UNCUT, 1000, words) == tuple(
        Source(marker, one, one.passage.text) for marker, one in enumerate(hits, start=1)
    )


def test_no_more_passages_than_the_settings_say() -> None:
    sources = fitted(tuple(hit(name) for name in "abcde"), Context(passages=3), 1000, words)
    assert [source.hit.passage.doc_id for source in sources] == ["a", "b", "c"]


def test_passages_fill_the_budget_to_the_last_token() -> None:
    hits = tuple(hit(name, prose(8)) for name in "abc")  # 10 tokens each, with marker and title
    assert [len(fitted(hits, UNCUT, budget, words)) for budget in (9, 10, 19, 20, 29, 30)] == [0, 1, 1, 2, 2, 3]


def test_a_passage_that_would_burst_the_budget_ends_the_list() -> None:
    hits = (hit("a", prose(8)), hit("b", prose(50)), hit("c", prose(8)))
    assert [source.hit.passage.doc_id for source in fitted(hits, UNCUT, 40, words)] == ["a"]


def test_the_first_passage_is_cut_down_to_the_budget() -> None:
    text = prose(300)
    (source,) = fitted((hit("a", text),), UNCUT, 100, words)
    assert text.startswith(source.quote.removesuffix("…"))
    assert 50 <= cost((source,)) <= 100
    assert source.hit.passage.text == text


def test_a_second_passage_is_not_cut_down() -> None:
    hits = (hit("a", prose(20)), hit("b", prose(300)))
    assert [source.quote for source in fitted(hits, UNCUT, 100, words)] == [prose(20)]


def test_a_budget_too_small_for_anything_holds_nothing() -> None:
    for budget in (-100, 0, 1, 3):
        assert fitted((hit("a", prose(300)),), UNCUT, budget, words) == ()


def test_no_hits_make_no_sources() -> None:
    assert fitted((), Context(), 1000, words) == ()


def test_each_passage_is_cut_to_the_length_of_the_settings() -> None:
    texts = {"a": prose(100), "b": "Short.", "c": "x" * 300}
    sources = fitted(tuple(hit(name, text) for name, text in texts.items()), Context(chars_per_passage=90), 1000, words)
    assert [source.quote for source in sources] == [cut(text, 90) for text in texts.values()]
    assert [len(source.quote) <= 90 for source in sources] == [True] * 3
    assert sources[1].quote == "Short."


def test_an_uncut_passage_is_quoted_whole() -> None:
    assert [source.quote for source in fitted((hit("a", prose(500)),), UNCUT, 1000, words)] == [prose(500)]


def test_the_lower_of_both_budgets_holds() -> None:
    hits = tuple(hit(name, prose(8)) for name in "abcdefghijkl")
    counts = [
        len(fitted(hits, Context(passages=100, max_tokens=limit), budget, words))
        for limit, budget in ((64, 1000), (1000, 64), (64, 30), (None, 64))
    ]
    assert counts == [6, 6, 3, 6]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 60), max_size=8),
    st.integers(0, 200),
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(50, 400)),
)
def test_the_budget_is_never_exceeded(lengths: list[int], budget: int, passages: int, chars: int | None) -> None:
    hits = tuple(hit(f"d{n}", prose(length)) for n, length in enumerate(lengths))
    sources = fitted(hits, Context(passages=passages, chars_per_passage=chars), budget, words)
    assert cost(sources) <= budget
    assert [source.hit for source in sources] == list(hits[: len(sources)])
    assert [source.marker for source in sources] == list(range(1, len(sources) + 1))
    assert len(sources) <= passages
    for source in sources:
        assert source.hit.passage.text.startswith(source.quote.removesuffix("…"))


def test_a_passage_stands_under_its_marker_and_title() -> None:
    assert render(3, "Gout", "Joints swell.") == "[3] Gout\nJoints swell.\n\n"


# --- condensed ---------------------------------------------------------------------------------

TEXTS = {
    "malaria": "Malaria is a disease. A parasite causes it. Fever comes and goes. Quinine was its first drug.",
    "gout": "Gout hurts. Crystals cause it.",
}


def by_words(*wanted: str) -> Callable[[Sequence[Hit]], list[float]]:
    """Sentences score by the first of these words that they hold."""

    def score(parts: Sequence[Hit]) -> list[float]:
        return [max((1 / n for n, word in enumerate(wanted, 1) if word in p.passage.text), default=0.0) for p in parts]

    return score


def excerpts(count: int, *wanted: str, **settings: Any) -> list[tuple[str, str]]:
    hits = tuple(hit(name, text) for name, text in TEXTS.items())
    found = condensed(hits, Context(**settings), count, by_words(*wanted))
    return [(one.hit.passage.doc_id, one.text) for one in found]


def test_of_all_passages_the_best_sentences_are_left_in_the_order_of_their_text() -> None:
    assert excerpts(3, "Quinine", "Crystals", "parasite") == [
        ("malaria", f"A parasite causes it.{GAP}Quinine was its first drug."),
        ("gout", "Crystals cause it."),
    ]


def test_the_model_reads_on_where_a_quote_has_a_gap() -> None:
    assert render(1, "Malaria", f"A parasite causes it.{GAP}Quinine was its first drug.") == (
        "[1] Malaria\nA parasite causes it. Quinine was its first drug.\n\n"
    )


def test_neighbours_stand_side_by_side_and_what_is_left_out_at_the_ends_leaves_no_trace() -> None:
    assert excerpts(2, "parasite", "Fever") == [("malaria", "A parasite causes it. Fever comes and goes.")]


def test_a_passage_without_any_of_them_is_left_out() -> None:
    assert excerpts(1, "Crystals") == [("gout", "Crystals cause it.")]


def test_more_sentences_than_there_are_leave_the_passages_whole() -> None:
    assert excerpts(100) == list(TEXTS.items())


def test_only_the_best_passages_are_looked_at_and_what_is_left_is_cut_to_length() -> None:
    assert excerpts(9, "Crystals", passages=1, chars_per_passage=50) == [("malaria", cut(TEXTS["malaria"], 50))]


def test_a_sentence_is_scored_under_its_passages_title_and_keeps_its_place_among_the_hits() -> None:
    seen: list[Hit] = []

    def score(parts: Sequence[Hit]) -> list[float]:
        seen.extend(parts)
        return [0.0] * len(parts)

    first = hit("gout", TEXTS["gout"])
    [excerpt] = condensed((first,), Context(), 1, score)
    assert [part.passage.text for part in seen] == ["Gout hurts.", "Crystals cause it."]
    assert {part.passage.title for part in seen} == {first.passage.title}
    assert excerpt.hit is first


def test_no_hits_have_no_excerpts() -> None:
    assert condensed((), Context(), 3, by_words("x")) == []
