"""Several settings beside one another, over the same questions: what their answers take, and how good they are.

`planning` says what is asked by which settings and what that depends on, `turns` in which order, `asking` takes a sample, `running`
keeps the engines, `samples` is what stays on disk, and `paired` compares two of them question by question. Made of these are
`breakdown`, where the time of the source's profiles goes; `sweep`, what the values of one setting take and give; `caching`, what the
query cache gets right and gains; `batching`, what asking several at a time gains; and `engines`, what quantisation, prefix caching
and speculation do on a GPU.
"""

from rag.variants.planning import Plan, plan

__all__ = ["Plan", "plan"]
