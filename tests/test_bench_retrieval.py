"""The benchmark of a search's stages: what counts as agreement, what is timed, its figures by hand, and a whole run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from indexes import write_index

from rag import settings
from rag.bench import articles, results, retrieval
from rag.bench.retrieval import Found, Instant, agreement, ask, beside, summarise
from rag.core import Document
from rag.engine.tokens import EngineTokenizer
from rag.errors import UsageError
from rag.index import Versions, check_current, open_index
from rag.ingest import chunk
from rag.pipeline import Pipeline
from rag.search import HybridSearcher
from rag.testing import FakeEncoder, FakeReranker
from rag.training.datasets import Abstract

HEAD: dict[str, Any] = {
    **results.header("retrieval", "rag bench retrieval"),
    "settings": {"passages": 16, "documents": 16, "dense": "flat"},
}


# --- what is asked -----------------------------------------------------------------------------


def test_fewer_documents_and_questions_are_the_first_of_more(datasets_folder: Path) -> None:
    assert articles.documents(datasets_folder, 3) == articles.documents(datasets_folder, None)[:3]
    assert len(articles.documents(datasets_folder, None)) == 24
    assert articles.questions(datasets_folder, 3) == articles.questions(datasets_folder, 500)[:3]
    assert len({paper.id for paper in articles.questions(datasets_folder, 500)}) == 24


# --- agreement ---------------------------------------------------------------------------------


def found(*scored: tuple[int, float]) -> Found:
    return (
        np.array([score for _, score in scored], dtype=np.float32),
        np.array([row for row, _ in scored], dtype=np.int64),
    )


EVERY = found((4, 3.0), (1, 2.0), (7, 2.0), (2, 1.5), (5, 0.5))


@pytest.mark.parametrize(
    ("ours", "same", "overlap"),
    [
        ([4, 1], 1.0, 1.0),
        ([1, 4], 1.0, 1.0),
        ([4, 7], 0.5, 1.0),  # ties with the last
        ([4, 2], 0.5, 0.5),
        ([4, 9], 0.5, 0.5),  # shares no word
        ([4], 0.5, 0.5),
        ([4, 1, 7], 2 / 3, 1.0),
        ([4, 1, 2], 2 / 3, 2 / 3),
        ([2, 5], 0.0, 0.0),
    ],
)
def test_passages_that_tie_with_the_last_agree(ours: list[int], same: float, overlap: float) -> None:
    reference = EVERY[0][:2], EVERY[1][:2]
    assert agreement(np.array(ours), reference, lambda: EVERY) == (same, overlap)


def test_finding_nothing_agrees_with_nothing_alone() -> None:
    nothing = found()
    assert agreement(nothing[1], nothing, lambda: nothing) == (1.0, 1.0)
    assert agreement(np.array([4]), nothing, lambda: nothing) == (0.0, 0.0)


class Timed:
    """Takes the given seconds by a clock of the test's."""

    def __init__(self, now: list[float], seconds: float, rows: Found) -> None:
        self.now, self.seconds, self.rows, self.asked = now, seconds, rows, 0

    def search(self, tokens: Sequence[str], k: int, allowed: Any = None) -> Found:
        assert (list(tokens), allowed) == (["gout"], None)
        self.now[0] += self.seconds
        self.asked += 1
        return self.rows[0][:k], self.rows[1][:k]


def test_both_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "K", 2)
    now = [0.0]
    ours, reference = Timed(now, 1.0, found((4, 3.0), (7, 2.0))), Timed(now, 50.0, EVERY)
    sample = beside(ours, reference, ["gout"], clock=lambda: now[0])
    assert sample == {"ours": 1.0, "reference": 50.0, "ours_again": 1.0, "same": 0.5, "overlap": 1.0}


# --- the way of a question ---------------------------------------------------------------------


class Words:
    """A tokenizer, as transformers has them."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return list(range(len(text.split())))

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: Any) -> str:
        return " ".join(message["content"] for message in messages)


async def test_every_stage_up_to_the_prompt_has_its_seconds(tmp_path: Path) -> None:
    loaded = settings.load(environ={})
    documents = [Document("gout", "Gout", "Urate causes gout."), Document("scurvy", "Scurvy", "Lemons cure scurvy.")]
    encoder, versions = FakeEncoder(), Versions(tmp_path, "some")
    passages = [passage for document in documents for passage in chunk.split(document, 100)]
    vectors = encoder.encode_passages([passage.titled for passage in passages])
    write_index(
        versions, [(documents, passages, vectors)], model=encoder.model, settings=loaded.settings.index, chunking={}
    )
    index = open_index(check_current(versions), loaded.settings.index, loaded.settings.retrieve, "cpu")
    searcher = HybridSearcher(index, loaded.settings.retrieve, FakeReranker())
    pipeline = Pipeline(
        loaded.settings, loaded.profile, encoder, searcher, Instant("m", EngineTokenizer(Words()), 4096)
    )
    taken: list[dict[str, Any]] = []
    await ask(pipeline, [Abstract("1", "What causes gout?", (), ""), Abstract("2", "Zzz qqq?", (), "")], taken.append)
    pipeline.close()
    whole, far = taken
    assert (whole["id"], far["id"]) == ("1", "2")
    assert set(whole["seconds"]) == set(retrieval.STAGES)
    steps = sum(whole["seconds"][step] for step in ("dense", "lexical", "fuse"))
    assert 0 < steps <= whole["seconds"]["retrieve"] < whole["total"]
    assert "context" not in far["seconds"], "nothing was close enough"


# --- figures -----------------------------------------------------------------------------------

SECONDS = {
    "embed": 0.002,
    "retrieve": 0.006,
    "dense": 0.003,
    "lexical": 0.002,
    "fuse": 0.001,
    "rerank": 0.05,
    "filter": 0.0005,
    "context": 0.001,
}


def taken(folder: Path, *samples: dict[str, Any]) -> Path:
    on_disk = results.Samples(folder)
    on_disk.start(HEAD)
    for sample in samples:
        on_disk.add(sample)
    return folder


def test_the_models_work_on_sentences_is_none_of_ours(tmp_path: Path) -> None:
    seconds = SECONDS | {"context": 0.031, "score": 0.03}
    figures = summarise(taken(tmp_path, {"kind": "question", "id": "1", "seconds": seconds, "total": 0.092}))
    values = {figure.name: figure.value for figure in figures}
    assert values["fuse_filter_context_p50_ms"] == pytest.approx(2.5)
    assert values["overhead_p50_ms"] == pytest.approx(92 - 2 - 6 - 50 - 30)
    assert (values["context_p50_ms"], values["score_p50_ms"]) == (pytest.approx(31), pytest.approx(30))


def test_every_figure_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    question = {"kind": "question", "id": "1", "seconds": SECONDS, "total": 0.062}
    far = {"kind": "question", "id": "2", "seconds": {"embed": 0.004, "retrieve": 0.006}, "total": 0.012}
    lexical = {"kind": "lexical", "id": "1", "ours": 0.001, "reference": 0.15, "ours_again": 0.002}
    figures = summarise(taken(tmp_path, question, far, {**lexical, "same": 0.9, "overlap": 1.0}))
    values = {figure.name: figure.value for figure in figures}
    assert values == {
        "lexical_speedup_vs_rank_bm25": pytest.approx(150),
        "lexical_over_lexical": pytest.approx(0.5),
        "lexical_overlap_at_10": 1.0,
        "lexical_same_at_10": 0.9,
        "bm25_p50_ms": 1.0,
        "rank_bm25_p50_ms": pytest.approx(150),
        "fuse_filter_context_p50_ms": pytest.approx(2.5),
        "overhead_p50_ms": pytest.approx(62 - 2 - 6 - 50),
        "embed_p50_ms": pytest.approx(3.0),
        "embed_p99_ms": pytest.approx(3.98),
        **{
            f"{stage}_p{p}_ms": pytest.approx(1000 * SECONDS[stage])
            for stage in SECONDS
            if stage != "embed"
            for p in (50, 99)
        },
        "total_p50_ms": pytest.approx(37),
        "total_p99_ms": pytest.approx(61.5),
    }
    assert {figure.name: (figure.goal, figure.met) for figure in figures if figure.goal is not None} == {
        "lexical_speedup_vs_rank_bm25": (">= 100", True),
        "lexical_overlap_at_10": (">= 0.99", True),
        "fuse_filter_context_p50_ms": ("<= 5", True),
        "overhead_p50_ms": ("<= 2", False),
    }
    assert json.loads((tmp_path / "summary.json").read_text())["bench"] == "retrieval"


def test_without_questions_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No question in"):
        summarise(taken(tmp_path))


# --- the whole of it ---------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_interrupted(
    rag: Cli, datasets_folder: Path, real_home: Path, home: Path, tmp_path: Path
) -> None:
    home.mkdir()
    (home / "cache").symlink_to(real_home / "cache")
    command = ("bench", "retrieval", "--datasets", str(datasets_folder), "--passages", "20", "--output", str(tmp_path))
    done = rag(*command, "--questions", "3", "--json")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads(done.stdout)}
    assert figures["lexical_overlap_at_10"]["n"] == 3
    assert figures["total_p50_ms"]["n"] == 3
    assert Versions(home / "data" / "indexes", "bench-jats-20").all() == ["000001"]

    path = tmp_path / "samples.jsonl"
    head, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(head + "".join(lines[:-1]))
    again = rag(*command, "--questions", "4")
    assert again.returncode == 0, again.stderr
    now = path.read_text().splitlines(keepends=True)
    assert now[: len(lines)] == [head, *lines[:-1]]
    assert len(now) == 1 + 2 * 4
    assert "All samples were there already" in rag(*command, "--questions", "4").stderr
