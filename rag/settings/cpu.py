"""What this machine's CPU can do that models run differently by."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path


def multiplies_bf16() -> bool:
    """Has it instructions for it? Also true where the system doesn't tell."""
    return not flags() or not _BF16.isdisjoint(flags())


def has_avx512() -> bool:
    """Also true of a CPU that isn't x86, and where the system doesn't tell."""
    return "sse2" not in flags() or "avx512f" in flags()  # by which vLLM chooses its library


@cache
def flags() -> frozenset[str]:
    """Names of its instruction sets, as Linux has them; none where the system doesn't tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""What x86 and ARM call them."""
