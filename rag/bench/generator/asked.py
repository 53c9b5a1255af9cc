"""The models that are asked: the measured one, and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from rag import build
from rag.bench import provenance
from rag.bench.results import Sample
from rag.engine import spec
from rag.errors import UsageError
from rag.progress import Report, quiet
from rag.settings import Loaded


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that is measured; `weights` tell two of the same name apart. A `base` stands beside the measured one."""

    loaded: Loaded
    name: str
    weights: str
    base: bool

    def mark(self) -> dict[str, Any]:
        """What tells its samples from others."""
        return {"model": self.name, "weights": self.weights, "base": self.base}

    def took(self, sample: Sample) -> bool:
        return all(sample[name] == value for name, value in self.mark().items())


def models(loads: Sequence[Loaded], report: Report = quiet) -> list[Asked]:
    """The models that the settings name, the measured one first. Raises `UsageError` where two of them are the same."""
    asked: list[Asked] = []
    for loaded in loads:
        name = spec.plan(loaded).model
        if name in [one.name for one in asked]:
            raise UsageError(f"{name} is named twice: the first --model is measured, others stand beside it.")
        digests = provenance.weights(build.resolve(name, report, loaded.settings.generator.revision).path)
        asked.append(Asked(loaded, name, sha256(json.dumps(digests).encode()).hexdigest()[:12], base=len(asked) > 0))
    return asked
