"""What the model reads, and what its markers mean."""

from __future__ import annotations

import itertools
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag.core import Hit, Passage, Source
from rag.prompt import (
    NOT_IN_SOURCES,
    SYSTEM,
    MarkerFilter,
    build,
    cite,
    declines,
    keep,
    overhead,
    says_something,
    valid_markers,
    whole_sentences,
    written_markers,
)
from rag.settings import Cite

quick = settings(deadline=None, max_examples=300)

# Pieces of which every kind of marker can come about, whole, open and broken.
marked_texts = st.lists(
    st.sampled_from(
        [*("[", "]", "[[", "]]", ",", ", ", ";", " ", "  ", "\n", ".", "0", "1", "2", "3", "12", "007", "2021"),
         *("word", " word", "Two words.", "[1]", " [2]", "[3, 1]", "[9]", " [1, 9]", "[1][9]", "[note]", "é")]
    ),
    max_size=25,
).map("".join)  # fmt: skip


def source(marker: int, title: str, text: str, dense: float = 0.5) -> Source:
    name = title.lower()
    return Source(marker, Hit(Passage(f"{name}#0", name, title, text, 0, len(text)), dense), text)


MALARIA = source(1, "Malaria", "Malaria is caused by Plasmodium parasites. A mosquito carries them.", dense=0.8)
SCURVY = source(2, "Scurvy", "Scurvy is caused by a lack of vitamin C. Lemons cure it.", dense=0.6)
GOUT = source(3, "Gout", "Gout is caused by crystals of urate. Joints swell.", dense=0.4)
SOURCES = (MALARIA, SCURVY, GOUT)


def streamed(deltas: list[str], count: int) -> str:
    visible = MarkerFilter(count)
    return "".join([*map(visible.feed, deltas), visible.rest()])


def shown_whole(text: str, count: int) -> str:
    """One of markers alone isn't."""
    clean = valid_markers(text, count)[0]
    return clean if says_something(clean) else ""


def split_at(text: str, places: list[int]) -> list[str]:
    cuts = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


# --- the prompt --------------------------------------------------------------------------------


def test_the_sources_come_before_the_question_which_is_last() -> None:
    *_, last = build("What causes gout?", SOURCES).messages
    assert last == {
        "role": "user",
        "content": f"[1] Malaria\n{MALARIA.quote}\n\n[2] Scurvy\n{SCURVY.quote}\n\n[3] Gout\n{GOUT.quote}\n\n"
        "Question: What causes gout?",
    }


def test_what_comes_before_the_sources_is_the_same_for_every_question() -> None:
    one, two = build("What causes gout?", SOURCES), build("And scurvy?", SOURCES[:1])
    assert one.messages[:-1] == two.messages[:-1]
    assert one.messages[0] == {"role": "system", "content": SYSTEM}
    assert [message["role"] for message in one.messages] == ["system", "user"]


def test_a_prompt_keeps_the_sources_of_its_markers() -> None:
    assert build("What causes gout?", SOURCES).sources == SOURCES


def test_the_quote_is_read_and_not_the_whole_passage() -> None:
    cut = Source(1, GOUT.hit, "Gout is…")
    assert build("?", (cut,)).messages[-1]["content"] == "[1] Gout\nGout is…\n\nQuestion: ?"


def test_the_overhead_is_the_prompt_without_its_sources() -> None:
    assert overhead("What causes gout?")[:-1] == build("What causes gout?", SOURCES).messages[:-1]
    assert overhead("What causes gout?")[-1] == {"role": "user", "content": "Question: What causes gout?"}


def test_the_instruction_names_the_sentence_that_declines() -> None:
    assert NOT_IN_SOURCES in SYSTEM


# --- markers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clean", "invalid"),
    [
        ("Gout swells [3].", "Gout swells [3].", 0),
        ("Gout swells [4].", "Gout swells.", 1),
        ("Gout swells [0].", "Gout swells.", 1),
        ("Gout swells[4].", "Gout swells.", 1),
        ("[4] Gout swells.", " Gout swells.", 1),
        ("Gout swells [1, 3].", "Gout swells [1][3].", 0),
        ("Gout swells [1,3].", "Gout swells [1][3].", 0),
        ("Gout swells [1; 3].", "Gout swells [1][3].", 0),
        ("Gout swells [3, 1].", "Gout swells [3][1].", 0),
        ("Gout swells [1][2].", "Gout swells [1][2].", 0),
        ("Gout swells [1] [2].", "Gout swells [1] [2].", 0),
        ("Gout swells [1, 9].", "Gout swells [1].", 1),
        ("Gout swells [8, 9].", "Gout swells.", 2),
        ("Gout swells [1][9].", "Gout swells [1].", 1),
        ("Gout swells [2, 2].", "Gout swells [2].", 0),
        ("Gout swells [9, 9].", "Gout swells.", 2),
        ("Gout swells [1, 2, 3, 1, 2, 3, 9].", "Gout swells [1][2][3].", 1),
        ("Gout swells [note].", "Gout swells [note].", 0),
        ("Gout swells [].", "Gout swells [].", 0),
        ("Gout swells [in 1848].", "Gout swells [in 1848].", 0),
        ("Gout swells (4).", "Gout swells (4).", 0),
        ("", "", 0),
    ],
)
def test_markers_that_point_nowhere_are_removed_and_counted(text: str, clean: str, invalid: int) -> None:
    assert valid_markers(text, 3) == (clean, invalid)


@quick
@given(marked_texts, st.integers(0, 12), st.lists(st.integers(0, 200), max_size=30))
@example("[1, 2, 3, 4, 5, 6, 7, 8, 99]", 9, list(range(30)))
@example("word [9\n]", 3, list(range(30)))
@example("[1   ,      \n      9]", 3, list(range(30)))
def test_a_stream_in_any_pieces_shows_what_the_whole_text_would(text: str, count: int, places: list[int]) -> None:
    assert streamed(split_at(text, places), count) == shown_whole(text, count)


@quick
@given(marked_texts, st.integers(0, 12))
@example("[0[1]]", 0)
@example("[[  [9][9]", 0)
def test_a_stream_of_single_characters_shows_what_the_whole_text_would(text: str, count: int) -> None:
    assert streamed(list(text), count) == shown_whole(text, count)


def test_every_short_text_of_marker_characters_is_streamed_as_the_whole_would_be() -> None:
    for length in range(1, 6):
        for characters in itertools.product("[]01, ", repeat=length):
            assert streamed(list(characters), 1) == shown_whole("".join(characters), 1), characters


@pytest.mark.parametrize(
    ("deltas", "shown"),
    [
        (["Gout", " swells", "."], ["Gout", " swells", "."]),
        (["Gout swells [1", "]."], ["Gout swells", " [1]."]),
        (["Gout swells [9", "]."], ["Gout swells", "."]),
        (["Gout [", "note] x"], ["Gout", " [note] x"]),
        (["Gout ", "swells"], ["Gout", " swells"]),
        (["[1]", ": ", "gout", "."], ["", "", "[1]: gout", "."]),
    ],
)
def test_text_is_held_back_only_while_a_marker_may_be_open_and_before_the_first_word(
    deltas: list[str], shown: list[str]
) -> None:
    visible = MarkerFilter(3)
    assert [visible.feed(delta) for delta in deltas] == shown
    assert visible.rest() == ""


def test_a_marker_that_never_closes_is_shown_at_the_end() -> None:
    visible = MarkerFilter(3)
    assert (visible.feed("Gout [1"), visible.rest(), visible.rest()) == ("Gout", " [1", "")


# --- citations ---------------------------------------------------------------------------------


def test_a_marker_becomes_a_citation_of_the_model() -> None:
    text, sentences, citations, invalid = cite("Malaria is caused by parasites [1].", SOURCES, Cite())
    assert (text, invalid) == ("Malaria is caused by parasites [1].", 0)
    assert [(one.text, one.markers, one.support) for one in sentences] == [
        ("Malaria is caused by parasites.", (1,), "unchecked")
    ]
    (citation,) = citations
    assert (citation.marker, citation.doc_id, citation.passage_id) == (1, "malaria", "malaria#0")
    assert (citation.title, citation.quote) == ("Malaria", MALARIA.quote)
    assert (citation.origin, citation.score) == ("model", 0.8)


def test_space_around_an_answer_is_no_part_of_it() -> None:
    text, sentences, _, _ = cite("\n  Joints swell [3].\n", SOURCES, Cite())
    assert (text, [one.text for one in sentences]) == ("Joints swell [3].", ["Joints swell."])


def test_the_score_of_a_citation_is_the_rerankers_where_there_is_one() -> None:
    hit = Hit(GOUT.hit.passage, dense=0.4, rerank=0.93)
    _, _, (citation,), _ = cite("Joints swell [1].", (Source(1, hit, GOUT.quote),), Cite())
    assert citation.score == 0.93


def test_citations_stand_in_the_order_of_their_first_use() -> None:
    _, _, citations, _ = cite("Joints swell [3]. Lemons cure scurvy [2]. It hurts [3][1].", SOURCES, Cite())
    assert [citation.marker for citation in citations] == [3, 2, 1]


def test_a_marker_that_points_nowhere_is_no_citation() -> None:
    text, sentences, citations, invalid = cite("Joints swell [3][7]. Nobody knows [9].", SOURCES, Cite())
    assert (text, invalid) == ("Joints swell [3]. Nobody knows.", 2)
    assert [one.markers for one in sentences] == [(3,), ()]
    assert [citation.marker for citation in citations] == [3]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One word [1]. Two words [2].", [("One word.", (1,)), ("Two words.", (2,))]),
        ("One word. [1] Two words. [2]", [("One word.", (1,)), ("Two words.", (2,))]),
        ("One word.[1] Two words.[2]", [("One word.", (1,)), ("Two words.", (2,))]),
        ("One word [1, 3]. Two words.", [("One word.", (1, 3)), ("Two words.", ())]),
        ("One word [1] and [2] more [1].", [("One word and more.", (1, 2))]),
        ("[1] One word. Two words [2]", [("One word.", (1,)), ("Two words", (2,))]),
        ("- One word [1]\n- Two words [2]", [("- One word", (1,)), ("- Two words", (2,))]),
        ("Dr. Lind gave 3.5 g [2].", [("Dr. Lind gave 3.5 g.", (2,))]),
        ("  ", []),
    ],
)
def test_a_marker_belongs_to_its_sentence_before_or_after_the_full_stop(
    text: str, sentences: list[tuple[str, tuple[int, ...]]]
) -> None:
    _, found, _, _ = cite(text, SOURCES, Cite(attribute=False))
    assert [(one.text, one.markers) for one in found] == sentences


def test_the_markers_of_each_sentence_are_those_that_stand_in_the_text() -> None:
    assert written_markers("Lemons cure it [2][1]. Joints swell. It is so.[1] Urate [1].") == [(2, 1), (), (1,), (1,)]
    assert written_markers("") == []


def test_a_year_in_brackets_is_text_and_no_marker() -> None:
    text, sentences, citations, invalid = cite("Scurvy is cured by lemons [1747].", SOURCES, Cite(attribute=False))
    assert (text, invalid) == ("Scurvy is cured by lemons [1747].", 0)
    assert [one.markers for one in sentences] == [()]
    assert citations == ()


@quick
@given(marked_texts, st.integers(0, 3), st.booleans())
@example("[[9]5]", 3, False)
def test_any_text_has_only_markers_of_its_sources(text: str, count: int, attribute: bool) -> None:
    _, sentences, citations, invalid = cite(text, SOURCES[:count], Cite(attribute=attribute))
    used = {marker for one in sentences for marker in one.markers}
    assert used <= set(range(1, count + 1))
    assert {citation.marker for citation in citations} == used
    assert invalid == valid_markers(text, count)[1]


# --- sentences left out ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "text", "citations"),
    [
        ((True, True, True), "Joints swell [3]. Lemons [9] cure scurvy.[2] It hurts [3].", [3, 2]),
        ((False, True, True), "Lemons cure scurvy.[2] It hurts [3].", [2, 3]),
        ((True, False, True), "Joints swell [3]. It hurts [3].", [3]),
        ((False, True, False), "Lemons cure scurvy.[2]", [2]),
        ((False, False, False), "", []),
    ],
)
def test_a_sentence_is_left_out_with_its_markers(kept: tuple[bool, ...], text: str, citations: list[int]) -> None:
    whole, sentences, cited, _ = cite("Joints swell [3]. Lemons [9] cure scurvy.[2] It hurts [3].", SOURCES, Cite())
    left, used = keep(whole, sentences, cited, kept)
    assert left == text.replace(" [9]", "")
    assert [citation.marker for citation in used] == citations
    assert set(used) <= set(cited)


def test_a_citation_that_only_an_attributed_sentence_still_uses_is_attributed() -> None:
    whole, sentences, cited, _ = cite("It hurts [3]. Joints swell with urate crystals.", SOURCES, Cite())
    assert [(one.marker, one.origin) for one in cited] == [(3, "model")]
    assert sentences[1].markers == (3,)
    (left,) = keep(whole, sentences, cited, (False, True))[1]
    assert (left.marker, left.origin) == (3, "attributed")
    assert keep(whole, sentences, cited, (True, False))[1] == cited


@quick
@given(marked_texts, st.integers(0, 3), st.integers(0, 2**12))
def test_of_any_text_the_kept_sentences_and_their_citations_are_left(text: str, count: int, chosen: int) -> None:
    whole, sentences, cited, _ = cite(text, SOURCES[:count], Cite())
    everything = [True] * len(sentences)
    assert keep(whole, sentences, cited, everything)[1] == cited
    kept = [bool(chosen >> row & 1) for row in range(len(sentences))]
    left, used = keep(whole, sentences, cited, kept)
    assert len(left) <= len(whole)
    assert {one.marker for one in used} == {
        m for one, good in zip(sentences, kept, strict=True) if good for m in one.markers
    }


# --- attribution -------------------------------------------------------------------------------


def test_a_sentence_without_a_marker_is_attributed_to_the_source_with_its_words() -> None:
    text, sentences, citations, _ = cite("Crystals of urate cause gout.", SOURCES, Cite())
    assert text == "Crystals of urate cause gout."
    assert [one.markers for one in sentences] == [(3,)]
    assert [(citation.marker, citation.origin) for citation in citations] == [(3, "attributed")]


@pytest.mark.parametrize(("threshold", "markers"), [(0.5, (3,)), (0.51, ())])
def test_attribution_begins_at_the_threshold(threshold: float, markers: tuple[int, ...]) -> None:
    # Four content words, of which the source of gout holds two.
    _, sentences, _, _ = cite("Urate crystals need colchicine.", SOURCES, Cite(min_overlap=threshold))
    assert sentences[0].markers == markers


def test_words_of_the_title_count() -> None:
    rubella = source(1, "Rubella", "It harms the unborn child.")
    _, sentences, _, _ = cite("Rubella harms.", (rubella,), Cite(min_overlap=1.0))
    assert sentences[0].markers == (1,)


def test_function_words_and_case_do_not_count() -> None:
    _, sentences, _, _ = cite("And so URATE is what it is, by and by.", SOURCES, Cite(min_overlap=1.0))
    assert sentences[0].markers == (3,)
    _, sentences, _, _ = cite("And so it is.", SOURCES, Cite(min_overlap=0.01))
    assert sentences[0].markers == ()


def test_of_equal_sources_the_first_is_taken() -> None:
    twins = (source(1, "One", "Nothing here."), source(2, "Two", "Urate."), source(3, "Three", "Urate."))
    _, sentences, _, _ = cite("Urate.", twins, Cite())
    assert sentences[0].markers == (2,)


def test_attribution_can_be_switched_off() -> None:
    _, sentences, citations, _ = cite("Crystals of urate cause gout.", SOURCES, Cite(attribute=False))
    assert [one.markers for one in sentences] == [()]
    assert citations == ()


def test_a_sentence_with_a_marker_is_not_attributed_elsewhere() -> None:
    _, sentences, citations, _ = cite("Crystals of urate cause gout [1].", SOURCES, Cite())
    assert [one.markers for one in sentences] == [(1,)]
    assert [citation.marker for citation in citations] == [1]


def test_what_the_model_cites_anywhere_counts_as_cited_by_the_model() -> None:
    text = "Crystals of urate cause gout. Lemons cure scurvy [2]. Joints swell [3]."
    _, _, citations, _ = cite(text, SOURCES, Cite())
    assert [(citation.marker, citation.origin) for citation in citations] == [(3, "model"), (2, "model")]
    _, _, citations, _ = cite("Joints swell [3]. Crystals of urate cause gout.", SOURCES, Cite())
    assert [(citation.marker, citation.origin) for citation in citations] == [(3, "model")]


def test_a_sentence_whose_only_marker_was_invalid_may_be_attributed() -> None:
    _, sentences, citations, invalid = cite("Crystals of urate cause gout [8].", SOURCES, Cite())
    assert (sentences[0].markers, citations[0].origin, invalid) == ((3,), "attributed", 1)


def test_without_sources_nothing_is_attributed() -> None:
    text, sentences, citations, invalid = cite("Gout swells [1].", (), Cite())
    assert (text, citations, invalid) == ("Gout swells.", (), 1)
    assert [(one.text, one.markers) for one in sentences] == [("Gout swells.", ())]


# --- declining ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        NOT_IN_SOURCES,
        f"  {NOT_IN_SOURCES}\n",
        f"{NOT_IN_SOURCES.rstrip('.')} [1].",
        f"I have looked. {NOT_IN_SOURCES}",
        "**The sources do not contain the answer.**",
        "The sources do not contain the answer",
        "The sources don't contain the answer.",
        "The sources don\u2019t contain the answer.",
        "the sources do not contain information about gout.",
        "I'm sorry, but the sources do not mention it.",
        "I\u2019m sorry, but the sources do not mention it.",
        "I am unable to answer this from the sources.",
        "I don't know.",
        "I cannot answer this question from the sources.",
        "I can't find this in the sources.",
        "I do not have enough information to answer.",
        "Unfortunately, the sources do not say.",
        "The provided sources do not mention the dose.",
        "The sources provided do not state the dose.",
        "The passages don't mention who discovered it.",
        "The text does not say who discovered it.",
        "The context does not provide this information.",
        "The given documents do not include the year.",
        "These passages do not give a figure.",
        "This passage does not mention the dose.",
        "The sources do not specify the dose.",
        "The numbered sources do not discuss treatment.",
        "None of the sources mention the dose.",
        "None of the sources contains the answer.",
        "There is no information about the dose in the sources.",
        "There is no mention of the dose in the sources.",
        "No information about the dose is given.",
        "The answer is not in the sources.",
        "The answer is not contained in the provided sources.",
        "The question cannot be answered from the sources.",
        "Based on the provided sources, there is no information about the dose.",
    ],
)
def test_an_answer_that_declines(text: str) -> None:
    assert declines(text)


@pytest.mark.parametrize(
    "text",
    [
        "Gout is caused by crystals of urate [3].",
        "Gout is caused by urate [3]. The sources do not mention the dose.",
        "Gout is caused by urate [3]; I cannot say more.",
        f"Gout is caused by crystals of urate [3]. {NOT_IN_SOURCES}",
        "No drug cures it [1].",
        "No, the vaccine does not cause fever [1].",
        "There is no cure for it [1].",
        "Unfortunately, most patients relapse within a year [1].",
        "Sources of vitamin C include lemons [2].",
        "The sources of infection are contaminated water and milk [1].",
        "The source of the bleeding does not have to be found at once [1].",
        "The text was written by Lind in 1753 [2].",
        "Documents of 1847 describe childbed fever [1].",
        "The context in which it arises does not matter [1].",
        "I-131 is taken up by the thyroid [1].",
        "Iron does not cross the barrier [1].",
        "Patients do not have a fever [1].",
        "Information about the disease spread slowly after 1900 [1].",
        "None of the patients died [1].",
        "Genetic information does not provide a diagnosis by itself [1].",
        "Nothing is known of its cause before 1880, when Laveran saw the parasite [1].",
        "It does not contain gluten [1].",
        "The answer lies in the kidney, which does not excrete urate [3].",
        "Passage of the stone does not give pain at once [1].",
        "These textiles do not hold moisture [1].",
        "Sorry sights met Lind on board: he saw scurvy [2].",
        "I",
    ],
)
def test_an_answer_that_does_not_decline(text: str) -> None:
    assert not declines(text)


# --- cut answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Gout swells [3]. Lemons cure scu", "Gout swells [3]."),
        ("Gout swells [3]. Lemons cure. A mosq", "Gout swells [3]. Lemons cure."),
        ("Gout swells. [3] Lemons cure scu", "Gout swells. [3]"),
        ("Gout swells [3]. Lemons cure scurvy [", "Gout swells [3]."),
        ("Gout swells [3]. Lemons cure scurvy [2", "Gout swells [3]."),
        ("Gout swells. [3", "Gout swells."),
        ("Gout swells. [", "Gout swells."),
        ("Gout swells. (", "Gout swells."),
        ("- Gout swells [3]\n- Lemons cure scurvy [2]\n- A mosq", "- Gout swells [3]\n- Lemons cure scurvy [2]"),
        ("Gout swells [3]. Lemons cure scurvy [2].", "Gout swells [3]. Lemons cure scurvy [2]."),
        ("Gout swells [3]. Do lemons cure scurvy?", "Gout swells [3]. Do lemons cure scurvy?"),
        ("Gout swells. Lemons cure scurvy. [2]", "Gout swells. Lemons cure scurvy. [2]"),
        ("Gout swells. Lind called it \u201cscurvy.\u201d", "Gout swells. Lind called it \u201cscurvy.\u201d"),
        ("Gout swells. (Lemons cure scurvy.)", "Gout swells. (Lemons cure scurvy.)"),
        ("Gout is a disease of", "Gout is a disease of"),
        ("", ""),
    ],
)
def test_a_text_cut_at_its_limit_loses_the_sentence_that_was_cut(text: str, whole: str) -> None:
    assert whole_sentences(text) == whole


@quick
@given(st.lists(st.sampled_from(["Gout swells [3]. ", "Lemons cure it. [2] ", "He slept. ", "A cut [1"]), max_size=6))
def test_what_is_left_of_a_cut_text_is_its_beginning(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert text.startswith(whole_sentences(text))
    assert bool(whole_sentences(text).strip()) == bool(text.strip())


def test_a_cut_answer_that_ends_in_an_abbreviation_loses_it() -> None:
    assert whole_sentences("Five species infect people. P.") == "Five species infect people."
