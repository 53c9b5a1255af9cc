"""Pairs for the matcher of questions: labels that are right by how the pair came about. And the adapter that it begins with."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny_datasets

from rag import paths
from rag.calibrate import read_pairs
from rag.errors import UsageError
from rag.matching import comparable
from rag.training import crossencoder, datasets, export
from rag.training.matcher import SHARES, Pairs, QuestionPair, of_cluster, of_documents, of_medquad, of_topic

if TYPE_CHECKING:
    from torch import Tensor

SAME, NEAR, TINY_SAME, TINY_NEAR = (
    ("How is gout treated?", "What helps against gout?", "Which therapy lowers urate?"),
    ("What causes gout?", "Who gets gout?", "How is gout prevented?"),
    ("How do you treat gout?",),
    ("How is gout traced?",),
)
CLUSTER: Mapping[str, Any] = {
    "topic": "gout",
    "question": "What is the treatment of gout?",
    "same": list(SAME),
    "near": list(NEAR),
    "tiny_same": list(TINY_SAME),
    "tiny_near": list(TINY_NEAR),
}
SAID = {CLUSTER["question"], *SAME, *TINY_SAME}
SEEDS = range(20)


def of(pairs: Sequence[QuestionPair], *kinds: str) -> list[QuestionPair]:
    return [pair for pair in pairs if pair.kind in kinds]


def both(pair: QuestionPair) -> frozenset[str]:
    return frozenset((pair.a, pair.b))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_datasets.write(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="module")
def made(root: Path) -> Pairs:
    return Pairs(root)


@pytest.fixture(scope="module")
def pairs(made: Pairs) -> list[QuestionPair]:
    return made.training(4000, 0)


# --- of one cluster --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pair_of_a_cluster_is_the_same_where_neither_is_a_near_miss(seed: int) -> None:
    found = list(of_cluster(CLUSTER, random.Random(seed)))
    assert [pair for pair in found if pair.same != (both(pair) <= SAID)] == []
    assert {pair.kind for pair in found if pair.same} == {"paraphrase"}
    assert {pair.kind for pair in found if not pair.same} == {"tiny", "near miss"}
    assert [pair for pair in found if pair.a == pair.b] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_all_that_asks_the_same_is_paired_and_about_as_much_that_does_not(seed: int) -> None:
    found = list(of_cluster(CLUSTER, random.Random(seed)))
    same = [both(pair) for pair in found if pair.same]
    assert len(same) == 10
    assert set(same) == {frozenset(two) for two in combinations(SAID, 2)}
    assert len(found) - len(same) in (10, 11)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_hardest_to_tell_is_always_among_a_cluster_s_pairs(seed: int) -> None:
    found = [pair for pair in of_cluster(CLUSTER, random.Random(seed)) if pair.kind == "tiny"]
    assert [both(pair) for pair in found] == [frozenset((CLUSTER["question"], TINY_NEAR[0]))]


def test_near_misses_are_held_against_all_that_asks_the_same_and_against_one_another() -> None:
    drawn = {both(pair) for seed in range(200) for pair in of_cluster(CLUSTER, random.Random(seed)) if not pair.same}
    assert drawn == {
        *(frozenset((said, other)) for said in SAID for other in (*NEAR, *TINY_NEAR)),
        *(frozenset(two) for two in combinations(NEAR, 2)),
    }


def test_either_question_of_a_cluster_may_come_first() -> None:
    found = [pair for seed in range(200) for pair in of_cluster(CLUSTER, random.Random(seed))]
    for kind in ("paraphrase", "tiny", "near miss"):
        orders = {(pair.a, pair.b) for pair in of(found, kind)}
        assert orders == {(b, a) for a, b in orders}, kind
    first = Counter(pair.a == CLUSTER["question"] for pair in of(found, "tiny"))
    assert min(first.values()) > 60


# --- beside the clusters ---------------------------------------------------------------------------


def test_every_two_questions_about_a_topic_make_a_pair_that_is_not_the_same() -> None:
    clusters = [
        {**CLUSTER, "question": f"{name}?", "same": [f"{name} {n}?" for n in "xyz"], "near": [f"no {name}"] * 3}
        for name in ("causes", "cures", "signs", "risks")
    ]
    names = {text: c["question"] for c in clusters for text in [c["question"], *c["same"]]}
    drawn: dict[str, set[str]] = defaultdict(set)
    for seed in SEEDS:
        found = list(of_topic(clusters, random.Random(seed)))
        assert {(pair.same, pair.kind) for pair in found} == {(False, "same topic")}
        asked = [frozenset((names[pair.a], names[pair.b])) for pair in found]
        assert sorted(map(sorted, asked)) == sorted(map(sorted, combinations((c["question"] for c in clusters), 2)))
        for pair in found:
            drawn[names[pair.a]].add(pair.a)
    assert len(drawn["causes?"]) == 4, "in all words that a question is put in"
    assert list(of_topic(clusters[:1], random.Random(0))) == []


def test_medquad_gives_other_kinds_about_a_disease_and_one_kind_about_others(root: Path) -> None:
    records = datasets.medquad(root)
    known = {record.question: record for record in records}
    found = [pair for seed in SEEDS for pair in of_medquad(records, random.Random(seed))]
    assert {(pair.kind, pair.same) for pair in found} == {("other kind", False), ("other disease", False)}
    for pair in found:
        one, other = known[pair.a], known[pair.b]
        diseases = {datasets.disease(record.focus) for record in (one, other)}
        kinds = {record.qtype for record in (one, other)}
        assert (len(diseases), len(kinds)) == ((1, 2) if pair.kind == "other kind" else (2, 1)), pair


def test_two_spellings_of_a_disease_are_not_taken_for_two(root: Path) -> None:
    """Ember gout is asked about as Ember's Gout Disease too: that would be the same question, called another one."""
    records = [record for record in datasets.medquad(root) if datasets.disease(record.focus) == "ember gout"]
    assert len({record.focus for record in records}) == 2
    for seed in SEEDS:
        assert of(list(of_medquad(records, random.Random(seed))), "other disease") == []


def test_of_each_disease_there_is_one_pair_in_a_round(root: Path) -> None:
    records = datasets.medquad(root)
    found = of(list(of_medquad(records, random.Random(0))), "other kind")
    known = {record.question: datasets.disease(record.focus) for record in records}
    assert Counter(known[pair.a] for pair in found) == Counter({datasets.disease(r.focus) for r in records})


def test_a_document_gives_pairs_of_its_own_questions_three_at_most() -> None:
    rows = [{"doc_ids": ["gout"], "question": f"gout {n}?"} for n in range(9)]
    rows += [{"doc_ids": ["mumps"], "question": f"mumps {n}?"} for n in (0, 1, 1, 0)]
    rows += [{"doc_ids": ["rabies"], "question": "rabies?"}] * 2
    rows += [{"doc_ids": ["gout", "mumps"], "question": f"both {n}?"} for n in range(2)]
    random.Random(0).shuffle(rows)
    for seed in SEEDS:
        found = list(of_documents(rows, random.Random(seed)))
        assert {(pair.same, pair.kind) for pair in found} == {(False, "same document")}
        assert [pair for pair in found if pair.a == pair.b] == []
        assert [pair for pair in found if pair.a.split()[0] != pair.b.split()[0]] == []
        assert Counter(pair.a.split()[0] for pair in found) == {"gout": 3, "mumps": 1, "both": 1}


# --- all of them -----------------------------------------------------------------------------------


def test_the_shares_are_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_a_longer_training_begins_as_a_shorter_one(made: Pairs, pairs: list[QuestionPair]) -> None:
    assert made.training(300, 0) == pairs[:300]
    assert made.training(300, 1) != pairs[:300]
    some = made.held_out(100, 0)
    assert made.held_out(50, 0) == some[:50]
    assert made.held_out(50, 1) != some[:50]


def test_every_source_has_its_share_and_both_answers_are_common(pairs: list[QuestionPair]) -> None:
    sources = {
        "clusters": of(pairs, "paraphrase", "tiny", "near miss", "same topic"),
        "lexicon": of(pairs, "same term", "same aspect", "other term", "other aspect"),
        "medquad": of(pairs, "other kind", "other disease"),
        "documents": of(pairs, "same document"),
    }
    assert {name: len(some) / len(pairs) for name, some in sources.items()} == pytest.approx(dict(SHARES), abs=0.02)
    assert {pair.kind for pair in pairs if pair.same} == {"paraphrase", "same term", "same aspect"}
    for some in (pairs, sources["clusters"], sources["lexicon"]):
        assert 0.35 < sum(pair.same for pair in some) / len(some) < 0.55


def test_what_is_told_apart_by_rule_is_not_learnt(pairs: list[QuestionPair]) -> None:
    assert [pair for pair in pairs if not comparable(pair.a, pair.b)] == []


def test_the_label_of_a_pair_of_the_clusters_is_that_of_its_cluster(pairs: list[QuestionPair]) -> None:
    """Against the file, without the code that made them."""
    same: set[frozenset[str]] = set()
    for cluster in datasets.same_questions():
        said = [cluster["question"], *cluster["same"], *cluster["tiny_same"]]
        same.update(frozenset(two) for two in combinations(said, 2))
    of_clusters = of(pairs, "paraphrase", "tiny", "near miss", "same topic")
    wrong = [pair for pair in of_clusters if pair.same != (both(pair) in same)]
    assert wrong == []


def test_no_question_and_no_pair_of_what_is_measured_is_learnt(made: Pairs, pairs: list[QuestionPair]) -> None:
    path = paths.shipped("eval", "paraphrases.jsonl")
    measured = {split: read_pairs(path, split) for split in ("calibration", "heldout")}
    asked = {plain(text) for some in measured.values() for one in some for text in (one.a, one.b)}
    topics = {one.topic for one in measured["heldout"]}
    documents = {row["question"]: row["doc_ids"] for row in datasets.own()[0]}
    for some in (pairs, made.held_out(1000, 0)):
        assert [pair for pair in some if {plain(pair.a), plain(pair.b)} & asked] == []
        about = {name for pair in of(some, "same document") for name in documents[pair.a] + documents[pair.b]}
        assert about & topics == set()
    assert of(pairs, "same document"), "of other documents there are some"


def plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip("?. ")


def test_no_disease_of_medquad_s_held_out_sources_is_learnt(root: Path, pairs: list[QuestionPair]) -> None:
    training, validation, held_out = datasets.split_medquad(datasets.medquad(root))
    asked = {text for pair in of(pairs, "other kind", "other disease") for text in (pair.a, pair.b)}
    assert asked <= {record.question for record in training}
    assert asked & {record.question for record in (*validation, *held_out)} == set()


def test_the_curve_is_of_topics_that_none_is_trained_on(made: Pairs, pairs: list[QuestionPair]) -> None:
    topics: dict[str, set[str]] = defaultdict(set)
    for cluster in datasets.same_questions():
        for text in [cluster["question"], *cluster["same"], *cluster["near"]]:
            topics[text].add(cluster["topic"])

    def about(some: Sequence[QuestionPair]) -> set[str]:
        return {topic for pair in some for text in (pair.a, pair.b) for topic in topics.get(text, ())}

    seen = made.held_out(10_000, 0)
    assert len(seen) > 1000
    assert {pair.kind for pair in seen} == {"paraphrase", "tiny", "near miss", "same topic"}
    assert about(seen) & about(pairs) == set()
    assert len(about(seen)) < 0.07 * len(set[str]().union(*topics.values()))  # one in twenty


def test_the_curve_too_is_of_pairs_that_are_not_told_apart_by_rule(made: Pairs) -> None:
    """Else it is of others than those that are learnt, and that the model is ever asked about."""
    seen = made.held_out(10_000, 0)
    assert [pair for pair in seen if not comparable(pair.a, pair.b)] == []


# --- what it begins with ---------------------------------------------------------------------------

LORA = crossencoder.Lora(rank=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import test_training  # which skips without what training needs

    folder = tmp_path_factory.mktemp("base")
    test_training.bert(folder)
    return folder


def adapted(base: Path, labels: int, lora: crossencoder.Lora = LORA, seed: int = 0) -> Any:
    """A cross-encoder in which everything that is trained is drawn by chance."""
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder

    model = CrossEncoder(str(base), num_labels=labels, local_files_only=True, device="cpu")
    crossencoder.adapt(model, lora)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.transformers_model.parameters():
            if weight.requires_grad:
                weight.normal_()
    return model


def weights(model: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.transformers_model.named_parameters()}


def test_of_another_model_s_adapter_all_but_the_head_is_taken_over(base: Path, tmp_path: Path) -> None:
    import torch

    support = adapted(base, 3, seed=1)
    export.write_adapter(support.transformers_model, tmp_path / "adapter.safetensors")
    model = adapted(base, 1, seed=2)
    before, theirs = weights(model), weights(support)
    crossencoder.read_adapter(model, tmp_path / "adapter.safetensors", LORA)
    after = weights(model)
    taken = {name for name in after if not torch.equal(after[name], before[name])}
    lora = {name for name in after if "lora_" in name}
    assert len(lora) == 2 * 2 * len(crossencoder.targets("bert"))
    assert taken == lora | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    for name in taken:  # an adapter's matrices are shipped in BF16
        torch.testing.assert_close(after[name], theirs[name], rtol=2**-8 if name in lora else 0, atol=0)


def test_the_matcher_can_begin_with_the_support_checker_that_is_shipped(base: Path) -> None:
    """Of the same rank, with a matrix for each of its own."""
    from safetensors import safe_open

    from rag.models.recipe import read
    from rag.training import matcher

    folder = paths.shipped("data", "models", "minilm-support")
    recipe = read(folder / "recipe.yaml")
    assert recipe.adapter is not None
    assert (recipe.adapter.rank, recipe.adapter.alpha) == (matcher.SMALL.lora.rank, matcher.SMALL.lora.alpha)
    with safe_open(folder / recipe.adapter.file, "pt") as file:
        shipped = set(file.keys())
    of_layers = {name.replace(".layer.1.", ".layer.0.") for name in shipped if ".layer." in name}
    ours = weights(adapted(base, 1))
    named = {name.removesuffix(".default.weight") for name in ours if "lora_" in name and ".layer.0." in name}
    assert named == {name for name in of_layers if ".layer.0." in name}
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} <= shipped


def test_an_adapter_of_another_rank_is_refused(base: Path, tmp_path: Path) -> None:
    other = replace(LORA, rank=6)
    path = tmp_path / "adapter.safetensors"
    export.write_adapter(adapted(base, 3, other).transformers_model, path)
    with pytest.raises(UsageError) as caught:
        crossencoder.read_adapter(adapted(base, 1), path, LORA)
    assert str(caught.value).startswith(f"{path} can't be begun with: ")
    assert "(6, 64), not rank 4" in str(caught.value)


def test_a_file_that_holds_no_adapter_of_this_model_is_refused(base: Path, tmp_path: Path) -> None:
    """Else a training from nothing would be taken for one that went on from something."""
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "adapter.safetensors"
    save_file({"model.layers.0.self_attn.q_proj.lora_A": torch.zeros(4, 64)}, path)
    with pytest.raises(UsageError, match="can't be begun with"):
        crossencoder.read_adapter(adapted(base, 1), path, LORA)


def test_an_adapter_that_is_not_there_is_refused_in_one_line(base: Path, tmp_path: Path) -> None:
    """`scripts/train_matcher.py --initial FILE` names one."""
    with pytest.raises(UsageError, match=r"nowhere\.safetensors"):
        crossencoder.read_adapter(adapted(base, 1), tmp_path / "nowhere.safetensors", LORA)
