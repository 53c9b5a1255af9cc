"""rag/errors.py: the tree in its docstring is the tree of its classes."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path

import pytest

from rag import errors
from rag.cli import commands
from rag.errors import RagError

PACKAGE = Path(errors.__file__).parent
BRANCH = re.compile(r"^ {4}(?P<lines>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +(?:exit (?P<exit>\d+)(?:: )?)?(?P<text>.*))?$")


def drawn() -> list[tuple[str, int, int | None, str]]:
    """Each class of the docstring: name, depth, exit code where one stands, and what is said of it."""
    assert errors.__doc__ is not None
    matches = [BRANCH.match(line) for line in errors.__doc__.splitlines()]
    return [
        (match["name"], len(match["lines"]) // 4, int(match["exit"]) if match["exit"] else None, match["text"] or "")
        for match in matches
        if match
    ]


def drawn_parents() -> dict[str, str | None]:
    path: list[str] = []
    parents: dict[str, str | None] = {}
    for name, depth, _, _ in drawn():
        path = [*path[:depth], name]
        parents[name] = path[depth - 1] if depth else None
    return parents


def subclasses(kind: type[RagError]) -> list[type[RagError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


def defined_errors() -> dict[str, type[RagError]]:
    return {name: kind for name, kind in vars(errors).items() if is_exception(kind)}


def is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    real = {
        name: kind.__bases__[0].__name__ if kind is not RagError else None for name, kind in defined_errors().items()
    }
    assert drawn_parents() == real
    assert all(len(kind.__bases__) == 1 for kind in defined_errors().values())


def test_the_tree_is_drawn_in_the_order_of_the_classes() -> None:
    assert [name for name, *_ in drawn()] == list(defined_errors())


def test_every_exit_code_is_the_drawn_one_or_the_one_above_it() -> None:
    parents, codes = drawn_parents(), dict[str, int | None]()
    for name, _, code, _ in drawn():
        parent = parents[name]
        codes[name] = code if code is not None else codes[parent] if parent is not None else None
    assert codes == {name: kind.exit_code for name, kind in defined_errors().items()}
    assert (codes["RagError"], codes["UsageError"]) == (1, 2)


def test_every_error_but_the_root_is_explained() -> None:
    for name, depth, _, text in drawn():
        assert depth == 0 or len(text) > 10, name


def test_an_exit_code_is_one_of_those_that_rag_promises() -> None:
    assert {kind.exit_code for kind in subclasses(RagError)} == {1, 2}


def test_no_error_is_defined_on_another_page() -> None:
    known = {*defined_errors(), *(name for name, kind in vars(builtins).items() if is_exception(kind))}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                assert not bases & known, f"{path}:{node.lineno}: {node.name}"


@pytest.mark.parametrize("kind", list(defined_errors().values()), ids=lambda kind: kind.__name__)
def test_the_command_line_says_each_in_one_line_and_ends_with_its_code(
    kind: type[RagError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise kind("what was found and how to mend it")

    monkeypatch.setattr(commands, "app", fail)
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == kind.exit_code
    assert capsys.readouterr() == ("", "rag: what was found and how to mend it\n")
