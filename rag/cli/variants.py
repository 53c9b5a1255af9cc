"""`rag bench breakdown`, `sweep`, `cache` and `batch`: several settings beside one another, over the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import measuring, options
from rag.cli.bench import Datasets, ReportOnly, Results

if TYPE_CHECKING:
    from rag.cli.console import Terminal
    from rag.evaluate import QuestionSet
    from rag.figures import Figure
    from rag.progress import Progress
    from rag.settings import Loaded


def breakdown(
    context: typer.Context,
    asked: Annotated[
        Path | None,
        typer.Argument(
            metavar="SET",
            help="A question set (JSONL, see eval/README.md), or a folder as BEIR has them.",
            show_default="eval/qa_120.jsonl, over the sample corpus",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--questions", min=1, help="Questions, at most: of each type its share.")] = 40,
    repeats: Annotated[
        int, typer.Option(min=0, max=100, help="Times that each fixed length is asked for; 0 leaves them out.")
    ] = 5,
    names: Annotated[
        str | None,
        typer.Option(
            "--variants",
            metavar="NAME,...",
            help="Profiles; the others are held against the first, which is asked twice.",
            show_default="v3,v3_1,v3_2,auto",
        ),
    ] = None,
    output: Results = None,
    report_only: ReportOnly = False,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Where the time goes, stage by stage: the profiles of "LLM Inference Speed Optimization" (the source) and the default one.

    They answer the same questions in interleaved blocks. Goes on where a run of the same settings was interrupted.
    """
    from rag.cli.run import run
    from rag.errors import UsageError
    from rag.variants import breakdown as bench
    from rag.variants import plan

    if context.ensure_object(options.Common).profile is not None:
        raise UsageError("This benchmark compares profiles: name them with --variants, and none with --profile.")
    over_sample, chosen = _index(asked, index_name, sample)
    profiles = [name.strip() for name in names.split(",")] if names is not None else bench.PROFILES
    settings = [*(assignments or []), *WITHOUT_CACHE]
    loads = {name: options.load(context, name, models_file, settings, chosen) for name in profiles}
    variants = bench.variants(loads)
    first = next(iter(variants.values()))

    def measure(folder: Path, progress: Progress) -> None:
        questions = _questions(asked, "qa_120.jsonl", first if over_sample else None, progress)
        planned = plan(bench.BENCH, variants, questions, measuring.command(), progress)
        # Outside of `run`, which an interrupt reaches only where something is awaited.
        run(bench.measure(planned, folder, count, repeats, progress))

    def draw(figures: Sequence[Figure], folder: Path, terminal: Terminal) -> None:
        from rag.cli.charts import stacked

        measuring.lines([one for one in figures if "." not in one.name], folder, terminal)
        terminal.out.print("")
        for line in stacked([(bar.name, bar.stages) for bar in bench.bars(folder)], "s"):
            terminal.out.print(line)

    measuring.run(bench, first, measure, output, report_only, as_json, verbose or context.obj.verbose, draw)


def sweep(
    context: typer.Context,
    asked: Annotated[
        Path | None,
        typer.Argument(
            metavar="SET",
            help="A question set (JSONL, see eval/README.md), or a folder as BEIR has them.",
            show_default="eval/dev_60.jsonl, over the sample corpus",
        ),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(metavar="SETTING=VALUE,...", help="The setting and its values, e.g. context.passages=3,5,10,15."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--questions", min=1, help="Questions, at most: of each type its share.", show_default="all of them"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for samples and report.", show_default="eval/results/DEVICE/sweep/SETTING"
        ),
    ] = None,
    report_only: ReportOnly = False,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """What the values of one setting take and give: latency, key facts and the other figures of each, paired by question.

    The settings' own value is what the others are held against, the first where it isn't among them. Goes on where a run of the
    same settings was interrupted.
    """
    from rag.cli.run import run
    from rag.errors import UsageError
    from rag.variants import sweep as bench

    if over is None:
        raise UsageError("Name a setting and its values, e.g. --over context.passages=3,5,10,15.")
    swept = bench.parse(over)
    over_sample, chosen = _index(asked, index_name, sample, swept.key == "index.name")

    def load(assignment: str | None) -> Loaded:
        kept = (measuring.CACHE_ANEW,) if swept.key.startswith("cache.") else WITHOUT_CACHE
        more = [*kept, *([assignment] if assignment is not None else [])]
        return options.load(context, profile, models_file, [*(assignments or []), *more], chosen)

    loads = swept.loads(load)
    first = next(iter(loads.values()))
    target = output if output is not None else measuring.folder(None, first.device, bench.BENCH) / swept.key

    def measure(folder: Path, progress: Progress) -> None:
        questions = _questions(asked, "dev_60.jsonl", first if over_sample else None, progress)
        planned = bench.plan(swept, loads, questions, measuring.command(), progress)
        run(bench.measure(planned, folder, count, progress))

    def draw(figures: Sequence[Figure], folder: Path, terminal: Terminal) -> None:
        for line in _columns(figures, list(bench.read(folder).answers)):
            terminal.out.print(line, markup=False)

    measuring.run(bench, first, measure, target, report_only, as_json, verbose or context.obj.verbose, draw)


SHOWN = ("total_p50_s", "total_ratio", "key_fact_recall", "key_fact_difference", "answer_tokens_p90")
"""Of a sweep's figures, those that a terminal has room for."""


def _columns(figures: Sequence[Figure], values: Sequence[str]) -> list[str]:
    """A line a figure, a column a value."""
    by_name = {figure.name: figure for figure in figures}
    lines = [f"{'':20}" + "".join(f"{value:>26}" for value in values)]
    for name in SHOWN:
        found = [by_name.get(f"{name}@{value}") for value in values]
        if any(found):
            cells = (one.cell(around=" [{}, {}]") if one is not None else "" for one in found)
            lines.append(f"{name:20}" + "".join(f"{cell:>26}" for cell in cells))
    return lines


WITHOUT_CACHE = ("cache.enabled=false", "cache.answers=false")
"""What one has found would be given to the next."""


def _index(asked: Path | None, index_name: str | None, sample: bool, swept: bool = False) -> tuple[bool, str | None]:
    """Whether it is the sample corpus', and its name, None for that of the settings; `swept` where those are swept over."""
    over_sample = sample or (asked is None and index_name is None and not swept)
    return over_sample, options.choose_index(index_name, over_sample)


def _questions(asked: Path | None, default: str, over_sample: Loaded | None, progress: Progress) -> QuestionSet:
    """Read before anything is built. With the sample corpus' settings its index is there afterwards."""
    from rag import build, evaluate, paths

    questions = evaluate.read_questions(asked if asked is not None else paths.shipped("eval", default))
    if over_sample is not None:
        build.ensure_sample_index(over_sample, progress)
    return questions


def cache(
    context: typer.Context,
    datasets: Datasets = None,
    trace: Annotated[int, typer.Option(min=1, help="Questions of the trace.")] = 200,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """The query cache: wrong hits and hits on pairs of questions, beside a cosine's; what a hit takes; what it gains on a trace.

    Goes on where a run of the same settings was interrupted.
    """
    from rag import build, evaluate, paths
    from rag.cli.run import run
    from rag.training.datasets import folder as of_datasets
    from rag.variants import caching as bench
    from rag.variants.caching.trace import plan

    def load(*more: str) -> Loaded:
        return options.load(context, profile, models_file, [*(assignments or []), *more], build.SAMPLE)

    loads = {
        "plain": load(*WITHOUT_CACHE),
        "cached": load("cache.enabled=true", "cache.answers=true", measuring.CACHE_ANEW),
    }
    if not report_only:
        bench.require_matcher(loads["cached"])

    def measure(folder: Path, progress: Progress) -> None:
        root = of_datasets(datasets)
        build.ensure_sample_index(loads["plain"], progress)
        questions = evaluate.read_questions(paths.shipped("eval", "qa_120.jsonl"))
        traced = plan(questions, paths.shipped("eval", "trace.jsonl"), trace)
        run(bench.measure(loads, folder, root, traced, measuring.command(), progress))

    measuring.run(bench, loads["plain"], measure, output, report_only, as_json, verbose or context.obj.verbose)


def batch(
    context: typer.Context,
    asked: Annotated[
        Path | None,
        typer.Argument(metavar="SET", help="A question set.", show_default="eval/qa_120.jsonl, over the sample corpus"),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--questions", min=1, help="Questions, at most: of each type its share.", show_default="all of them"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Times that the set is asked in each way.")] = 6,
    output: Results = None,
    report_only: ReportOnly = False,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Questions one after the other, all at once, and as rag batch asks them: searched ahead or not, in one order or another,
    their prompts held back or not.

    Goes on where a run of the same settings was interrupted.
    """
    from rag.cli.run import run
    from rag.variants import batching as bench
    from rag.variants.batching.modes import loads_of

    over_sample, chosen = _index(asked, index_name, sample)
    loaded = options.load(context, profile, models_file, [*(assignments or []), *WITHOUT_CACHE], chosen)
    loads = loads_of(loaded)

    def measure(folder: Path, progress: Progress) -> None:
        questions = _questions(asked, "qa_120.jsonl", loaded if over_sample else None, progress)
        run(bench.measure(loads, questions, count, rounds, folder, measuring.command(), progress))

    measuring.run(bench, loaded, measure, output, report_only, as_json, verbose or context.obj.verbose)
