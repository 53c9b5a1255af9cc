"""A conversation: what of it is remembered, and how a question that leans on it is made to stand alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from rag.core import Answer, Clock, GenerationParams, Generator, Message, Source
from rag.followup import Turn
from rag.followup import standalone as by_rule
from rag.pipeline import MAX_QUESTION
from rag.settings import Chat
from rag.text import cut
from rag.topics import own_words, shared_phrase, topics

REWRITE = (
    "Rewrite the last question so that it can be understood without the conversation before it: write what its pronouns "
    "stand for, and complete it. If it can be understood already, repeat it as it is. Reply with the question alone."
)

REWRITTEN = 128
"""Tokens of a question that the generator writes, at most."""

Way: TypeAlias = Literal["rule", "model"]


@dataclass(frozen=True, slots=True)
class Standalone:
    """A question that can be understood without the conversation: as it was typed where `by` is None. `seconds` went into
    making it."""

    text: str
    by: Way | None
    seconds: float


class Conversation:
    """The last turns, no more than the settings allow: at most so many, and so many characters together."""

    def __init__(self, settings: Chat, clock: Clock = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._turns: tuple[Turn, ...] = ()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The oldest first."""
        return self._turns

    def add(self, turn: Turn) -> None:
        """The newest is always kept, if any is; a long answer only by its beginning."""
        room = max(1, self._settings.characters - len(turn.question))
        turn = replace(turn, answer=cut(turn.answer, room))
        kept: list[Turn] = []
        left = self._settings.characters
        for one in reversed([*self._turns, turn][-self._settings.turns :] if self._settings.turns else []):
            left -= len(one.question) + len(one.answer)
            if left < 0 and kept:
                break
            kept.append(one)
        self._turns = tuple(reversed(kept))

    def clear(self) -> None:
        self._turns = ()

    async def standalone(self, question: str, generator: Generator) -> Standalone:
        """By the generator where `chat.rewrite` says so and what it writes can be used, else by rule.

        Raises `EngineError` where the generator is lost.
        """
        began = self._clock()
        made: str | None = None
        way: Way = self._settings.rewrite
        if way == "model" and self._turns:
            messages = _rewriting(generator, question, self._turns)
            written = await _asked(generator, messages) if messages is not None else ""
            made = accepted(written, question, self._turns)
        if made is None:
            made, way = by_rule(question, self._turns), "rule"
        if len(made) > MAX_QUESTION:
            made = question
        return Standalone(made, way if made != question else None, self._clock() - began)


def turn(answer: Answer, sources: Sequence[Source]) -> Turn:
    """What is remembered of an answer. It is about what it cites; one that cites nothing about what was found for it, as far
    as that goes with the question."""
    if not answer.citations:
        return unanswered(answer.question, sources)
    titles = [citation.title for citation in answer.citations]
    texts = [citation.quote for citation in answer.citations]
    return Turn(answer.question, answer.answer, topics(answer.question, titles, texts))


def unanswered(question: str, sources: Sequence[Source]) -> Turn:
    """What is remembered of a question that had no answer: a follow-up may lean on it all the same."""
    titles = [source.hit.passage.title for source in sources]
    related = [title for title in titles if shared_phrase(question, title) is not None]
    return Turn(question, "", topics(question, related, [source.quote for source in sources]))


def accepted(written: str, question: str, turns: Sequence[Turn]) -> str | None:
    """What a model wrote, if it is one question, of no other words of their own than the conversation's."""
    text = written.strip().removeprefix("Question:").strip().strip('"\u201c\u201d')
    said = own_words(" ".join([question, *(f"{one.question} {one.answer} {' '.join(one.topics)}" for one in turns)]))
    words = own_words(text)
    one_question = text.endswith("?") and "\n" not in text and len(text) <= MAX_QUESTION
    return text if one_question and words and len(words & said) * 2 > len(words) else None


def _rewriting(generator: Generator, question: str, turns: Sequence[Turn]) -> tuple[Message, ...] | None:
    """What the generator is asked, with as many of the last turns as it has room for; None where there is none for any."""
    for first in range(len(turns)):
        spoken = "".join(f"Question: {one.question}\nAnswer: {one.answer}\n\n" for one in turns[first:])
        messages: tuple[Message, ...] = (
            {"role": "system", "content": REWRITE},
            {"role": "user", "content": f"{spoken}Last question: {question}"},
        )
        if generator.count_prompt_tokens(messages) + REWRITTEN <= generator.context_window:
            return messages
    return None


async def _asked(generator: Generator, messages: tuple[Message, ...]) -> str:
    text = ""
    async with aclosing(generator.stream(messages, GenerationParams(max_tokens=REWRITTEN))) as items:
        async for item in items:
            text += item if isinstance(item, str) else ""
    return text
