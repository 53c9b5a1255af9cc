"""What the CPU is said to do, beside what torch says of it."""

from __future__ import annotations

import pytest

from rag.settings import cpu, has_avx512, multiplies_bf16


def test_what_this_cpu_can_do_is_what_torch_says_of_it() -> None:
    import torch

    told = torch.cpu.get_capabilities()
    if told["architecture"] == "x86_64":
        assert multiplies_bf16() == (told["avx512_bf16"] or told["amx_bf16"])
        assert has_avx512() == told["avx512_f"]


@pytest.mark.parametrize(
    ("flags", "bf16", "avx512"),
    [
        ("sse2 avx2", False, False),
        ("sse2 avx2 avx512f avx512bw", False, True),
        ("sse2 avx2 avx512f avx512_bf16", True, True),
        ("fp asimd", False, True),  # ARM
        ("fp asimd bf16", True, True),
        ("", True, True),  # a system that doesn't tell
    ],
)
def test_what_no_system_denies_is_taken_as_there(
    monkeypatch: pytest.MonkeyPatch, flags: str, bf16: bool, avx512: bool
) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: frozenset(flags.split()))
    assert (multiplies_bf16(), has_avx512()) == (bf16, avx512)
