"""Where things are: what ships with `rag`, and what the user's machine keeps.

Shipped files stand at the top of a checkout (`configs/`, `data/`) and inside a wheel (`rag/_shipped/`).
State lives in the platform's user folders, or all of it under `RAG_HOME` where that is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str) -> Path:
    """A file or folder that travels with the package, e.g. `shipped("configs", "profiles")`."""
    in_wheel = _PACKAGE / "_shipped"
    root = in_wheel if in_wheel.is_dir() else _PACKAGE.parent
    return root.joinpath(*parts)


def models_dir() -> Path:
    """Built models. A cache: `rag models build` makes it again."""
    return _home("cache", platformdirs.user_cache_path) / "models"


def indexes_dir() -> Path:
    return _home("data", platformdirs.user_data_path) / "indexes"


def logs_dir() -> Path:
    return _home("logs", platformdirs.user_log_path)


def state_dir() -> Path:
    """What a session leaves for the next, such as the lines typed in it."""
    return _home("state", platformdirs.user_state_path)


def _home(kind: str, platform_default: Callable[..., Path]) -> Path:
    home = os.environ.get("RAG_HOME")
    if not home:
        return platform_default("rag", appauthor=False)
    return Path(os.path.expanduser(home)).resolve() / kind  # noqa: PTH111  (Path's raises for an unknown user)
