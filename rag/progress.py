"""How whatever takes a while tells what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Report = Callable[[str], None]
"""Told what is being done, in a few words. A `Progress` is one, too."""


class Progress(Protocol):
    """Told what is being done, how far it is where that can be counted, and in `note` what else is known of it by now."""

    def __call__(self, what: str, done: int = 0, total: int = 0, note: str = "", /) -> None: ...


def quiet(*_: object) -> None:
    """Either of them, where nobody is to be told."""
