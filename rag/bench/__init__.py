"""Benchmarks: raw samples first, then figures computed from the file, so that a report can be made again.

`results` owns the folder `eval/results/DEVICE/BENCH/`; each benchmark is a module of its own.
"""
