"""Which model answers, and how long at most. Pure.

One model for now: the seam is here so that the small one has a place to come to.
"""

from __future__ import annotations

from rag.core import Route
from rag.settings import Generator


def route(settings: Generator, model: str, prompt_tokens: int, context_window: int) -> Route:
    """The answer gets its full length, or what the context window leaves."""
    room = context_window - prompt_tokens
    if room < settings.max_tokens:
        return Route("large", model, max(1, room), f"the prompt leaves {room} of {settings.max_tokens} answer tokens")
    return Route("large", model, settings.max_tokens, "one model is configured")
