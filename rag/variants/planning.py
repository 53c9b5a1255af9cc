"""What is asked, by which settings, and what the samples depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag import build
from rag.bench import results
from rag.evaluate import QuestionSet
from rag.evaluate.runner import depends_on
from rag.evaluate.samples import Head
from rag.progress import Report, quiet
from rag.settings import Loaded
from rag.variants.turns import BLOCK


@dataclass(frozen=True, slots=True)
class Plan:
    """The variants by name, the first of which the others are held against, and the header of their samples."""

    loads: Mapping[str, Loaded]
    questions: QuestionSet
    head: Head


def plan(
    bench: str,
    loads: Mapping[str, Loaded],
    questions: QuestionSet,
    command: str,
    report: Report = quiet,
    **more: Any,
) -> Plan:
    """`more` is what else the samples depend on. Whatever can be wrong with settings, set and index is found here: raises what
    `depends_on` raises, and `SettingsError` where the settings name a server, whose caches aren't ours to empty."""
    settings = {
        "questions": questions.head,
        "block": BLOCK,
        "engines": build.engines_of(loads),
        "variants": {name: depends_on(loaded, questions, report) for name, loaded in loads.items()},
        **more,
    }
    return Plan(loads, questions, results.header(bench, command, settings=settings))
