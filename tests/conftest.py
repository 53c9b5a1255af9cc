"""Fixtures: state of its own for every test, and one real set of models and index for all that need it."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest
import real_server
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from rag import build, settings
from rag.cli import main

ROOT = Path(__file__).parent.parent

Cli = Callable[..., subprocess.CompletedProcess[str]]

WITH_ENGINES = frozenset(
    {
        "test_bench_serve",
        "test_engine_local",
        "test_engine_remote",
        "test_serve_real",
        "test_variants_engines",
        "test_whole_path",
    }
)
"""Which start vLLM."""

WORDS = "fever cough rash pain urate insulin thyroid mosquito lemons virus parasite blood cure cause 5 12".split()  # noqa: SIM905


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty state: no models, no index."""
    folder = tmp_path / "home"
    monkeypatch.setenv("RAG_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State with every shipped model built and the sample corpus indexed, by the real code. It takes a minute, so it is made once for
    all workers; each of these has an index of its own."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"
    with filelock.FileLock(f"{shared}.lock"):
        if not (done := shared / "done").exists():
            _build(shared)
            done.touch()
    folder = tmp_path_factory.mktemp("real-home")
    (folder / "cache").symlink_to(shared / "cache")
    shutil.copytree(shared / "data", folder / "data")
    return folder


def _build(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as beside:
        patch.setenv("RAG_HOME", str(folder))
        store = build.model_store()
        generators = [one.name for one in store.list() if one.recipe.kind == "generator"]
        built = beside.submit(lambda: [store.build(name) for name in generators])
        for status in store.list():
            if status.name not in generators:
                store.build(status.name)
        build.ensure_sample_index(settings.load(assignments=[f"index.name={build.SAMPLE}"]))
        built.result()


@pytest.fixture
def in_real_home(real_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAG_HOME", str(real_home))
    return real_home


@pytest.fixture(scope="session")
def vllm_server(real_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of vLLM's own server of the embedded generator: its start takes as long as an engine's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        model = build.model_store().resolve("smollm2-grounded").path
    with real_server.serving(model, tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture
def served(vllm_server: str, in_real_home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The settings that name it."""
    del in_real_home
    monkeypatch.setenv("RAG_TEST_KEY", real_server.KEY)
    named = {
        "base_url": vllm_server,
        "model": real_server.NAME,
        "tokenizer": "smollm2-grounded",
        "api_key_env": "RAG_TEST_KEY",
    }
    return [f"generator.{name}={value}" for name, value in named.items()]


@pytest.fixture(scope="module")
def cpu_with_bf16() -> Iterator[None]:
    """For what is planned, and not done: on every machine the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rag.settings.cpu.flags", frozenset)
        yield


@pytest.fixture
def cpu_with_avx2_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither AVX-512 nor BF16."""
    monkeypatch.setattr("rag.settings.cpu.flags", lambda: frozenset({"sse2", "avx2"}))


@pytest.fixture
def cli() -> Cli:
    """Runs `rag ...` as a process of its own, with the environment of the test."""

    def run(*arguments: str, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rag", *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=600,
            cwd=cwd,
            env=os.environ,
            check=False,
        )

    return run


@pytest.fixture
def rag(capfd: pytest.CaptureFixture[str]) -> Cli:
    """As `cli`, in this process: without the seconds that another takes to start and to import."""

    def run(*arguments: str, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["rag", *arguments])
            patch.setattr("sys.stdin", io.StringIO(stdin if stdin is not None else ""))
            if cwd is not None:
                patch.chdir(cwd)
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs one of `scripts/` in this process, without datasets but for those that its arguments name."""
    monkeypatch.delenv("RAG_DATASETS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = str(ROOT / "scripts" / name)
        monkeypatch.setattr("sys.argv", [path, *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(path, run_name="__main__")
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def datasets_folder(tmp_path: Path) -> Path:
    """The datasets' files with a few made-up records each, a part of which is held out, in words of `WORDS`."""
    chance = random.Random(0)

    def text(sentences: int) -> str:
        return " ".join(f"{' '.join(chance.choices(WORDS, k=9)).capitalize()}." for _ in range(sentences))

    ids = [str(number) for number in range(24)]
    held = {"NINDS", "NHLBI"}
    rows: dict[str, list[dict[str, Any]]] = {
        "medquad/train.jsonl.gz": [
            {
                "source": source,
                "focus": f"{chance.choice(WORDS)} {number}",
                "qtype": "symptoms",
                "question": f"What is {' '.join(chance.choices(WORDS, k=3))} {number}?",
                "answer": f"{text(24)} It is seen in 40 mg of blood.",
            }
            for number, source in enumerate(["GARD"] * 6 + sorted(held) * 6)
        ],
        "scifact/corpus.jsonl.gz": [{"doc_id": i, "title": f"Paper {i}", "abstract": text(4).split(". ")} for i in ids],
        "scifact/claims_train.jsonl.gz": [
            {
                "id": i,
                "claim": text(1),
                "cited_doc_ids": [i],
                "evidence": [{"doc_id": i, "label": "SUPPORT", "sentences": [0]}] if int(i) % 3 else [],
            }
            for i in ids
        ],
        "pubmedqa/train.jsonl.gz": [
            {"pmid": i, "question": text(1), "contexts": [text(3), text(2)], "long_answer": text(1)} for i in ids
        ],
        "jats_open/passages.jsonl.gz": [
            {"id": f"p{i}", "doc": "a1", "title": "Trial", "text": text(3), "license": "CC BY"} for i in ids
        ],
        "evidence_inference/train.jsonl.gz": [
            {
                "id": f"t{i}",
                "split": "validation",
                "pmcid": "a1",
                "intervention": "insulin",
                "outcome": "fever",
                "comparator": "lemons",
                "answer": "significantly increased",
                "evidence": [{"text": "", "passage_ids": [f"p{i}"]}],
            }
            for i in ids
        ],
    }
    folder = tmp_path / "datasets"
    for name, records in rows.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    return folder


@pytest.fixture
def cross_encoder(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """Makes a small cross-encoder with these labels, of BERT or of another architecture: random weights, its vocabulary is `WORDS`."""

    def make(labels: Sequence[str], architecture: str = "bert") -> Path:
        import torch
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

        # transformers' MPNet takes 1 for padding whatever its configuration says, and counts positions from there.
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        positions = 64
        if architecture == "mpnet":
            special[:2] = "[UNK]", "[PAD]"
            positions += 2
        vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
        words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        words.normalizer = normalizers.BertNormalizer()
        words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        words.enable_truncation(8)  # what a tokenizer.json may bring along
        words.enable_padding(length=8)
        folder = tmp_path / "cross-encoder"
        PreTrainedTokenizerFast(
            tokenizer_object=words,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        ).save_pretrained(folder)
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            architecture,
            vocab_size=len(vocabulary),
            pad_token_id=vocabulary["[PAD]"],
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=positions,
            initializer_range=0.2,  # so that logits differ by more than rounding
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
        model = AutoModelForSequenceClassification.from_config(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                torch.nn.init.normal_(weight, mean=float("LayerNorm.weight" in name), std=0.2)
        model.save_pretrained(folder)
        return folder

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that press Ctrl-C in this process come first: after a few hundred tests with native libraries in it, it died of a
    segmentation fault where the signal was delivered (seen on one machine, not understood). Then those that take longest."""
    items.sort(key=lambda item: (item.path.stem != "test_cli_chat", item.path.stem not in WITH_ENGINES))


class EnginesTogether(LoadScopeScheduling):
    """A file's tests stay with one worker, for what they share; all files that start an engine are one worker's, so that no two
    engines share the cores and nothing but theirs is in the machine's shared memory. Groups (`--dist loadgroup`) would be the way,
    but xdist 3.8 finds none with pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "engines" if Path(file).stem in WITH_ENGINES else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> EnginesTogether:
    config.option.loadscopereorder = False  # as they were collected
    return EnginesTogether(config, log)


def pytest_configure() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and so would the processes that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
