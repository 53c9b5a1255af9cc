"""`rag bench`: what each thing costs and gains on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import measuring, options

if TYPE_CHECKING:
    from rag.progress import Progress

app = typer.Typer(help="Measure on this machine; samples and report go to eval/results/.", no_args_is_help=True)

Results = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for samples and report.", show_default="eval/results/DEVICE/BENCH"),
]
Datasets = Annotated[
    Path | None,
    typer.Option(
        "--datasets",
        envvar="RAG_DATASETS",
        metavar="FOLDER",
        help="Folder of the public datasets; only what was held out from training is measured.",
        show_default="datasets",
    ),
]
MedquadIndex = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="NAME",
        help="Index of MedQuAD that is there already.",
        show_default="bench-medquad, built at first use",
    ),
]
Passages = Annotated[
    int, typer.Option(min=1, help="Passages of the open articles, the first of them, that are searched.")
]
ReportOnly = Annotated[bool, typer.Option("--report-only", help="Compute the report again from the samples there.")]


@app.command()
def start(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of bare, rag, bare.")] = 7,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
) -> None:
    """Process start to first token, against a bare vLLM script with the same arguments and prompt."""
    from rag.bench import start as bench
    from rag.cli.console import Terminal

    loaded = options.load(context, profile, models_file, assignments)
    folder = measuring.folder(output, loaded.device, bench.BENCH)
    terminal = Terminal()
    if not report_only:
        with terminal.step("preparing") as report:
            bench.measure(loaded, folder, rounds, measuring.command(), report)
    figures = bench.summarise(folder)
    measuring.show(figures, folder, terminal, as_json)


@app.command()
def reranker(
    context: typer.Context,
    datasets: Datasets = None,
    questions: Annotated[int, typer.Option(min=1, help="Held-out questions of each dataset, at most.")] = 500,
    index: MedquadIndex = None,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """nDCG@10 and hit@1 of the reranker against fusion, and its speed against a plain CrossEncoder.

    Goes on where a run of the same settings was interrupted.
    """
    from rag.bench import reranker as bench

    loaded = options.load(context, profile, models_file, assignments)
    named = options.choose_index(index, sample=False)

    def measure(folder: Path, progress: Progress) -> None:
        bench.measure(loaded, folder, _datasets(datasets), questions, named, measuring.command(), progress)

    measuring.run(bench, loaded, measure, output, report_only, as_json, verbose or context.obj.verbose)


@app.command()
def retrieval(
    context: typer.Context,
    datasets: Datasets = None,
    passages: Passages = 50_000,
    questions: Annotated[int, typer.Option(min=1, help="Questions of PubMedQA, at most.")] = 200,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Every stage of a search and of the way to the prompt: median and 99th percentile; BM25 beside rank-bm25.

    Builds the index bench-jats-PASSAGES where it isn't there. Goes on where a run of the same settings was interrupted.
    """
    from rag.bench import retrieval as bench

    loaded = options.load(context, profile, models_file, assignments)

    def measure(folder: Path, progress: Progress) -> None:
        bench.measure(loaded, folder, _datasets(datasets), passages, questions, measuring.command(), progress)

    measuring.run(bench, loaded, measure, output, report_only, as_json, verbose or context.obj.verbose)


@app.command()
def index(
    context: typer.Context,
    datasets: Datasets = None,
    passages: Passages = 50_000,
    largest: Annotated[
        int | None, typer.Option(min=1, help="Passages of the one large build.", show_default="all that there are")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="Questions of PubMedQA, at most.")] = 500,
    updates: Annotated[int, typer.Option(min=1, max=100, help="Updates of 100 passages each.")] = 5,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Encoding against sentence-transformers, what is found against its vectors, a large build, and updates.

    Builds the indexes bench-jats-PASSAGES and bench-jats-all where they aren't there. Goes on where a run of the same
    settings was interrupted.
    """
    from rag.bench import index as bench

    loaded = options.load(context, profile, models_file, assignments)
    sizes = bench.Sizes(passages, largest, questions, updates)

    def measure(folder: Path, progress: Progress) -> None:
        bench.measure(loaded, folder, _datasets(datasets), sizes, measuring.command(), progress)

    measuring.run(bench, loaded, measure, output, report_only, as_json, verbose or context.obj.verbose)


@app.command()
def serve(
    context: typer.Context,
    questions: Annotated[int, typer.Option(min=0, max=60, help="Questions of dev_60, the first of them.")] = 60,
    kills: Annotated[int, typer.Option(min=0, help="Times that the engine's process is killed.")] = 20,
    disconnects: Annotated[int, typer.Option(min=0, help="Clients that go away in the middle of an answer.")] = 200,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """A warm rag ask beside the same question inside the server; the engine killed, and clients gone, in the middle of answers.

    Starts its own servers over the sample corpus. Goes on where a run of the same settings was interrupted.
    """
    from rag.bench import serve as bench

    loaded = options.load(context, profile, models_file, assignments)
    workload = bench.Workload(questions, kills, disconnects)

    def measure(folder: Path, progress: Progress) -> None:
        bench.measure(loaded, folder, workload, measuring.command(), progress)

    measuring.run(bench, loaded, measure, output, report_only, as_json, verbose or context.obj.verbose)


@app.command()
def support(
    context: typer.Context,
    datasets: Datasets = None,
    pairs: Annotated[
        int, typer.Option("--pairs", "--questions", min=1, help="Held-out pairs of each source and kind, at most.")
    ] = 300,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """AUROC of the support checker, its recall on each kind of wrong sentence, and its time.

    Goes on where a run of the same settings was interrupted.
    """
    from rag.bench import support as bench

    loaded = options.load(context, profile, models_file, assignments)

    def measure(folder: Path, progress: Progress) -> None:
        bench.measure(loaded, folder, _datasets(datasets), pairs, measuring.command(), progress)

    measuring.run(bench, loaded, measure, output, report_only, as_json, verbose or context.obj.verbose)


@app.command()
def generator(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="The model to measure; a second one is measured the same way as its base (figures base_*).",
            show_default="generator.model of the settings",
        ),
    ] = None,
    datasets: Datasets = None,
    prompts: Annotated[int, typer.Option(min=1, help="Held-out prompts.")] = 400,
    index: MedquadIndex = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            help="The training's losses, copied beside the samples.", show_default="that of the model's recipe"
        ),
    ] = None,
    output: Results = None,
    report_only: ReportOnly = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Citations, wording, refusals and support of the generator's answers to held-out prompts.

    Goes on where a run of the same settings was interrupted. The samples hold ids, markers and scores; prompts and
    answers, which quote the datasets, go to texts/ beside them, which git ignores.
    """
    import json

    from rag.bench import generator as bench
    from rag.cli.run import run
    from rag.engine import spec

    # As it is: its quantised form, which a profile may ask for, has a name of its own.
    chosen = (
        [[f"generator.model={json.dumps(name)}", "generator.quantization=null"] for name in names] if names else [[]]
    )
    loads = [options.load(context, profile, models_file, [*(assignments or []), *model]) for model in chosen]
    named = options.choose_index(index, sample=False)
    if not report_only or curve is not None:
        model = spec.plan(loads[0]).model
        bench.keep_curve(measuring.folder(output, loads[0].device, bench.BENCH), curve, model)

    def measure(folder: Path, progress: Progress) -> None:
        # Outside of `run`, which an interrupt reaches only where something is awaited.
        made = bench.held_out(folder, datasets, named, prompts, progress)
        asked = bench.models(loads, progress)
        run(bench.measure(asked, folder, made, measuring.command(), progress))

    measuring.run(bench, loads[0], measure, output, report_only, as_json, verbose or context.obj.verbose)


def _datasets(named: Path | None) -> Path:
    from rag.training import datasets

    return datasets.folder(named)
