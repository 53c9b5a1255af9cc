"""An index under attack: writers that are killed at any moment, bytes that change, readers while it is updated.

A small corpus has numbered revisions, each of which changes a third of its documents, so that a version tells by its
passages of which revision it is, and whether it is whole. What it takes to pass: no failure at all.
"""

from rag.bench.soak.changing import changes
from rag.bench.soak.corpus import Corpus
from rag.bench.soak.figures import SUMMARY, summarise
from rag.bench.soak.killing import PHASES, REPORTED, Run, kills, run
from rag.bench.soak.reading import Reading, read_during
from rag.bench.soak.samples import BENCH, SAMPLES, Workload, measure
from rag.bench.soak.target import INDEX, Soaked, prepare

__all__ = [
    "BENCH",
    "INDEX",
    "PHASES",
    "REPORTED",
    "SAMPLES",
    "SUMMARY",
    "Corpus",
    "Reading",
    "Run",
    "Soaked",
    "Workload",
    "changes",
    "kills",
    "measure",
    "prepare",
    "read_during",
    "run",
    "summarise",
]
