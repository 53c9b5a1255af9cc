"""The generator's benchmark: what it asks, what it writes and doesn't, and the figures it takes from that."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rag import build, settings
from rag.bench import generator as bench
from rag.core import GenerationParams, GenerationStats, Message
from rag.errors import EngineDied, UsageError
from rag.figures import Figure
from rag.prompt import NOT_IN_SOURCES
from rag.settings import Loaded
from rag.testing import FakeGenerator
from rag.training import examples
from rag.training.grounded import Example, Piece

PIECES = (
    Piece("Gout", "Gout is caused by urate crystals."),
    Piece("Malaria", "Malaria is caused by parasites."),
    Piece("Scurvy", "Scurvy is caused by a lack of vitamin C."),
)


def example(number: int, answer: str, gold: tuple[int, ...], passages: Sequence[Piece] = PIECES) -> Example:
    return Example(f"m{number}", "one" if gold else "none", f"Question {number}?", tuple(passages), answer, gold)


PROMPTS = [
    example(0, "Gout is caused by urate crystals [1].", (1,)),
    example(1, "Malaria is caused by parasites [2].", (2,)),
    example(2, NOT_IN_SOURCES, ()),
    example(3, "Scurvy is caused by a lack of vitamin C [3].", (3,), [*PIECES, Piece("Mumps", "A virus.")]),
]
ANSWERS = {
    "Question 0?": "Gout is caused by urate crystals [1].",  # right
    "Question 1?": "Malaria is caused by parasites [1].",  # the wrong passage
    "Question 2?": NOT_IN_SOURCES,  # rightly declined
    "Question 3?": "Sorry, I cannot answer that.",  # wrongly declined
}


class Answering(FakeGenerator):
    """Has an answer to each question; each engine dies after `lives` of them."""

    def __init__(self, answers: Mapping[str, str], lives: int | None = None) -> None:
        super().__init__()
        self.answers = answers
        self.lives = lives
        self.open = self.most_open = 0

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[str | GenerationStats, None]:
        if self.lives is not None and len(self.asked) == self.lives:
            raise EngineDied("The engine died.")
        question = messages[-1]["content"].rpartition("Question: ")[2].strip()
        self.deltas = [self.answers[question]]
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            async with aclosing(super().stream(messages, params)) as stream:
                async for item in stream:
                    await asyncio.sleep(0)
                    yield item
        finally:
            self.open -= 1

    def questions(self) -> list[str]:
        return [messages[-1]["content"].rpartition("Question: ")[2].strip() for messages, _ in self.asked]


Engines = Callable[..., Answering]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Makes the generator that the next engines are; that of a model called base may have answers of its own."""

    def make(
        answers: Mapping[str, str] = ANSWERS, lives: int | None = None, base: Mapping[str, str] | None = None
    ) -> Answering:
        fake = Answering(answers, lives)

        @asynccontextmanager
        async def opened(loaded: Loaded, *_: Any) -> AsyncIterator[Answering]:
            of_base = base is not None and Path(loaded.settings.generator.model).name == "base"
            yield Answering(base) if of_base else fake

        monkeypatch.setattr(build, "open_generator", opened)
        return fake

    return make


def model(folder: Path, weight: float = 1.0) -> str:
    folder.mkdir(exist_ok=True)
    save_file({"weight": np.asarray([weight], dtype=np.float32)}, folder / "model.safetensors")
    return str(folder)


def loaded(name: str, **changes: Any) -> Loaded:
    values = {"model": name, **changes}
    return settings.load(assignments=[f"generator.{key}={json.dumps(value)}" for key, value in values.items()])


def measure(folder: Path, *loads: Loaded, prompts: Sequence[Example] = PROMPTS) -> None:
    asyncio.run(bench.measure(bench.models(loads), folder, prompts, "rag bench generator", lambda *_: None))


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()[1:]]


def by_name(figures: Sequence[Figure]) -> dict[str, Figure]:
    return {entry.name: entry for entry in figures}


# --- what is asked ---------------------------------------------------------------------------------


def test_each_prompt_is_asked_once_greedily_and_as_the_product_puts_it(tmp_path: Path, engine: Engines) -> None:
    fake = engine()
    measure(tmp_path, loaded(model(tmp_path / "m")))
    assert sorted(fake.questions()) == sorted(ANSWERS)
    assert {params for _, params in fake.asked} == {GenerationParams(bench.MAX_TOKENS, temperature=0.0)}
    assert [messages for messages, _ in fake.asked if "Question 3" in messages[-1]["content"]] == [PROMPTS[3].messages]


@pytest.mark.parametrize("at_once", [1, 3])
def test_as_many_at_once_as_the_engine_takes(tmp_path: Path, engine: Engines, at_once: int) -> None:
    fake = engine()
    measure(tmp_path, loaded(model(tmp_path / "m"), max_num_seqs=at_once))
    assert fake.most_open == at_once


def test_a_run_that_broke_off_goes_on(tmp_path: Path, engine: Engines) -> None:
    one = loaded(model(tmp_path / "m"), max_num_seqs=1)
    engine(lives=2)
    with pytest.raises(EngineDied, match="The engine died"):
        measure(tmp_path, one)
    assert [sample["id"] for sample in samples(tmp_path)] == ["m0", "m1"]
    again = engine()
    measure(tmp_path, one)
    assert again.questions() == ["Question 2?", "Question 3?"]
    assert [sample["id"] for sample in samples(tmp_path)] == ["m0", "m1", "m2", "m3"]


def test_a_whole_run_starts_no_engine_again(tmp_path: Path, engine: Engines) -> None:
    one = loaded(model(tmp_path / "m"))
    engine()
    measure(tmp_path, one)
    before = samples(tmp_path)
    again = engine()
    measure(tmp_path, one)
    assert again.asked == []
    assert samples(tmp_path) == before


def test_new_weights_are_asked_anew_and_their_base_is_not(tmp_path: Path, engine: Engines) -> None:
    base = model(tmp_path / "base", 3.0)
    engine()
    measure(tmp_path, loaded(model(tmp_path / "m")), loaded(base))
    fake = engine(dict.fromkeys(ANSWERS, NOT_IN_SOURCES))
    measure(tmp_path, loaded(model(tmp_path / "m", 2.0)), loaded(base))
    assert len(fake.asked) == len(PROMPTS)
    assert {(s["model"], s["base"], s["declined"]) for s in samples(tmp_path) if s["id"] == "m0"} == {
        (str(tmp_path / "m"), False, True),
        (base, True, False),
    }
    assert len(samples(tmp_path)) == 2 * len(PROMPTS)


def test_another_model_takes_the_place_of_the_measured_one(tmp_path: Path, engine: Engines) -> None:
    engine()
    measure(tmp_path, loaded(model(tmp_path / "m")))
    measure(tmp_path, loaded(model(tmp_path / "other", 5.0)))
    assert {sample["model"] for sample in samples(tmp_path)} == {str(tmp_path / "other")}


@pytest.mark.parametrize("changed", [{"dtype": "float16"}, {"prompts": PROMPTS[:3]}])
def test_other_settings_or_prompts_begin_anew(tmp_path: Path, engine: Engines, changed: dict[str, Any]) -> None:
    name = model(tmp_path / "m")
    engine()
    measure(tmp_path, loaded(name))
    again = engine()
    prompts = changed.pop("prompts", PROMPTS)
    measure(tmp_path, loaded(name, **changed), prompts=prompts)
    assert len(again.asked) == len(samples(tmp_path)) == len(prompts)


def test_a_model_stands_beside_another_not_itself(tmp_path: Path) -> None:
    one = loaded(model(tmp_path / "m"))
    with pytest.raises(UsageError, match="named twice"):
        bench.models([one, one])


# --- what is written -------------------------------------------------------------------------------


def test_no_text_of_the_datasets_is_where_git_would_take_it(tmp_path: Path, engine: Engines) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    engine()
    weights = model(tmp_path / "m")
    folder = tmp_path / "results"
    examples.write(bench.texts_folder(folder) / "prompts-4-0.jsonl", PROMPTS)
    measure(folder, loaded(weights))
    bench.summarise(folder)
    listed = ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"]
    seen = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()[1::2]
    assert seen == ["m/model.safetensors", *(f"results/{n}" for n in ("report.md", "samples.jsonl", "summary.json"))]
    for name in seen[1:]:
        content = (tmp_path / name).read_text()
        assert not [word for word in ("Question", "urate", "Gout", "crystals") if word in content]
    texts = [json.loads(line) for line in (folder / "texts" / "texts.jsonl").read_text().splitlines()]
    assert {row["question"]: row["answer"] for row in texts} == ANSWERS
    assert {row["id"]: row["reference"] for row in texts} == {one.id: one.answer for one in PROMPTS}


def test_a_sample_holds_ids_markers_and_scores(tmp_path: Path, engine: Engines) -> None:
    engine()
    measure(tmp_path, loaded(model(tmp_path / "m"), max_num_seqs=1))
    sample = samples(tmp_path)[1]
    assert len(sample.pop("weights")) == 12
    assert sample == {
        "model": str(tmp_path / "m"),
        "base": False,
        "id": "m1",
        "kind": "one",
        "passages": 3,
        "gold": [2],
        "markers": [1],
        "invalid_markers": 0,
        "declined": False,
        "citation_exact": False,
        "token_f1": 1.0,
        "sentences": 1,
        "supported": 0,
        "confidence": None,
        "finish_reason": "stop",
        "prompt_tokens": sample["prompt_tokens"],
        "output_tokens": 1,
    }


# --- figures ---------------------------------------------------------------------------------------


def test_figures_are_those_that_were_worked_out_by_hand(tmp_path: Path, engine: Engines) -> None:
    engine()
    measure(tmp_path, loaded(model(tmp_path / "m")))
    figures = by_name(bench.summarise(tmp_path))
    assert {name: (entry.value, entry.n, entry.goal, entry.met) for name, entry in figures.items()} == {
        "citation_exact": (pytest.approx(1 / 3), 3, ">= 0.75", False),
        "token_f1": (pytest.approx(2 / 3), 3, ">= 0.6", True),  # two word for word, one refused
        "abstention_recall": (1.0, 1, ">= 0.8", True),
        "abstention_precision": (0.5, 2, ">= 0.8", False),
        "supported_sentences": (0.5, 2, ">= 0.95", False),
        "truncated": (0.0, 4, None, None),
        "invalid_markers": (0.0, 4, None, None),
    }
    report = (tmp_path / "report.md").read_text()
    assert "| with an answer | 3 | 0.333 | 0.667 | 0.333 | 1 of 2 | 0 | 0 |" in report
    assert "| without one | 1 |  |  | 1.000 | 0 of 0 | 0 | 0 |" in report
    assert "| 4 passages | 1 | 0.000 | 0.000 | 1.000 | 0 of 0 | 0 | 0 |" in report
    assert "isn't finished" not in report


def test_sentences_of_one_answer_stay_together_in_the_interval(tmp_path: Path, engine: Engines) -> None:
    """Of two answers, one with three unsupported sentences and one with a supported one: 0, 1/4 or 1."""
    engine({**ANSWERS, "Question 1?": "Lemons help. Lemons cure. Lemons grow."})
    measure(tmp_path, loaded(model(tmp_path / "m")))
    figure = by_name(bench.summarise(tmp_path))["supported_sentences"]
    assert (figure.value, figure.lo, figure.hi, figure.n) == (0.25, 0.0, 1.0, 2)


def test_the_base_has_the_same_figures_without_goals(tmp_path: Path, engine: Engines) -> None:
    engine(base={**ANSWERS, "Question 1?": "Malaria is caused by parasites [2]."})
    measure(tmp_path, loaded(model(tmp_path / "m")), loaded(model(tmp_path / "base", 3.0)))
    figures = by_name(bench.summarise(tmp_path))
    plain = [name for name in figures if not name.startswith("base_")]
    assert list(figures) == [*plain, *(f"base_{name}" for name in plain)]
    both = {name: (figures[name].value, figures[f"base_{name}"].value) for name in plain}
    assert {name: values for name, values in both.items() if values[0] != values[1]} == {
        "citation_exact": (pytest.approx(1 / 3), pytest.approx(2 / 3)),
        "supported_sentences": (0.5, 1.0),
    }
    assert {figures[f"base_{name}"].goal for name in plain} == {None}


def test_a_figure_without_anything_to_take_it_from_is_left_out_and_that_is_said(
    tmp_path: Path, engine: Engines
) -> None:
    engine(dict.fromkeys(ANSWERS, "Lemons help."))
    measure(tmp_path, loaded(model(tmp_path / "m")))
    assert "abstention_precision" not in by_name(bench.summarise(tmp_path))
    assert "No `abstention_precision`" in (tmp_path / "report.md").read_text()


def test_an_unfinished_run_says_so(tmp_path: Path, engine: Engines) -> None:
    engine(lives=3)
    with pytest.raises(EngineDied):
        measure(tmp_path, loaded(model(tmp_path / "m"), max_num_seqs=1))
    bench.summarise(tmp_path)
    assert "3 of 4 prompts: the run isn't finished" in (tmp_path / "report.md").read_text()


def test_without_an_answer_there_are_no_figures(tmp_path: Path, engine: Engines) -> None:
    engine(lives=0)
    with pytest.raises(EngineDied):
        measure(tmp_path, loaded(model(tmp_path / "m")))
    with pytest.raises(UsageError, match="No answers"):
        bench.summarise(tmp_path)


# --- the training's curve --------------------------------------------------------------------------


def test_the_curve_has_the_mean_training_loss_between_two_held_out_ones() -> None:
    curve = [
        {"examples": 0, "eval_loss": 2.0},
        {"examples": 80, "loss": 1.5},
        {"examples": 160, "loss": 1.0},
        {"examples": 160, "eval_loss": 0.9},
        {"examples": 240, "loss": 0.5},
    ]
    assert bench.curve_table(curve)[2:] == ["| 0 |  | 2.000 |", "| 160 | 1.250 | 0.900 |"]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rows = bench.curve_table([{"examples": 10 * n, "eval_loss": 1.0} for n in range(100)])[2:]
    assert len(rows) == bench.CURVE_ROWS
    assert (rows[0], rows[-1]) == ("| 0 |  | 1.000 |", "| 990 |  | 1.000 |")


def test_the_curve_is_kept_with_the_samples_and_drawn_from_there(tmp_path: Path, engine: Engines) -> None:
    curve = tmp_path / "curve.json"
    curve.write_text(json.dumps([{"examples": 0, "eval_loss": 2.0}]))
    engine()
    measure(tmp_path / "results", loaded(model(tmp_path / "m")))
    bench.keep_curve(tmp_path / "results", curve, "m")
    curve.unlink()
    bench.summarise(tmp_path / "results")
    assert "| 0 |  | 2.000 |" in (tmp_path / "results" / "report.md").read_text()


def test_a_curve_that_was_named_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        bench.keep_curve(tmp_path, tmp_path / "missing.json", "m")


def test_a_model_that_has_no_curve_leaves_none_of_another(tmp_path: Path) -> None:
    (tmp_path / "curve.json").touch()
    bench.keep_curve(tmp_path, None, "smollm2-135m-instruct")
    assert not (tmp_path / "curve.json").exists()


# --- the prompts -----------------------------------------------------------------------------------


def test_prompts_that_are_there_need_no_datasets(tmp_path: Path) -> None:
    examples.write(bench.texts_folder(tmp_path) / "prompts-4-0.jsonl", PROMPTS)
    assert bench.held_out(tmp_path, tmp_path / "none", None, 4, lambda *_: None) == PROMPTS


def test_prompts_that_are_not_there_need_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No datasets in"):
        bench.held_out(tmp_path, tmp_path / "none", None, 4, lambda *_: None)
