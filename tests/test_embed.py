"""The encoder's two ways: the fast form gives what sentence-transformers gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rag import bert, build, settings
from rag.core import Encoder
from rag.embed import OpenVinoEncoder, SentenceTransformerEncoder, open_encoder
from rag.errors import ModelError
from rag.models import ModelStore
from rag.settings import Embed

TEXTS = (
    "Malaria",
    "Malaria is caused by Plasmodium parasites, which a mosquito carries.",
    "",
    "Gout 😀 is caused by crystals of urate.",
    "Vitamin C cures scurvy. " * 120,  # longer than the model reads
    "A cough lasts for two weeks or more, and a fever for three days.",
)


@pytest.fixture(scope="module")
def folder(real_home: Path) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAG_HOME", str(real_home))
        return ModelStore().resolve("all-minilm-l6-v2").path


@pytest.fixture(scope="module")
def encoders(folder: Path) -> tuple[Encoder, Encoder]:
    fast = open_encoder(folder, "minilm", Embed(batch_size=4), "cpu")
    exact = open_encoder(folder, "minilm", Embed(batch_size=4, backend="torch"), "cpu")
    assert isinstance(fast, OpenVinoEncoder)
    assert isinstance(exact, SentenceTransformerEncoder)
    return fast, exact


def test_both_give_unit_vectors_that_point_the_same_way(encoders: tuple[Encoder, Encoder]) -> None:
    fast, exact = (encoder.encode_passages(TEXTS) for encoder in encoders)
    assert fast.shape == exact.shape == (len(TEXTS), 384)
    assert fast.dtype == exact.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(fast, axis=1), 1.0, atol=1e-3)
    assert np.einsum("td,td->t", fast, exact).min() > 0.999


def test_so_do_both_ways_of_a_larger_one(in_real_home: Path) -> None:
    """Of another architecture: MPNet."""
    del in_real_home
    folder = ModelStore().resolve("all-mpnet-base-v2").path
    both = [open_encoder(folder, "mpnet", Embed(batch_size=4, backend=by), "cpu") for by in ("auto", "torch")]
    assert [type(one) for one in both] == [OpenVinoEncoder, SentenceTransformerEncoder]
    fast, exact = (encoder.encode_passages(TEXTS) for encoder in both)
    assert fast.shape == (len(TEXTS), 768)
    assert np.einsum("td,td->t", fast, exact).min() > 0.999


def test_a_text_has_the_same_vector_alone_and_among_others(encoders: tuple[Encoder, Encoder]) -> None:
    fast, _ = encoders
    among = fast.encode_passages(TEXTS)
    alone = np.concatenate([fast.encode_passages([text]) for text in TEXTS])
    assert np.einsum("td,td->t", among, alone).min() > 0.999


def test_many_texts_have_the_vectors_that_they_have_alone_by_several_threads_too(
    encoders: tuple[Encoder, Encoder],
) -> None:
    fast, _ = encoders
    texts = [f"{text} {number}" for number in range(bert.MANY) for text in TEXTS[:4]]
    alone = np.concatenate([fast.encode_passages(texts[at : at + 16]) for at in range(0, len(texts), 16)])
    with ThreadPoolExecutor(3) as pool:
        many = list(pool.map(fast.encode_passages, [texts, texts[::-1], texts]))
    for found in (many[0], many[1][::-1], many[2]):
        assert np.einsum("td,td->t", found, alone).min() > 0.999


def test_more_texts_than_are_tokenised_together_keep_their_order(
    encoders: tuple[Encoder, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, _ = encoders
    at_once = fast.encode_passages(TEXTS)
    monkeypatch.setattr("rag.embed.TOGETHER", 4)
    in_parts = fast.encode_passages(TEXTS)
    assert in_parts.shape == at_once.shape
    assert np.einsum("td,td->t", in_parts, at_once).min() > 0.999


def test_no_text_gives_no_vector(encoders: tuple[Encoder, Encoder]) -> None:
    assert encoders[0].encode_queries([]).shape == (0, 384)


def test_prefixes_go_before_what_they_are_for(folder: Path, encoders: tuple[Encoder, Encoder]) -> None:
    prefixed = open_encoder(folder, "minilm", Embed(query_prefix="query: ", passage_prefix="passage: "), "cpu")
    plain, _ = encoders
    np.testing.assert_allclose(prefixed.encode_queries(["gout"]), plain.encode_queries(["query: gout"]), atol=1e-3)
    np.testing.assert_allclose(prefixed.encode_passages(["gout"]), plain.encode_passages(["passage: gout"]), atol=1e-3)


def test_the_fast_way_loads_no_torch(folder: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from rag.embed import open_encoder
from rag.settings import Embed
print(open_encoder(Path({str(folder)!r}), "minilm", Embed(), "cpu").encode_queries(["fever"]).shape)
print(sorted({{"torch", "transformers", "sentence_transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 384)\n[]\n"


def test_without_a_fast_form_auto_is_torch_and_openvino_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "minilm"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(bert.FAST_FORM))
    assert isinstance(open_encoder(copy, "minilm", Embed(), "cpu"), SentenceTransformerEncoder)
    with pytest.raises(ModelError, match="has no form for OpenVINO"):
        open_encoder(copy, "minilm", Embed(backend="openvino"), "cpu")


@pytest.mark.parametrize(
    ("modules", "pooling", "said"),
    [
        (["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True}, "found Transformer, Pooling with"),
        (["Transformer", "Pooling", "Normalize"], {"pooling_mode_cls_token": True}, "pooling_mode_cls_token"),
    ],
)
def test_another_pooling_is_not_converted(
    folder: Path, tmp_path: Path, modules: list[str], pooling: dict[str, bool], said: str
) -> None:
    copy = tmp_path / "other"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(bert.FAST_FORM))
    paths = ["", "1_Pooling", "2_Normalize"]
    listed = [{"type": f"models.{kind}", "path": path} for kind, path in zip(modules, paths, strict=False)]
    (copy / "modules.json").write_text(json.dumps(listed))
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ModelError, match=said):
        bert.convert(copy)


def test_an_index_by_one_way_is_searched_by_the_other(in_real_home: Path) -> None:
    del in_real_home
    questions = ["What causes malaria?", "How is gout treated?", "Who discovered insulin?"]
    found = []
    for backend in ("openvino", "torch"):
        loaded = settings.load(
            assignments=[f"index.name={build.SAMPLE}", f"embed.backend={backend}", "rerank.model=null"]
        )
        search = build.open_search(loaded)
        vectors = search.encoder.encode_queries(questions)
        found.append(search.index.dense.search(vectors, 5)[1].tolist())
    assert [set(rows) for rows in found[0]] == [set(rows) for rows in found[1]]
