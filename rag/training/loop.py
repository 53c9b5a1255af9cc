"""What the four trainings share: Hugging Face's Trainer, quiet, going on from where it stopped, and its curve."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rag.errors import UsageError
from rag.files import replacing_file
from rag.settings import multiplies_bf16

EXTRA = ("accelerate", "datasets", "peft")
CURVE = "curve.json"


def require_extra() -> None:
    """Raises `UsageError` where what only training needs isn't installed."""
    for package in EXTRA:
        try:
            version(package)
        except PackageNotFoundError:
            raise UsageError(
                f"Training needs the package {package}, which isn't installed. Install the extra: "
                "pip install --no-deps --require-hashes -r requirements/train.lock (make train does)."
            ) from None


def quieten() -> None:
    """Progress bars of ours alone, and no warning about a head that isn't trained yet."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # of loading; the Trainer's is another
    datasets.disable_progress_bars()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def arguments(folder: Path, *, batch: int, every: int, first: bool, seed: int) -> dict[str, Any]:
    """The Trainer's arguments that are the same for all; `first` where there is no checkpoint yet."""
    import torch

    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "bf16": torch.cuda.is_available()
        or multiplies_bf16(),  # a CPU without it takes ten times as long as in 32 bits
        "use_cpu": not torch.cuda.is_available(),
        "eval_strategy": "steps",
        "eval_steps": every,
        "eval_on_start": first,
        "save_steps": every,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,  # for the bar of `run`
        "seed": seed,
        "dataloader_pin_memory": False,
    }


def last_checkpoint(folder: Path, within: Callable[[int, int], bool] = lambda *_: True) -> Path | None:
    """The newest that was written to its end: the Trainer's state is what it writes last, and may be cut off. `within` tells of its
    step and of the steps in all that it was written on the way to whether it may be gone on from."""

    def step(path: Path) -> int:
        return int(path.name.rpartition("-")[2])

    def fits(path: Path) -> bool:
        try:
            steps = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))["max_steps"]
        except (ValueError, KeyError, TypeError):
            return False
        return within(step(path), steps)

    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(filter(fits, whole), key=step, default=None)


def run(
    trainer: Any, folder: Path, examples_a_step: float, parts: int = 1, last: Path | None = None
) -> list[dict[str, float]]:
    """Train to the end, from the checkpoint `last` where there is one; the curve, which `folder` gets at each checkpoint.

    A step's loss is the sum over its `parts` where the model takes keywords beside its inputs, as a causal one does:
    the Trainer leaves the division to the model's own loss then, and the curve's is the mean.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_progress(folder, examples_a_step, parts))
    trainer.train(resume_from_checkpoint=str(last) if last is not None else None)
    return write_curve(folder, trainer.state.log_history, examples_a_step, parts)


def write_curve(
    folder: Path, log: list[dict[str, float]], examples_a_step: float, parts: int = 1
) -> list[dict[str, float]]:
    """Losses by examples seen: `loss` of those since the entry before, `eval_loss` of the held-out ones."""
    curve = [
        {"examples": round(entry["step"] * examples_a_step), **_losses(entry, parts)}
        for entry in log
        if "loss" in entry or "eval_loss" in entry
    ]
    with replacing_file(folder / CURVE) as path:
        path.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    return curve


def read_curve(path: Path) -> list[dict[str, float]]:
    """Raises `UsageError` where the file isn't what `write_curve` writes."""
    try:
        curve: list[dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
        if all("examples" in entry for entry in curve):
            return curve
    except (ValueError, TypeError):
        pass
    raise UsageError(f"{path} is no curve of losses by examples seen. Remove it; a training writes it again.")


def _losses(entry: Mapping[str, float], parts: int) -> dict[str, float]:
    over = {"loss": parts, "eval_loss": 1}
    return {name: entry[name] / over[name] for name in over if name in entry}


def _progress(folder: Path, examples_a_step: float, parts: int) -> Any:
    """A bar with the last losses beside it; the Trainer's own has a line for each, and counts anew after a stop."""
    from tqdm.auto import tqdm
    from transformers import ProgressCallback

    class Progress(ProgressCallback):  # type: ignore[misc]
        def on_train_begin(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ARG002
            self.training_bar = tqdm(total=state.max_steps, initial=state.global_step, dynamic_ncols=True)
            self.current_step = state.global_step
            self.losses: dict[str, str] = {}

        def on_log(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ARG002
            self.losses |= {name: f"{value:.3f}" for name, value in _losses(logs or {}, parts).items()}
            self.training_bar.set_postfix(self.losses)

        def on_save(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ARG002
            write_curve(folder, state.log_history, examples_a_step, parts)

    return Progress()
