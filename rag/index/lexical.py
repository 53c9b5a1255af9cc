"""Lexical search: BM25 with two implementations behind one seam.

`bm25s` scores at build time and only adds up at query time; `rank_bm25` is the reference, and V3's.
Both are Okapi BM25 with k1 1.5 and b 0.75, and rank alike but for ties and for terms that stand in more
than half of the passages, whose negative weight bm25s sets to 0 and rank_bm25 to a quarter of the mean weight.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from rag.index.store import ArrayWriter
from rag.text import STOP_WORDS

K1, B = 1.5, 0.75

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_TOKENS, _OFFSETS = "tokens.npy", "token_offsets.npy"
_BM25S = "bm25s"


class Tokenizer:
    """Lower-cased word stems without function words. The same for passages and questions.

    Words are runs of letters and digits, so "beta-blocker" is two and "HbA1c" one.
    """

    def __init__(self) -> None:
        import Stemmer

        self._stem = Stemmer.Stemmer("english").stemWords
        self._lock = threading.Lock()
        """The stemmer has a state of its own."""

    def __call__(self, text: str) -> list[str]:
        words = [
            word
            for word in _WORD.findall(normalize("NFC", text.lower()).replace("\u2019", "'"))
            if word not in STOP_WORDS
        ]
        with self._lock:
            stems: list[str] = self._stem(words)
        return stems


class LexicalIndex(Protocol):
    def search(
        self, tokens: Sequence[str], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """BM25 scores and rows, best first, at most k; only passages that share a term with the query, and of those
        the `allowed` ones, by row."""
        ...


class TokenWriter:
    """Writes the tokens of every passage, in order, as numbers of a vocabulary that grows with them; then, at the end of its
    `with` block, the bm25s index over them."""

    def __init__(self, folder: Path, vocabulary: Mapping[str, int]) -> None:
        self._folder = folder
        self._vocabulary = dict(vocabulary)
        self._tokens = ArrayWriter(folder / _TOKENS, np.int32)
        self._offsets = array("q", [0])

    def add(self, tokens: Sequence[str]) -> None:
        """Of one passage."""
        number = self._vocabulary.setdefault
        self.copy([np.array([number(token, len(self._vocabulary)) for token in tokens], dtype=np.int32)])

    def copy(self, passages: Iterable[NDArray[np.int32]]) -> None:
        """Passages in numbers of the vocabulary that this one began with."""
        for ids in passages:
            self._tokens.add(ids)
            self._offsets.append(self._offsets[-1] + len(ids))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and not self._vocabulary:  # bm25s can't index nothing: a term that no query has
            self._vocabulary = {"": 0}
            passages = len(self._offsets) - 1
            self._offsets = array("q", [0])
            self.copy(np.zeros((passages, 1), dtype=np.int32))
        self._tokens.__exit__()
        if kind is None:
            np.save(self._folder / _OFFSETS, np.array(self._offsets, dtype=np.int64), allow_pickle=False)
            self._write()

    def _write(self) -> None:
        import bm25s

        retriever = bm25s.BM25(k1=K1, b=B, method="robertson")
        tokenized = bm25s.tokenization.Tokenized(ids=_Lists(TokenFile(self._folder)), vocab=self._vocabulary)
        retriever.index(tokenized, show_progress=False)
        retriever.save(str(self._folder / _BM25S), show_progress=False)


class TokenFile:
    """The passages' tokens as numbers of a vocabulary, by row, in a memory map."""

    def __init__(self, folder: Path) -> None:
        self._offsets = np.load(folder / _OFFSETS, allow_pickle=False)
        self._ids: NDArray[np.int32] = np.load(folder / _TOKENS, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self._ids[self._offsets[row] : self._offsets[row + 1]]


class _Lists(Sequence[list[int]]):
    """The tokens of one passage at a time as Python's numbers, which bm25s counts: all of them at once would take ten times the
    file's size of memory."""

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, row: int) -> list[int]:  # type: ignore[override]  # bm25s takes no slices
        ids: list[int] = self._tokens[row].tolist()
        return ids

    def __iter__(self) -> Iterator[list[int]]:
        return (self[row] for row in range(len(self)))


def vocabulary(folder: Path) -> Mapping[str, int]:
    import bm25s

    words: Mapping[str, int] = bm25s.BM25.load(str(folder / _BM25S), mmap=True).vocab_dict
    return words


def open_index(folder: Path, implementation: Literal["bm25s", "rank_bm25"]) -> LexicalIndex:
    return Bm25s(folder) if implementation == "bm25s" else RankBm25(folder)


class Bm25s:
    def __init__(self, folder: Path) -> None:
        import bm25s

        self._index = bm25s.BM25.load(str(folder / _BM25S), mmap=True)

    def search(
        self, tokens: Sequence[str], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        ids = self._index.get_tokens_ids(list(tokens))
        if not ids:
            return _top(np.zeros(0, dtype=np.float32), k, None)
        # bm25s leaves out the constant factor (k1 + 1): the ranks are the same, now the scores are too.
        return _top(self._index.get_scores_from_ids(ids) * np.float32(K1 + 1), k, allowed)


class RankBm25:
    def __init__(self, folder: Path) -> None:
        from rank_bm25 import BM25Okapi

        tokens = TokenFile(folder)
        self._index = BM25Okapi([tokens[row].tolist() for row in range(len(tokens))], k1=K1, b=B)
        self._vocabulary = vocabulary(folder)

    def search(
        self, tokens: Sequence[str], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        ids = [self._vocabulary[token] for token in tokens if token in self._vocabulary]
        return _top(self._index.get_scores(ids).astype(np.float32), k, allowed)


def _top(
    scores: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ties are broken by row, so that equal scores give equal orders in both implementations."""
    if allowed is not None and len(scores) > 0:
        scores = np.where(allowed, scores, np.float32(0))
    # Most passages share no term with the query, and thousands of equal zeros make the partition 20 times slower.
    matched = scores[scores > 0]
    k = min(k, len(matched))
    if k == 0:
        return np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64)
    # All rows that tie with the k-th belong to the choice, else the partition picks among them at random.
    threshold = np.partition(matched, -k)[-k]
    candidates = np.flatnonzero(scores >= threshold)
    rows = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
    return scores[rows], rows
