"""What the engines are asked: prompts of the sample corpus, the same for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rag import build
from rag.core import Message, Passage
from rag.engine.tokens import ChatTokenizer
from rag.ingest import LeftOut, chunk, find_files, read_corpus
from rag.settings import Chunk
from rag.variants.breakdown.lengths import drawn, exactly


class Prompts:
    """By length and number; each is made once."""

    def __init__(self, tokenizer: Path) -> None:
        """Raises `ModelError` where the folder has no tokenizer that can be read."""
        self._tokenizer = ChatTokenizer(tokenizer, {})
        self._passages = _sample_passages()
        self._known: dict[tuple[int, str], Sequence[Message]] = {}

    def get(self, tokens: int, repeat: int, count: int) -> list[Sequence[Message]]:
        """So many different ones, each of exactly so many tokens."""
        return [self._get(tokens, f"{repeat}/{number}") for number in range(count)]

    def _get(self, tokens: int, seed: str) -> Sequence[Message]:
        if (tokens, seed) not in self._known:
            passages = drawn(len(self._passages), self._passages.__getitem__, seed)
            self._known[tokens, seed] = exactly(tokens, passages, self._tokenizer.count_chat)
        return self._known[tokens, seed]


def _sample_passages() -> list[Passage]:
    settings, left_out = Chunk(), LeftOut()
    return [
        passage
        for located in read_corpus(find_files(build.sample_corpus(), left_out), left_out)
        for passage in chunk.split(located.document, settings.max_chars, settings.overlap_sentences)
    ]
