"""Figures and report of a breakdown, from samples that were written by hand."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from beside import answer, head_of, numbered, taken, written

from rag import settings
from rag.core import EngineInfo, GenerationStats, Technique, Tokens
from rag.errors import UsageError
from rag.evaluate import Question, QuestionSet
from rag.figures import Figure
from rag.prompt import NOT_IN_SOURCES
from rag.variants import breakdown
from rag.variants.breakdown import lengths, picture
from rag.variants.breakdown.lengths import Length, RequestShape
from rag.variants.breakdown.measured import read
from rag.variants.breakdown.picture import Bar
from rag.variants.breakdown.source import PUBLISHED
from rag.variants.samples import Taken

NAMES = ("v3", "v3_again", "v3_1", "v3_2", "auto")
SVG = "{http://www.w3.org/2000/svg}"


def by_name(figures: Sequence[Figure]) -> dict[str, Figure]:
    assert len({one.name for one in figures}) == len(figures)
    return {one.name: one for one in figures}


def samples(totals: Mapping[str, Sequence[float]], questions: Sequence[Question], **more: Any) -> list[Taken]:
    """An answer a variant and question, by the seconds that it took."""
    return [
        taken(name, question, answer(question.question, seconds, **more), block=number // 4)
        for name, some in totals.items()
        for number, (question, seconds) in enumerate(zip(questions, some, strict=True))
    ]


def summarised(
    folder: Path, rows: Sequence[Any], names: Sequence[str] = NAMES, device: str = "cpu", count: int = 3
) -> dict[str, Figure]:
    head = head_of("breakdown", names, QuestionSet("qa_120", tuple(numbered(count))), device)
    return by_name(breakdown.summarise(written(folder, head, rows)))


TOTALS = {
    "v3": [10.0, 20.0, 40.0],
    "v3_again": [10.0, 22.0, 36.0],
    "v3_1": [6.0, 14.0, 36.0],
    "v3_2": [5.0, 12.0, 16.0],
    "auto": [1.0, 4.0, 12.0],
}


# --- totals ------------------------------------------------------------------------------------------


def test_ratios_are_medians_over_questions_and_the_noise_stands_first(tmp_path: Path) -> None:
    figures = summarised(tmp_path, samples(TOTALS, numbered(3)))
    assert list(figures)[:2] == ["v3_over_v3_total", "noise_half_width"]
    assert figures["v3_over_v3_total"].value == 1.0
    noise = figures["v3_over_v3_total"]
    assert (noise.lo, noise.hi) == (0.9, pytest.approx(1.1))
    assert figures["noise_half_width"].value == pytest.approx(0.1)
    ratios = {name: figures[f"{name}_over_v3_total"] for name in ("v3_1", "v3_2", "auto")}
    assert {name: (one.value, one.n, one.goal, one.met) for name, one in ratios.items()} == {
        "v3_1": (0.7, 3, "<= 0.7", True),
        "v3_2": (0.5, 3, "<= 0.55", True),
        "auto": (0.2, 3, "<= 0.25", True),
    }
    assert (ratios["v3_1"].lo, ratios["v3_1"].hi) == (0.6, 0.9)


def test_the_ratio_of_ratios_is_ours_over_the_middle_of_what_the_source_expects(tmp_path: Path) -> None:
    figures = summarised(tmp_path, samples(TOTALS, numbered(3)))
    assert figures["v3_1_ratio_of_ratios"].value == pytest.approx(0.7 / (4.75 / 6.81))
    assert figures["v3_2_ratio_of_ratios"].value == pytest.approx(0.5 / (3.75 / 6.81))
    assert "auto_ratio_of_ratios" not in figures
    said = "expects `v3_1` at 0.66 to 0.73, `v3_2` at 0.51 to 0.59 of the total of `v3`."
    assert said in (tmp_path / "report.md").read_text()


def test_goals_are_for_a_cpu_and_against_v3(tmp_path: Path) -> None:
    on_gpu = summarised(tmp_path / "gpu", samples(TOTALS, numbered(3)), device="cuda")
    assert on_gpu["v3_1_over_v3_total"].goal is None
    other = {"v3_1": TOTALS["v3_1"], "auto": TOTALS["auto"]}
    figures = summarised(tmp_path / "other", samples(other, numbered(3)), ["v3_1", "v3_1_again", "auto"])
    assert figures["auto_over_v3_1_total"].goal is None
    assert "v3_1_over_v3_1_total" not in figures


def test_only_questions_that_both_answered_are_paired_and_what_lacks_is_said(tmp_path: Path) -> None:
    rows = samples(TOTALS, numbered(3))
    rows = [one for one in rows if (one.variant, one.sample.id) != ("v3_1", "q002")]
    rows += [taken("v3_1", numbered(3)[2], None, error="The engine is busy.")]
    figures = summarised(tmp_path, rows)
    assert (figures["v3_1_over_v3_total"].value, figures["v3_1_over_v3_total"].n) == (pytest.approx(0.65), 2)
    report = (tmp_path / "report.md").read_text()
    assert "**Not all of the 3 questions are answered: `v3_1` 2. The same command goes on.**" in report
    assert "- `q002` of `v3_1` failed: The engine is busy." in report


def test_cold_and_warm_are_told_apart(tmp_path: Path) -> None:
    questions = numbered(3)
    cold = [taken("v3", questions[0], answer("Question 0?", 10.5), cold=True)]
    cold += [taken("v3", questions[2], answer("Question 2?", 41.5), block=1, cold=True)]
    figures = summarised(tmp_path, [*samples(TOTALS, questions), *cold])
    assert figures["v3_over_v3_total"].n == 3
    assert (figures["v3_cold_extra_ms"].value, figures["v3_cold_extra_ms"].n) == (1000.0, 2)
    assert figures["v3.cold.total.p50_ms"].value == 26_000
    report = (tmp_path / "report.md").read_text()
    assert "| `v3` | 2 | 26,000 | 25,000 | +1,000 (+500 to +1,500) | 64 |" in report
    assert re.search(r"\| \*\*total\*\* \|.* 3 \| 6\.81 s \| 26,000 \(.*\) \| 39,950 \(.*\) \| 2 \|", report)


def test_nothing_to_report_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No samples in"):
        breakdown.summarise(tmp_path)
    only_cold = [taken("v3", numbered(1)[0], answer("Question 0?", 1.0), cold=True)]
    with pytest.raises(UsageError, match="No answers of v3 in"):
        summarised(tmp_path, only_cold)


# --- stages ------------------------------------------------------------------------------------------


def test_stages_have_their_share_of_all_time_and_the_median_of_the_questions_in_which_they_ran(tmp_path: Path) -> None:
    questions = numbered(3)
    rows = samples({"v3": [10.0, 20.0]}, questions[:2])
    rows.append(taken("v3", questions[2], answer("Question 2?", 2.0, spans=[("retrieve", 0.0, 1.5)])))
    figures = summarised(tmp_path, rows, ["v3", "v3_again"])
    assert figures["v3.retrieve.share"].value == pytest.approx((1 + 2 + 1.5) / 32)
    assert figures["v3.generate.share"].value == pytest.approx((9 + 18) / 32)
    assert figures["v3.other.share"].value == pytest.approx(0.5 / 32)
    assert (figures["v3.generate.p50_ms"].value, figures["v3.generate.p50_ms"].n) == (13_500, 2)
    assert (figures["v3.prefill.p50_ms"].value, figures["v3.decode.p50_ms"].value) == (7500, 3750)
    assert (figures["v3.total.p50_ms"].value, figures["v3.total.p95_ms"].value) == (10_000, 19_000)
    assert (figures["span_coverage_min"].value, figures["span_coverage_min"].met) == (0.75, False)
    assert figures["span_coverage_min"].n == 3


def test_the_table_of_a_variant_stands_beside_what_the_source_has(tmp_path: Path) -> None:
    summarised(tmp_path, samples(TOTALS, numbered(3)))
    report = (tmp_path / "report.md").read_text()
    assert "| stage | share | p50, ms | p95, ms | n | V3, measured there |" in report
    assert "| generate | 90.0% | 18,000 (9,000 to 36,000) | 34,200 (9,000 to 36,000) | 3 | 4.86 s (71%) |" in report
    assert "| … decode | 25.0% |" in report
    assert "| **total** |  | 20,000 (10,000 to 40,000) | 38,000 (10,000 to 40,000) | 3 | 6.81 s |" in report
    assert "V3.1, expected there" in report
    assert "| 2.5 to 3.0 s |" in report
    assert "| 4.5 to 5.0 s |" in report
    assert "### v3_again" not in report


def test_the_published_figures_are_the_sources() -> None:
    """Its table, and what it says of each."""
    v3 = PUBLISHED["v3"]
    assert v3.total == (6.81, 6.81)
    assert {stage: low for stage, (low, _) in v3.stages.items()} == {
        "generate": 4.86,
        "retrieve": 1.87,
        "rerank": 0.09,
        "filter": 0.0,
    }
    assert v3.stages["generate"][0] / v3.total[0] == pytest.approx(0.71, abs=0.005)
    assert (PUBLISHED["v3_1"].total, PUBLISHED["v3_2"].total) == ((4.5, 5.0), (3.5, 4.0))
    assert [one.measured for one in PUBLISHED.values()] == [True, False, False]


def test_a_variant_that_has_not_answered_yet_is_said_to_be_missing(tmp_path: Path) -> None:
    summarised(tmp_path, samples({"v3": [10.0] * 3}, numbered(3)), ("v3", "v3_1"))
    assert "Not all of the 3 questions are answered: `v3_1` 0." in (tmp_path / "report.md").read_text()


# --- key facts ---------------------------------------------------------------------------------------


def told(count: int, wrong: int) -> list[Taken]:
    """Of v3_1's answers so many lack the key fact that all of v3's have."""
    questions = numbered(count)
    rows = samples({"v3": [10.0] * count}, questions)
    for number, question in enumerate(questions):
        text = "Worms [1]." if number < wrong else "Plasmodium [1]."
        rows.append(taken("v3_1", question, answer(question.question, 6.0, text)))
    return rows


def test_no_loss_of_quality_is_said_where_it_is_shown_and_only_there(tmp_path: Path) -> None:
    names = ("v3", "v3_again", "v3_1")
    figures = summarised(tmp_path / "kept", told(120, 1), names, count=120)
    difference = figures["v3_1_key_fact_difference"]
    assert (difference.value, difference.n) == (pytest.approx(-1 / 120), 120)
    assert (difference.goal, difference.met) == ("interval above -0.10", True)
    assert figures["v3_1_key_fact_power"].value > 0.9
    kept = (tmp_path / "kept" / "report.md").read_text()
    assert "no loss of quality by more than 10 points is shown" in kept
    assert "not shown" not in kept

    lost = summarised(tmp_path / "lost", told(120, 20), names, count=120)["v3_1_key_fact_difference"]
    assert (lost.value, lost.met) == (pytest.approx(-20 / 120), False)
    report = (tmp_path / "lost" / "report.md").read_text()
    assert "it is **not shown** that no more than 10 points were lost" in report
    assert "no loss of quality" not in report


def test_so_few_questions_show_nothing_even_where_nothing_is_lost(tmp_path: Path) -> None:
    figures = summarised(tmp_path, told(20, 0), ("v3", "v3_again", "v3_1"), count=20)
    assert (figures["v3_1_key_fact_difference"].value, figures["v3_1_key_fact_difference"].met) == (0.0, False)
    assert figures["v3_1_key_fact_power"].value == 0.0
    report = (tmp_path / "report.md").read_text()
    assert "no loss of quality" not in report
    assert "n=20): too few questions to tell whether 10 points were lost, which takes 36." in report


def test_of_a_gain_it_is_not_asked_whether_it_is_a_loss(tmp_path: Path) -> None:
    questions = numbered(20)
    rows = [
        taken("v3", one, answer(one.question, 9.0, "Worms [1]." if n % 2 else "Plasmodium [1]."))
        for n, one in enumerate(questions)
    ]
    rows += [taken("v3_1", one, answer(one.question, 6.0, "Plasmodium [1].")) for one in questions]
    summarised(tmp_path, rows, ("v3", "v3_1"), count=20)
    assert "n=20): nothing was lost, as far as so few questions tell." in (tmp_path / "report.md").read_text()


def test_where_there_are_no_key_facts_nothing_is_said_of_them(tmp_path: Path) -> None:
    rows = samples({"v3": [10.0] * 3, "v3_1": [5.0] * 3}, numbered(3, key_facts=False))
    figures = summarised(tmp_path, rows, ("v3", "v3_again", "v3_1"))
    assert not [name for name in figures if "key_fact" in name]
    assert "- `v3_1`: there was too little to lose to speak of it." in (tmp_path / "report.md").read_text()


# --- tokens and techniques ---------------------------------------------------------------------------


def test_tokens_are_those_that_were_read_and_written_and_refusals_are_left_out(tmp_path: Path) -> None:
    questions = numbered(4)
    lengths_ = [(2400, 100), (2500, 400), (2600, 600)]
    rows = [
        taken(
            "v3",
            question,
            answer(question.question, 9.0, tokens=Tokens(prompt=prompt, output=output), truncated=output > 512),
        )
        for question, (prompt, output) in zip(questions, lengths_, strict=False)
    ]
    refused = answer("Question 3?", 9.0, NOT_IN_SOURCES, abstained=True, tokens=Tokens(prompt=2700, output=10))
    figures = summarised(tmp_path, [*rows, taken("v3", questions[3], refused)], ["v3", "v3_again"], count=4)
    assert (figures["v3.prompt_tokens.p50"].value, figures["v3.prompt_tokens.p50"].n) == (2550, 4)
    assert (figures["v3.answer_tokens.mean"].value, figures["v3.answer_tokens.mean"].n) == (pytest.approx(1100 / 3), 3)
    row = "| `v3` | 2,550 (2,400 to 2,700) | 3 | 367 | 400 | 560 | 600 | 33% | 67% | 1 |"
    assert row in (tmp_path / "report.md").read_text()


def test_a_technique_that_did_nothing_is_reported_as_not_engaged(tmp_path: Path) -> None:
    def engine(engaged: bool) -> EngineInfo:
        drafts = {"prompts": 1, "decode_tokens": 9, "draft_tokens": 8, "accepted_tokens": 5 if engaged else 0}
        speculation = Technique(asked=True, engaged=engaged, evidence="drafts", numbers=drafts)
        fp8 = Technique(asked=True, engaged=False, reason="vLLM has no FP8 weight kernels for a CPU")
        return EngineInfo("fake", "1", "cpu", {"speculation": speculation, "quantization": fp8})

    questions = numbered(2)
    rows = samples({"v3": [10.0] * 2}, questions)
    rows += samples({"v3_1": [5.0] * 2}, questions, engine=engine(engaged=False))
    for number, question in enumerate(questions):
        rows.append(taken("v3_2", question, answer(question.question, 5.0, engine=engine(engaged=number == 0))))
    summarised(tmp_path, rows, ("v3", "v3_again", "v3_1", "v3_2"), count=2)
    report = (tmp_path / "report.md").read_text()
    assert "| `v3_1` | `speculation` | **no** | 0 of 2 | 0 of 16 draft tokens accepted" in report
    assert "| every draft token was rejected |" in report
    assert "| `v3_2` | `speculation` | yes | 1 of 2 | 5 of 16 draft tokens accepted" in report
    assert "| `v3_1` | `quantization` | **no** | 0 of 2 |  | vLLM has no FP8 weight kernels for a CPU |" in report
    assert "| `v3` |" not in report.partition("## Techniques")[2]


# --- fixed lengths -----------------------------------------------------------------------------------


def long_ones(seconds: Mapping[tuple[str, int, int], float]) -> list[dict[str, Any]]:
    """Two repeats of each, the second one takes twice as long."""
    return [
        lengths.row(
            Length(
                variant,
                RequestShape(prompt, tokens),
                repeat,
                total * (1 + repeat),
                GenerationStats(tokens, "length", prompt, 64, 100, 40, 0.0, total / 2, total / 4),
            )
        )
        for (variant, prompt, tokens), total in seconds.items()
        for repeat in (0, 1)
    ]


LONG = {
    ("v3", 6000, 512): 20.0,
    ("v3", 6000, 348): 16.0,
    ("v3", 3000, 384): 10.0,
    ("v3", 3000, 348): 12.0,
    ("v3_2", 3000, 384): 5.0,
}


def test_at_fixed_lengths_each_profile_is_taken_at_its_own_on_its_own_engine(tmp_path: Path) -> None:
    figures = summarised(tmp_path, [*samples(TOTALS, numbered(3)), *long_ones(LONG)])
    assert (figures["fixed_v3_1_over_v3"].value, figures["fixed_v3_1_over_v3"].n) == (0.5, 2)
    assert figures["fixed_v3_2_over_v3"].value == 0.25
    assert figures["fixed_348_v3_1_over_v3"].value == 0.75
    assert "fixed_348_v3_2_over_v3" not in figures
    assert figures["fixed.v3.6000.512.p50_ms"].value == 30_000
    assert figures["fixed.v3.6000.512.ttft_p50_ms"].value == 10_000
    assert figures["fixed.v3.6000.512.tokens_per_s"].value == pytest.approx(511 / 5)
    row = "| `v3`, `v3_1` | 6,000 | 512 | 2 | 10.00 (10.00 to 10.00) | 102.2 | 30.00 (20.00 to 40.00) | 80 of 200 |"
    assert row in (tmp_path / "report.md").read_text()


def test_without_them_there_is_no_such_part(tmp_path: Path) -> None:
    figures = summarised(tmp_path, samples(TOTALS, numbered(3)))
    assert not [name for name in figures if name.startswith("fixed")]
    assert "## Fixed lengths" not in (tmp_path / "report.md").read_text()


# --- the folder --------------------------------------------------------------------------------------


def test_the_report_is_the_same_from_the_same_samples_and_names_what_shares_an_engine(tmp_path: Path) -> None:
    names = ("samples.jsonl", "summary.json", "report.md", "breakdown.svg", "breakdown.png")
    figures = summarised(tmp_path, [*samples(TOTALS, numbered(3)), *long_ones(LONG)])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    first = {name: (tmp_path / name).read_bytes() for name in names}
    breakdown.summarise(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == first
    summary = json.loads(first["summary.json"])
    assert [Figure(**one) for one in summary["figures"]] == list(figures.values())
    report = first["report.md"].decode()
    assert "(`v3`, `v3_again`, `v3_1`, `auto` share an engine)" in report
    assert "`v3.generate.p50_ms`" not in report
    assert max(len(line) for line in report.splitlines() if line.startswith("|")) < 400


def test_the_picture_shows_every_variant_and_the_source(tmp_path: Path) -> None:
    summarised(tmp_path, samples(TOTALS, numbered(3)))
    texts = {text.text for text in ET.parse(tmp_path / "breakdown.svg").getroot().iter(f"{SVG}text")}
    assert {"v3", "v3_1", "v3_2", "auto", "V3, measured", "V3.1, expected", "prefill", "decode", "retrieve"} <= texts
    assert "v3_again" not in texts


def test_the_parts_of_a_bar_add_up_to_the_mean_total_and_slivers_stand_together(tmp_path: Path) -> None:
    rows = samples(TOTALS, numbered(3))
    spans = [("filter", 0.0, 0.01), ("retrieve", 0.01, 1.0), ("generate", 1.0, 9.0)]
    rows = [replace(one, sample=replace(one.sample, answer=answer("?", 10.0, spans=spans))) for one in rows]
    summarised(tmp_path, rows)
    bars = breakdown.bars(tmp_path)
    assert [bar.name for bar in bars] == ["v3", "v3_1", "v3_2", "auto"]
    assert bars[0].stages == {
        "retrieve": pytest.approx(0.99),
        picture.REST: pytest.approx(8 - 7.5),
        "prefill": pytest.approx(5.0),
        "decode": pytest.approx(2.5),
        "other": pytest.approx(1.01),
    }
    assert bars[0].total == pytest.approx(10.0)


def test_the_source_s_bars_add_up_to_its_totals() -> None:
    assert [bar.total for bar in picture.published()] == [pytest.approx(6.82), 4.75, 3.75]
    assert picture.published()[0] == Bar(
        "V3, measured", {"retrieve": 1.87, "rerank": 0.09, "generate": 4.86, "other": 0.0}
    )


def test_the_first_variant_is_asked_again_and_names_are_fit_for_figures() -> None:
    loaded = settings.load(environ={})
    found = breakdown.variants({"v3": loaded, "mine/fast-one.yaml": loaded})
    assert list(found) == ["v3", "v3_again", "fast_one"]
    with pytest.raises(UsageError, match=r"'b/v3\.yaml' would be called 'v3' like another one"):
        breakdown.variants({"v3": loaded, "b/v3.yaml": loaded})


async def test_measured_and_summarised_on_fakes_it_is_a_whole_report(tmp_path: Path) -> None:
    import serving
    from beside import plan_of, take

    serving.write(tmp_path / "indexes")
    await take(tmp_path / "indexes", tmp_path / "results", plan=plan_of("v3", "v3_again", "v3_1"), count=2)
    figures = by_name(breakdown.summarise(tmp_path / "results"))
    assert (
        0 < figures["span_coverage_min"].value <= 1
    )  # of less than a millisecond, most of which may lie between the spans
    assert {"v3_over_v3_total", "v3_1_over_v3_total", "v3_cold_extra_ms", "v3.verify.p50_ms"} <= set(figures)
    assert read(tmp_path / "results").base == "v3"
