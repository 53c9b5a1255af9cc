"""Counts what an index withstood, from the samples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rag.bench import results
from rag.bench.results import observed
from rag.bench.soak.killing import PHASES, READING
from rag.bench.soak.samples import BYTES, KILL, KINDS, READ, SAMPLES
from rag.figures import Figure

SUMMARY = "soak.json"


def summarise(folder: Path) -> list[Figure]:
    """Counts, from the samples on disk. Raises `UsageError` where there are none."""
    head, samples = results.Samples(folder, SAMPLES).read()
    if not samples:
        raise results.lacking("samples", folder / SAMPLES)
    of = results.by_kind(samples, KINDS)
    killed = [s for s in of[KILL] if s["killed"]]
    between = [s for s in killed if s["phase"] == READING and s["parts"] > 0]
    phases = Counter(s["phase"] for s in killed)
    figures = [
        observed("kills", len(killed), "processes", at_least=1000),
        *(observed(f"kills_{phase.replace(' ', '_')}", phases[phase], "processes", at_least=1) for phase in PHASES),
        observed("kills_between_parts", len(between), "processes", at_least=1),
        observed("kills_then_rag_search", sum(s.get("by_command", False) for s in killed), "processes", at_least=1),
        observed("kills_failed", sum(s["problem"] is not None for s in of[KILL]), "times", at_most=0),
        observed("byte_changes", sum(s["changes"] for s in of[BYTES]), "changes", at_least=10_000),
        observed("byte_changes_missed", sum(len(s["missed"]) for s in of[BYTES]), "changes", at_most=0),
        observed("updates", sum(s["updates"] for s in of[READ]), "updates", at_least=100),
        observed("answers", sum(s["answers"] for s in of[READ]), "answers"),
        observed("answers_failed", sum(len(s["problems"]) for s in of[READ]), "times", at_most=0),
    ]
    results.write_summary(folder / SUMMARY, head, figures)
    return figures
