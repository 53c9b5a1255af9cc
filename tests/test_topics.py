"""What questions and titles are about."""

from __future__ import annotations

import pytest

from rag.topics import goes_with_any, is_plural, lowered, mentions, own_words, shared_phrase, stem, topics


@pytest.mark.parametrize(
    ("question", "title", "topic"),
    [
        ("What causes malaria?", "Malaria: cause, transmission and treatment", "malaria"),
        ("Which fly carries river blindness?", "Onchocerciasis (river blindness)", "river blindness"),
        ("What does a mitral valve that is too narrow sound like?", "Mitral stenosis", "Mitral stenosis"),
        ("What is scurvy?", "Scurvy and vitamin C", "scurvy"),
        ("Why does lithium need blood tests?", "Lithium in psychiatry", "lithium"),
        ("Who discovered penicillin?", "From mould to medicine: the story of penicillin", "penicillin"),
        ("What are the signs of low potassium?", "Hypokalaemia", "Hypokalaemia"),
        ("Which disease did John Snow trace?", "John Snow, cholera and the Broad Street pump", "John Snow"),
        ("What is Crohn's disease?", "Crohn disease", "Crohn disease"),
        ("How do gliflozins work?", "SGLT2 inhibitors (gliflozins)", "gliflozins"),
    ],
)
def test_the_topic_is_what_question_and_cited_title_share_else_the_title(question: str, title: str, topic: str) -> None:
    assert topics(question, [title], []) == (topic,)


def test_there_are_as_many_topics_as_cited_titles_that_the_question_names() -> None:
    question = "How do Crohn disease and ulcerative colitis differ?"
    assert topics(question, ["Ulcerative colitis", "Crohn disease", "Coeliac disease"], []) == (
        "ulcerative colitis",
        "Crohn disease",
    )


def test_a_title_is_written_small_where_a_text_does_so() -> None:
    assert topics("How is low potassium treated?", ["Hypokalaemia"], ["In hypokalaemia, the"]) == ("hypokalaemia",)


@pytest.mark.parametrize("title", ["t", "scan0001", "nejmoa1715274"])
def test_the_name_of_a_file_is_no_topic(title: str) -> None:
    texts = ["Karnoflux is found in the roots of the plimto tree."]
    assert topics("What is karnoflux?", [title], texts) == ("karnoflux",)


def test_a_long_title_that_shares_nothing_is_no_name() -> None:
    title = "A randomised trial of two regimens in adults who live in rural areas"
    assert topics("What cures river blindness?", [title], []) == ("river blindness",)


def test_without_titles_it_is_the_last_words_of_the_questions_own_and_may_be_none() -> None:
    assert topics("What causes gout in old sailors?", [], []) == ("sailors",)
    assert topics("How is it treated?", [], []) == ()


def test_a_phrase_is_shared_in_spite_of_plurals_and_capitals_and_not_by_words_that_go_with_any_topic() -> None:
    assert shared_phrase("Are Hookworms common?", "Hookworm infection") == "Hookworms"
    assert shared_phrase("How is the disease treated?", "Chagas disease: treatment") is None


@pytest.mark.parametrize(
    ("word", "stemmed", "plural"),
    [
        ("Symptoms", "symptom", True),
        ("allergies", "allergy", True),
        ("children", "child", True),
        ("sulfonylureas", "sulfonylurea", True),
        ("virus", "virus", False),
        ("diabetes", "diabetes", False),
        ("analysis", "analysis", False),
        ("Crohn's", "crohn", False),
        ("illness", "illness", False),
    ],
)
def test_stems_and_plurals(word: str, stemmed: str, plural: bool) -> None:
    assert (stem(word), is_plural(word)) == (stemmed, plural)


@pytest.mark.parametrize("word", ["treated", "causes", "treating", "diagnosed", "severely", "Women", "died"])
def test_inflected_words_go_with_any_topic_too(word: str) -> None:
    assert goes_with_any(word)


def test_words_of_a_questions_own() -> None:
    assert own_words("How are the symptoms of river blindness treated in children?") == {"river", "blindness"}
    assert mentions("Is the blindness of the river kind?", "river blindness")
    assert not mentions("Is it a river?", "river blindness")
    assert not mentions("Is it a disease?", "the disease")


@pytest.mark.parametrize("text", ["HIV infection", "COVID-19", "I have a cough", "pH"])
def test_names_of_capitals_stay(text: str) -> None:
    assert lowered(text) == text
