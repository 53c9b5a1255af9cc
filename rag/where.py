"""Conditions on documents' metadata: `year>=2020 and journal~"Lancet" and not retracted`. Pure; nothing is run as code.

    condition  =  every ("or" every)*
    every      =  one ("and" one)*
    one        =  "not" one  |  "(" condition ")"  |  NAME  |  NAME operator value
    operator   =  "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
    value      =  a number, a word, or text in single or double quotes

A name alone asks whether the document has it. `~` asks whether it holds the text, `=` whether it is the text, both in capitals
or not. Numbers are compared as numbers. A document that lacks the name meets `!=` and none of the other comparisons.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from rag.core import Metadata
from rag.errors import UsageError

NOTICES = frozenset({"retracted", "corrected"})
"""What a document has of its publisher's notices. That none of a corpus has one is no mistake of the condition that asks."""

MAX_DEPTH = 50
"""Of parentheses and `not`s in one another: a reader of conditions is recursive."""

Value: TypeAlias = str | int | float
Test: TypeAlias = Callable[[Metadata], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator><=|>=|!=|[=<>~])
      | (?P<bracket>[()])
      | "(?P<double>[^"]*)" | '(?P<single>[^']*)'
      | (?P<word>[^\s()=<>~!"']+)
    )""",
    re.VERBOSE,
)
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Where:
    """A condition; `names` are those that it asks for, `words` the values that it compares as words, by the name. Two of the same text
    are equal."""

    text: str
    names: frozenset[str]
    words: Mapping[str, str]
    meets: Test

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Where) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def parse(text: str) -> Where:
    """Raises `UsageError`, with the place, where it isn't a condition."""
    reader = _Reader(text)
    test = reader.condition(0)
    if reader.kind is not None:
        reader.fail('"and", "or" or the end')
    return Where(text, frozenset(reader.names), reader.words, test)


def is_number(value: Value) -> bool:
    return _number(value) is not None


class _Reader:
    """Recursive descent over the tokens; `kind` and `token` are of the one to be read next, None at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._end = 0
        self.names: set[str] = set()
        self.words: dict[str, str] = {}
        self.kind: str | None = None
        self.token = ""
        self._next()

    def condition(self, depth: int) -> Test:
        if depth > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} parentheses in one another")
        return self._joined("or", any, self._every, depth)

    def _every(self, depth: int) -> Test:
        return self._joined("and", all, self._one, depth)

    def _joined(
        self, word: str, combine: Callable[[Iterable[bool]], bool], part: Callable[[int], Test], depth: int
    ) -> Test:
        parts = [part(depth)]
        while self._is_word(word):
            self._next()
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else lambda metadata: combine(test(metadata) for test in parts)

    def _one(self, depth: int) -> Test:
        if depth > MAX_DEPTH:
            self.fail(f'at most {MAX_DEPTH} times "not"')
        if self._is_word("not"):
            self._next()
            test = self._one(depth + 1)
            return lambda metadata: not test(metadata)
        if self.token == "(" and self.kind == "bracket":
            self._next()
            test = self.condition(depth + 1)
            if not (self.token == ")" and self.kind == "bracket"):
                self.fail('")"')
            self._next()
            return test
        if self.kind != "word" or self.token.lower() in ("and", "or"):
            self.fail("a name, e.g. year")
        name = self.token
        self.names.add(name)
        self._next()
        if self.kind != "operator":
            return lambda metadata: name in metadata
        comparison = self.token
        self._next()
        if self.kind not in ("word", "double", "single"):
            self.fail(f"a value after {comparison}")
        test = _comparison(name, comparison, self.token)
        if comparison != "~" and not is_number(self.token):
            self.words[name] = self.token
        self._next()
        return test

    def _is_word(self, word: str) -> bool:
        return self.kind == "word" and self.token.lower() == word

    def _next(self) -> None:
        if not self._text[self._end :].strip():
            self._at, self.kind, self.token = len(self._text), None, ""
            return
        match = _TOKEN.match(self._text, self._end)
        if match is None:
            self._at = self._end + len(self._text[self._end :]) - len(self._text[self._end :].lstrip())
            self.kind, self.token = "unknown", self._text[self._at]
            self.fail("a name, a value or an operator (quotes must be closed)")
        assert match.lastgroup is not None
        self.kind, self.token = match.lastgroup, match[match.lastgroup]
        self._at, self._end = match.end() - len(match[0].lstrip()), match.end()

    def fail(self, expected: str) -> NoReturn:
        found = repr(self._text[self._at :][:20]) if self._at < len(self._text) else "the end"
        text = self._text if len(self._text) <= 200 else f"{self._text[:200]}..."
        raise UsageError(
            f"The condition {text!r} has {found} at character {self._at + 1}, where {expected} is expected. "
            'It should look like year>=2020 and journal~"Lancet" and not retracted.'
        )


def _comparison(name: str, comparison: str, wanted: str) -> Test:
    if comparison == "~":
        part = wanted.casefold()
        return lambda metadata: name in metadata and part in str(metadata[name]).casefold()
    if comparison in ("=", "!="):
        differs = comparison == "!="
        return lambda metadata: (name in metadata and _same(metadata[name], wanted)) != differs
    order = _ORDER[comparison]
    number = _number(wanted)

    def test(metadata: Metadata) -> bool:
        if name not in metadata:
            return False
        found = _number(metadata[name])
        if number is not None and found is not None:
            return bool(order(found, number))
        return bool(order(str(metadata[name]).casefold(), wanted.casefold()))

    return test


def _same(found: Value, wanted: str) -> bool:
    numbers = _number(found), _number(wanted)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return str(found).casefold() == wanted.casefold()


def _number(value: Value) -> float | None:
    """Whole numbers as such, for a long id is none that a float can hold."""
    if isinstance(value, int | float):
        return value
    found = re.fullmatch(r"([+-]?\d{1,300})(\.\d{1,300})?", value.strip())
    return None if found is None else float(found[0]) if found[2] else int(found[0])
