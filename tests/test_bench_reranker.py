"""The reranker's benchmark: what it asks, what it counts, its figures by hand, and a whole run of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from math import log2
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from indexes import write_index

from rag import build
from rag.bench import reranker, results
from rag.bench.reranker import Float32, Question, held_out, orders, summarise, times
from rag.bert import convert
from rag.core import Document, Hit, Passage
from rag.errors import UsageError
from rag.index import IndexReader, Versions, check_current, open_index
from rag.ingest import chunk
from rag.search import HybridSearcher
from rag.settings import Index, Retrieve
from rag.testing import FakeEncoder, FakeReranker

Make = Callable[[Sequence[str]], Path]

HEAD: dict[str, Any] = {
    **results.header("reranker", "rag bench reranker"),
    "settings": {"rerank": {"model": "small"}, "backend": "openvino", "torch_threads": 2},
}


def search_over(root: Path, documents: Sequence[Document]) -> build.Search:
    encoder, versions = FakeEncoder(), Versions(root, "some")
    passages = [passage for document in documents for passage in chunk.split(document, 100)]
    vectors = encoder.encode_passages([passage.titled for passage in passages])
    write_index(versions, [(documents, passages, vectors)], model=encoder.model, settings=Index(), chunking={})
    index: IndexReader = open_index(check_current(versions), Index(), Retrieve(), "cpu")
    return build.Search(encoder, HybridSearcher(index, Retrieve()), index)


# --- what is asked ---------------------------------------------------------------------------------


def test_only_what_is_held_out_is_asked_and_claims_only_with_evidence(datasets_folder: Path) -> None:
    asked = held_out(datasets_folder, 500)
    assert {question.id for question in asked["medquad"]} == {f"m{number:05d}" for number in range(6, 18)}
    assert asked["scifact"]
    assert all(int(question.id) % 3 for question in asked["scifact"])
    assert len(asked["pubmedqa"]) < 24
    assert all(question.answers == {question.id} for questions in asked.values() for question in questions)


def test_fewer_questions_are_the_first_of_more(datasets_folder: Path) -> None:
    few, more = held_out(datasets_folder, 3), held_out(datasets_folder, 8)
    assert few["medquad"] == more["medquad"][:3]
    assert len(more["medquad"]) == 8
    assert [question.id for question in more["medquad"]] != sorted(question.id for question in more["medquad"])


# --- what is counted -------------------------------------------------------------------------------

CORPUS = (
    Document("gout", "Gout", "Urate crystals cause gout and pain in a toe at night. " * 4),
    Document("fever", "Fever", "A virus causes fever."),
    Document("scurvy", "Scurvy", "Lemons cure scurvy and pain."),
    *(Document(f"d{number}", "Other", f"Something else, number {number}.") for number in range(60)),
)


def test_every_passage_of_the_answer_counts_or_its_document_once(tmp_path: Path) -> None:
    search = search_over(tmp_path, CORPUS)
    question = Question("q", "What causes gout, urate, toe, night?", frozenset({"gout"}))
    passages = sum(passage.doc_id == "gout" for passage in search.index.passages.get(range(len(search.index.passages))))
    assert passages > 1
    rerankers = {"reranked": FakeReranker()}
    (by_passage,) = orders(search, Retrieve(), rerankers, [question], by_passage=True)
    assert by_passage["id"] == "q"
    assert by_passage["relevant"] == passages
    methods = ("dense", "lexical", "fusion", "reranked")
    assert by_passage["ranks"] == {name: [*range(1, passages + 1)] for name in methods}
    (by_document,) = orders(search, Retrieve(), rerankers, [question], by_passage=False)
    assert by_document == {"id": "q", "relevant": 1, "ranks": {name: [1] for name in methods}}


class Backwards:
    """Prefers the passage that shares the fewest words with the question."""

    def scores(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[list[float]]:
        return [[1 - score for score in scores] for scores in FakeReranker().scores(found)]


def test_each_method_has_its_own_order_and_all_see_as_many_candidates(tmp_path: Path) -> None:
    search = search_over(tmp_path, CORPUS)
    question = Question("q", "Lemons cure scurvy", frozenset({"scurvy"}))
    few = Retrieve(dense_n=1, lexical_n=1, candidates=1)
    rerankers = {"reranked": FakeReranker(), "backwards": Backwards()}
    (sample,) = orders(search, few, rerankers, [question], by_passage=True)
    assert sample["ranks"] == {"dense": [1], "lexical": [1], "fusion": [1], "reranked": [1], "backwards": [50]}


def test_the_lexical_order_is_without_vectors_and_the_dense_one_without_words(tmp_path: Path) -> None:
    search = search_over(tmp_path, CORPUS)
    unknown = Question("q", "zzz", frozenset(document.id for document in CORPUS))
    (sample,) = orders(search, Retrieve(), {}, [unknown], by_passage=True)
    assert sample["ranks"]["lexical"] == []
    assert sample["ranks"]["fusion"] == sample["ranks"]["dense"]


# --- speed -----------------------------------------------------------------------------------------


BECAUSE = Hit(Passage("p", "d", "Gout", "Because.", 0, 8), 0.5)


class Timed:
    """Takes the given seconds by a clock of the test's."""

    def __init__(self, now: list[float], seconds: float) -> None:
        self.now, self.seconds, self.asked = now, seconds, 0

    def scores(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[list[float]]:
        assert found == [("why?", [BECAUSE])]
        self.now[0] += self.seconds
        self.asked += 1
        return [[0.0]]


def test_both_are_timed_in_turn_and_the_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranker, "PAUSE", 0.0)
    now = [0.0]
    ours, default = Timed(now, 1.0), Timed(now, 3.0)
    assert (
        list(times(ours, default, "why?", [BECAUSE], 2, clock=lambda: now[0]))
        == [{"default": 3.0, "ours": 1.0, "default_again": 3.0}] * 2
    )
    assert (ours.asked, default.asked) == (2 + reranker.WARM_UP, 2 * (2 + reranker.WARM_UP))


def passages(words: int) -> Iterable[Passage]:
    for number in count():
        text = f"{'fever cough rash ' * words}{number}"
        yield Passage(f"p{number}", "d", "title", text, 0, len(text))


def test_pairs_have_exactly_as_many_tokens_as_asked_for(cross_encoder: Make) -> None:
    exact = Float32(cross_encoder(["relevant"]), "cpu", 64)
    question, hits = exact.pairs(passages(20), 40)
    assert len(hits) == reranker.PAIRS
    tokenizer = exact._model.tokenizer
    assert {
        len(tokenizer(question, hit.passage.titled, truncation=False, padding=False)["input_ids"]) for hit in hits
    } == {40}
    assert all(hit.passage.titled.startswith("title\nfever cough") for hit in hits)


def test_too_few_long_passages_are_an_error_that_says_how_many_there_are(cross_encoder: Make) -> None:
    exact = Float32(cross_encoder(["relevant"]), "cpu", 64)
    with pytest.raises(UsageError, match=r"^0 passages make pairs of 40 tokens, 20 are needed"):
        exact.pairs(islice(passages(0), 30), 40)


def test_the_comparison_is_in_float32_whatever_the_weights_are_stored_in(cross_encoder: Make) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = cross_encoder(["relevant"])
    path = folder / "model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}, path)
    assert {p.dtype for p in Float32(folder, "cpu", 64)._model.parameters()} == {torch.float32}


# --- figures ---------------------------------------------------------------------------------------


def asked(relevant: int, **ranks: list[int]) -> dict[str, Any]:
    return {"id": "q", "relevant": relevant, "ranks": ranks}


MEDQUAD = [
    asked(1, dense=[1], lexical=[], fusion=[3], reranked=[1], float32=[1]),
    asked(2, dense=[], lexical=[2], fusion=[3, 4], reranked=[1, 2], float32=[3, 4]),
]
"""nDCG of [3] is 1/2, of [2] of two (1/log2 3) / (1 + 1/log2 3), of [3, 4] (1/2 + 1/log2 5) over the same."""

SPEED = [{"tokens": 130, "default": s, "ours": 0.1, "default_again": 2 * s} for s in (0.3, 0.5, 0.4)]


def taken(folder: Path, **of: list[dict[str, Any]]) -> Path:
    samples = results.Samples(folder)
    samples.start(HEAD)
    for name, rows in of.items():
        for row in rows:
            samples.add({"data": name, **row})
    return folder


def test_every_figure_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    other = [asked(1, dense=[1], lexical=[1], fusion=[1], reranked=[3])]
    figures = summarise(taken(tmp_path, medquad=MEDQUAD, scifact=other, pubmedqa=other, speed=SPEED))
    best = 1 + 1 / log2(3)
    both = (0.5 + 1 / log2(5)) / best
    fusion = (0.5 + both) / 2
    assert {figure.name: figure.value for figure in figures} == {
        name: pytest.approx(value)
        for name, value in {
            "ndcg_gain": 1 / fusion,
            "hit1_gain": 1.0,
            "fusion_over_best": fusion / 0.5,
            "ndcg_over_fp32": 1 / ((1 + both) / 2),
            "ndcg_dense": 0.5,
            "ndcg_lexical": 1 / log2(3) / best / 2,
            "ndcg_fusion": fusion,
            "ndcg_reranked": 1.0,
            "ndcg_float32": (1 + both) / 2,
            "ndcg_best_order": 1.0,
            "hit1_fusion": 0.0,
            "hit1_reranked": 1.0,
            "scifact_gain": 0.5,
            "scifact_ndcg_fusion": 1.0,
            "scifact_ndcg_reranked": 0.5,
            "pubmedqa_gain": 0.5,
            "pubmedqa_ndcg_fusion": 1.0,
            "pubmedqa_ndcg_reranked": 0.5,
            "speedup_vs_default": 4.0,
            "default_over_default": 0.5,
            "pairs_default_ms": 400.0,
            "pairs_ours_ms": 100.0,
        }.items()
    }
    assert {figure.name: (figure.goal, figure.met) for figure in figures if figure.goal is not None} == {
        "ndcg_gain": (">= 1.25", True),
        "hit1_gain": (">= 0.15", True),
        "fusion_over_best": (">= 1", True),
        "ndcg_over_fp32": (">= 0.99", True),
        "scifact_gain": (">= 1", False),
        "pubmedqa_gain": (">= 1", False),
        "speedup_vs_default": (">= 3", True),
    }
    assert json.loads((tmp_path / "summary.json").read_text())["bench"] == "reranker"


def test_a_run_that_was_interrupted_reports_what_it_has(tmp_path: Path) -> None:
    names = {figure.name for figure in summarise(taken(tmp_path, medquad=MEDQUAD))}
    assert "ndcg_gain" in names
    assert not {name for name in names if name.startswith(("scifact", "pubmedqa", "speedup"))}


def test_a_gain_over_nothing_is_left_out_and_said(tmp_path: Path) -> None:
    lost = [asked(1, dense=[], lexical=[], fusion=[40], reranked=[1], float32=[1])]
    names = {figure.name for figure in summarise(taken(tmp_path, medquad=lost))}
    assert {"ndcg_gain", "fusion_over_best"} & names == set()
    assert "Not defined for so few samples: `ndcg_gain`, `fusion_over_best`." in (tmp_path / "report.md").read_text()


def test_samples_without_a_question_of_medquad_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No question of MedQuAD"):
        summarise(taken(tmp_path, speed=SPEED))


# --- the whole of it -------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_interrupted(
    rag: Cli,
    datasets_folder: Path,
    cross_encoder: Make,
    real_home: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reranker, "ROUNDS", 3)
    monkeypatch.setattr(reranker, "PAUSE", 0.0)
    home.mkdir()
    (home / "cache").symlink_to(real_home / "cache")
    model = cross_encoder(["relevant"])
    assert convert(model)
    command = ("bench", "reranker", "--datasets", str(datasets_folder), "--questions", "4", "--output", str(tmp_path))
    settings = (f"--set=rerank.model={model}", "--set=rerank.max_length=64")
    refused = rag(*command, "--set=rerank.model=null")
    assert refused.returncode == 2
    assert "rerank.model is null" in refused.stderr

    done = rag(*command, *settings, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert {figure["name"]: figure["n"] for figure in figures if figure["goal"]}["ndcg_gain"] == 4
    assert figures == json.loads((tmp_path / "summary.json").read_text())["figures"]
    assert str(datasets_folder) not in done.stdout
    assert "MedQuAD: 4 of 4" in done.stderr or "MedQuAD: 0 of 4" in done.stderr
    assert Versions(home / "data" / "indexes", "bench-medquad").all() == ["000001"]

    path = tmp_path / "samples.jsonl"
    head, *lines = path.read_text().splitlines(keepends=True)
    assert len([line for line in lines if '"medquad"' in line]) == 4
    path.write_text(head + "".join(lines[:3]) + lines[3][:20])
    again = rag(*command, *settings)
    assert again.returncode == 0, again.stderr
    now = path.read_text().splitlines(keepends=True)
    assert now[:4] == [head, *lines[:3]]
    quality = [line for line in lines if '"speed"' not in line]
    assert now[1 : len(quality) + 1] == quality, "what was taken again isn't what it was before"
    assert len(now) == 1 + len(lines)
    assert sum('"speed"' in line for line in now) == reranker.ROUNDS
    assert Versions(home / "data" / "indexes", "bench-medquad").all() == ["000001"]
    assert "All samples were there already" in rag(*command, *settings).stderr
