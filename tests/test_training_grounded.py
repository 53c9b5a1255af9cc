"""Examples for the generator: which sentences answer, what stands around them, where the markers point."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import tiny_datasets

from rag.prompt import NOT_IN_SOURCES, cite
from rag.settings import Cite
from rag.text import sentences
from rag.training import datasets, diseases, papers, wording
from rag.training.datasets import Record
from rag.training.grounded import ASKED, Example, Piece, Sheet, arranged, count_of_passages, length_of_passages, marked
from rag.training.quoting import MAX_ANSWER, MIN_ANSWER, holds, pick, shortened, tidy, usable, window

FILLER = "It was first described in a small town near the sea by two doctors."


def picked(text: str, kind: str = "treatment") -> list[str] | None:
    ranges = sentences(text)
    span = pick(Record("m1", "GARD", "Gout", kind, "", text), text, ranges)
    return None if span is None else [text[slice(*ranges[n])] for n in range(span[0], span[1] + 1)]


# --- sentences that answer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Summary : Gout is painful.\n It is.", "Gout is painful. It is."),
        ("What is gout? Gout is painful.", "Gout is painful."),
        ("Gout is painful. What is gout?", "Gout is painful. What is gout?"),
        ("Key Points - Gout is painful. - It is common. Gout is an illness of the joints.", None),
    ],
)
def test_what_is_repeated_before_an_answer_is_taken_off(text: str, left: str | None) -> None:
    if left is None:
        assert not tidy(text).startswith("Key Points")
    else:
        assert tidy(text) == left


@pytest.mark.parametrize(
    ("sentence", "good"),
    [
        ("Gout is treated with a drug that lowers urate.", True),
        ("4 in 100 adults are treated for gout with drugs.", True),
        ("gout is treated with a drug that lowers urate.", False),  # the middle of one
        ("Gout is treated with a drug that lowers urate", False),
        ("Gout is treated.", False),  # a scrap
        (f"Gout is treated with {'a drug and ' * 30}rest.", False),  # a paragraph
        ("Gout is treated with a drug; see www.gout.org for it.", False),
        ("What is gout treated with, if not with a drug?", False),
        ("Gout is treated as Figure 2 of this page shows it.", False),
        ("Treatment of gout: Drugs that lower urate.", False),  # a heading in it
    ],
)
def test_a_usable_sentence_is_whole_and_plain(sentence: str, good: bool) -> None:
    assert usable(sentence) is good


def test_the_first_sentence_answers_where_it_has_the_words_of_the_question() -> None:
    text = (
        f"Doctors treat gout with drugs that lower the urate in blood. {FILLER} Surgery is a treatment of last resort."
    )
    assert picked(text) is not None
    assert picked(text)[0].startswith("Doctors treat")  # type: ignore[index]


def test_another_sentence_answers_where_only_that_has_them() -> None:
    text = f"{FILLER} Doctors treat gout with drugs that lower the urate in blood and so on."
    assert picked(text)[0].startswith("Doctors treat")  # type: ignore[index]


def test_a_sentence_that_needs_the_one_before_it_is_not_picked_alone() -> None:
    text = f"{FILLER} They treat it with drugs that lower the urate in blood and so on."
    assert picked(text)[0] == FILLER  # type: ignore[index]


def test_sentences_are_added_to_a_short_answer_and_not_to_a_long_one() -> None:
    short = "Doctors treat gout with certain drugs."
    text = f"{short} {FILLER} Surgery is a treatment of last resort for those with large stones in a joint. {FILLER}"
    answer = picked(text)
    assert answer is not None
    assert len(" ".join(answer[:-1])) < MIN_ANSWER <= len(" ".join(answer)) <= MAX_ANSWER
    long = f"Doctors treat gout with drugs {'that lower the urate in blood ' * 4}every day."
    assert picked(f"{long} {FILLER}") == [long]


def test_boilerplate_and_unusable_text_answer_nothing() -> None:
    assert picked("These resources address the diagnosis or management of gout in adults.") is None
    assert picked("Gout. Drugs.") is None


# --- passages --------------------------------------------------------------------------------------

TEXT = " ".join(f"Sentence number {n} tells of thing {n}." for n in range(12))


@pytest.mark.parametrize("seed", range(30))
def test_a_window_is_a_run_of_sentences_around_the_ones_wanted(seed: int) -> None:
    ranges = sentences(TEXT)
    part = window(TEXT, ranges, 5, 6, 150, random.Random(seed))
    assert part in TEXT
    assert TEXT[slice(ranges[5][0], ranges[6][1])] in part
    assert re.fullmatch(r"Sentence number \d.*thing \d+\.", part)
    assert len(part) <= 150


def test_a_window_longer_than_asked_holds_what_is_wanted_alone() -> None:
    ranges = sentences(TEXT)
    assert window(TEXT, ranges, 3, 6, 10, random.Random(0)) == TEXT[ranges[3][0] : ranges[6][1]]


def test_windows_begin_at_different_places() -> None:
    ranges = sentences(TEXT)
    starts = {window(TEXT, ranges, 5, 5, 200, random.Random(seed))[:17] for seed in range(40)}
    assert len(starts) > 2


@pytest.mark.parametrize("seed", range(20))
def test_a_shortened_text_is_a_part_of_it(seed: int) -> None:
    part = shortened(TEXT, 120, random.Random(seed))
    assert part in TEXT
    assert 0 < len(part) <= 120


def test_a_passage_that_says_the_same_is_recognised() -> None:
    answer = "Doctors treat gout with urate drugs daily always."  # seven words that say something
    assert holds("Gout: doctors daily treat it with urate drugs.", answer)
    assert not holds("Gout: doctors treat it.", answer)


def test_most_prompts_have_three_to_five_passages_and_none_more_than_fifteen() -> None:
    counts = [count_of_passages(random.Random(seed)) for seed in range(2000)]
    assert (min(counts), max(counts)) == (2, 15)
    assert 0.7 < sum(3 <= count <= 5 for count in counts) / len(counts) < 0.85


def test_many_passages_are_short_ones() -> None:
    longest = {n: max(length_of_passages(n, random.Random(seed)) for seed in range(500)) for n in (3, 6, 9, 15)}
    assert longest[3] > longest[6] > longest[9] > longest[15]


# --- a whole example -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("Gout hurts.", "Gout hurts [2]."),
        ('He said "gout hurts."', 'He said "gout hurts [2]."'),
        ("It hurts (a lot.)", "It hurts (a lot [2].)"),
    ],
)
def test_a_marker_stands_before_the_full_stop(sentence: str, text: str) -> None:
    assert marked([(sentence, 2)]) == text


@pytest.mark.parametrize("seed", range(20))
def test_markers_point_to_where_the_passages_went(seed: int) -> None:
    golds = [Piece("Gout", "Gout hurts."), Piece("Mumps", "Mumps swells.")]
    others = [Piece("Other", f"Nothing {n}.") for n in range(3)]
    answer = [("Mumps swells.", 1), ("Gout hurts.", 0)]
    example = arranged("m1", "both", "What do they do?", answer, golds, others, random.Random(seed))
    place = {piece.title: n for n, piece in enumerate(example.passages, start=1)}
    assert example.answer == f"Mumps swells [{place['Mumps']}]. Gout hurts [{place['Gout']}]."
    assert example.gold == tuple(sorted((place["Gout"], place["Mumps"])))
    assert sorted(piece.text for piece in example.passages) == sorted(p.text for p in [*golds, *others])


def test_the_gold_passage_stands_anywhere() -> None:
    pieces = [Piece("Other", f"Nothing {n}.") for n in range(3)]
    answer = [("Gout hurts.", 0)]
    gold = [Piece("Gout", "Gout hurts.")]
    assert {arranged("", "", "", answer, gold, pieces, random.Random(seed)).gold for seed in range(60)} == {
        (1,),
        (2,),
        (3,),
        (4,),
    }


def test_without_an_answer_it_declines() -> None:
    example = arranged("m1", "none", "Why?", (), (), [Piece("Gout", "Gout hurts.")], random.Random(0))
    assert (example.answer, example.gold, example.answerable) == (NOT_IN_SOURCES, (), False)


def test_the_prompt_is_the_product_s_own() -> None:
    example = Example(
        "m1", "one", "What hurts?", (Piece("Gout", "Gout hurts."), Piece("Mumps", "It swells.")), "", (1,)
    )
    system, *_, user = example.messages
    assert NOT_IN_SOURCES in system["content"]
    assert user["content"].endswith("Question: What hurts?")
    assert user["content"].index("Gout hurts.") < user["content"].index("It swells.")
    assert [(source.marker, source.hit.passage.title) for source in example.sources] == [(1, "Gout"), (2, "Mumps")]


# --- made from datasets ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_datasets.write(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def records(root: Path) -> list[Record]:
    return datasets.medquad(root)


@pytest.fixture(scope="module")
def examples(root: Path, records: list[Record]) -> list[Example]:
    made = diseases.MedQuAD(records, {r.id: r for r in records}, tiny_datasets.search(root))
    return [example for seed in range(8) for example in made.examples(random.Random(seed))]


@pytest.fixture(scope="module")
def sheets(root: Path, records: list[Record]) -> list[Sheet]:
    made = diseases.MedQuAD(records, {r.id: r for r in records}, tiny_datasets.search(root))
    return [sheet for seed in range(8) for sheet in made.sheets(random.Random(seed))]


def check(example: Example) -> None:
    """What holds of every example that has an answer, from whatever dataset."""
    _, said, _, invalid = cite(example.answer, example.sources, Cite(attribute=False))
    assert invalid == 0
    assert {marker for sentence in said for marker in sentence.markers} == set(example.gold)
    for sentence in said:
        (marker,) = sentence.markers
        passage = example.passages[marker - 1].text
        assert sentence.text.rstrip(".") in passage


def test_every_sentence_of_an_answer_stands_in_the_passage_that_it_cites(examples: list[Example]) -> None:
    answered = [example for example in examples if example.answerable]
    assert {example.kind for example in answered} == {"one", "both"}
    for example in answered:
        check(example)


def test_no_other_passage_holds_the_answer(examples: list[Example]) -> None:
    for example in examples:
        others = [p for n, p in enumerate(example.passages, start=1) if n not in example.gold]
        for gold in example.gold:
            said = " ".join(re.findall(rf"[^.]*\[{gold}\]\.", example.answer))
            assert not [piece for piece in others if holds(piece.text, re.sub(r" \[\d+\]", "", said))], example


def test_a_fifth_of_the_prompts_holds_no_answer_and_near_misses_instead(examples: list[Example]) -> None:
    declined = [example for example in examples if not example.answerable]
    assert 0.1 < len(declined) / len(examples) < 0.3
    assert {example.answer for example in declined} == {NOT_IN_SOURCES}
    assert all(example.passages for example in declined)


def test_a_plain_example_is_worded_as_in_the_dataset_over_three_to_five_passages(
    root: Path, records: list[Record]
) -> None:
    made = diseases.MedQuAD(records, {r.id: r for r in records}, tiny_datasets.search(root))
    plain = list(made.examples(random.Random(0), plain=True))
    by_id = {record.id: record for record in records}
    assert len(plain) > 20
    for example in plain:
        record = by_id[example.id]
        assert example.kind in {"one", "none"}
        assert len(example.passages) <= 5
        assert record.focus in example.question
        assert example.question == re.sub(r"\s+\?", "?", record.question).replace("is (are)", "is")


def test_a_sheet_asks_different_questions_about_the_same_passages(sheets: list[Sheet]) -> None:
    assert max(map(len, sheets)) > 3
    for sheet in sheets:
        assert len(sheet) <= ASKED
        assert len({example.passages for example in sheet}) == 1
        assert len({example.question for example in sheet}) == len(sheet)
        # Another question has another answer: else nothing would be learnt from reading it.
        answered = [example.answer for example in sheet if example.answerable]
        assert len(set(answered)) == len(answered)


def test_what_else_is_asked_is_answered_by_one_passage_alone(sheets: list[Sheet]) -> None:
    more = [example for sheet in sheets for example in sheet[1:] if example.answerable]
    assert len(more) > 100
    for example in more:
        check(example)
        (marker,) = example.gold
        text = re.sub(r" \[\d+\]", "", example.answer)
        others = [piece for number, piece in enumerate(example.passages, start=1) if number != marker]
        assert not [piece for piece in others if holds(piece.text, text)]


def test_what_else_is_declined_has_no_passage_that_answers(sheets: list[Sheet], records: list[Record]) -> None:
    """By what the questions of these datasets name: a disease, and the words of their kind."""
    declined = [example for sheet in sheets for example in sheet[1:] if not example.answerable]
    assert len(declined) > 20
    foci = {record.focus for record in records}
    for example in declined:
        assert example.answer == NOT_IN_SOURCES
        (focus,) = [focus for focus in foci if focus.lower() in example.question.lower()]
        if focus not in {piece.title for piece in example.passages}:
            continue  # another disease
        kinds = [
            kind
            for kind, wordings in wording.WORDINGS.items()
            if example.question in {wording_.replace("X", focus) for wording_ in wordings}
        ]
        assert any(
            all(not wording.CUES[kind].search(piece.text) for piece in example.passages if piece.title == focus)
            for kind in kinds
        )


def test_a_passage_that_begins_further_down_answers_only_with_the_words_of_its_question(
    root: Path, records: list[Record]
) -> None:
    made = diseases.MedQuAD(records, {r.id: r for r in records}, tiny_datasets.search(root))
    (record,) = [r for r in records if r.focus == "Iron pulse" and r.qtype == "treatment"]
    whole, second = record.answer, record.answer.partition(". ")[2]
    assert made._said(record, Piece(record.focus, whole))[0].startswith("Doctors treat")
    assert made._said(record, Piece(record.focus, second))[0].startswith("Surgery")
    library = "Records of Iron pulse are kept in the iron library by three nurses of the iron clinic."
    assert made._said(record, Piece(record.focus, library)) == []


def test_papers_and_trials_answer_from_their_own_passage(root: Path) -> None:
    training, _ = datasets.pubmedqa(root)
    articles = datasets.articles(root)
    trials, held_out = datasets.trials(root, articles)
    made = [
        *papers.from_abstracts(training * 3, random.Random(0), lambda _: training),
        *papers.from_trials([*trials, *held_out] * 3, articles, random.Random(0)),
    ]
    answered = [example for example in made if example.answerable]
    assert len(made) > len(answered) > 20
    for example in answered:
        check(example)


def test_our_own_questions_are_answered_from_our_own_documents() -> None:
    """In words of ours, so that only the markers are checked; all of the shipped questions."""
    questions, _ = datasets.own()
    documents = datasets.documents()
    names = sorted(documents)
    made = list(papers.from_own(questions, documents, random.Random(0), lambda _: names[:8]))
    assert len(made) == sum(papers.TIMES.get(row["type"], 1) for row in questions)
    assert {sheet[0].question for sheet in made} == {row["question"] for row in questions}
    titles_of = {row["question"]: {documents[part["doc_id"]]["title"] for part in row["answer"]} for row in questions}
    for sheet in made:
        assert len({example.question for example in sheet}) == len(sheet) <= ASKED
        for example in sheet:
            assert example.passages == sheet[0].passages
            if example.answerable:
                assert {example.passages[marker - 1].title for marker in example.gold} == titles_of[example.question]
            else:
                assert example.answer == NOT_IN_SOURCES
                assert example is sheet[0] or not titles_of[example.question]
        assert titles_of[sheet[0].question] or not sheet[0].answerable
    assert sum(map(len, made)) > 2 * len(made)


def test_a_question_of_ours_is_not_asked_where_its_answer_was_cut_off() -> None:
    row = {
        "question": "How long?",
        "type": "simple",
        "doc_ids": ["gout"],
        "answer": [{"doc_id": "gout", "text": "An attack of gout lasts 7 days."}],
    }
    whole = Piece("Gout", "An attack of gout begins at night. It lasts 7 days.")
    asked = papers._own(row, (whole,), {"gout": 1})
    assert asked is not None
    assert asked.answer == "An attack of gout lasts 7 days [1]."
    assert papers._own(row, (Piece("Gout", "An attack of gout begins at night."),), {"gout": 1}) is None
    assert papers._own(row, (Piece("Gout", "An attack of gout lasts some days."),), {"gout": 1}) is None
