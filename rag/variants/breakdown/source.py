"""What the source publishes: "LLM Inference Speed Optimization", "V3 Time Breakdown" (measured) and "Expected V3.1 Performance".

Its model is Qwen2.5-7B-Instruct on a GPU that it doesn't name. Seconds a question; a range where it gives one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

NAME = "LLM Inference Speed Optimization"

Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Published:
    """`stages` by our names of them; only V3's are measured, the others' expected. `prompt_tokens` is what its documents in the
    prompt come to, `max_tokens` its limit of an answer."""

    title: str
    measured: bool
    total: Range
    stages: Mapping[str, Range]
    prompt_tokens: int
    max_tokens: int

    @property
    def middle(self) -> float:
        """Of its total."""
        return sum(self.total) / 2

    def over(self, other: Published) -> Range:
        """Its total over another's."""
        return self.total[0] / other.middle, self.total[1] / other.middle


def _exactly(seconds: float) -> Range:
    return seconds, seconds


PUBLISHED: Mapping[str, Published] = {
    "v3": Published(
        "V3",
        measured=True,
        total=_exactly(6.81),
        stages={
            "retrieve": _exactly(1.87),
            "rerank": _exactly(0.09),
            "filter": _exactly(0.0),
            "generate": _exactly(4.86),
        },
        prompt_tokens=6000,
        max_tokens=512,
    ),
    "v3_1": Published(
        "V3.1",
        measured=False,
        total=(4.5, 5.0),
        stages={"retrieve": _exactly(1.87), "rerank": _exactly(0.09), "generate": (2.5, 3.0)},
        prompt_tokens=3000,
        max_tokens=384,
    ),
    "v3_2": Published(
        "V3.2",
        measured=False,
        total=(3.5, 4.0),
        stages={"generate": (1.8, 2.2)},
        prompt_tokens=3000,
        max_tokens=384,
    ),
}
"""By our profiles."""

MEAN_ANSWER = 348
"""Tokens of its answers on average."""
