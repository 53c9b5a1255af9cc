from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag import paths
from rag.errors import ModelError
from rag.models import Recipe
from rag.models.recipe import RecipeBase, read
from rag.models.store import CARD, RECIPE

SHIPPED = sorted(folder for folder in paths.shipped("data", "models").iterdir() if folder.is_dir())
AT_MOST = 15_000_000
"""Bytes that one model adds to the repository and to the wheel."""

SHA = "0" * 64
WHEEL = {"wheel": "tiny-weights", "package": "tiny_weights", "path": "model"}
HUB = {"hub": "org/tiny", "revision": "a" * 40}
ADAPTER: dict[str, Any] = {"file": "adapter.safetensors", "sha256": SHA, "rank": 24, "alpha": 48.0}
PLAIN: dict[str, Any] = {
    "description": "a tiny encoder",
    "kind": "encoder",
    "licence": "Apache-2.0",
    "origin": "rag/tiny",
    "base": WHEEL,
    "format": "folder",
    "files": {"config.json": SHA, "model.safetensors": SHA},
    "disk_mb": 1,
}
TRAINED = PLAIN | {
    "kind": "support",
    "layers": [0, 2, 5],
    "adapter": ADAPTER,
    "head": {"labels": ["supported", "contradicted", "not_stated"]},
    "produces": {"model.safetensors": SHA},
    "training": {"data": ["a.jsonl"], "seed": 0, "command": "scripts/train", "examples": 12345, "on": date(2026, 1, 2)},
}

MATCHING = {"min_same": 0.975}
MATCHER = TRAINED | {"kind": "matcher", "head": {"labels": ["same"]}}
NARROW = PLAIN | {
    "kind": "generator",
    "base": {"recipe": "tiny"},
    "files": {"model.safetensors": SHA},
    "quantize": {"to": "int8", "smoothing": {"file": "smoothing.safetensors", "sha256": SHA}},
}


def write(folder: Path, values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECIPE
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values), encoding="utf-8")
    return path


def digest(**changes: Any) -> str:
    return Recipe.model_validate(TRAINED | changes).digest


# --- what a recipe may say -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        PLAIN,
        TRAINED,
        PLAIN | {"base": HUB},
        PLAIN | {"kind": "generator", "format": "gguf", "adapter": ADAPTER},
        MATCHER,
        MATCHER | {"matching": MATCHING},
        NARROW,
    ],
)
def test_a_recipe_is_read_as_it_was_written(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = read(write(tmp_path, values))
    assert recipe.changes_weights == ("adapter" in values or "quantize" in values)
    dumped = recipe.model_dump(mode="json", exclude_unset=True)
    expected = yaml.safe_load(yaml.safe_dump(values))
    if "training" in expected:
        expected["training"]["on"] = "2026-01-02"
    assert dumped == expected


def test_a_base_is_described_by_where_it_comes_from() -> None:
    assert str(Recipe.model_validate(PLAIN).base) == "model of the wheel tiny-weights"
    assert str(Recipe.model_validate(PLAIN | {"base": HUB}).base) == "org/tiny of the hub, at aaaaaaaaaaaa"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ("base: [", "while parsing"),
        ("just text", "valid dictionary"),
        (PLAIN | {"surprise": 1}, "surprise: Extra inputs"),
        (PLAIN | {"base": {"hub": "org/tiny"}}, "base.hub.revision: Field required."),
        (PLAIN | {"base": HUB | {"revision": "main"}}, "base.hub.revision: String should match"),
        (PLAIN | {"base": WHEEL | {"hub": "org/tiny"}}, "base.hub."),
        (PLAIN | {"base": {"wheel": "tiny-weights", "path": "."}}, "base.wheel.package: Field required."),
        (TRAINED | {"kind": "encoder"}, "kind encoder takes no head; reranker"),
        (PLAIN | {"kind": "reranker"}, "a reranker needs a head: {labels: [...]}."),
        (PLAIN | {"kind": "support"}, "a support needs a head: {labels: [...]}."),
        (PLAIN | {"kind": "matcher"}, "a matcher needs a head: {labels: [...]}."),
        (TRAINED | {"matching": MATCHING}, "kind support takes no matching; a matcher does."),
        (PLAIN | {"matching": MATCHING}, "kind encoder takes no matching; a matcher does."),
        (MATCHER | {"matching": {}}, "matching.min_same: Field required"),
        (MATCHER | {"matching": MATCHING | {"min_same": 1.01}}, "matching.min_same: Input should be less than"),
        (MATCHER | {"matching": MATCHING | {"min_same": -0.1}}, "matching.min_same: Input should be greater than or"),
        (MATCHER | {"matching": MATCHING | {"reranker": "x"}}, "matching.reranker: Extra inputs"),
        (TRAINED | {"head": {"labels": []}}, "head.labels: Tuple should have at least 1 item"),
        (TRAINED | {"head": {"labels": ["a", "a"]}}, "head: the labels a, a must differ."),
        (TRAINED | {"layers": []}, "layers: Tuple should have at least 1 item"),
        (TRAINED | {"layers": [0, -1]}, "layers.1: Input should be greater than or equal to 0."),
        (TRAINED | {"layers": [0, 2, 2]}, "layers [0, 2, 2] must be in the base's order, each once."),
        (TRAINED | {"layers": [2, 0]}, "layers [2, 0] must be in the base's order, each once."),
        (TRAINED | {"files": {}}, "files: Dictionary should have at least 1 item"),
        (TRAINED | {"files": {"model.safetensors": SHA}}, "files must name config.json and the base's *.safetensors"),
        (TRAINED | {"files": {"config.json": SHA}}, "files must name config.json and the base's *.safetensors"),
        (TRAINED | {"adapter": ADAPTER | {"rank": 0}}, "adapter.rank: Input should be greater"),
        (TRAINED | {"adapter": ADAPTER | {"alpha": 0}}, "adapter.alpha: Input should be greater"),
        (TRAINED | {"adapter": ADAPTER | {"sha256": "abc"}}, "adapter.sha256: String should match"),
        (TRAINED | {"adapter": ADAPTER | {"file": "../adapter.safetensors"}}, "adapter.file: String should match"),
        (TRAINED | {"adapter": ADAPTER | {"file": "adapter.bin"}}, "adapter.file: String should match"),
        (PLAIN | {"quantize": {"to": "int8"}}, "kind encoder takes no quantize; a generator does."),
        (NARROW | {"quantize": {"to": "int4"}}, "quantize.to: Input should be 'int8'"),
        (NARROW | {"quantize": {"to": "int8", "smoothing": {"file": "a"}}}, "quantize.smoothing.file: String should"),
        (NARROW | {"base": {"recipe": "../tiny"}}, "base.recipe.recipe: String should match"),
        (NARROW | {"files": {"config.json": SHA}}, "files must name the base's *.safetensors, which this recipe"),
        (NARROW | {"quantize": None}, "a base that is another recipe's model has the format folder, and is changed."),
        (PLAIN | {"base": None}, "base."),
        (PLAIN | {"base": [1, 2]}, "base."),
        (PLAIN | {"files": {"../payload.txt": SHA}}, "a path inside the folder is expected"),
        (PLAIN | {"files": {"/etc/payload": SHA}}, "a path inside the folder is expected"),
        (PLAIN | {"files": {"model.safetensors": "nohash"}}, "files.model.safetensors: String should match"),
        (PLAIN | {"base": WHEEL | {"path": "a/../.."}}, "a path inside the folder is expected"),
    ],
)
def test_a_damaged_recipe_is_named_with_its_problem_in_one_line(tmp_path: Path, values: object, problem: str) -> None:
    path = write(tmp_path, values)
    with pytest.raises(ModelError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"The recipe {path} is damaged: ")
    assert problem in message
    assert "\n" not in message


def test_a_recipe_that_is_no_text_is_damaged(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"recipe\.yaml is damaged: 'utf-8' codec"):
        read(tmp_path / RECIPE)


# --- digests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"base": WHEEL | {"path": "."}},
        {"base": HUB},
        {"files": {"config.json": SHA, "model.safetensors": "1" * 64}},
        {"produces": {}},
        {"layers": None},
        {"layers": [0, 2, 4]},
        {"head": {"labels": ["contradicted", "supported", "not_stated"]}},
        {"adapter": None},
        {"adapter": ADAPTER | {"sha256": "1" * 64}},
        {"adapter": ADAPTER | {"rank": 12}},
        {"adapter": ADAPTER | {"alpha": 24}},
    ],
)
def test_what_decides_the_weights_changes_the_digest(change: dict[str, Any]) -> None:
    assert digest(**change) != digest()


@pytest.mark.parametrize(
    "change",
    [
        {"description": "other words"},
        {"licence": "MIT"},
        {"disk_mb": 2},
        {"training": {}},
        {"adapter": ADAPTER | {"file": "lora.safetensors", "alpha": 48}},
    ],
)
def test_what_does_not_decide_the_weights_leaves_the_digest(change: dict[str, Any]) -> None:
    assert digest(**change) == digest()


def test_how_a_matcher_is_calibrated_asks_for_no_new_build() -> None:
    matcher = Recipe.model_validate(MATCHER)
    calibrated = Recipe.model_validate(MATCHER | {"matching": MATCHING})
    again = Recipe.model_validate(MATCHER | {"matching": MATCHING | {"min_same": 0.5}})
    assert matcher.digest == calibrated.digest == again.digest
    assert calibrated.matching is not None
    assert calibrated.matching.model_dump() == MATCHING


def test_recipes_from_before_matchers_keep_their_digests() -> None:
    assert digest() == "72b91f46f2db3ee22ca99f79d5b2c7c7b1f6ba79750bc8df20db7cccd7e6a6e3"


def test_how_weights_are_quantised_decides_them() -> None:
    generator = PLAIN | {"kind": "generator"}
    smoothed = {"to": "int8", "smoothing": {"file": "smoothing.safetensors", "sha256": SHA}}
    elsewhere = {"to": "int8", "smoothing": {"file": "other.safetensors", "sha256": SHA}}
    ways = ({}, {"quantize": {"to": "int8"}}, {"quantize": smoothed}, {"quantize": elsewhere})
    plain, narrow, smooth, same = (Recipe.model_validate(generator | way).digest for way in ways)
    assert len({plain, narrow, smooth}) == 3
    assert smooth == same


def test_a_shipped_recipe_of_another_recipes_model_names_the_weights_that_one_yields() -> None:
    shipped = {folder.name: read(folder / RECIPE) for folder in SHIPPED}
    made_of = {name: recipe for name, recipe in shipped.items() if isinstance(recipe.base, RecipeBase)}
    assert "smollm2-grounded-int8" in made_of
    for recipe in made_of.values():
        assert isinstance(recipe.base, RecipeBase)
        assert recipe.files == shipped[recipe.base.recipe].produces
        assert "model.safetensors" in recipe.produces


def test_recipes_from_before_adapters_keep_their_digests() -> None:
    """Else every model that is built already would be built again."""
    before = {
        "all-minilm-l6-v2": "4389bb41e948d22ed29737a0da9bc25d808f555f1b0e604e5d430728b4a175fe",
        "smollm2-135m-instruct": "2176449e49f774c94dc6b3af89b87fccdbcd84b50ad9cc9de15413901bde3978",
    }
    assert {name: read(paths.shipped("data", "models", name, RECIPE)).digest for name in before} == before


# --- the shipped recipes -------------------------------------------------------------------------


def problems(folder: Path) -> list[str]:
    """What is wrong with a folder of `data/models/`."""
    recipe = read(folder / RECIPE)
    found = []
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > AT_MOST:
        found.append(f"{size:,} bytes, at most {AT_MOST:,}")
    if recipe.adapter is not None:
        path = folder / recipe.adapter.file
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != recipe.adapter.sha256:
            found.append(f"{path.name} is missing or another")
        if not (folder / CARD).is_file():
            found.append(f"no {CARD}")
        if "model.safetensors" not in recipe.produces:
            found.append("produces no model.safetensors")
    return found


@pytest.mark.parametrize("folder", SHIPPED, ids=[folder.name for folder in SHIPPED])
def test_a_shipped_recipe_is_complete_and_small(folder: Path) -> None:
    assert problems(folder) == []


def test_the_embedded_base_models_are_shipped() -> None:
    assert {folder.name for folder in SHIPPED} >= {"all-minilm-l6-v2", "smollm2-135m-instruct"}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("none", []),
        ("no adapter", ["adapter.safetensors is missing or another"]),
        ("other adapter", ["adapter.safetensors is missing or another"]),
        ("no card", ["no MODEL_CARD.md"]),
        ("no product", ["produces no model.safetensors"]),
        ("too large", ["15,000,001 bytes, at most 15,000,000"]),
    ],
)
def test_a_planted_fault_of_a_shipped_recipe_is_found(tmp_path: Path, damage: str, problem: list[str]) -> None:
    adapter = ADAPTER | {"sha256": hashlib.sha256(b"adapter").hexdigest()}
    write(tmp_path, TRAINED | {"adapter": adapter} | ({"produces": {}} if damage == "no product" else {}))
    if damage != "no card":
        (tmp_path / CARD).write_text("# Tiny\n")
    if damage != "no adapter":
        (tmp_path / ADAPTER["file"]).write_bytes(b"other" if damage == "other adapter" else b"adapter")
    if damage == "too large":
        rest = AT_MOST + 1 - sum(path.stat().st_size for path in tmp_path.iterdir())
        (tmp_path / "large.bin").write_bytes(bytes(rest))
    assert problems(tmp_path) == problem
