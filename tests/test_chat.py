"""A conversation's bounds, what it remembers of an answer, and the ways in which a question is made to stand alone."""

from __future__ import annotations

from typing import Literal

import pytest

from rag.chat import Conversation, Standalone, accepted, turn, unanswered
from rag.core import Answer, CacheInfo, Citation, EngineInfo, Hit, Passage, Source, StageTimings, Tokens
from rag.errors import EngineDied
from rag.followup import Turn
from rag.pipeline import MAX_QUESTION
from rag.settings import Chat
from rag.testing import FakeGenerator

MALARIA = Turn("How is malaria treated?", "With artemisinins [1].", ("malaria",))


def conversation(rewrite: Literal["rule", "model"] = "rule", *turns: Turn) -> Conversation:
    ticks = iter(range(100))
    made = Conversation(Chat(rewrite=rewrite), clock=lambda: float(next(ticks)))
    for one in turns:
        made.add(one)
    return made


def source(title: str, text: str) -> Source:
    return Source(1, Hit(Passage("p", "d", title, text, 0, len(text)), 0.9), text)


def answer(question: str, text: str, *titles: str) -> Answer:
    return Answer(
        question=question,
        answer=text,
        abstained=not titles,
        confidence=None,
        withheld=False,
        truncated=False,
        sentences=(),
        citations=tuple(
            Citation(n, title, "p", title, f"About {title.lower()}.", "model", 0.9) for n, title in enumerate(titles, 1)
        ),
        invalid_markers=0,
        route=None,
        cache=CacheInfo(),
        timings=StageTimings(),
        spans=(),
        tokens=Tokens(),
        engine=EngineInfo("fake", "1", "cpu"),
        profile="p",
    )


# --- what is remembered ---------------------------------------------------------------------------


def test_the_last_turns_are_kept_the_oldest_first() -> None:
    made = Conversation(Chat(turns=2))
    for number in range(4):
        made.add(Turn(f"q{number}", "a", ()))
    assert [one.question for one in made.turns] == ["q2", "q3"]
    made.clear()
    assert made.turns == ()


def test_no_more_characters_are_kept_than_allowed_and_the_newest_turn_always() -> None:
    made = Conversation(Chat(characters=200))
    made.add(Turn("first", "x" * 120, ()))
    made.add(Turn("second", "y" * 90, ()))
    assert [one.question for one in made.turns] == ["second"]
    made.add(Turn("third", "Short.", ()))
    assert [one.question for one in made.turns] == ["second", "third"]
    made.add(Turn("fourth", "z " * 400, ("t",)))
    [one] = made.turns
    assert (one.question, one.topics) == ("fourth", ("t",))
    assert len(one.question) + len(one.answer) <= 200


def test_a_question_longer_than_all_that_is_kept_is_kept() -> None:
    made = Conversation(Chat(characters=200))
    made.add(Turn("q" * 500, "An answer.", ()))
    assert len(made.turns) == 1


async def test_with_no_turns_each_question_stands_alone() -> None:
    made = Conversation(Chat(turns=0))
    made.add(MALARIA)
    assert (await made.standalone("How is it prevented?", FakeGenerator())).text == "How is it prevented?"


def test_an_answer_is_remembered_by_what_it_cites() -> None:
    remembered = turn(answer("What causes scurvy?", "A lack of vitamin C [1].", "Scurvy and vitamin C"), [])
    assert remembered == Turn("What causes scurvy?", "A lack of vitamin C [1].", ("scurvy",))


def test_an_abstention_is_remembered_by_what_was_found_if_that_goes_with_the_question() -> None:
    found = [source("Gout", "Gout is painful."), source("Scurvy and vitamin C", "Scurvy is rare.")]
    declined = answer("How many sailors had scurvy in 1750?", "None of the sources answers the question.")
    assert turn(declined, found) == Turn(declined.question, "", ("scurvy",))
    assert unanswered("Who won the cup?", found).topics == ("cup",)


# --- by rule --------------------------------------------------------------------------------------


async def test_by_rule_no_model_is_asked() -> None:
    generator = FakeGenerator(["never"])
    made = await conversation("rule", MALARIA).standalone("How is it prevented?", generator)
    assert made == Standalone("How is malaria prevented?", "rule", 1.0)
    assert generator.asked == []


async def test_a_question_that_stands_alone_was_made_by_nobody() -> None:
    made = await conversation("rule", MALARIA).standalone("What causes scurvy?", FakeGenerator())
    assert made == Standalone("What causes scurvy?", None, 1.0)


async def test_a_question_that_would_grow_too_long_stays_as_it_is() -> None:
    known = Turn(f"What causes {'very ' * 395}bad colds?", "", ("bad colds",))
    assert len(known.question) < MAX_QUESTION
    made = await conversation("rule", known).standalone("And in old people who live alone?", FakeGenerator())
    assert (made.text, made.by) == ("And in old people who live alone?", None)


# --- by the model ---------------------------------------------------------------------------------


async def test_a_model_reads_the_conversation_and_the_last_question() -> None:
    generator = FakeGenerator(["How is malaria ", "prevented in sailors?"])
    made = await conversation("model", MALARIA).standalone("And how do sailors prevent it?", generator)
    assert (made.text, made.by) == ("How is malaria prevented in sailors?", "model")
    [(messages, params)] = generator.asked
    assert "With artemisinins [1]." in messages[1]["content"]
    assert messages[1]["content"].endswith("Last question: And how do sailors prevent it?")
    assert (params.max_tokens, params.temperature) == (128, 0.0)


@pytest.mark.parametrize(("window", "read"), [(4096, 2), (200, 1), (140, 0)])
async def test_a_model_reads_as_many_of_the_last_turns_as_it_has_room_for(window: int, read: int) -> None:
    generator = FakeGenerator(["How is malaria prevented in sailors?"], context_window=window)
    long = Turn("What is scurvy?", "word " * 60, ("scurvy",))
    made = await conversation("model", long, MALARIA).standalone("And how do sailors prevent it?", generator)
    assert made.by == ("model" if read else "rule")
    assert [
        sum(text in messages[1]["content"] for text in ("word", "artemisinins")) for messages, _ in generator.asked
    ] == ([read] if read else [])


@pytest.mark.parametrize(
    "written",
    ["", "Malaria is prevented with nets [1].", "How is it prevented?", "How is\nmalaria prevented?", "Is tea good?"],
)
async def test_where_the_model_writes_what_cannot_be_used_the_rule_does_it(written: str) -> None:
    generator = FakeGenerator([written])
    made = await conversation("model", MALARIA).standalone("How is it prevented?", generator)
    assert (made.text, made.by) == ("How is malaria prevented?", "rule")
    assert len(generator.asked) == 1


async def test_a_model_that_repeats_the_question_changed_nothing() -> None:
    generator = FakeGenerator(["What causes scurvy?"])
    made = await conversation("model", MALARIA).standalone("What causes scurvy?", generator)
    assert (made.text, made.by) == ("What causes scurvy?", None)


async def test_the_first_question_of_a_conversation_is_no_follow_up() -> None:
    generator = FakeGenerator(["never"])
    assert (await conversation("model").standalone("Why?", generator)).text == "Why?"
    assert generator.asked == []


async def test_an_engine_that_dies_while_rewriting_is_an_error() -> None:
    with pytest.raises(EngineDied):
        await conversation("model", MALARIA).standalone("Why?", FakeGenerator(["How "], dies_after=0))


def test_quotes_and_a_label_around_what_the_model_wrote_are_taken_off() -> None:
    assert accepted(' Question: "How is malaria prevented?"\n', "And how is it prevented?", [MALARIA]) == (
        "How is malaria prevented?"
    )


def test_a_question_longer_than_may_be_asked_is_not_accepted() -> None:
    assert accepted(f"How is {'malaria ' * 300}prevented?", "And?", [MALARIA]) is None
