"""rag/route.py: an answer gets its full length, or what the prompt leaves of the context window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.core import Route
from rag.route import route
from rag.settings import Generator

SETTINGS = Generator(max_tokens=100)


def test_an_answer_gets_its_full_length_where_there_is_room() -> None:
    assert route(SETTINGS, "qwen", prompt_tokens=300, context_window=1000) == Route(
        tier="large", model="qwen", max_tokens=100, reason="one model is configured"
    )


def test_the_last_token_that_fits_is_given() -> None:
    assert route(SETTINGS, "qwen", prompt_tokens=900, context_window=1000).max_tokens == 100
    assert route(SETTINGS, "qwen", prompt_tokens=901, context_window=1000).max_tokens == 99


@pytest.mark.parametrize(("prompt_tokens", "room"), [(901, 99), (950, 50), (999, 1)])
def test_a_long_prompt_shortens_the_answer_and_the_reason_says_so(prompt_tokens: int, room: int) -> None:
    chosen = route(SETTINGS, "qwen", prompt_tokens, context_window=1000)
    assert chosen == Route("large", "qwen", room, f"the prompt leaves {room} of 100 answer tokens")


def test_a_full_answer_is_never_called_a_shortened_one() -> None:
    assert "leaves" not in route(SETTINGS, "qwen", prompt_tokens=900, context_window=1000).reason


@given(max_tokens=st.integers(1, 4000), window=st.integers(2, 8192), data=st.data())
def test_prompt_and_answer_always_fit_the_window_together(max_tokens: int, window: int, data: st.DataObject) -> None:
    prompt = data.draw(st.integers(0, window - 1))
    chosen = route(Generator(max_tokens=max_tokens), "qwen", prompt, window)
    assert 1 <= chosen.max_tokens <= max_tokens
    assert prompt + chosen.max_tokens <= window
    assert chosen.max_tokens == max_tokens or prompt + chosen.max_tokens == window
