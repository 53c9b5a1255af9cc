"""The direction of imports, read from the syntax tree of every module of `rag`.

    core, errors <- paths, files, settings, stats <- stages <- pipeline <- build <- training <- server <- bench <- evaluate
    <- variants <- cli

An import counts wherever it stands: at the top, inside a function, or for type checkers only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import rag

PACKAGE = Path(rag.__file__).parent

# A module may import those of lower layers alone. `settings` needs `records`, and that `files`, so the foundation has three.
LAYERS = (
    {"rag", "rag.core", "rag.errors"},
    {
        "rag.figures",
        "rag.paths",
        "rag.progress",
        "rag.files",
        "rag.metrics",
        "rag.quantities",
        "rag.stats",
        "rag.text",
        "rag.where",
        "rag.workers",
    },
    {"rag.records"},
    {"rag.bert", "rag.differences", "rag.questions", "rag.settings", "rag.synonyms", "rag.topics"},
    {"rag.contrasts"},
    {
        "rag.abstain",
        "rag.cache",
        "rag.context",
        "rag.embed",
        "rag.engine",
        "rag.followup",
        "rag.index",
        "rag.ingest",
        "rag.matching",
        "rag.models",
        "rag.pairs",
        "rag.prefetch",
        "rag.prompt",
        "rag.rerank",
        "rag.route",
        "rag.search",
        "rag.verify",
    },
    {"rag.pipeline"},
    {"rag.batch", "rag.build", "rag.chat"},
    {"rag.calibrate"},
    {"rag.training"},
    {"rag.server"},
    {"rag.bench"},
    {"rag.evaluate"},
    {"rag.variants"},
    {"rag.cli"},
    {"rag.__main__"},
)
STAGES = LAYERS[5]

# Stages meet in `build`, but for these: (importer, module, what it takes) and why it may.
EXCEPTIONS = {
    ("rag.search", "rag.index", "IndexReader"): "a search is over an index; it takes one that `build` has opened",
    ("rag.prompt", "rag.context", "render"): "pure: what a passage costs is counted on what the prompt will hold",
    ("rag.matching", "rag.pairs", "PairModel"): "the seam of cross-encoders; it takes one that `build` has opened",
    ("rag.rerank", "rag.pairs", "PairModel"): "the seam of cross-encoders; it takes one that `build` has opened",
    ("rag.verify", "rag.pairs", "PairModel"): "the seam of cross-encoders; it takes one that `build` has opened",
}

HEAVY = {
    "vllm",
    "torch",
    "faiss",
    "transformers",
    "sentence_transformers",
    "bm25s",
    "rank_bm25",
    "openvino",
    "tokenizers",
    "datasets",
    "peft",
    "scipy",
    "matplotlib",
    "ir_measures",
}


BY_VLLM = {"rag.engine.executor"}
"""What vLLM imports, and nothing of ours does."""


@dataclass(frozen=True, slots=True)
class Import:
    """`from module import name`, or `import module` with no name. `runs`: whenever its module is imported."""

    module: str
    name: str | None
    line: int
    runs: bool
    for_types: bool


def imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """Every import of a module's source, relative ones resolved."""
    package = module if is_package else module.rpartition(".")[0]
    return list(_walk(ast.parse(source), package, runs=True, for_types=False))


def _walk(node: ast.AST, package: str, runs: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, None, child.lineno, runs, for_types)
            case ast.ImportFrom(module=base, names=names, level=level):
                parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                full = ".".join([*parents, *([base] if base else [])])
                for alias in names:
                    yield Import(full, alias.name, child.lineno, runs, for_types)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _walk(child, package, False, for_types)
            case ast.If(test=test, body=body, orelse=orelse) if "TYPE_CHECKING" in ast.unparse(test):
                yield from _walk(ast.Module(body, []), package, False, True)
                yield from _walk(ast.Module(orelse, []), package, runs, for_types)
            case _:
                yield from _walk(child, package, runs, for_types)


@cache
def modules() -> Mapping[str, list[Import]]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = imports(path.read_text(encoding="utf-8"), name, is_package)
    return found


def planted(importer: str, source: str) -> dict[str, list[Import]]:
    """The modules of `rag`, of which one holds `source` and the others nothing."""
    return {**{name: [] for name in modules()}, importer: imports(source, importer)}


def unit(module: str) -> str:
    """The module, or the package directly under `rag`, that has a place in the layers."""
    return ".".join(module.split(".")[:2])


def layer(module: str) -> int:
    for number, members in enumerate(LAYERS):
        if unit(module) in members:
            return number
    raise AssertionError(f"{unit(module)} has no place in LAYERS: put it where DESIGN.md has it")


def targets(found: Mapping[str, list[Import]], one: Import) -> str:
    """The module that an import reaches: `from rag import paths` reaches `rag.paths`."""
    below = f"{one.module}.{one.name}"
    return below if below in found else one.module


def ours(found: Mapping[str, list[Import]]) -> Iterator[tuple[str, str, Import]]:
    """(importer, imported module, import) for every import of `rag` inside `rag`."""
    for importer, all_imports in found.items():
        for one in all_imports:
            if one.module.split(".")[0] == "rag":
                yield importer, targets(found, one), one


def backward(found: Mapping[str, list[Import]]) -> list[str]:
    """Imports that point up or sideways; `rag.testing` stands beside the layers and has a test of its own."""
    wrong = []
    for importer, module, one in ours(found):
        if importer == "rag.testing" or module == "rag.testing" or unit(importer) == unit(module):
            continue
        excepted = (importer, one.module, one.name) in EXCEPTIONS
        if layer(module) >= layer(importer) and not excepted:
            wrong.append(f"{importer}:{one.line} imports {module}")
    return wrong


def heavy(found: Mapping[str, list[Import]]) -> list[str]:
    return [
        f"{importer}:{one.line} imports {one.module}"
        for importer, all_imports in found.items()
        for one in all_imports
        if importer not in BY_VLLM
        if one.runs and one.module.split(".")[0] in HEAVY
    ]


def foreign_to_core(core: list[Import]) -> list[str]:
    """What `rag.core` imports and may not: all but the standard library, and NumPy for type checkers."""
    return [
        f"{one.line}: {one.module}"
        for one in core
        if one.module.split(".")[0] not in sys.stdlib_module_names
        and not (one.for_types and one.module.split(".")[0] == "numpy")
    ]


def users_of_testing(found: Mapping[str, list[Import]]) -> list[str]:
    return [f"{importer}:{one.line}" for importer, module, one in ours(found) if module == "rag.testing"]


# --- the package ---------------------------------------------------------------------------------


def test_imports_point_one_way() -> None:
    assert backward(modules()) == []


def test_every_module_has_a_layer_and_every_layer_its_modules() -> None:
    units = {unit(module) for module in modules()} - {"rag.testing"}
    assert units == set.union(*LAYERS)
    assert sum(len(members) for members in LAYERS) == len(units)


def test_every_exception_is_between_two_stages_and_still_needed() -> None:
    used = {(importer, one.module, one.name) for importer, _, one in ours(modules())}
    assert set(EXCEPTIONS) - used == set()
    assert {unit(module) for importer, module, _ in EXCEPTIONS for module in (importer, module)} <= STAGES


def test_core_imports_the_standard_library_alone() -> None:
    assert foreign_to_core(modules()["rag.core"]) == []


def test_errors_imports_nothing_of_ours() -> None:
    assert [one.module for one in modules()["rag.errors"]] == ["__future__"]


def test_the_fakes_are_imported_by_no_module_and_know_the_seams_alone() -> None:
    assert users_of_testing(modules()) == []
    assert {module for importer, module, _ in ours(modules()) if importer == "rag.testing"} == {
        "rag.core",
        "rag.errors",
    }


def test_heavy_libraries_are_imported_inside_the_branch_that_needs_them() -> None:
    assert heavy(modules()) == []


def test_what_vllm_imports_nothing_of_ours_does() -> None:
    assert not BY_VLLM & {module for _, module, _ in ours(modules())}


def test_importing_every_module_loads_no_heavy_library() -> None:
    names = sorted(set(modules()) - BY_VLLM - {"rag.__main__"})
    script = f"import sys, {', '.join(names)}; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_walk_sees_the_whole_package() -> None:
    found = modules()
    assert {"rag", "rag.core", "rag.index", "rag.index.lexical", "rag.engine.local", "rag.cli.ask"} <= set(found)
    assert ("vllm", "SamplingParams", False) in {(i.module, i.name, i.runs) for i in found["rag.engine.local"]}


# --- the checker, on planted violations ----------------------------------------------------------

PLANTED_BACKWARD = [
    ("rag.core", "from rag.settings import Settings", "rag.settings"),
    ("rag.core", "from rag.errors import RagError", "rag.errors"),
    ("rag.files", "from rag import settings", "rag.settings"),
    ("rag.paths", "from rag.files import sha256", "rag.files"),
    ("rag.settings", "import rag.pipeline", "rag.pipeline"),
    ("rag.route", "from rag.prompt import SYSTEM", "rag.prompt"),
    ("rag.index.dense", "def f():\n    from rag.embed import SentenceTransformerEncoder", "rag.embed"),
    ("rag.engine.local", "from .. import models", "rag.models"),
    ("rag.embed", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rag.models import X", "rag.models"),
    ("rag.context", "from rag.ingest.chunk import split", "rag.ingest.chunk"),
    ("rag.search", "from rag.index.dense import DenseIndex", "rag.index.dense"),
    ("rag.pipeline", "from rag.build import open_pipeline", "rag.build"),
    ("rag.build", "try:\n    from rag.cli.console import Terminal\nexcept ImportError:\n    pass", "rag.cli.console"),
    ("rag.bench.start", "from rag.cli import console", "rag.cli.console"),
]


@pytest.mark.parametrize(
    ("importer", "source", "module"), PLANTED_BACKWARD, ids=[f"{one[0]}-{one[2]}" for one in PLANTED_BACKWARD]
)
def test_a_planted_import_that_points_back_is_found(importer: str, source: str, module: str) -> None:
    [wrong] = backward(planted(importer, source))
    assert wrong.startswith(f"{importer}:")
    assert wrong.endswith(f" imports {module}")


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("rag.pipeline", "from rag.core import Answer\nfrom rag.settings import Settings\nfrom rag import context"),
        ("rag.engine.local", "from rag.engine.spec import plan\nfrom . import evidence"),
        ("rag.context", "from rag.text import cut"),
        ("rag.build", "import json\nfrom rag.pipeline import Pipeline"),
    ],
)
def test_a_planted_import_that_points_down_is_let_through(importer: str, source: str) -> None:
    assert backward(planted(importer, source)) == []


def test_a_planted_module_without_a_layer_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"rag\.plugins has no place in LAYERS"):
        backward(planted("rag.plugins", "from rag import core"))


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import torch.nn as nn",
        "from vllm.engine.arg_utils import AsyncEngineArgs",
        "try:\n    import faiss\nexcept ImportError:\n    faiss = None",
        "class A:\n    import bm25s",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import json\nelse:\n    import rank_bm25",
        "if True:\n    import transformers",
    ],
)
def test_a_planted_heavy_import_at_module_level_is_found(source: str) -> None:
    assert len(heavy({"rag.embed": imports(source, "rag.embed")})) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import torch",
        "class A:\n    async def f(self):\n        if True:\n            from vllm import SamplingParams",
        "import typing\nif typing.TYPE_CHECKING:\n    import torch",
        "import numpy\nfrom torchless import x",
    ],
)
def test_a_heavy_import_inside_a_function_or_for_types_is_let_through(source: str) -> None:
    assert heavy({"rag.embed": imports(source, "rag.embed")}) == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("import numpy", ["1: numpy"]),
        ("def f():\n    import numpy", ["2: numpy"]),
        ("if TYPE_CHECKING:\n    import pydantic", ["2: pydantic"]),
        ("from rag import errors", ["1: rag"]),
        ("from . import errors", ["1: rag"]),
        ("import json\nif TYPE_CHECKING:\n    from numpy.typing import NDArray", []),
    ],
)
def test_a_planted_foreign_import_in_core_is_found(source: str, wrong: list[str]) -> None:
    assert foreign_to_core(imports(source, "rag.core")) == wrong


@pytest.mark.parametrize("source", ["from rag.testing import FakeEncoder", "from rag import testing"])
def test_a_planted_use_of_the_fakes_is_found(source: str) -> None:
    assert users_of_testing(planted("rag.build", source)) == ["rag.build:1"]
