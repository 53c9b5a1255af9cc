"""A corpus that tells its revision, from each of its documents and from an index of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag.core import Document
from rag.errors import Mixed
from rag.index import IndexReader


@dataclass(frozen=True, slots=True)
class Corpus:
    size: int

    def revision(self, number: int) -> list[Document]:
        return [Document(f"d{row}", f"Sample {row}", self._text(row, number)) for row in range(self.size)]

    def revision_of(self, index: IndexReader) -> int:
        """The revision that an index holds. Raises `Mixed` where it isn't all of one, or has another number of vectors than of
        passages."""
        passages = index.passages.get(range(len(index.passages)))
        held = {passage.doc_id: passage.text for passage in passages}
        number = max((int(re.findall(r"\d+", text)[-1]) for text in held.values()), default=0)
        wanted = {document.id: document.text for document in self.revision(number)}
        if held != wanted or len(passages) != len(held):
            wrong = sum(held.get(name) != text for name, text in wanted.items())
            raise Mixed(f"of {len(passages)} passages and {len(held)} documents, {wrong} aren't of revision {number}")
        if not len(passages) == len(index.dense.vectors) == index.manifest.passages:
            raise Mixed(f"{len(passages)} passages, {len(index.dense.vectors)} vectors")
        return number

    def require(self, hits: Sequence[tuple[str, str]], number: int) -> None:
        """Of each the document's id and the text. Raises `Mixed` where there is none, or not all are this revision's."""
        if not hits or any(text != self._text(int(identity[1:]), number) for identity, text in hits):
            raise Mixed(f"{len(hits)} hits that aren't all of revision {number}")

    @staticmethod
    def _text(row: int, number: int) -> str:
        changed = max(0, number - (row + number) % 3)  # the last round that was its turn
        return f"Sample {row} lies in drawer {row % 7}. It was revised in round {changed}."
