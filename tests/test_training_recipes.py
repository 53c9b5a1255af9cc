"""From a training's folder to a recipe that ships: what it says, what it refuses, what it leaves alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from rag import paths
from rag.errors import ModelError, UsageError
from rag.models import ModelStore
from rag.models.recipe import Abstention, read
from rag.training import datasets, recipes
from rag.training.recipes import PRODUCTS, Product, product, write, write_card, write_smoothing, write_weights
from rag.training.record import Run
from rag.training.record import write as write_record

RANK, HIDDEN = 2, 4
WEIGHT = "model.layers.0.mlp.up_proj"
TRAINED = Product("generator", "plain", "a tiny generator", RANK, 4.0, (datasets.MEDQUAD, datasets.OWN))
SUMMARY = {
    "command": "rag bench generator",
    "date": "2026-01-02T03:04:05+00:00",
    "host": {"cpu": "a CPU", "gpu": None},
    "figures": [
        {
            "name": "citation_exact",
            "value": 0.8123,
            "lo": 0.7,
            "hi": 0.9,
            "unit": "share",
            "n": 400,
            "goal": ">= 0.75",
            "met": True,
        }
    ],
}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A base in a wheel, its recipe, and a finished training."""
    wheel = tmp_path / "site" / "plain_wheel" / "model"
    wheel.mkdir(parents=True)
    (wheel.parent / "__init__.py").touch()
    (wheel / "config.json").write_text("{}\n")
    weights = {f"{name}.weight": torch.ones(HIDDEN, HIDDEN) for name in (WEIGHT, WEIGHT.replace("up", "down"))}
    save_file(weights, wheel / "model.safetensors")
    recipe = {
        "description": "a base",
        "kind": "generator",
        "licence": "Apache-2.0",
        "origin": "org/plain",
        "base": {"wheel": "plain-wheel", "package": "plain_wheel", "path": "model"},
        "format": "folder",
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(wheel.iterdir())},
        "disk_mb": 1,
    }
    (tmp_path / "recipes" / "plain").mkdir(parents=True)
    (tmp_path / "recipes" / "plain" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    adapter(tmp_path)
    write_record(tmp_path / "training", Run("generator", 6400, 3))
    (tmp_path / "training" / "curve.json").write_text(
        json.dumps(
            [{"examples": 0, "eval_loss": 2.5}, {"examples": 3200, "loss": 1.0}, {"examples": 6400, "eval_loss": 0.5}]
        )
    )
    sys.path.insert(0, str(tmp_path / "site"))
    yield tmp_path
    sys.path.remove(str(tmp_path / "site"))
    sys.modules.pop("plain_wheel", None)


def adapter(root: Path, hidden: int = HIDDEN, rank: int = RANK, factor: float = 0.5) -> None:
    tensors = {
        f"{WEIGHT}.lora_A": torch.full((rank, hidden), factor),
        f"{WEIGHT}.lora_B": torch.full((HIDDEN, rank), 0.25),
    }
    (root / "training").mkdir(exist_ok=True)
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, root / "training" / "adapter.safetensors")


def exported(root: Path, **changes: Any) -> Path:
    write("small", TRAINED, root / "training", root / "recipes", root / "results", **changes)
    return root / "recipes" / "small"


def test_the_recipe_says_all_that_makes_the_model(root: Path) -> None:
    folder = exported(root)
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    sha = hashlib.sha256((folder / "adapter.safetensors").read_bytes()).hexdigest()
    base = yaml.safe_load((root / "recipes" / "plain" / "recipe.yaml").read_text())
    assert {name: content[name] for name in ("base", "format", "files", "licence", "origin")} == {
        name: base[name] for name in ("base", "format", "files", "licence", "origin")
    }
    assert content["adapter"] == {"file": "adapter.safetensors", "sha256": sha, "rank": RANK, "alpha": 4.0}
    assert content["training"] == {
        "data": ["MedQuAD (CC BY 4.0)", "documents, questions and sentences of this project (Apache-2.0)"],
        "command": 'make train-generator ARGS="--examples 6400 --seed 3"',
        "examples": 6400,
        "seed": 3,
    }
    assert "head" not in content
    assert sorted(path.name for path in folder.iterdir()) == [
        "MODEL_CARD.md",
        "adapter.safetensors",
        "curve.json",
        "recipe.yaml",
    ]


def test_the_recipe_builds_to_what_it_promises(root: Path) -> None:
    exported(root)
    built = ModelStore(root / "recipes", root / "store").build("small")
    # 1 + alpha / rank * rank * 0.25 * 0.5
    assert np.allclose(load_file(built / "model.safetensors")[f"{WEIGHT}.weight"].numpy(), 1.5)
    assert read(root / "recipes" / "small" / "recipe.yaml").produces == {
        "model.safetensors": hashlib.sha256((built / "model.safetensors").read_bytes()).hexdigest()
    }


def made_of_it(root: Path, **quantize: Any) -> Path:
    """A recipe of the exported model, quantised."""
    content = {
        "description": "the small one, in 8 bits",
        "kind": "generator",
        "licence": "Apache-2.0",
        "origin": "org/plain",
        "base": {"recipe": "small"},
        "format": "folder",
        "files": dict(read(root / "recipes" / "small" / "recipe.yaml").produces),
        "quantize": {"to": "int8", **quantize},
        "produces": {"model.safetensors": "0" * 64},
        "disk_mb": 1,
    }
    path = root / "recipes" / "smaller" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content))
    return path


def produced(root: Path) -> dict[str, str]:
    folder = ModelStore(root / "recipes", root / "store").build("smaller")
    return {"model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()}


def test_a_model_that_is_made_of_it_follows(root: Path) -> None:
    """Its recipe names the weights that it is made of, and what they become."""
    exported(root)
    path = made_of_it(root)
    before = yaml.safe_load(path.read_text())
    adapter(root, factor=0.75)
    base = read(exported(root) / "recipe.yaml")
    renewed = yaml.safe_load(path.read_text())
    assert renewed["files"] == base.produces != before["files"]
    assert renewed["produces"] == produced(root)
    assert renewed == {**before, "files": renewed["files"], "produces": renewed["produces"]}


def test_how_a_quantised_model_is_smoothed_goes_into_its_recipe(root: Path) -> None:
    exported(root)
    path = made_of_it(root)
    write_smoothing("smaller", {WEIGHT: torch.tensor([0, 1, -1, 2] * (HIDDEN // 4)).to(torch.int8)}, root / "recipes")
    recipe = read(path)
    assert recipe.quantize is not None
    assert recipe.quantize.smoothing is not None
    smoothing = path.parent / recipe.quantize.smoothing.file
    assert hashlib.sha256(smoothing.read_bytes()).hexdigest() == recipe.quantize.smoothing.sha256
    assert recipe.produces == produced(root)
    adapter(root, factor=0.75)
    exported(root)
    assert read(path).quantize == recipe.quantize, "it follows with what it has"
    assert read(path).produces == produced(root) != recipe.produces


def test_smoothing_that_does_not_fit_leaves_the_recipe_that_is_there(root: Path) -> None:
    exported(root)
    before = made_of_it(root).read_text()
    with pytest.raises(ModelError, match="The smoothing doesn't fit"):
        write_smoothing("smaller", {"model.norm": torch.zeros(HIDDEN, dtype=torch.int8)}, root / "recipes")
    assert [path.name for path in (root / "recipes" / "smaller").iterdir()] == ["recipe.yaml"]
    assert (root / "recipes" / "smaller" / "recipe.yaml").read_text() == before


def test_a_training_that_does_not_fit_leaves_the_recipe_that_is_there(root: Path) -> None:
    before = {path.name: path.read_bytes() for path in exported(root).iterdir()}
    adapter(root, hidden=HIDDEN + 1)
    with pytest.raises(ModelError, match="doesn't fit"):
        exported(root)
    assert {path.name: path.read_bytes() for path in (root / "recipes" / "small").iterdir()} == before
    assert sorted(path.name for path in (root / "recipes").iterdir()) == ["plain", "small"]


def test_what_is_too_large_to_ship_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(path.stat().st_size for path in exported(root).iterdir())
    monkeypatch.setattr(recipes, "MAX_BYTES", size - 1)
    with pytest.raises(UsageError, match=rf"has {size:,} bytes to ship, at most {size - 1:,} may"):
        exported(root)


def test_a_calibrated_adapter_is_what_ships(root: Path) -> None:
    seen: list[dict[str, Any]] = []

    def calibrate(model: Path, adapter: Path) -> tuple[str, float | None]:
        seen.append({name: tensor.clone() for name, tensor in load_file(model / "model.safetensors").items()})
        save_file({name: 2 * tensor for name, tensor in load_file(adapter).items()}, adapter)
        return "twice as much", None

    folder = exported(root, calibrate=calibrate)
    assert np.allclose(seen[0][f"{WEIGHT}.weight"].numpy(), 1.5)  # built from what was trained
    recipe = read(folder / "recipe.yaml")
    assert recipe.training["calibration"] == "twice as much"
    built = ModelStore(root / "recipes", root / "store").build("small")
    assert np.allclose(load_file(built / "model.safetensors")[f"{WEIGHT}.weight"].numpy(), 3.0)
    assert "- calibration: twice as much" in (folder / "MODEL_CARD.md").read_text()


def test_an_adapter_may_be_the_mean_of_two_trainings_and_the_recipe_says_so(root: Path) -> None:
    """0.5 by 0.25 over a rank of 2, at a scale of 2, are 0.5: of the other training it is twice as much."""
    other = root / "other"
    other.mkdir()
    tensors = load_file(root / "training" / "adapter.safetensors")
    save_file(
        {name: tensor * (2 if name.endswith("B") else 1) for name, tensor in tensors.items()},
        other / "adapter.safetensors",
    )
    write_record(other, Run("generator", 100, 7))
    folder = exported(root, averaged=(other, 0.25))
    recipe = read(folder / "recipe.yaml")
    assert recipe.training["averaged"] == '0.25 of another: make train-generator ARGS="--examples 100 --seed 7"'
    built = ModelStore(root / "recipes", root / "store").build("small")
    changed = load_file(built / "model.safetensors")[f"{WEIGHT}.weight"].float() - 1
    assert np.allclose(changed.numpy(), 0.75 * 0.5 + 0.25 * 1.0, atol=0.01)


# --- the card --------------------------------------------------------------------------------------


def summary(root: Path, device: str = "cpu") -> None:
    path = root / "results" / device / "generator" / "summary.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(SUMMARY))


def test_how_declining_is_weighed_goes_into_the_recipe_and_asks_for_no_new_build(root: Path) -> None:
    folder = exported(root)
    before = read(folder / "recipe.yaml")
    weights = Abstention(reranker="minilm-rerank", of_word=0.5, of_relevance=-0.25, shift=1.5)
    write_weights("small", TRAINED, weights, root / "recipes", root / "results")
    after = read(folder / "recipe.yaml")
    assert (before.abstention, after.abstention) == (None, weights)
    assert after.digest == before.digest
    assert after.model_copy(update={"abstention": None}) == before
    assert "0.5 times its log-odds, -0.25 times theirs, +1.5" in (folder / "MODEL_CARD.md").read_text()


def test_the_card_tells_data_training_and_figures(root: Path) -> None:
    summary(root)
    card = (exported(root) / "MODEL_CARD.md").read_text()
    assert card.startswith("# small\n\na tiny generator\n")
    assert "| [MedQuAD](https://github.com/abachaa/MedQuAD) | CC BY 4.0 |" in card
    assert "- LoRA of rank 2, alpha 4\n" in card
    assert "- loss on held-out examples: 2.500 after 0, 0.500 after 6,400 examples" in card
    assert "| `citation_exact` | 0.812 | 0.700 to 0.900 | share | 400 | >= 0.75 |" in card
    assert "`rag bench generator`, 2026-01-02, a CPU:" in card
    assert "$" not in card


def test_a_card_without_figures_says_so_and_is_written_again_when_there_are(root: Path) -> None:
    folder = exported(root)
    recipe = (folder / "recipe.yaml").read_bytes()
    assert "Not measured yet." in (folder / "MODEL_CARD.md").read_text()
    summary(root)
    write_card("small", TRAINED, root / "recipes", root / "results")
    card = (folder / "MODEL_CARD.md").read_text()
    assert "citation_exact" in card
    assert "Not measured yet." not in card
    assert (folder / "recipe.yaml").read_bytes() == recipe


def test_a_card_needs_its_recipe(root: Path) -> None:
    with pytest.raises(UsageError, match="No recipe in"):
        write_card("small", TRAINED, root / "recipes", root / "results")


# --- the ones that ship ----------------------------------------------------------------------------


def test_the_models_of_this_project_name_recipes_that_ship_and_have_a_card() -> None:
    for name, trained in PRODUCTS.items():
        base = read(paths.shipped("data", "models", trained.base, "recipe.yaml"))
        assert base.adapter is None
        assert (trained.labels == ()) == (trained.kind == "generator")
        text = paths.shipped("data", "training", "cards", f"{trained.kind}.md").read_text(encoding="utf-8")
        assert {f"${part}" for part in ("name", "description", "base", "training", "data", "figures")} <= set(
            text.replace(",", " ").replace(".", " ").split()
        )
        assert "must not be used for" in text
        assert product(name) is trained


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_card_that_ships_says_what_its_recipe_and_the_committed_figures_say(name: str, tmp_path: Path) -> None:
    shipped = paths.shipped("data", "models")
    shutil.copytree(shipped / name, tmp_path / name)
    write_card(name, product(name), tmp_path)
    said, card = ((folder / name / "MODEL_CARD.md").read_text(encoding="utf-8") for folder in (shipped, tmp_path))
    assert said == card, f"Run scripts/export_model.py {name} --card-only."


def test_another_name_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(UsageError, match=r"No trained model named 'minilm'\. Known: smollm2-grounded"):
        product("minilm")
