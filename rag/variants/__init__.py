"""Several settings beside one another, over the same questions: what their answers take, and how good they are.

`planning` says what is asked by which settings and what that depends on, `turns` in which order, `asking` takes a sample, `running`
keeps the engines, and `samples` is what stays on disk. `breakdown` and `sweep` are made of these: where the time of the source's
profiles goes, and what the values of one setting take and give.
"""

from rag.variants.planning import Plan, plan

__all__ = ["Plan", "plan"]
