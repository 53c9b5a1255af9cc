"""The setting that a sweep goes over, and its values."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import yaml

from rag.errors import UsageError
from rag.settings import Loaded

EXAMPLE = "e.g. --over context.passages=3,5,10,15"

WITHOUT_EFFECT = {
    "chunk": "an index is built by it: build one for each value (rag index --index NAME), and sweep index.name",
    "chat": "a question that stands alone doesn't depend on it",
    "batch": "questions are asked one by one, for their time: rag bench batch compares ways to ask many",
}
"""By section, why a question set is answered alike by all of its values."""


@dataclass(frozen=True, slots=True)
class Over:
    """A dotted setting and at least two values."""

    key: str
    values: tuple[Any, ...]

    def assignment(self, value: Any) -> str:
        """As `--set` takes it."""
        return f"{self.key}={json.dumps(value)}"

    def loads(self, load: Callable[[str | None], Loaded]) -> dict[str, Loaded]:
        """The settings of each value by its label: first the value that holds without a sweep, where it is one of them, then the
        others in their order. `load` takes an assignment, None for none.

        Raises `SettingsError` for a setting or a value that is none.
        """
        found = {label(value): load(self.assignment(value)) for value in self.values}
        own = dict(load(None).leaves()).get(self.key)  # None for an entry of a mapping
        first = next((name for name, one in found.items() if dict(one.leaves()).get(self.key) == own), None)
        return found if first is None else {first: found[first], **found}


def parse(text: str) -> Over:
    """Of `SETTING=a,b,c`, values as in a YAML list. Raises `UsageError`."""
    key, equals, listed = text.partition("=")
    key = key.strip()
    if not equals or "." not in key:
        raise UsageError(f"--over {text}: expected a setting and its values, {EXAMPLE}.")
    try:
        values = yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError as error:
        raise UsageError(f"--over {text}: the values are no YAML list ({error.__class__.__name__}).") from None
    # Dates, which YAML reads and no setting is, are names.
    values = [value.isoformat() if isinstance(value, date) else value for value in values]
    if len(values) < 2:
        raise UsageError(f"--over {text}: two values at least can be compared, {EXAMPLE}.")
    labels = [label(value) for value in values]
    if twice := next((one for one in labels if labels.count(one) > 1), None):
        raise UsageError(f"--over {text}: {twice} is named twice.")
    if (why := WITHOUT_EFFECT.get(key.partition(".")[0])) is not None:
        raise UsageError(f"--over {text}: all values would answer alike, since {why}.")
    return Over(key, tuple(values))


def label(value: Any) -> str:
    """What it is called in names and tables."""
    return value if isinstance(value, str) else json.dumps(value)
