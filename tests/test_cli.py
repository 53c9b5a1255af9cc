"""The command line without an engine: help, settings, search, and one clear line for bad input."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import Cli

from rag import build, settings
from rag.bert import convert
from rag.cli.config import show
from rag.cli.console import Stream
from rag.index import Versions
from rag.settings import describe

pytestmark = pytest.mark.usefixtures("home")


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.endswith("...")]
    assert len(lines) == 1, text
    return lines[0]


def refused(run: Cli, code: int, *arguments: str, stdin: str | None = None) -> str:
    done = run(*arguments, stdin=stdin)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return one_line(done.stderr)


def test_help_names_every_command(cli: Cli) -> None:
    done = cli("--help")
    assert done.returncode == 0
    for command in ("ask", "search", "index", "models", "config", "doctor", "bench", "eval"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("question", ["", "  \t "])
def test_an_empty_question(rag: Cli, question: str) -> None:
    assert "The question is empty" in refused(rag, 2, "ask", question)


def test_an_empty_question_from_standard_input(cli: Cli) -> None:
    assert "The question is empty" in refused(cli, 2, "ask", stdin="\n")


def test_a_question_of_100_000_characters(rag: Cli) -> None:
    line = refused(rag, 2, "ask", "x" * 100_000)
    assert "100,000 characters, at most 2,000" in line
    assert "at most 2,000" in refused(rag, 2, "ask", stdin="x" * 100_000)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "v4"), "Unknown profile 'v4'. Did you mean 'v3'?"),
        (("--models", "embeded"), "Did you mean 'embedded'?"),
        (("--set", "generator.max_tokns=5"), "Did you mean 'generator.max_tokens'?"),
        (("--set", "generator.max_tokens=0"), "generator.max_tokens=0 (from --set): input should be greater"),
        (("--set", "max_tokens"), "expected section.key=value"),
        (("--set", "generator.quantization=fp8"), "can't be had: vLLM has no FP8 weight kernels"),
        (("--index", "No Good"), "--index No Good: a name has small letters, digits, dots and dashes"),
        (("--sample", "--index", "other"), "--sample and --index other name two indexes"),
    ],
)
def test_settings_that_are_wrong(rag: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(rag, 2, "ask", "What causes malaria?", *arguments)


def test_a_wrong_setting_in_the_environment(rag: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG__GENERATOR__MAX_TOKENZ", "5")
    assert "Did you mean 'generator.max_tokens'?" in refused(rag, 2, "config")


def test_options_are_taken_before_and_after_the_command(rag: Cli) -> None:
    before = rag("--profile", "v3", "--set", "generator.max_tokens=9", "config", "--json", "generator.")
    after = rag("config", "generator.", "--json", "--set", "generator.max_tokens=9", "--profile", "v3")
    assert before.stdout == after.stdout
    values = json.loads(after.stdout)["settings"]
    said = {key: (one["value"], one["origin"]) for key, one in values.items()}
    assert said["generator.max_tokens"] == (9, "--set")
    assert said["generator.temperature"] == (0.1, "profile v3")
    assert all(one["meaning"] == describe(key) != "" for key, one in values.items())


def test_no_index_yet(cli: Cli) -> None:
    line = refused(cli, 1, "ask", "What causes malaria?")
    assert "No index named 'default' yet. Build it: rag index PATH --index default" in line


def test_index_wants_a_source(rag: Cli) -> None:
    assert "Give the files and folders to index, or --sample" in refused(rag, 2, "index", "--prune")


CORPORA = {
    "an empty folder": ({}, "Nothing to index in"),
    "a binary file": ({"a.txt": b"\x89PNG\0\1"}, "a.txt: a binary file with a text suffix"),
    "invalid UTF-8": (
        {"a.jsonl": b'{"_id": "1", "text": "caf\xe9"}\n'},
        "a.jsonl:1: not valid UTF-8 (byte 26 of the line)",
    ),
    "a line of 100 MB": ({"a.jsonl": b"x" * 100_000_000}, "a.jsonl:1: the line is longer than 16 MiB"),
    "two files that can't be read": ({"a.txt": b"", "b.txt": b""}, "a.txt: the file is empty. Remove it. And 1 more."),
    "a record without text": ({"a.jsonl": b'{"_id": "1", "title": "One"}\n'}, "document '1' has no `text`"),
}


@pytest.mark.parametrize("case", CORPORA)
def test_a_corpus_that_cannot_be_read_leaves_no_index_behind(
    rag: Cli, case: str, tmp_path: Path, real_home: Path, home: Path
) -> None:
    home.mkdir()
    (home / "cache").symlink_to(real_home / "cache")
    files, said = CORPORA[case]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, content in files.items():
        (corpus / name).write_bytes(content)
    assert said in refused(rag, 1, "index", str(corpus))
    assert Versions(home / "data" / "indexes", "default").all() == []
    assert list((home / "data").rglob(".*")) == []


@pytest.fixture
def indexed(real_home: Path, home: Path) -> Path:
    """Models by link, and a copy of the sample index to damage. Returns the version's folder."""
    home.mkdir()
    (home / "cache").symlink_to(real_home / "cache")
    shutil.copytree(real_home / "data", home / "data")
    return Versions(home / "data" / "indexes", build.SAMPLE).current()[1]


def test_a_truncated_index_is_refused_before_the_engine_starts(cli: Cli, indexed: Path) -> None:
    vectors = indexed / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-100])
    line = refused(cli, 1, "ask", "--index", "sample", "What causes malaria?")
    assert "vectors.npy has " in line
    assert line.endswith("Build it again: rag index PATH --index sample --rebuild.")


def test_a_tampered_index_is_refused(rag: Cli, indexed: Path) -> None:
    passages = indexed / "passages.jsonl"
    content = bytearray(passages.read_bytes())
    content[1000] ^= 1
    passages.write_bytes(content)
    assert "passages.jsonl has changed since it was written" in refused(
        rag, 1, "search", "--index", "sample", "What causes malaria?"
    )


def test_an_index_with_a_missing_file_or_manifest_is_refused(rag: Cli, indexed: Path) -> None:
    (indexed / "tokens.npy").unlink()
    assert "tokens.npy is missing" in refused(rag, 1, "ask", "--index", "sample", "What causes malaria?")
    (indexed / "manifest.json").unlink()
    assert "has no manifest" in refused(rag, 1, "ask", "--index", "sample", "What causes malaria?")


@pytest.mark.usefixtures("indexed")
def test_an_index_of_another_embedding_model_is_refused(rag: Cli, tmp_path: Path, real_home: Path) -> None:
    other = tmp_path / "other-encoder"
    shutil.copytree(real_home / "cache" / "models" / "all-minilm-l6-v2", other)
    line = refused(rag, 1, "ask", "--index", "sample", "--set", f"embed.model={other}", "What causes malaria?")
    assert "was built with the embedding model all-minilm-l6-v2@" in line
    assert "rag index PATH" in line


@pytest.mark.usefixtures("indexed")
def test_a_pool_that_does_not_fit_is_refused_before_the_engine_starts(rag: Cli) -> None:
    line = refused(rag, 1, "ask", "--index", "sample", "--set", "generator.kv_cache_mb=4000000", "What causes malaria?")
    assert "Not enough memory" in line
    assert "Lower generator.kv_cache_mb" in line


@pytest.mark.usefixtures("indexed")
def test_search_finds_the_malaria_document_first(rag: Cli) -> None:
    done = rag("search", "--index", "sample", "--json", "-n", "3", "Which mosquito spreads malaria?")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["hits"]) == 3
    assert found["hits"][0]["passage"]["doc_id"] == "malaria"
    assert found["timings"]["retrieve"] > 0


@pytest.mark.usefixtures("indexed")
def test_search_works_from_another_folder_and_prints_text(cli: Cli, tmp_path: Path) -> None:
    done = cli("search", "--sample", "-n", "1", "Which mosquito spreads malaria?", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(" 1. Malaria")


@pytest.mark.usefixtures("indexed")
def test_the_sample_that_is_up_to_date_is_told_of_as_any_index(rag: Cli) -> None:
    done = rag("index", "--sample", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["index"], told["unchanged"], told["added"]) == ("sample", told["documents"], 0)


@pytest.mark.usefixtures("indexed")
def test_a_corpus_of_ones_own_becomes_searchable(rag: Cli, tmp_path: Path) -> None:
    corpus = tmp_path / "notes"
    corpus.mkdir()
    (corpus / "bees.md").write_text("# Bees\n\nBees dance to tell where flowers are.\n", encoding="utf-8")
    (corpus / "ants.txt").write_text("Ants follow trails of scent.", encoding="utf-8")
    (corpus / "photo.png").write_bytes(b"\x89PNG")
    built = rag("index", str(corpus), "--index", "notes", "--json")
    assert built.returncode == 0, built.stderr
    report = json.loads(built.stdout)
    assert (report["documents"], report["passages"], report["left_out"]) == (2, 2, {".png files": 1})
    assert (report["skipped"], report["deleted"]) == ([], [])
    hits = json.loads(rag("search", "--index", "notes", "--json", "How do bees tell about flowers?").stdout)["hits"]
    assert hits[0]["passage"]["doc_id"] == "notes/bees.md"


@pytest.mark.usefixtures("indexed")
def test_what_cannot_be_read_is_skipped_with_its_reason_and_the_rest_is_indexed(rag: Cli, tmp_path: Path) -> None:
    corpus = tmp_path / "notes"
    corpus.mkdir()
    (corpus / "a.jsonl").write_bytes(b'{"_id": "1", "text": "Ants follow trails."}\n' + b"no json\n" * 25)
    (corpus / "b.jsonl").write_bytes(b'{"_id": "1", "text": "Another."}\n')
    built = rag("index", str(corpus), "--index", "notes")
    assert built.returncode == 0, built.stderr
    assert "1 documents, 1 passages" in built.stdout
    said = [line for line in built.stderr.splitlines() if "kipped" in line]
    assert len(said) == 21
    assert said[0].startswith(f"Skipped {corpus}/a.jsonl:2: not valid JSON (")
    assert said[20] == "Skipped 6 more; --json lists them all."
    skipped = json.loads(rag("index", str(corpus), "--index", "notes", "--json").stdout)["skipped"]
    assert len(skipped) == 26
    assert skipped[25] == {
        "where": f"{corpus}/b.jsonl:1",
        "reason": f"document id '1' stands already in {corpus}/a.jsonl:1. Give it another.",
    }


def test_models_are_listed_and_described(rag: Cli) -> None:
    listed = json.loads(rag("models", "list", "--json").stdout)
    assert {entry["name"] for entry in listed} >= {"all-minilm-l6-v2", "smollm2-135m-instruct"}
    assert not any(entry["built"] for entry in listed)
    assert "No recipe named 'nope'" in refused(rag, 1, "models", "info", "nope")


@pytest.mark.usefixtures("indexed")
def test_doctor_without_an_engine_says_what_is_there(rag: Cli) -> None:
    without = ("--set=rerank.model=null", "--set=verify.model=null", "--set=verify.action=mark")
    done = rag("doctor", "--no-engine", "--json", "--index", "sample", *without)
    assert done.returncode == 0, done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["reranker"]["state"] == checks["checker"]["state"] == "note"
    assert "sentences aren't checked" in checks["checker"]["found"]
    assert {
        checks[name]["state"] for name in ("platform", "vllm", "faiss", "packages", "encoder", "generator", "index")
    } == {"ok"}


@pytest.mark.usefixtures("indexed")
def test_doctor_says_what_runs_each_cross_encoder(rag: Cli, cross_encoder: Callable[[Sequence[str]], Path]) -> None:
    folder = cross_encoder(["relevant"])
    convert(folder)
    chosen = (f"rerank.model={folder}", f"verify.model={folder}", "verify.backend=torch")
    done = rag("doctor", "--no-engine", "--json", "--index", "sample", *(f"--set={one}" for one in chosen))
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["reranker"]["found"].endswith("run by openvino")
    assert checks["checker"]["found"].endswith("run by torch")


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_search_reranks_with_either_backend(
    rag: Cli, cross_encoder: Callable[[Sequence[str]], Path], backend: str
) -> None:
    folder = cross_encoder(["relevant"])
    convert(folder)
    chosen = (f"rerank.model={folder}", f"rerank.backend={backend}", "rerank.max_length=64")
    done = rag("search", "--index", "sample", "--json", "Which virus?", *(f"--set={one}" for one in chosen))
    assert done.returncode == 0, done.stderr
    hits = json.loads(done.stdout)["hits"]
    scores = [hit["rerank"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1


@pytest.mark.usefixtures("indexed")
def test_a_support_checker_that_is_not_there_is_refused_before_the_engine_starts(rag: Cli) -> None:
    unchecked = ("--set", "verify.action=drop", "--set", "verify.model=null")
    line = refused(rag, 2, "ask", "--index", "sample", *unchecked, "What causes malaria?")
    assert "nothing would be checked" in line
    line = refused(rag, 1, "ask", "--index", "sample", "--set", "verify.model=no/such/model", "What causes malaria?")
    assert "Unknown model 'no/such/model'" in line


def test_doctor_on_a_fresh_machine_notes_what_is_not_there_yet(rag: Cli) -> None:
    done = rag("doctor", "--no-engine")
    assert done.returncode == 0, done.stdout
    assert "No index named 'default' yet" in done.stdout
    assert "not built yet" in done.stdout


def test_doctor_names_what_the_engine_can_t_compute_in(rag: Cli) -> None:
    wide = ("generator.dtype=float32", "generator.quantized.int8=some/checkpoint", "generator.quantization=int8")
    done = rag("doctor", "--no-engine", "--json", *(f"--set={one}" for one in wide))
    assert done.returncode == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["arithmetic"]["state"] == "failed"
    assert "generator.dtype=float32 (from --set)" in checks["arithmetic"]["found"]


def test_doctor_fails_where_the_index_is_damaged(rag: Cli, indexed: Path) -> None:
    (indexed / "tokens.npy").unlink()
    done = rag("doctor", "--no-engine", "--sample")
    assert done.returncode == 1
    assert "tokens.npy is missing" in done.stdout


def test_output_that_nobody_reads_to_the_end_is_no_failure() -> None:
    command = f"{sys.executable} -m rag config | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_config_shows_every_setting_in_plain_text_with_its_meaning_below_it(rag: Cli) -> None:
    done = rag("config")
    assert done.returncode == 0
    lines = done.stdout.splitlines()[1:]
    keys = [key for key, _ in settings.load(environ={}).leaves()]
    assert [line.split()[0] for line in lines[::2]] == keys
    assert lines[1::2] == [f"    {describe(key)}" for key in keys]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("columns", "lines"), [("60", 2), ("200", 1)])
def test_config_has_a_settings_meaning_beside_it_where_there_is_room_and_else_below_it(
    columns: str, lines: int
) -> None:
    screen = Screen()
    show([("retrieve.candidates", "50", "default")], Stream(screen, {"COLUMNS": columns, "TERM": "xterm"}))
    shown = re.sub(r"\x1b\[\d+m", "", screen.getvalue()).splitlines()
    assert len(shown) == lines
    assert shown[0].startswith("retrieve.candidates  50  default")
    assert shown[-1].endswith(describe("retrieve.candidates"))
    assert shown[-1].startswith("    ") is (lines == 2)
