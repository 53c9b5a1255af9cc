"""Which questions lean on the conversation before them, and what is made of these."""

from __future__ import annotations

import time

import pytest

from rag.followup import Turn, standalone
from rag.topics import topics

MALARIA = Turn(
    "How is malaria treated?",
    "Artemisinin-based combinations are standard for uncomplicated infection; the mosquito bites at night.",
    ("malaria",),
)
COLITIS = Turn("How do Crohn disease and ulcerative colitis differ?", "", ("Crohn disease", "ulcerative colitis"))
SCOTTISH = Turn("Who found it?", "The Scottish physician Alexander Fleming found it [1].", ("penicillin",))
INDIA = Turn("Who showed it?", "In British India, Ronald Ross showed it in 1897 [1].", ("malaria",))
TWO = Turn("Who saw it?", "Peter Nowell and David Hungerford saw it [1].", ("chronic myeloid leukaemia",))
PENICILLIN = Turn("Who discovered penicillin?", "Alexander Fleming noticed the mould in 1928 [1].", ("penicillin",))
DRUG = Turn("Which drug treats gout?", "Colchicine [1].", ("gout",))
CHILDREN = Turn("What is the treatment of asthma in children?", "Inhaled steroids [1].", ("asthma",))
FALLS = Turn("Does vitamin D help in preventing falls?", "Hardly [1].", ("vitamin D",))
LACKING = Turn("Which enzyme is lacking in phenylketonuria?", "Phenylalanine hydroxylase [1].", ("PKU",))
IN_MALARIA = Turn("What happens in malaria?", "Red cells burst [1].", ("malaria",))
STATINS = Turn("What are statins for?", "They lower cholesterol.", ("statins",))

LEANS = [
    # a pronoun
    ("How is it prevented?", MALARIA, "How is malaria prevented?"),
    ("And how is it prevented?", MALARIA, "How is malaria prevented?"),
    ("It's caused by what?", MALARIA, "Malaria is caused by what?"),
    ("What are its symptoms?", MALARIA, "What are malaria's symptoms?"),
    ("Who discovered that?", MALARIA, "Who discovered malaria?"),
    ("How do doctors detect it?", MALARIA, "How do doctors detect malaria?"),
    ("What is it, and does it spread?", MALARIA, "What is malaria, and does it spread?"),
    ("Is it safe for children?", MALARIA, "Is malaria safe for children?"),
    ("Is it safe to use?", MALARIA, "Is malaria safe to use?"),
    ("How do mosquitoes transmit this?", MALARIA, "How do mosquitoes transmit malaria?"),
    ("What happens if this disease isn't treated?", MALARIA, "malaria: what happens if this disease isn't treated?"),
    ("How do they differ in smokers?", COLITIS, "How do Crohn disease and ulcerative colitis differ in smokers?"),
    ("Are their complications alike?", COLITIS, "Are Crohn disease and ulcerative colitis' complications alike?"),
    ("Do they harm muscles?", STATINS, "Do statins harm muscles?"),
    # that may stand for something else
    ("Does it hurt the kidneys?", STATINS, "statins: does it hurt the kidneys?"),
    ("Do they fall ill again?", MALARIA, "malaria: do they fall ill again?"),
    ("How does it work?", DRUG, "gout: how does it work?"),
    # a person
    ("When did he publish that?", PENICILLIN, "When did Alexander Fleming publish that?"),
    ("Where was he born?", SCOTTISH, "Where was Alexander Fleming born?"),
    ("When did he win it?", INDIA, "When did Ronald Ross win it?"),
    ("Where did he work?", TWO, "chronic myeloid leukaemia: where did he work?"),
    ("What did she notice?", MALARIA, "malaria: what did she notice?"),
    # a fragment
    ("Why?", MALARIA, "How is malaria treated, and why?"),
    ("For how long?", MALARIA, "How is malaria treated, and for how long?"),
    ("Why is that?", MALARIA, "How is malaria treated, and why is that?"),
    ("And in children?", MALARIA, "How is malaria treated in children?"),
    ("And in adults?", CHILDREN, "What is the treatment of asthma in adults?"),
    ("And pregnant women?", CHILDREN, "What is the treatment of asthma in pregnant women?"),
    ("And during pregnancy?", CHILDREN, "What is the treatment of asthma in children during pregnancy?"),
    ("And in pregnancy?", IN_MALARIA, "What happens in malaria in pregnancy?"),
    ("And in children?", FALLS, "Does vitamin D help in preventing falls in children?"),
    ("And in children?", LACKING, "Which enzyme is lacking in phenylketonuria in children?"),
    ("During pregnancy?", MALARIA, "How is malaria treated during pregnancy?"),
    ("In people with HIV?", MALARIA, "How is malaria treated in people with HIV?"),
    ("What about in children?", MALARIA, "How is malaria treated in children?"),
    ("What about pregnant women?", MALARIA, "How is malaria treated in pregnant women?"),
    ("How about scurvy?", MALARIA, "How is scurvy treated?"),
    ("And scurvy?", MALARIA, "How is scurvy treated?"),
    ("What about the side effects?", MALARIA, "The side effects of malaria?"),
    ("Symptoms?", MALARIA, "Symptoms of malaria?"),
    # words that go with any topic
    ("Is there a vaccine?", MALARIA, "malaria: is there a vaccine?"),
    ("What are the most common symptoms?", MALARIA, "What are the most common symptoms of malaria?"),
    ("Who is most at risk?", MALARIA, "malaria: who is most at risk?"),
    ("How many people die every year?", MALARIA, "malaria: how many people die every year?"),
    ("Tell me more.", MALARIA, "malaria: tell me more."),
    ("Can you tell me more about prevention?", MALARIA, "malaria: can you tell me more about prevention?"),
    # "the ...": of that kind, or spoken of
    ("How is the disease diagnosed?", MALARIA, "malaria: how is the disease diagnosed?"),
    ("Who first saw the parasite?", MALARIA, "malaria: who first saw the parasite?"),
    ("Can the damage be undone?", MALARIA, "malaria: can the damage be undone?"),
    ("Where does the mosquito breed?", MALARIA, "malaria: where does the mosquito breed?"),
]

STANDS_ALONE = [
    "What causes scurvy?",
    "And what causes scurvy?",
    "scurvy treatment",
    "How is malaria prevented?",
    "Does malaria come back, and is it fatal?",
    "What causes gout, and how is it treated?",
    "How do hookworms find their hosts?",
    "Which organ makes bile, and what does it do?",
    "How about gout, is it painful?",
    "Why do people with anaemia get tired when they climb stairs?",
    "Which patients should avoid ibuprofen, and why is it harmful to them?",
    "Is it true that garlic cures colds?",
    "Is it safe to take ibuprofen with warfarin?",
    "How long does it take for a fracture to heal?",
    "What does it mean when urine is dark?",
    "Which bacteria that live in soil cause tetanus?",
    "Is it known that smoking harms the bladder?",
    "Do those who had shingles need aciclovir?",
    "Was scurvy common at that time?",
    "What is a virus?",
    "What is the drug of choice for gonorrhoea?",
    "Which parts of the bowel does Crohn disease affect?",
    "In which year was insulin isolated?",
    "In children, how is asthma treated?",
    "Does rifampicin colour the urine?",
    "Where did the plague come from?",
    "Can anticoagulants be reversed?",
    "Do immune cells ever attack their own body?",
]


@pytest.mark.parametrize(("question", "turn", "made"), LEANS, ids=[one[0] for one in LEANS])
def test_a_question_that_leans_is_made_whole(question: str, turn: Turn, made: str) -> None:
    assert standalone(question, [turn]) == made[0].upper() + made[1:]


@pytest.mark.parametrize("question", STANDS_ALONE)
def test_a_question_that_stands_alone_stays_as_it_is(question: str) -> None:
    assert standalone(question, [MALARIA]) == question


@pytest.mark.parametrize("question", ["How is it treated?", "Why?", "And in children?", "What about gout?"])
def test_without_a_conversation_nothing_can_be_carried_over(question: str) -> None:
    assert standalone(question, []) == question
    assert standalone(question, [Turn("hello", "", ())]) == question


def test_the_newest_turn_that_is_about_something_counts() -> None:
    turns = [DRUG, MALARIA, Turn("Thanks!", "", ())]
    assert standalone("How is it prevented?", turns) == "How is malaria prevented?"


def test_a_follow_up_of_a_follow_up_leans_on_what_the_first_was_made() -> None:
    first = standalone("And in children?", [MALARIA])
    second = standalone("What about scurvy?", [MALARIA, Turn(first, "", ("malaria",))])
    assert second == "How is scurvy treated in children?"


def test_a_long_question_says_itself_what_it_is_about_and_takes_no_time() -> None:
    long = "the ferret of it and they " * 75
    began = time.perf_counter()
    assert standalone(long, [MALARIA]) == long
    assert topics(long, [long] * 3, [long])
    assert standalone("And in children?", [Turn(long, long, (long,))]).endswith("in children?")
    assert time.perf_counter() - began < 5
