"""What an index costs, and what is lost by making it cheaper.

Passages are encoded in turn by the product's encoder and by sentence-transformers with its defaults, in FP32. What both make
of them is kept in `vectors/`, which git ignores, and searched with PubMedQA's questions: ours as the product does, the
reference's exactly. Then a large index is built and searched, and one of as many documents as were encoded is updated.
"""

from rag.bench.index.comparing import nearest, quality
from rag.bench.index.encoding import encode_both
from rag.bench.index.figures import over_build, summarise
from rag.bench.index.samples import BENCH, Sizes, measure
from rag.bench.index.updating import Steps

__all__ = [
    "BENCH",
    "Sizes",
    "Steps",
    "encode_both",
    "measure",
    "nearest",
    "over_build",
    "quality",
    "summarise",
]
