"""What `rag ask` tells a reader of sentences that their sources don't support, and of techniques that did nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rag.cli.rendering import idle, unsupported_lines
from rag.core import Answer, CacheInfo, Citation, EngineInfo, Sentence, StageTimings, Support, Technique, Tokens
from rag.settings import Action


def answer(*sentences: tuple[str, tuple[int, ...], Support]) -> Answer:
    return Answer(
        question="?",
        answer="",
        abstained=False,
        confidence=None,
        withheld=False,
        truncated=False,
        sentences=tuple(Sentence(*one) for one in sentences),
        citations=(Citation(1, "d", "d#0", "D", "It is so.", "model", 0.9),),
        invalid_markers=0,
        route=None,
        cache=CacheInfo(),
        timings=StageTimings(),
        spans=(),
        tokens=Tokens(),
        engine=EngineInfo("fake", "1", "cpu"),
        profile="p",
    )


MIXED = answer(
    ("It is so.", (1,), "supported"),
    ("It is\nnot.", (1, 2), "contradicted"),
    ("It may be.", (3,), "not_stated"),
    ("Who knows.", (), "not_stated"),
)


def test_marked_sentences_are_named_with_their_sources() -> None:
    assert unsupported_lines(MIXED, "mark") == [
        "Contradicted by its source [1][2]: It is not.",
        "Not supported by its source [3]: It may be.",
        "Without a source: Who knows.",
    ]


def test_where_nothing_is_cited_no_sentence_is_named() -> None:
    assert unsupported_lines(replace(MIXED, citations=()), "mark") == []


@pytest.mark.parametrize("action", ["drop", "withhold"])
def test_sentences_that_are_not_shown_are_only_counted(action: Action) -> None:
    assert unsupported_lines(MIXED, action) == ["Unsupported and not shown: 3 of 4 sentences (--json lists them)"]


@pytest.mark.parametrize("action", ["mark", "drop", "withhold"])
def test_supported_and_unchecked_sentences_need_no_word(action: Action) -> None:
    assert unsupported_lines(answer(("It is so.", (1,), "supported"), ("Or so.", (), "unchecked")), action) == []


LEFT_OUT = Technique(asked=True, engaged=False, reason="no kernels")
QUIET = Technique(asked=True, engaged=False, reason="nothing was drafted")
WORKING = Technique(asked=True, engaged=True, evidence="9 of 12")
INSTEAD = Technique(asked=True, engaged=True, evidence="9 of 12", reason="another stands in for it")
UNKNOWN = Technique(asked=True)


@pytest.mark.parametrize(
    ("of_answer", "since_start", "line"),
    [
        (QUIET, WORKING, None),
        (WORKING, QUIET, "Not engaged: speculation (nothing was drafted)"),
        (QUIET, UNKNOWN, None),
        (UNKNOWN, UNKNOWN, None),
        (QUIET, Technique(asked=False, engaged=False), None),
        (LEFT_OUT, LEFT_OUT, "Not engaged: speculation (no kernels)"),
        (INSTEAD, INSTEAD, "Engaged: speculation (another stands in for it)"),
    ],
)
def test_a_technique_is_idle_by_what_the_engine_has_done_in_all(
    of_answer: Technique, since_start: Technique, line: str | None
) -> None:
    assert idle(EngineInfo("e", "1", "cpu", {"speculation": of_answer}, {"speculation": since_start})) == line


def test_an_engine_that_tells_nothing_in_all_is_judged_by_the_answer() -> None:
    engine = EngineInfo("e", "1", "cpu", {"a": QUIET, "b": WORKING, "c": LEFT_OUT, "d": INSTEAD})
    assert idle(engine) == (
        "Not engaged: a (nothing was drafted); c (no kernels). Engaged: d (another stands in for it)"
    )
