"""What a training is run with: kept in its folder, so that it goes on as it began, and told by recipe and card."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rag.errors import UsageError
from rag.files import replacing_file
from rag.models import Kind
from rag.training import export

RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class Run:
    """`steps` and `initial` where they were asked for, `base` where there are several."""

    kind: Kind
    examples: int
    seed: int
    steps: int | None = None
    initial: str | None = None
    base: str | None = None

    @property
    def told(self) -> dict[str, Any]:
        """Nothing of the machine."""
        options = {name: value for name, value in asdict(self).items() if name != "kind" and value is not None}
        said = " ".join(f"--{name} {value}" for name, value in options.items())
        return {"command": f'make train-{self.kind} ARGS="{said}"', **options}


def check(folder: Path, run: Run, lengthens: bool = False) -> None:
    """Raises `UsageError` where the folder holds a training that was begun otherwise; one that `lengthens` may go on to
    another number of examples."""
    before = read(folder)
    free = {"command", "examples"} if lengthens else {"command"}
    for name in sorted((before.keys() | run.told.keys()) - free):
        if before and before.get(name) != run.told.get(name):
            raise UsageError(
                f"The training in {folder} was begun with {name} {before.get(name)}, and can't go on with "
                f"{run.told.get(name)}. Name another --folder, or remove this one."
            )


def write(folder: Path, run: Run) -> None:
    """An adapter that another run has left there goes: until this one ends there is none."""
    if read(folder) not in ({}, run.told):
        export.discard(folder)
    with replacing_file(folder / RECORD) as path:
        path.write_text(json.dumps(run.told, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Empty where there is none."""
    path = folder / RECORD
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
