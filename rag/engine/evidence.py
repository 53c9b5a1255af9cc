"""Did each technique engage? Pure: what the engine reported of a request, against what was asked.

A technique that was switched on and did nothing is reported as not engaged; one that the engine tells
nothing about as None, never as a yes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rag.core import GenerationStats, Technique


def judge(
    techniques: Mapping[str, Technique], engine: Mapping[str, str | None], stats: GenerationStats | None
) -> dict[str, Technique]:
    """`engine` holds what the running engine says of its own configuration, by technique, and nothing of those it
    doesn't tell; `stats` is of one request."""
    return {name: _judge(name, technique, engine, stats) for name, technique in techniques.items()}


def _judge(
    name: str, technique: Technique, engine: Mapping[str, str | None], stats: GenerationStats | None
) -> Technique:
    if not technique.asked or technique.engaged is False:
        return technique
    if name == "prefix_caching":
        cached = stats.cached_prompt_tokens if stats else None
        return _by_count(
            technique, cached, f"{cached} cached prompt tokens", "no block of this prompt was in the cache"
        )
    if name == "speculation":
        drafted, accepted = (stats.draft_tokens, stats.accepted_tokens) if stats else (None, None)
        return _by_count(
            technique, drafted, f"{accepted} of {drafted} draft tokens accepted", "nothing was drafted for this answer"
        )
    if name not in engine:
        return technique
    reported = engine[name]
    if reported in (None, "auto"):
        return replace(technique, engaged=False, reason=f"the engine runs without it ({name} {reported})")
    return replace(technique, engaged=True, evidence=f"the engine runs with {name} {reported}")


def _by_count(technique: Technique, count: int | None, evidence: str, reason: str) -> Technique:
    if count is None:
        return technique
    return replace(technique, engaged=count > 0, evidence=evidence, reason=None if count > 0 else reason)
