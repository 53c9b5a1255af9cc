"""Benchmarks: raw samples first, then figures computed from the file, so that a report can be made again.

Each benchmark is a module of its own, or a package: `samples` takes them, `figures` computes from them, and what is done for
a sample stands beside the two. They share `results`, which owns the folder `eval/results/DEVICE/BENCH/`, `provenance`,
`timing`, `pictures`, `grounding` of answers in their sources, and what is measured: `articles` and `commands`.
"""

from __future__ import annotations

SEED = 0
"""Of all that a benchmark draws."""
