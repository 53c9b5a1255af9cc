"""Each sentence of an answer against the passages that it cites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, get_args

import numpy as np

from rag.contrasts import opposite
from rag.core import Sentence, Source, Support
from rag.differences import align, mark
from rag.errors import ModelError
from rag.pairs import PairModel
from rag.quantities import numbers, numbers_stand
from rag.settings import Action, Verify
from rag.text import content_words, cut, sentences

LABELS: tuple[Support, ...] = tuple(label for label in get_args(Support) if label != "unchecked")
"""Most telling first: a sentence has the first of these that a passage that it cites gives it."""


class Judged(NamedTuple):
    """A sentence and a passage: the probabilities of `LABELS`, whether the sentence's numbers stand in the passage, with their units,
    and whether it says the opposite of what it follows otherwise word by word."""

    probabilities: Sequence[float]
    numbers_stand: bool = True
    opposite: bool = False


class CrossEncoderChecker:
    """Thread-safe as far as its model is, and it is."""

    def __init__(self, model: PairModel, settings: Verify) -> None:
        """Raises `ModelError` for a model with other labels than `LABELS`."""
        if set(model.labels) != set(LABELS):
            raise ModelError(
                f"A support checker has the labels {', '.join(LABELS)}, this model has {', '.join(model.labels)}. "
                "Name another one in verify.model."
            )
        self._model = model
        self._settings = settings
        self._columns = [model.labels.index(label) for label in LABELS]

    def check(self, sentences: Sequence[Sentence], sources: Sequence[Source]) -> tuple[Sentence, ...]:
        by_marker = {source.marker: source for source in sources}
        cited = [(row, by_marker[marker]) for row, one in enumerate(sentences) for marker in one.markers]
        judged = self.judge([(sentences[row].text, source) for row, source in cited])
        verdicts: list[Support] = ["not_stated"] * len(sentences)  # and so they stay where nothing is cited
        for (row, _), one in zip(cited, judged, strict=True):
            verdicts[row] = min(verdicts[row], verdict(one, self._settings.min_support), key=LABELS.index)
        return tuple(replace(one, support=support) for one, support in zip(sentences, verdicts, strict=True))

    def judge(self, pairs: Sequence[tuple[str, Source]]) -> list[Judged]:
        """What a verdict rests on, for each sentence and one source."""
        read = [(sentence, self._premise(sentence, source)) for sentence, source in pairs]
        aligned = [align(*pair) for pair in read]
        logits = self._model.logits([mark(*pair, one) for pair, one in zip(read, aligned, strict=True)])
        return [
            Judged(
                _softmax(line.tolist()),
                numbers_stand(sentence, f"{source.hit.passage.title}\n{source.quote}"),
                opposite(sentence, said, one),
            )
            for (sentence, source), (_, said), one, line in zip(
                pairs, read, aligned, logits[:, self._columns], strict=True
            )
        ]

    def _premise(self, sentence: str, source: Source) -> str:
        return premise(source.hit.passage.title, source.quote, sentence, self._settings.premise_chars)


def shown(sentences: Sequence[Sentence], action: Action) -> tuple[bool, ...]:
    """Which of the checked sentences a reader may see."""
    supported = tuple(sentence.support == "supported" for sentence in sentences)
    if action == "drop":
        return supported
    return (action == "mark" or all(supported),) * len(supported)


def verdict(judged: Judged, min_support: float) -> Support:
    """A sentence with a number that its passage hasn't, or has with another unit only, is never supported, nor one that says the
    opposite: that is contradicted, unless the model rather takes it for something that isn't told, as of "liver" for "heart"."""
    supported, contradicted, not_stated = judged.probabilities
    if judged.numbers_stand and not judged.opposite and supported >= max(min_support, contradicted):
        return "supported"
    if judged.opposite:
        return "contradicted" if contradicted >= not_stated else "not_stated"
    return "contradicted" if contradicted > max(supported, not_stated) else "not_stated"


def premise(title: str, text: str, sentence: str, max_chars: int) -> str:
    """What the model reads of a passage beside a sentence: the title, then at most `max_chars` of the text.

    Of a longer text the sentences that share the most content words and numbers with the one checked are
    taken, and where they tie those nearest to the best, in the order of the text. Training uses it as well.
    """
    if len(text) > max_chars:
        text = _nearest(text, sentence, max_chars)
    return f"{title}\n{text}"


def _nearest(text: str, sentence: str, max_chars: int) -> str:
    parts = [text[start:end] for start, end in sentences(text)]
    words = content_words(sentence) | numbers(sentence)
    shared = [len(words & (content_words(part) | numbers(part))) for part in parts]
    best = shared.index(max(shared)) if parts else 0
    taken: list[int] = []
    left = max_chars
    for row in sorted(range(len(parts)), key=lambda row: (-shared[row], abs(row - best), row)):
        if len(parts[row]) <= left:
            taken.append(row)
            left -= len(parts[row]) + 1
        elif not taken:
            return cut(parts[row], max_chars)
    return " ".join(parts[row] for row in sorted(taken))


def _softmax(logits: Sequence[float]) -> list[float]:
    powers = np.exp(np.asarray(logits, dtype=np.float64) - max(logits))
    probabilities: list[float] = (powers / powers.sum()).tolist()
    return probabilities
