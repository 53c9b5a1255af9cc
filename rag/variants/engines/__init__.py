"""Engines beside one another, each in a process of its own, by requests of the source's lengths: what quantisation, prefix caching
and speculation do to latency, throughput and memory.

Nothing is searched and no answer is judged, so the weights may be random numbers in the shape of a published model: what such an
engine takes is what the model would take, and what it says means nothing. `shapes` makes such models, `worker` is the engines'
processes, `measuring` takes samples, and `report` is made of them.
"""

from rag.variants.engines.measuring import Measurement, Variant, measure
from rag.variants.engines.report import summarise
from rag.variants.engines.samples import BENCH
from rag.variants.engines.worker import Load

__all__ = ["BENCH", "Load", "Measurement", "Variant", "measure", "summarise"]
