"""Is an answer right, cited and supported? Measures of one answer against the passages of its prompt. Pure.

None of them uses a model. The rules for markers and for declining are those that a user's answer goes through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag import prompt
from rag.core import Sentence, Source
from rag.metrics import token_f1
from rag.settings import Cite
from rag.text import content_words

MIN_SHARE = 0.8
"""Of a sentence's content words that have to stand in one passage that it cites."""

_AS_WRITTEN = Cite(attribute=False)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Score:
    """`citation_exact` and `token_f1` are None where the sources hold no answer.

    `sentences` and `supported` count those of an answer; a refusal has none.
    """

    markers: tuple[int, ...]
    invalid_markers: int
    declined: bool
    citation_exact: bool | None
    token_f1: float | None
    sentences: int
    supported: int


def score(answer: str, truncated: bool, reference: str, gold: Sequence[int], sources: Sequence[Source]) -> Score:
    """An answer as a user would see it: markers that point nowhere are out, and of a `truncated` one the sentence that
    was cut. `gold` are the markers that the reference carries, () where it declines."""
    declined = prompt.declines(answer)
    whole = prompt.whole_sentences(answer) if truncated else answer
    text, sentences, _, invalid = prompt.cite(whole, sources, _AS_WRITTEN)
    markers = tuple(sorted({marker for sentence in sentences for marker in sentence.markers}))
    shown = () if declined else sentences
    return Score(
        markers,
        invalid,
        declined,
        (not declined and set(markers) == set(gold)) if gold else None,
        (0.0 if declined else token_f1(prompt.unmarked(text), prompt.unmarked(reference))) if gold else None,
        len(shown),
        sum(supported(sentence, sources) for sentence in shown),
    )


def supported(sentence: Sentence, sources: Sequence[Source]) -> bool:
    """Does one passage that the sentence cites, with its title, hold every number of it, as it is written, and at least
    `MIN_SHARE` of its content words? Never without a marker."""
    words, numbers = content_words(sentence.text), _numbers(sentence.text)
    passages = (f"{s.hit.passage.title}\n{s.quote}" for s in sources if s.marker in sentence.markers)
    return any(
        numbers <= _numbers(passage) and len(words & content_words(passage)) >= MIN_SHARE * len(words)
        for passage in passages
    )


def _numbers(text: str) -> set[str]:
    return set(_NUMBER.findall(text))
