"""`rag batch`: the answers to a file of questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import options

if TYPE_CHECKING:
    from rag.batch import AnswerFile
    from rag.progress import Progress
    from rag.settings import Loaded


HOW_ASKED = (
    "cores",
    "max_num_seqs",
    "kv_cache_mb",
    "gpu_memory_utilization",
    "connect_timeout_s",
    "read_timeout_s",
)
"""Settings of the generator that change no answer, and that a run which failed is told to try others of."""


def batch(
    context: typer.Context,
    questions: Annotated[
        Path,
        typer.Argument(
            metavar="QUESTIONS",
            help='JSON lines like {"id": "q1", "question": "…", "where": "year>=2020"}, or a text file with a question a line.',
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="ANSWERS", help="JSON lines, in the order of the questions.", show_default=False
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there, and begin anew.")] = False,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Answer a file of questions, several at a time, the next ones searched ahead.

    Goes on where a run over the same questions and index, by settings that give the same answers, was interrupted. A question that
    fails is kept with its error, and asked again by the next run. Exit code 1 where any failed.
    """
    from rag import files
    from rag.batch import AnswerFile, for_batch, part_of, read
    from rag.cli.console import library_output, naming_log
    from rag.cli.run import run
    from rag.engine import spec
    from rag.errors import RagError, UsageError

    items = read(questions)
    with files.explaining_storage(output):
        if any(one.exists() and one.samefile(questions) for one in (output, part_of(output))):
            raise UsageError(f"--output {output} would replace the file of the questions: name another one.")
    loaded = for_batch(
        options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    )
    spec.check(loaded)
    with library_output(verbose or context.obj.verbose) as (terminal, log), naming_log(log, loaded):
        with terminal.count("preparing") as progress:
            digest = _digest(loaded, sample, progress)
            with files.only_writer(output):
                answers = AnswerFile(output, items, digest, overwrite)
                before = len(items) - len(answers.left)
                seconds = run(_answer(loaded, answers, len(items), progress)) if answers.left else 0.0
                answers.finish()
        if as_json:
            terminal.json(
                {
                    "questions": len(items),
                    "answered_before": before,
                    "failed": [{"id": name, "error": error} for name, error in answers.failed],
                    "seconds": seconds,
                    "output": str(output),
                }
            )
        else:
            asked = len(items) - before
            said = f"{asked} questions in {seconds:.1f} s" + (f", {before} were answered before" if before else "")
            terminal.err.print(f"{said}: {output}", markup=False)
    if answers.failed:
        name, error = answers.failed[0]
        raise RagError(
            f"{len(answers.failed)} questions failed, {name!r} the first: {error} The same command asks them again."
        )


def _digest(loaded: Loaded, sample: bool, progress: Progress) -> str:
    """Of what answers depend on; ends with the index's version."""
    import hashlib
    import json

    from rag import build
    from rag.evaluate.runner import index_of, weights
    from rag.server.state import settings_digest
    from rag.settings import Batch, Chat, Generator

    if sample:
        build.ensure_sample_index(loaded, progress)
    checked = build.check_index(loaded, progress)
    usual = Generator()
    same = (
        loaded.having("generator", **{name: getattr(usual, name) for name in HOW_ASKED})
        .having("batch", **dict(Batch()))
        .having("chat", **dict(Chat()))
    )
    # A version's number begins anew where an index was removed, and a folder of models may change.
    made_of = {"index": index_of(checked), "weights": weights(loaded, progress)}
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return f"{settings_digest(same)} {digest[:16]} {checked.name}/{checked.version}"


async def _answer(loaded: Loaded, answers: AnswerFile, total: int, progress: Progress) -> float:
    """Seconds from the first question to the last answer."""
    import time

    from rag import build
    from rag.batch import Outcome, answer_all
    from rag.errors import UsageError

    left = answers.left
    done = total - len(left)
    settings = loaded.settings
    async with build.open_pipeline(loaded, progress) as pipeline:
        if not answers.settings.endswith(f" {pipeline.index_version}"):
            raise UsageError(f"The index has changed since, to {pipeline.index_version}: give the same command again.")
        began = time.monotonic()
        progress("questions", done, total)

        def finished(place: int, outcome: Outcome) -> None:
            nonlocal done
            answers.add(left[place], outcome)
            done += 1
            progress("questions", done, total)

        await answer_all(pipeline, [item.asked for item in left], finished, settings.batch, settings.at_once)
        return time.monotonic() - began
