"""What the trainings share: which checkpoint is gone on from, and the curve."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from rag.errors import UsageError
from rag.training import loop


def checkpoint(folder: Path, step: int, whole: bool = True, of: int = 1200) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").touch()
    if whole:
        (path / "trainer_state.json").write_text(json.dumps({"max_steps": of}))
    return path


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    assert loop.last_checkpoint(tmp_path / "none") is None
    assert loop.last_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 900)
    newest = checkpoint(tmp_path, 1000)  # by number: as text it would come before 900
    checkpoint(tmp_path, 1100, whole=False)  # the process was killed in the middle of it
    assert loop.last_checkpoint(tmp_path) == newest
    assert loop.last_checkpoint(tmp_path, lambda step, of: step < 1000 and of == 1200) == tmp_path / "checkpoint-900"
    assert loop.last_checkpoint(tmp_path, lambda *_: False) is None


def test_the_curve_is_over_examples_and_of_a_mean_loss(tmp_path: Path) -> None:
    log = [
        {"eval_loss": 2.0, "step": 0},
        {"loss": 3.0, "learning_rate": 1e-4, "step": 10},
        {"eval_loss": 1.0, "eval_runtime": 4.0, "step": 10},
        {"train_runtime": 9.0, "step": 10},
    ]
    curve = loop.write_curve(tmp_path, log, 8, parts=2)
    assert curve == [
        {"examples": 0, "eval_loss": 2.0},
        {"examples": 80, "loss": 1.5},
        {"examples": 80, "eval_loss": 1.0},
    ]
    assert loop.read_curve(tmp_path / loop.CURVE) == curve


@pytest.mark.parametrize("content", ["", "7", '[{"step": 10, "loss": 1.0}]'])
def test_what_is_no_curve_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / loop.CURVE
    path.write_text(content)
    with pytest.raises(UsageError, match="is no curve"):
        loop.read_curve(path)


def test_without_the_extra_training_is_refused_with_the_way_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "peft":
            raise PackageNotFoundError
        return "1"

    monkeypatch.setattr(loop, "version", version)
    with pytest.raises(UsageError, match=r"needs the package peft.*requirements/train\.lock") as caught:
        loop.require_extra()
    assert "\n" not in str(caught.value)
