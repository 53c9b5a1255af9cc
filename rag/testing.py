"""Fakes that stand beside the real seams: quick, deterministic, and honest about what they are.

Use them where the real thing is tested elsewhere; the whole path is tested on the real engine and models.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rag.core import (
    EngineInfo,
    GenerationParams,
    GenerationStats,
    Hit,
    Message,
    Opening,
    Sentence,
    Source,
    Support,
    Technique,
)
from rag.errors import EngineDied

if TYPE_CHECKING:
    from rag.core import Matrix

_WORD = re.compile(r"\w+")


class FakeEncoder:
    """Bags of hashed words: texts that share words have a high cosine."""

    model = "fake@1"
    dimension = 64

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        return np.stack([self._encode(text) for text in texts])

    encode_passages = encode_queries

    def _encode(self, text: str) -> Matrix:
        vector = np.full(self.dimension, 1e-3, dtype=np.float32)
        for word in _WORD.findall(text.lower()):
            vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimension] += 1
        unit: Matrix = vector / np.linalg.norm(vector)
        return unit


class FakeReranker:
    """The share of the question's words that a passage holds."""

    def scores(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[list[float]]:
        asked = [(_words(question), hits) for question, hits in found]
        return [[len(words & _words(hit.passage.titled)) / max(1, len(words)) for hit in hits] for words, hits in asked]


class FakeSupportChecker:
    """A sentence whose words all stand in one of its sources is supported, one that adds only "not" contradicted."""

    def check(self, sentences: Sequence[Sentence], sources: Sequence[Source]) -> tuple[Sentence, ...]:
        words = {s.marker: _words(f"{s.hit.passage.title} {s.quote}") for s in sources}
        checked = []
        for sentence in sentences:
            new = [_words(sentence.text) - words[marker] for marker in sentence.markers]
            support: Support = "supported" if set() in new else "contradicted" if {"not"} in new else "not_stated"
            checked.append(replace(sentence, support=support))
        return tuple(checked)


class FakeGenerator:
    """Says what it was given, a delta at a time. A token is a word. `dies_after` deltas it raises `EngineDied`. `opening` is
    what it tells where it is asked.

    `asked` keeps the messages and parameters of every request, `generating` counts those under way, `aborted` those closed early.
    """

    model = "fake"

    def __init__(self, deltas: Sequence[str] = (), context_window: int = 4096, dies_after: int | None = None) -> None:
        self.deltas = list(deltas)
        self.context_window = context_window
        self.dies_after = dies_after
        self.alive = True
        self.asked: list[tuple[tuple[Message, ...], GenerationParams]] = []
        self.generating = 0
        self.aborted = 0
        self.opening: Opening | None = None
        self.techniques: Mapping[str, Technique] = {}

    def count_tokens(self, text: str) -> int:
        return len(_WORD.findall(text))

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(self.count_tokens(message["content"]) for message in messages)

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[Opening | str | GenerationStats, None]:
        self.asked.append((tuple(messages), params))
        stats = GenerationStats(0, finish_reason="stop", prompt_tokens=self.count_prompt_tokens(messages))
        finished = False
        self.generating += 1
        try:
            if params.watch is not None and self.opening is not None:
                yield self.opening
            if params.begin_with:
                yield params.begin_with
            for number, delta in enumerate(self.deltas):
                if number == self.dies_after:
                    self.alive = False
                    raise EngineDied(f"The engine died after {number} tokens of the answer.")
                if number == params.max_tokens:
                    stats = replace(stats, finish_reason="length")
                    break
                stats = replace(stats, output_tokens=number + 1)
                yield delta
            finished = True
            yield stats
        finally:
            self.generating -= 1
            self.aborted += not finished

    def info(self, stats: GenerationStats | None) -> EngineInfo:
        del stats
        return EngineInfo("fake", "1", "cpu", self.techniques)

    async def reset_prefix_cache(self) -> bool:
        return True

    async def close(self) -> None:
        pass


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
