"""Fixtures: state of its own for every test, and one real set of models and index for all that need it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rag import build, settings

ROOT = Path(__file__).parent.parent

Cli = Callable[..., subprocess.CompletedProcess[str]]

WORDS = "fever cough rash pain urate insulin thyroid mosquito lemons virus parasite blood cure cause 5 12".split()  # noqa: SIM905


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty state: no models, no index."""
    folder = tmp_path / "home"
    monkeypatch.setenv("RAG_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State with every shipped model built and the sample corpus indexed, by the real code. Takes a minute."""
    folder = tmp_path_factory.mktemp("real-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(folder))
        store = build.model_store()
        for status in store.list():
            store.build(status.name)
        build.ensure_sample_index(settings.load(assignments=[f"index.name={build.SAMPLE}"]))
    return folder


@pytest.fixture
def in_real_home(real_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAG_HOME", str(real_home))
    return real_home


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
            timeout=300,
            cwd=cwd,
            env=os.environ,
            check=False,
        )

    return run


@pytest.fixture
def cross_encoder(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """Makes a small BERT cross-encoder with these labels: random weights, its vocabulary is `WORDS`."""

    def make(labels: Sequence[str]) -> Path:
        import torch
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
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
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=64,
            initializer_range=0.2,  # so that logits differ by more than rounding
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
        model = BertForSequenceClassification(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                torch.nn.init.normal_(weight, mean=float("LayerNorm.weight" in name), std=0.2)
        model.save_pretrained(folder)
        return folder

    return make
