"""`rag eval`: how good the answers to a set of questions are, and whether another run's are as good."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rag.cli import measuring, options
from rag.cli.bench import ReportOnly

if TYPE_CHECKING:
    from rag.cli.console import Terminal
    from rag.evaluate import Comparison
    from rag.progress import Progress
    from rag.settings import Generator


class Group(TyperGroup):
    """Runs an evaluation where no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["run", *args])


app = typer.Typer(cls=Group, help="How good the answers to a set of questions are; compare tests two runs.")


@app.command()
def run(
    context: typer.Context,
    questions: Annotated[
        Path | None,
        typer.Argument(
            metavar="QUESTIONS",
            help="A question set (JSONL, see eval/README.md), or a folder as BEIR has them.",
            show_default="eval/qa_120.jsonl, over the sample corpus",
        ),
    ] = None,
    one_by_one: Annotated[
        bool,
        typer.Option(
            "--one-by-one", help="One question at a time, for its time; else as many at once as rag batch answers."
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Questions, at most: of each type its share.", show_default="all of them"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for samples and report.", show_default="eval/results/DEVICE/eval"),
    ] = None,
    report_only: ReportOnly = False,
    judge_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Have the answers judged by a model behind this OpenAI-compatible API."),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(metavar="NAME", help="What the judge's server calls it.")] = None,
    judge_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable that holds the key of the judge's server.")
    ] = None,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Ask a set of questions, and measure retrieval, answers, citations and abstentions.

    Goes on where a run of the same questions and settings was interrupted; questions that failed are asked again.
    `rag eval compare RUN RUN` tests what has changed from one run to another.
    """
    from rag import build, evaluate, paths
    from rag.cli.run import run as supervised
    from rag.errors import RagError, UsageError

    over_sample = sample or (questions is None and index_name is None)
    asked_for = [*(assignments or []), measuring.CACHE_ANEW]
    loaded = options.load(context, profile, models_file, asked_for, options.choose_index(index_name, over_sample))
    judge = _judge(judge_url, judge_model, judge_key_env)
    if judge is not None and report_only:
        raise UsageError("--judge-url asks a judge, and --report-only asks nobody. Leave one of them out.")

    def measure(folder: Path, progress: Progress) -> None:
        asked = evaluate.read_questions(questions if questions is not None else paths.shipped("eval", "qa_120.jsonl"))
        if over_sample:
            build.ensure_sample_index(loaded, progress)
        plan = evaluate.plan(loaded, asked, one_by_one, measuring.command(), progress)
        # The rest is outside of `supervised`, which an interrupt reaches only where something is awaited.
        supervised(evaluate.measure(plan, folder, limit, progress))
        if judge is not None:
            supervised(evaluate.judge(folder, judge, measuring.command(), progress))

    measuring.run(evaluate, loaded, measure, output, report_only, as_json, verbose or context.obj.verbose)
    failed = evaluate.failures(measuring.folder(output, loaded.device, evaluate.BENCH))
    if failed:
        raise RagError(
            f"{len(failed)} questions failed, {failed[0].id!r} the first: {failed[0].error} The same command asks them again."
        )


def _judge(url: str | None, model: str | None, key_env: str | None) -> Generator | None:
    """The judge's server and name, None where none is asked for. Raises `UsageError`."""
    from pydantic import ValidationError

    from rag.errors import UsageError
    from rag.records import problems
    from rag.settings import Generator

    if url is None and model is None:
        return None
    if url is None or model is None:
        raise UsageError("A judge needs both --judge-url, its server, and --judge-model, what that calls it.")
    try:
        return Generator(base_url=url, model=model, api_key_env=key_env)
    except ValidationError as error:
        problem = problems(error)[0]
        option = "--judge-key-env" if problem.place == "api_key_env" else "--judge-url"
        raise UsageError(f"{option}: {problem.what}.") from None


@app.command()
def compare(
    context: typer.Context,
    before: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    after: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of the run that is held against it.", show_default=False)
    ],
    margin: Annotated[
        float, typer.Option(min=0.001, max=0.999, help="Loss of a share, F1 or nDCG that would still be accepted.")
    ] = 0.10,
    as_json: options.Json = False,
) -> None:
    """What has changed from one run to another over the same questions, by paired tests.

    Each figure with the 95% interval of its difference, the p of a permutation test, whether it is shown that no more than the
    margin was lost, and the power that the sample has to show that.
    """
    from dataclasses import asdict

    from rag import evaluate
    from rag.cli.console import Terminal

    del context
    terminal = Terminal()
    with terminal.step("comparing"):
        compared = evaluate.compare(before, after, margin)
    if as_json:
        terminal.json(asdict(compared))
    else:
        _show(compared, terminal)


def _show(compared: Comparison, terminal: Terminal) -> None:
    def line(text: str, style: str | None = None) -> None:
        terminal.out.print(text, style=style, markup=False)

    for name, was, now in compared.changed:
        line(f"{name}: {was} -> {now}", "dim")
    head = f"{'':34} {'before':>8} {'after':>8} {'difference':>10}  {'95% interval':18} {'p':>6} {'n':>4}  not worse (power)"
    line(head, "bold")
    for one in compared.differences:
        said = "" if one.not_worse is None else f"{'shown' if one.not_worse else 'not shown'} ({one.power:.2f})"
        interval = f"[{one.lo:+.3f}, {one.hi:+.3f}]"
        line(
            f"{one.name:34} {one.before:8.3f} {one.after:8.3f} {one.difference:+10.3f}  {interval:18} {one.p:6.3f} "
            f"{one.n:4}  {said}"
        )
    within = f"by more than {compared.margin:g}"
    line("")
    line(f"No loss of quality {within} is shown for: {', '.join(compared.shown(True)) or 'nothing'}.")
    line(f"It isn't shown for: {', '.join(compared.shown(False)) or 'nothing'}.")
    line(
        f"{compared.questions} questions. Intervals: paired bootstrap; p: paired permutation test, not corrected for the number of "
        "figures; shown: the interval lies above the margin, one-sided at 2.5%, of enough pairs.",
        "dim",
    )
