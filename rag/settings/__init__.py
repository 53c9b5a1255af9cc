"""Settings: one frozen section per stage (`sections`), merged from six layers (`layers`).

Precedence: `--set` > environment (`RAG__SECTION__KEY`) > models file > profile > what suits this CPU > defaults.
A profile is a bundle of techniques; a models file says which weights and sizes. `load` keeps, beside the
merged settings, where each value came from: what a profile asks for and a machine can't do is left
out, and the same thing asked for by hand is refused (`rag.engine.spec`).
"""

from rag.settings.cpu import has_avx512, multiplies_bf16
from rag.settings.layers import (
    WITHOUT_BF16,
    Layer,
    Loaded,
    detect_device,
    load,
    nearest,
    shipped_names,
)
from rag.settings.sections import (
    INDEX_NAME,
    QUANTIZATIONS,
    Action,
    Backend,
    Batch,
    Cache,
    Chat,
    Chunk,
    Cite,
    Context,
    Device,
    Embed,
    Eviction,
    Filter,
    Generator,
    Index,
    Quantization,
    Rerank,
    Retrieve,
    Settings,
    Speculation,
    Verify,
    describe,
)

__all__ = [
    "INDEX_NAME",
    "QUANTIZATIONS",
    "WITHOUT_BF16",
    "Action",
    "Backend",
    "Batch",
    "Cache",
    "Chat",
    "Chunk",
    "Cite",
    "Context",
    "Device",
    "Embed",
    "Eviction",
    "Filter",
    "Generator",
    "Index",
    "Layer",
    "Loaded",
    "Quantization",
    "Rerank",
    "Retrieve",
    "Settings",
    "Speculation",
    "Verify",
    "describe",
    "detect_device",
    "has_avx512",
    "load",
    "multiplies_bf16",
    "nearest",
    "shipped_names",
]
