"""The built wheel, installed into an environment of its own, works without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from conftest import ROOT

from rag.build import SAMPLE
from rag.index import Versions


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and nothing else of this project; its dependencies are this one's, by path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("rag-*.whl")
    environment = folder / "env"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-qq", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # A path file's own path files aren't read, so that this environment's editable rag stays out.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return environment / "bin"


def run(program: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_what_only_training_and_measuring_read_stays_out(installed: Path) -> None:
    (shipped,) = installed.parent.glob("lib/python*/site-packages/rag/_shipped")
    assert sorted(str(path.relative_to(shipped)) for path in shipped.glob("*/*") if path.is_dir()) == [
        "configs/models",
        "configs/profiles",
        "data/corpus",
        "data/lexicon",
        "data/models",
    ]


def test_the_tables_of_opposites_travel_with_it(installed: Path, tmp_path: Path) -> None:
    told = 'import rag.contrasts as rules; print(rules.contrast("Does salt raise it?", "Does salt lower it?"))'
    done = subprocess.run([installed / "python", "-Ic", told], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "True\n"


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "python", tmp_path, "-c", "import rag; print(rag.__file__)")
    assert str(installed.parent) in done.stdout


def test_profiles_and_models_files_travel_with_it(installed: Path, tmp_path: Path, home: Path) -> None:
    del home
    done = run(installed / "rag", tmp_path, "config", "--json", "--profile", "v3_1", "--models", "qwen3-8b")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["settings"]["context.passages"]
    assert (found["value"], found["origin"]) == (10, "profile v3_1")


def test_recipes_and_the_sample_corpus_travel_with_it_and_are_found_from_any_folder(
    installed: Path, tmp_path: Path, real_home: Path, home: Path
) -> None:
    """With models and an index that the checkout has built: were its recipes or its corpus others, they would be built anew."""
    home.mkdir()
    (home / "cache").symlink_to(real_home / "cache")
    shutil.copytree(real_home / "data", home / "data")
    done = run(
        installed / "rag", tmp_path, "search", "--sample", "--json", "-n", "1", "Which mosquito spreads malaria?"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hits"][0]["passage"]["doc_id"] == "malaria"
    assert Versions(home / "data" / "indexes", SAMPLE).all() == ["000001"]
    assert "building" not in done.stderr
    assert sorted(path.name for path in home.iterdir()) == ["cache", "data", "logs"]
    assert list(tmp_path.iterdir()) == [home]


def test_a_recipe_with_an_adapter_builds_where_there_is_nothing_yet(
    installed: Path, tmp_path: Path, home: Path
) -> None:
    done = run(installed / "rag", tmp_path, "models", "build", "minilm-rerank")
    assert done.returncode == 0, done.stderr
    assert "building model minilm-rerank (once) ..." in done.stderr.splitlines()
    assert (home / "cache" / "models" / "minilm-rerank" / "model.safetensors").is_file()
