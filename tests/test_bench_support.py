"""The support checker's benchmark: what it chooses, what it counts, its figures by hand, and a whole run of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from numpy.typing import NDArray

from rag.bench import results, support
from rag.bench.support import choose, judged, summarise, times
from rag.bert import convert
from rag.core import Sentence, Source
from rag.errors import UsageError
from rag.settings import Verify
from rag.training.corruption import KINDS
from rag.training.support import Label, SupportPair
from rag.verify import LABELS, CrossEncoderChecker, premise

Make = Callable[[Sequence[str]], Path]

HEAD: dict[str, Any] = {
    **results.header("support", "rag bench support"),
    "settings": {"verify": {"model": "small", "min_support": 0.5}, "backend": "openvino"},
}


def pair(
    sentence: str, passage: str, label: Label = "supported", kind: str = "verbatim", title: str = "Gout"
) -> SupportPair:
    return SupportPair(sentence, premise(title, passage, sentence, 400), label, kind, title, passage)


# --- what is chosen --------------------------------------------------------------------------------

HELD_OUT = {
    "medquad": [
        pair(f"s{number}", "", label, kind, f"T{number % 4}")
        for number, (label, kind) in enumerate([("supported", "verbatim"), ("contradicted", "number")] * 20)
    ],
    "claims": [pair(f"c{number}", "", label, "claim", "T1") for label in LABELS for number in range(3)],  # type: ignore[arg-type]
}


def test_of_each_source_kind_and_label_as_many_are_chosen() -> None:
    chosen = choose(HELD_OUT, 5)
    assert Counter((one.source, one.pair.kind, one.pair.label) for one in chosen) == {
        ("medquad", "verbatim", "supported"): 5,
        ("medquad", "number", "contradicted"): 5,
        **{("claims", "claim", label): 3 for label in LABELS},
    }
    assert [one.id for one in chosen] == [one.id for one in choose(HELD_OUT, 5)]
    rows = [int(one.id.partition("-")[2]) for one in chosen if one.source == "medquad"]
    assert rows == sorted(rows)
    assert rows != [*range(10)], "the first of each, not drawn"
    assert all(HELD_OUT[one.source][int(one.id.partition("-")[2])] is one.pair for one in chosen)


def test_pairs_of_one_title_in_one_source_are_of_one_cluster() -> None:
    chosen = choose(HELD_OUT, 100)
    assert len({(one.source, one.pair.title, one.about) for one in chosen}) == len({one.about for one in chosen}) == 5


# --- what is counted -------------------------------------------------------------------------------


class Judge:
    """A pair model that is sure of "supported" where the sentence stands in the premise, and of nothing elsewhere."""

    labels = ("not_stated", "supported", "contradicted")

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.asked += pairs
        rows = [[0.0, 20.0 if first in second else 0.0, 0.0] for first, second in pairs]
        return np.array(rows, dtype=np.float32).reshape(len(pairs), 3)


LONG = "Urate crystals cause gout. " + "It hurts at night. " * 30 + "About 40 in 1000 men have it."
PAIRS = [
    pair("urate crystals cause  gout", LONG),
    pair("Urate crystals cause gout.", LONG),
    pair("It is seen in 40 of 1000 men.", LONG, kind="reworded"),
    pair("It is seen in 50 of 1000 men.", LONG, "contradicted", "number"),
]


def test_pairs_are_judged_as_the_stage_judges_them_and_their_texts_kept_out() -> None:
    judge = Judge()
    checker = CrossEncoderChecker(judge, Verify(model="x", premise_chars=100))
    chosen = [replace(one, about=7) for one in choose({"own": PAIRS}, 100)]
    samples = list(judged(checker, chosen))
    assert judge.asked == [(one.sentence, premise(one.title, one.passage, one.sentence, 100)) for one in PAIRS]
    assert [sample.pop("probabilities")["supported"] for sample in samples] == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])
    common, said = {"source": "own", "about": 7}, {"opposite": False}
    assert samples == [
        {
            **common,
            "id": "own-0",
            "kind": "verbatim",
            "label": "supported",
            "verbatim": True,
            "numbers_stand": True,
            **said,
        },
        {
            **common,
            "id": "own-1",
            "kind": "verbatim",
            "label": "supported",
            "verbatim": True,
            "numbers_stand": True,
            **said,
        },
        {
            **common,
            "id": "own-2",
            "kind": "reworded",
            "label": "supported",
            "verbatim": False,
            "numbers_stand": True,
            **said,
        },
        {
            **common,
            "id": "own-3",
            "kind": "number",
            "label": "contradicted",
            "verbatim": False,
            "numbers_stand": False,
            **said,
        },
    ]


def test_more_pairs_than_are_judged_at_once_keep_their_order() -> None:
    checker = CrossEncoderChecker(Judge(), Verify(model="x"))
    chosen = choose({"own": [pair(f"s{number}", f"s{number}" * (number % 2)) for number in range(70)]}, 100)
    found = [sample["probabilities"]["supported"] > 0.9 for sample in judged(checker, chosen)]
    assert found == [bool(number % 2) for number in range(70)]


class Timed:
    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[tuple[Sequence[Sentence], Sequence[Source]]] = []

    def check(self, sentences: Sequence[Sentence], sources: Sequence[Source]) -> tuple[Sentence, ...]:
        self.asked.append((sentences, sources))
        self.now += len(self.asked)
        return tuple(sentences)


def test_an_answer_of_three_sentences_is_timed_each_citing_a_passage_of_its_own() -> None:
    timed = Timed()
    made = [pair(f"s{number}", "x" * (790 + number)) for number in range(40)]
    assert list(times(timed, made, 2, clock=lambda: timed.now)) == [support.WARM_UP + 1, support.WARM_UP + 2]
    assert len(timed.asked) == support.WARM_UP + 2
    for sentences, sources in timed.asked:
        assert (
            [sentence.markers for sentence in sentences]
            == [(source.marker,) for source in sources]
            == [(1,), (2,), (3,)]
        )
        assert {len(source.quote) for source in sources} == {800}
        assert all(int(sentence.text[1:]) >= 10 for sentence in sentences), "its passage is too short"
    assert len({sentence.text for sentences, _ in timed.asked for sentence in sentences}) > 3


def test_without_a_long_passage_nothing_can_be_timed() -> None:
    with pytest.raises(UsageError, match="No held-out passage has 800 characters"):
        next(times(Timed(), [pair("s", "too short")], 1))


# --- figures ---------------------------------------------------------------------------------------


def sample(
    number: int, label: str, supported: float, kind: str, verbatim: bool = False, numbers_stand: bool = True
) -> dict[str, Any]:
    probabilities = {"supported": supported, "contradicted": 1 - supported, "not_stated": 0.0}
    return {
        "id": f"own-{number}",
        "source": "own",
        "about": number,
        "kind": kind,
        "label": label,
        "verbatim": verbatim,
        "numbers_stand": numbers_stand,
        "opposite": False,
        "probabilities": probabilities,
    }


def taken(folder: Path, samples: Sequence[dict[str, Any]]) -> Path:
    store = results.Samples(folder)
    store.start(HEAD)
    for one in samples:
        store.add(one)
    return folder


RIGHT = [
    sample(0, "supported", 0.30, "reworded"),
    *(sample(number, "supported", (40 + number) / 100, "verbatim", verbatim=number < 9) for number in range(1, 20)),
]
"""Twenty: one may lie below the threshold, so that it is the second lowest, 0.41. Eight are verbatim."""

WRONG = [
    sample(20, "contradicted", 0.35, "number"),  # above one of twenty
    sample(21, "contradicted", 0.99, "number", numbers_stand=False),  # above none, but for the guard above all
    *(sample(number, "contradicted", 0.1, "unit") for number in range(22, 26)),
    sample(26, "not_stated", 0.41, "elsewhere"),  # on the threshold: ties one of twenty, above one
    sample(27, "not_stated", 0.2, "claim"),
]


def test_every_figure_is_the_one_computed_by_hand(tmp_path: Path) -> None:
    times = [{"round": number, "seconds": seconds} for number, seconds in enumerate((0.01, 0.05, 0.02))]
    figures = {figure.name: figure for figure in summarise(taken(tmp_path, [*RIGHT, *WRONG, *times]))}
    lost = {"guarded": 1 + 1.5, "unguarded": 1 + 20 + 1.5}
    assert {name: figure.value for name, figure in figures.items()} == {
        name: pytest.approx(value)
        for name, value in {
            "auroc": 1 - lost["guarded"] / 160,
            "auroc_not_verbatim": 1 - 2 / 96,
            "auroc_verbatim_only": 1 - 0.5 / 64,
            "auroc_without_guard": 1 - lost["unguarded"] / 160,
            "not_verbatim": 0.6,
            "threshold": 0.41,
            "false_alarms": 0.05,
            "recall_number": 1.0,
            "recall_unit": 1.0,
            "recall_claim": 1.0,
            "recall_elsewhere": 0.0,
            "recall_number_without_guard": 0.5,
            "recall_unit_without_guard": 1.0,
            "false_alarms_as_set": 0.5,
            "recall_as_set": 1.0,
            "latency_ms": 20.0,
        }.items()
    }
    assert {name: figure.n for name, figure in figures.items()} | {"latency_ms": 3} == {
        "auroc": 28,
        "auroc_not_verbatim": 20,
        "auroc_verbatim_only": 16,
        "auroc_without_guard": 28,
        "not_verbatim": 20,
        "threshold": 20,
        "false_alarms": 20,
        "recall_number": 2,
        "recall_unit": 4,
        "recall_claim": 1,
        "recall_elsewhere": 1,
        "recall_number_without_guard": 2,
        "recall_unit_without_guard": 4,
        "false_alarms_as_set": 20,
        "recall_as_set": 8,
        "latency_ms": 3,
    }
    assert {name: (figure.goal, figure.met) for name, figure in figures.items() if figure.goal is not None} == {
        "auroc": (">= 0.9", True),
        "not_verbatim": (">= 0.5", True),
        "false_alarms": ("<= 0.05", True),
        "recall_number": (">= 0.8", True),
        "recall_unit": (">= 0.8", True),
        "latency_ms": ("<= 30", True),
    }
    report = (tmp_path / "report.md").read_text()
    others = [kind for kind in KINDS if kind not in ("number", "unit")]
    missing = [f"`recall_{kind}{alone}`" for alone in ("", "_without_guard") for kind in others]
    assert f"Not defined for so few samples: {', '.join(missing)}." in report


def test_a_sentence_that_says_the_opposite_is_flagged_whatever_its_probability(tmp_path: Path) -> None:
    wrong = [
        sample(27, "contradicted", 0.99, "direction") | {"opposite": True},
        sample(28, "contradicted", 0.9, "direction"),
    ]
    figures = {figure.name: figure.value for figure in summarise(taken(tmp_path, [*RIGHT, *WRONG, *wrong]))}
    assert (figures["recall_direction"], figures["recall_direction_without_guard"]) == (0.5, 0.0)


def test_a_guard_that_flags_too_many_is_no_threshold_and_a_false_alarm_all_the_same(tmp_path: Path) -> None:
    """Two of twenty supported sentences have a number that isn't in the passage: no threshold brings that to 5%."""
    right = [one | {"numbers_stand": number not in (3, 7)} for number, one in enumerate(RIGHT)]
    figures = {figure.name: figure for figure in summarise(taken(tmp_path, [*right, *WRONG]))}
    assert figures["threshold"].value == 0.0
    assert (figures["false_alarms"].value, figures["false_alarms"].met) == (0.1, False)
    assert figures["recall_number"].value == 0.5, "the one that the guard flags"
    assert figures["recall_unit"].value == 0.0


def test_an_interval_is_over_titles(tmp_path: Path) -> None:
    """Two titles in all: each resample holds the same two scores, or is undefined."""
    samples = [one | {"about": 0 if one["label"] == "supported" else 1} for one in [*RIGHT, *WRONG]]
    apart = {figure.name: figure for figure in summarise(taken(tmp_path / "apart", [*RIGHT, *WRONG]))}
    together = {figure.name: figure for figure in summarise(taken(tmp_path / "together", samples))}
    assert apart["auroc"].lo < apart["auroc"].value < apart["auroc"].hi
    assert together["auroc"].lo == together["auroc"].value == together["auroc"].hi == apart["auroc"].value


def test_samples_without_a_pair_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No pair in"):
        summarise(taken(tmp_path, [{"round": 0, "seconds": 1.0}]))


# --- the whole of it -------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_interrupted(
    rag: Cli, datasets_folder: Path, cross_encoder: Make, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "ROUNDS", 4)
    monkeypatch.setattr(support, "WARM_UP", 1)
    model = cross_encoder(LABELS)
    assert convert(model)
    command = ("bench", "support", "--datasets", str(datasets_folder), "--questions", "2", "--output", str(tmp_path))
    settings = (f"--set=verify.model={model}", "--set=verify.max_length=64")
    refused = rag(*command, "--set=verify.model=null")
    assert refused.returncode == 2
    assert "verify.model is null" in refused.stderr

    done = rag(*command, *settings, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "summary.json").read_text())["figures"]
    assert {"auroc", "threshold", "recall_negation", "latency_ms"} <= {one["name"] for one in json.loads(done.stdout)}

    path = tmp_path / "samples.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:40]) + lines[40][:20])
    again = rag(*command, *settings)
    assert again.returncode == 0, again.stderr
    now = path.read_text().splitlines(keepends=True)
    assert now[:40] == lines[:40]
    assert [json.loads(line).get("id") for line in now] == [json.loads(line).get("id") for line in lines]
    assert sum('"seconds"' in line for line in now) == support.ROUNDS

    head = json.loads(lines[0])
    head["versions"]["rag"] = "of other opposites"
    path.write_text("".join([f"{json.dumps(head)}\n", *lines[1:]]))
    anew = rag(*command, *settings)
    assert anew.returncode == 0
    assert "versions.rag was of other opposites, and is" in anew.stderr
    assert len(results.Samples(tmp_path).aside()) == 1, "what other rules judged isn't mixed in"
    assert not home.exists() or not (home / "data").exists(), "no index is needed"
