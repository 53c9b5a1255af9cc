"""`rag search`: the passages that a question finds, with their scores; no language model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rag.cli import options


def search(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="Passages to show.")] = 10,
    where: options.Where = None,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Show the passages that a question finds."""
    from rag import build
    from rag.cli.console import library_output
    from rag.cli.rendering import show_source, time_line
    from rag.core import Trace
    from rag.pipeline import check_question

    question = check_question(question)
    options.check_where(where)
    loaded = options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    if count > loaded.settings.retrieve.candidates:
        now = loaded.settings.retrieve.model_dump(include={"dense_n", "lexical_n", "candidates"})
        # A search that is switched off stays so.
        deep = [f"retrieve.{name}={count}" for name, value in now.items() if 0 < value < count]
        loaded = options.load(context, profile, models_file, [*(assignments or []), *deep], loaded.settings.index.name)
    with library_output(verbose or context.obj.verbose) as (terminal, _):
        with terminal.step("loading the encoder and the index") as report:
            if sample:
                build.ensure_sample_index(loaded, report)
            opened = build.open_search(loaded, report)
        trace = Trace()
        hits = opened.search([question], trace, where)[0][:count]
        opened.close()
        timings = trace.timings()
        if as_json:
            terminal.json(
                {
                    "question": question,
                    "index_version": opened.searcher.index_version,
                    "hits": [{**asdict(hit), "score": hit.score} for hit in hits],
                    "timings": asdict(timings),
                }
            )
            return
        for rank, hit in enumerate(hits, start=1):
            scores = [f"cosine {hit.dense:.3f}"]
            scores += [f"BM25 {hit.lexical:.2f}"] if hit.lexical is not None else []
            scores += [f"reranker {hit.rerank:.3f}"] if hit.rerank is not None else []
            terminal.out.print(f"{rank:2}. {hit.passage.title}", style="bold", end="  ", markup=False)
            terminal.out.print(f"{hit.passage.id}  {', '.join(scores)}", style="dim", markup=False)
            show_source(hit.passage.metadata, terminal.out, 4)
            terminal.out.print("    " + " ".join(hit.passage.text.split())[:160], markup=False)
        if not hits:
            terminal.out.print("Nothing found.")
        terminal.err.print(time_line(timings, None, None), style="dim", markup=False)
