"""The models that this project trains, from a finished training's folder to what ships under `data/models/`."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rag import files, matching, paths
from rag.errors import UsageError
from rag.models import Kind, ModelStore, Recipe
from rag.models.recipe import CLASSIFIERS, Abstention, Matching, read
from rag.models.store import CARD, RECIPE
from rag.rerank import ScoreWeights
from rag.training import card, datasets, export, generator, loop, matcher, record, reranker, support
from rag.verify import LABELS

if TYPE_CHECKING:
    from torch import Tensor

SMOOTHING = "smoothing.safetensors"

MAX_BYTES = 15_000_000
"""Of all that a recipe's folder holds."""

FAST_FORM = 1.5
"""A cross-encoder's disk space over that of its weights: beside them stands what it runs as on a CPU."""


@dataclass(frozen=True, slots=True)
class Product:
    """A model as its recipe describes it, apart from its adapter."""

    kind: Kind
    base: str
    description: str
    rank: int
    alpha: float
    data: tuple[datasets.Dataset, ...]
    labels: tuple[str, ...] = ()


PRODUCTS: Mapping[str, Product] = {
    "smollm2-grounded": Product(
        "generator",
        "smollm2-135m-instruct",
        "SmolLM2-135M-Instruct, trained to answer from numbered passages, to cite them, and to decline.",
        generator.RANK,
        generator.ALPHA,
        (datasets.MEDQUAD, datasets.PUBMEDQA, datasets.EVIDENCE_INFERENCE, datasets.OWN),
    ),
    "minilm-rerank": Product(
        "reranker",
        "all-minilm-l6-v2",
        "all-MiniLM-L6-v2 as a cross-encoder: how relevant is a passage to a question?",
        reranker.LORA.rank,
        reranker.LORA.alpha,
        (datasets.MEDQUAD, datasets.SCIFACT, datasets.PUBMEDQA, datasets.EVIDENCE_INFERENCE, datasets.OWN),
        ("relevant",),
    ),
    "minilm-support": Product(
        "support",
        "all-minilm-l6-v2",
        "all-MiniLM-L6-v2 as a cross-encoder: does a passage support a sentence?",
        support.LORA.rank,
        support.LORA.alpha,
        (datasets.MEDQUAD, datasets.SCIFACT, datasets.EVIDENCE_INFERENCE, datasets.OWN),
        LABELS,
    ),
    "minilm-same-question": Product(
        "matcher",
        "all-minilm-l6-v2",
        "all-MiniLM-L6-v2 as a cross-encoder: do two questions ask the same?",
        matcher.SMALL.lora.rank,
        matcher.SMALL.lora.alpha,
        (
            datasets.MEDQUAD,
            datasets.SCIFACT,
            datasets.EVIDENCE_INFERENCE,
            datasets.OWN,
        ),  # it begins as the support checker
        (matching.LABEL,),
    ),
}


def product(name: str) -> Product:
    """Raises `UsageError` for another model than those that are trained."""
    if name not in PRODUCTS:
        raise UsageError(f"No trained model named {name!r}. Known: {', '.join(PRODUCTS)}.")
    return PRODUCTS[name]


Calibrate = Callable[[Path, Path], tuple[str, ScoreWeights | None]]
"""(folder of a built model, file of its adapter), which it calibrates, to what the record says of that and, where there
are some, the weights of the search's scores."""


def write(
    name: str,
    trained: Product,
    folder: Path,
    recipes: Path | None = None,
    results: Path | None = None,
    calibrate: Calibrate | None = None,
    averaged: tuple[Path, float] | None = None,
) -> Recipe:
    """`data/models/NAME` from the training in `folder`: adapter, recipe, curve and card; where it is `averaged` with another
    (its folder, the share that it has), from both. The recipe is built once, to record what it yields; what was there
    before stays where anything fails.

    Raises `UsageError` where `folder` holds no adapter or it is too large, `ModelError` where it doesn't fit its base.
    """
    recipes = recipes if recipes is not None else paths.shipped("data", "models")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "recipes", name)
        made.mkdir(parents=True)
        adapter = made / export.ADAPTER
        export.convert(folder, adapter, trained.rank, trained.alpha)
        if averaged is not None:
            export.average(adapter, *averaged, trained.rank)
        content = _content(trained, folder, adapter, averaged, read(recipes / trained.base / RECIPE))
        if calibrate is not None:
            _calibrate(content, made, Path(scratch, "uncalibrated"), calibrate)
        recipe = _record(content, made, Path(scratch, "models"))
        if (folder / loop.CURVE).is_file():
            shutil.copyfile(folder / loop.CURVE, made / loop.CURVE)
        text = card.render(name, recipe, trained.data, _curve(made), _results(results))
        (made / CARD).write_text(text, encoding="utf-8")
        size = sum(path.stat().st_size for path in made.iterdir())
        if size > MAX_BYTES:
            raise UsageError(f"{name} has {size:,} bytes to ship, at most {MAX_BYTES:,} may: train with a lower rank.")
        with files.replacing_folder(recipes / name) as target:
            shutil.copytree(made, target, dirs_exist_ok=True)
        _renew_made_of(name, recipe, recipes, Path(scratch))
    return recipe


def write_smoothing(name: str, exponents: Mapping[str, Tensor], recipes: Path | None = None) -> Recipe:
    """Into a recipe of another recipe's model that is quantised, beside which they come to lie; it is built once. Raises
    `ModelError` where they don't fit the model."""
    from safetensors.torch import save_file

    recipes = recipes if recipes is not None else paths.shipped("data", "models")
    content = yaml.safe_load((recipes / name / RECIPE).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "recipes", name)
        made.mkdir(parents=True)
        save_file(dict(exponents), made / SMOOTHING)
        content["produces"] = {}
        content["quantize"]["smoothing"] = {"file": SMOOTHING, "sha256": files.sha256(made / SMOOTHING)}
        shutil.copytree(recipes / content["base"]["recipe"], made.parent / content["base"]["recipe"])
        recipe = _record(content, made, Path(scratch, "models"))
        with files.replacing_folder(recipes / name) as target:
            shutil.copytree(made, target, dirs_exist_ok=True)
    return recipe


def _renew_made_of(name: str, recipe: Recipe, recipes: Path, scratch: Path) -> None:
    """Recipes whose base is the model `name`, by what that is now and what they yield of it; built in `scratch`, where its
    recipe is. How one is smoothed stays right, if no longer best (`write_smoothing`)."""
    for path in sorted(recipes.glob(f"*/{RECIPE}")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if content["base"].get("recipe") == name:
            made = scratch / "recipes" / path.parent.name
            shutil.copytree(path.parent, made)
            _record({**content, "files": dict(recipe.produces), "produces": {}}, made, scratch / "models")
            with files.replacing_file(path) as renewed:
                shutil.copyfile(made / RECIPE, renewed)


def _calibrate(content: dict[str, Any], made: Path, store: Path, calibrate: Calibrate) -> None:
    """The adapter in `made`, by a model that is built of it in `store`; `content` is told."""
    _write_recipe(made, content)
    adapter = made / export.ADAPTER
    content["training"]["calibration"], weights = calibrate(ModelStore(made.parent, store).build(made.name), adapter)
    if weights is not None:
        content["head"] |= {"cosine_weight": weights.cosine, "lexical_weight": weights.lexical}
    content["adapter"]["sha256"] = files.sha256(adapter)


def _record(content: dict[str, Any], made: Path, store: Path) -> Recipe:
    """The recipe in `made` with what building it once, in `store`, has yielded."""
    _write_recipe(made, content)
    built = ModelStore(made.parent, store).build(made.name)
    size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file())
    content["disk_mb"] = math.ceil(size * (FAST_FORM if content["kind"] in CLASSIFIERS else 1) / 1e6)
    content["produces"] = {"model.safetensors": files.sha256(built / "model.safetensors")}
    return _write_recipe(made, content)


def write_card(name: str, trained: Product, recipes: Path | None = None, results: Path | None = None) -> None:
    """The card of a recipe that is there, once more: figures are taken after a model is built."""
    place = (recipes if recipes is not None else paths.shipped("data", "models")) / name
    if not (place / RECIPE).is_file():
        raise UsageError(f"No recipe in {place}. Export the training first, without --card-only.")
    text = card.render(name, read(place / RECIPE), trained.data, _curve(place), _results(results))
    with files.replacing_file(place / CARD) as path:
        path.write_text(text, encoding="utf-8")


def write_weights(
    name: str,
    trained: Product,
    weights: Abstention | Matching,
    recipes: Path | None = None,
    results: Path | None = None,
) -> None:
    """Into a recipe that is there, and its card; what is built of it stays as it is."""
    path = (recipes if recipes is not None else paths.shipped("data", "models")) / name / RECIPE
    part = "abstention" if isinstance(weights, Abstention) else "matching"
    content = {**yaml.safe_load(path.read_text(encoding="utf-8")), part: weights.model_dump()}
    with files.replacing_file(path) as made:
        made.write_text(_dumped(content), encoding="utf-8")
    write_card(name, trained, recipes, results)


def _content(
    trained: Product, folder: Path, adapter: Path, averaged: tuple[Path, float] | None, base: Recipe
) -> dict[str, Any]:
    """`recipe.yaml`, but for what only a build tells."""
    same = base.model_dump(mode="json", include={"base", "format", "files", "layers"}, exclude_none=True)
    training = {"data": [f"{one.name} ({one.licence})" for one in trained.data], **record.read(folder)}
    if averaged is not None:
        other, share = averaged
        training["averaged"] = f"{share:g} of another: {record.read(other).get('command', 'not recorded')}"
    return {
        "description": trained.description,
        "kind": trained.kind,
        "licence": base.licence,
        "origin": base.origin,
        **same,
        "adapter": {
            "file": adapter.name,
            "sha256": files.sha256(adapter),
            "rank": trained.rank,
            "alpha": float(trained.alpha),
        },
        **({"head": {"labels": list(trained.labels)}} if trained.labels else {}),
        "produces": {},
        "disk_mb": 0,
        "training": training,
    }


def _write_recipe(folder: Path, content: Mapping[str, Any]) -> Recipe:
    (folder / RECIPE).write_text(_dumped(content), encoding="utf-8")
    return read(folder / RECIPE)


def _dumped(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120)


def _results(folder: Path | None) -> Path:
    return folder if folder is not None else paths.shipped("eval", "results")


def _curve(folder: Path) -> list[dict[str, float]]:
    path = folder / loop.CURVE
    return loop.read_curve(path) if path.is_file() else []
