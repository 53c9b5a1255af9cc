"""`data/models/NAME/recipe.yaml`: a base, and what makes the model of it.

Beside it stand `MODEL_CARD.md` and the adapter, where it has one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from rag.errors import ModelError
from rag.records import problems

Kind = Literal["generator", "encoder", "reranker", "support", "matcher"]
CLASSIFIERS: tuple[Kind, ...] = ("reranker", "support", "matcher")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside(path: str) -> str:
    """What is written under this name stays in its folder."""
    if path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise ValueError("a path inside the folder is expected, without .. and backslashes")
    return path


Inside = Annotated[str, Field(min_length=1), AfterValidator(_inside)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WheelBase(_Part):
    """Files under `path` of an installed Python package."""

    wheel: str
    package: str
    path: Inside

    def __str__(self) -> str:
        return f"{'' if self.path == '.' else f'{self.path} of '}the wheel {self.wheel}"


class ArchiveBase(_Part):
    """Files under `path` of a zip archive that is too large for one Python package: each of these holds a part, in their order. What
    it holds is known by the SHA-256 of its files, whoever packed it."""

    wheels: tuple[str, ...] = Field(min_length=1)
    path: Inside

    def __str__(self) -> str:
        return f"{self.path} of the archive in the wheels {self.wheels[0]} to {self.wheels[-1]}"


class HubBase(_Part):
    """A repository of a model hub, at one commit: a branch's files change."""

    hub: str = Field(pattern=r"^[^/]+/[^/]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")

    def __str__(self) -> str:
        return f"{self.hub} of the hub, at {self.revision[:12]}"


class RecipeBase(_Part):
    """The model that another recipe builds, of which `files` names the weights: what stands beside them is taken as it is."""

    recipe: str = Field(pattern=r"^[^/\\]+$")

    def __str__(self) -> str:
        return f"the model {self.recipe}"


_BASES: Mapping[str, type[_Part]] = {"hub": HubBase, "recipe": RecipeBase, "wheel": WheelBase, "wheels": ArchiveBase}


def _which(value: object) -> str:
    """By a key that only one has: else a mistake in one is told as mistakes in all."""
    given = value if isinstance(value, Mapping) else {}
    return next((key for key, base in _BASES.items() if key in given or isinstance(value, base)), "wheel")


Base = Annotated[
    Annotated[WheelBase, Tag("wheel")]
    | Annotated[ArchiveBase, Tag("wheels")]
    | Annotated[HubBase, Tag("hub")]
    | Annotated[RecipeBase, Tag("recipe")],
    Discriminator(_which),
]


class TensorFile(_Part):
    file: str = Field(pattern=r"^[^/\\]+\.safetensors$", description="beside recipe.yaml")
    sha256: Sha256


class Adapter(TensorFile):
    """LoRA: W + alpha / rank * B A for every adapted module, and tensors that are set as they are (see `merge`)."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)


class Quantize(_Part):
    """How the weights of the linear layers are written in the end, and what is done to the activations before (see `quantize`)."""

    to: Literal["int8"]
    smoothing: TensorFile | None = None


class Head(_Part):
    """Makes the base a sequence classifier: one logit a label, in this order. A reranker's `cosine_weight` and `lexical_weight` are
    what the search's scores add to its logit: they were calibrated together."""

    labels: tuple[str, ...] = Field(min_length=1)
    cosine_weight: float | None = Field(default=None, ge=0)
    lexical_weight: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _labels_differ(self) -> Head:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"the labels {', '.join(self.labels)} must differ")
        return self


class Abstention(_Part):
    """How a generator's word that the sources don't answer is weighed with the scores of `reranker` (`rag.abstain`): they
    were calibrated together."""

    reranker: str
    of_word: float = Field(gt=0)
    of_relevance: float = Field(le=0)
    shift: float


class Matching(_Part):
    """From which probability on a matcher's two questions ask the same: calibrated (`rag.calibrate`)."""

    min_same: float = Field(ge=0, le=1)


class Recipe(_Part):
    """`files` are the base's files with their SHA-256, relative to its path; `produces` the SHA-256 of what
    the build must yield; `layers` the transformer layers of the base that are kept (all, where left out); `training` a
    record of how the adapter came about, for people."""

    description: str
    kind: Kind
    licence: str
    origin: str
    base: Base
    format: Literal["gguf", "folder"]
    files: Mapping[Inside, Sha256] = Field(min_length=1)
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    adapter: Adapter | None = None
    quantize: Quantize | None = None
    head: Head | None = None
    abstention: Abstention | None = None
    matching: Matching | None = None
    produces: Mapping[Inside, Sha256] = {}
    disk_mb: int
    training: Mapping[str, Any] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.kind in CLASSIFIERS and self.head is None:
            raise ValueError(f"a {self.kind} needs a head: {{labels: [...]}}")
        if self.kind not in CLASSIFIERS and self.head is not None:
            raise ValueError(f"kind {self.kind} takes no head; {', '.join(CLASSIFIERS)} do")
        if self.kind != "generator" and self.abstention is not None:
            raise ValueError(f"kind {self.kind} takes no abstention; a generator does")
        if self.kind != "matcher" and self.matching is not None:
            raise ValueError(f"kind {self.kind} takes no matching; a matcher does")
        if self.kind != "generator" and self.quantize is not None:
            raise ValueError(f"kind {self.kind} takes no quantize; a generator does")
        if any(b <= a for a, b in pairwise(self.layers or ())):
            raise ValueError(f"layers {list(self.layers or ())} must be in the base's order, each once")
        needed = [] if isinstance(self.base, RecipeBase) else ["config.json"]
        if self.format == "folder" and self.changes_weights and not (self.weights and self.files.keys() >= set(needed)):
            names = " and ".join([*needed, "the base's *.safetensors"])
            raise ValueError(f"files must name {names}, which this recipe changes")
        if isinstance(self.base, RecipeBase) and (self.format != "folder" or not self.changes_weights):
            raise ValueError("a base that is another recipe's model has the format folder, and is changed")
        return self

    @property
    def weights(self) -> list[str]:
        """Of a base that is a folder."""
        return [name for name in self.files if name.endswith(".safetensors")]

    @property
    def changes_weights(self) -> bool:
        return any(part is not None for part in (self.layers, self.adapter, self.head, self.quantize))

    @property
    def digest(self) -> str:
        """Of what decides the weights: a new description doesn't ask for a new build.

        Parts that a recipe lacks stay out, so that a part which is new to recipes leaves older ones' digests alone.
        """
        deciding = self.model_dump(
            include={
                **dict.fromkeys(("base", "format", "files", "produces", "layers", "head"), True),
                "adapter": {"sha256", "rank", "alpha"},
                "quantize": {"to": True, "smoothing": {"sha256"}},
            },
            exclude_none=True,
        )
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> Recipe:
    """Raises `ModelError` for a recipe that is damaged."""
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ModelError(f"The recipe {path} is damaged: {'; '.join(map(str, problems(error)))}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"The recipe {path} is damaged: {' '.join(str(error).split())[:300]}") from error
