"""How well the generator answers from passages: does it quote the right ones, cite them, and decline where none answers?

Held-out prompts of `rag.training.mixture`: questions of MedQuAD's NINDS and NHLBI over 3 to 5 passages of all of it. The
engine that the settings name answers them, several at once and greedily; it declines as in the product, by its word and by
what the reranker says of the passages. The datasets' text isn't ours to publish: it goes to `texts/`, which git ignores,
and the samples hold ids, markers and scores.
"""

from rag.bench.generator.answering import MAX_TOKENS
from rag.bench.generator.asked import models
from rag.bench.generator.curve import CURVE_ROWS, curve_table, keep_curve
from rag.bench.generator.figures import summarise
from rag.bench.generator.prompts import held_out, texts_folder
from rag.bench.generator.samples import BENCH, measure

__all__ = [
    "BENCH",
    "CURVE_ROWS",
    "MAX_TOKENS",
    "curve_table",
    "held_out",
    "keep_curve",
    "measure",
    "models",
    "summarise",
    "texts_folder",
]
