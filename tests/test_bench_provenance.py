"""rag/bench/provenance.py: what is said of the machine that a benchmark ran on, and of the models."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest

from rag import __version__ as rag_version
from rag.bench import provenance


def test_weights_are_told_apart_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "openvino").mkdir()
    for name in ("model.safetensors", "openvino/model.bin", "config.json"):
        (tmp_path / name).write_bytes(b"1")
    before = provenance.weights(tmp_path)
    assert list(before) == ["model.safetensors", "openvino/model.bin"]
    (tmp_path / "model.safetensors").write_bytes(b"2")
    after = provenance.weights(tmp_path)
    assert [after[name] == before[name] for name in before] == [False, True]


def test_a_cpu_is_told_by_its_generation_too() -> None:
    core = "processor\t: {}\nvendor_id\t: X\ncpu family\t: 25\nmodel\t\t: {}\nmodel name\t: Some CPU\nflags\t: fpu\n\n"
    assert provenance._cpu(core.format(0, 17) + core.format(1, 18)) == "Some CPU (family 25, model 17)"
    assert provenance._cpu("model name\t: Some CPU\n") == "Some CPU"
    assert provenance._cpu("Processor\t: AArch64\n") is None


def test_the_machine_counts_the_cores_that_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert provenance.machine()["cores"] == 1
    finally:
        os.sched_setaffinity(0, allowed)
    machine = provenance.machine()
    assert machine["cores"] == len(allowed)
    assert list(machine) == ["cpu", "cores", "gpu", "driver"]
    assert machine["cpu"].strip()


def test_the_versions_are_those_of_installed_packages_and_no_others() -> None:
    versions = provenance.versions()
    assert re.fullmatch(rf"{re.escape(rag_version)}\+[0-9a-f]{{12}}", versions["rag"])
    assert set(versions) <= {"rag", *provenance.PACKAGES}
    assert None not in versions.values()


def test_of_a_package_s_code_the_tables_are_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_rules"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "table.txt").write_text("high | low\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("some_rules")
    before = provenance.code(module)
    assert provenance.code(module) == before, "what Python compiles changes nothing"
    (package / "table.txt").write_text("high | low | normal\n")
    assert provenance.code(module) != before
