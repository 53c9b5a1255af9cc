"""`rag cache`: what the query cache of an index holds, and from which probability on two questions are the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag.cache import Entry
    from rag.core import Hits
    from rag.settings import Loaded

app = typer.Typer(
    help="The query cache of an index: what it holds; calibrate the model that decides whether two questions ask the same.",
    no_args_is_help=True,
)


@app.command()
def stats(
    context: typer.Context,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
) -> None:
    """How many questions are kept, how old they are, and how much room they take.

    What a running server has served from it, `rag status` tells.
    """
    import time

    from rag.build import cache_path
    from rag.cli.console import Terminal

    loaded = _load(context, profile, models_file, assignments, index_name, sample)
    path, terminal = cache_path(loaded), Terminal()
    entries, problem = _entries(loaded)
    now = time.time()
    ages = sorted(now - entry.added for entry in entries)
    found = {
        "file": str(path),
        "bytes": path.stat().st_size if path.is_file() else 0,
        "entries": len(entries),
        "max_entries": loaded.settings.cache.max_entries,
        "passages": len({hit.passage.id for entry in entries for hit in entry.value}),
        "newest_s": ages[0] if ages else None,
        "oldest_s": ages[-1] if ages else None,
        "enabled": loaded.settings.cache.enabled,
        "unusable": problem,
    }
    if as_json:
        terminal.json(found)
        return
    if problem is not None:
        terminal.out.print(f"{path} won't be used: {problem}.", markup=False)
        return
    terminal.out.print(
        f"{len(entries):,} of {found['max_entries']:,} questions, {found['passages']:,} passages, {found['bytes']:,} bytes in {path}",
        markup=False,
    )
    if ages:
        terminal.out.print(f"the newest of {_ago(ages[0])} ago, the oldest of {_ago(ages[-1])} ago", markup=False)
    if not found["enabled"]:
        terminal.err.print(
            "It isn't in use with these settings: cache.enabled=true switches it on.", style="dim", markup=False
        )


@app.command()
def inspect(
    context: typer.Context,
    question: Annotated[
        str | None,
        typer.Argument(help="Show what is nearest to it, and what would be served.", show_default="all, newest first"),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Questions to show.")] = 20,
    where: options.Where = None,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
) -> None:
    """The questions that are kept; or, for a question, the nearest of them, and whether the second look lets them serve it."""
    from rag.cli.console import Terminal

    options.check_where(where)
    loaded = _load(context, profile, models_file, assignments, index_name, sample)
    entries, problem = _entries(loaded)
    terminal = Terminal()
    if question is None and where is not None:
        entries = [entry for entry in entries if entry.where == where]
    rows = _newest(entries)[:count] if question is None else _nearest(loaded, question, where, entries)[:count]
    if as_json:
        terminal.json({"entries": len(entries), "unusable": problem, "questions": [row for row, _ in rows]})
        return
    if problem is not None:
        terminal.err.print(f"It won't be used: {problem}.", markup=False)
    for _, said in rows:
        terminal.out.print(said, markup=False)
    if not rows:
        terminal.out.print("Nothing is kept.", markup=False)


@app.command()
def clear(
    context: typer.Context,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
) -> None:
    """Forget what is kept on disk, by whatever settings. A running server keeps what it has in memory."""
    from rag.build import remove_files
    from rag.cli.console import Terminal

    loaded = _load(context, profile, models_file, assignments, index_name, sample)
    removed = remove_files(loaded)
    for path in removed:
        Terminal().err.print(f"removed {path}", markup=False)
    if not removed:
        Terminal().err.print(f"Nothing is kept beside index {loaded.settings.index.name!r}.", markup=False)


@app.command()
def calibrate(
    context: typer.Context,
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS",
            help='JSON lines like {"a": "…", "b": "…", "same": false}; of lines with a split those for calibration.',
            show_default=False,
        ),
    ],
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """From which probability on two questions are the same, so that wrong hits stay rare. It calibrates what `cache.model` names.

    The threshold is the lowest at which the upper 95% bound of the rate of wrong hits stays under cache.max_wrong_hits, on these
    pairs. Use questions of your own: what your users ask, and what they might be mistaken for.
    """
    from dataclasses import asdict

    from rag import calibrate as calibrating
    from rag.build import open_encoder, open_matcher
    from rag.cli.console import library_output
    from rag.errors import UsageError

    loaded = options.load(context, profile, models_file, assignments)
    if loaded.settings.cache.model is None:
        raise UsageError("cache.model is null: name the model that is to be calibrated: --set cache.model=NAME.")
    read = calibrating.read_pairs(pairs)
    with library_output(verbose or context.obj.verbose) as (terminal, _):
        with terminal.step("reading the pairs"):
            settings = loaded.settings.cache
            encoder, matcher = open_encoder(loaded), open_matcher(loaded, anyhow=True)
            assert matcher is not None
            found = calibrating.calibrate(encoder, matcher, read, settings.max_wrong_hits, settings.min_cosine)
        if as_json:
            terminal.json(asdict(found))
            return
        terminal.out.print(f"cache.min_same={found.min_same:.4f}", markup=False)
        for line in found.lines:
            terminal.err.print(line, markup=False)


def _load(
    context: typer.Context,
    profile: str | None,
    models_file: str | None,
    assignments: list[str] | None,
    index_name: str | None,
    sample: bool,
) -> Loaded:
    return options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))


def _entries(loaded: Loaded) -> tuple[list[Entry[Hits]], str | None]:
    """In order of their use, and why they won't be used, where that is so."""
    from rag.build import kept_questions
    from rag.errors import StaleCache

    try:
        return kept_questions(loaded), None
    except StaleCache as reason:
        return [], str(reason)


def _newest(entries: Sequence[Entry[Hits]]) -> list[tuple[dict[str, object], str]]:
    """Rows for `--json` and lines for people."""
    import time

    now = time.time()
    rows: list[tuple[dict[str, object], str]] = []
    for entry in sorted(entries, key=lambda entry: -entry.added):
        best = entry.value[0].passage.title if entry.value else None
        of = f"  (where {entry.where})" if entry.where is not None else ""
        row: dict[str, object] = {
            "question": entry.question,
            "where": entry.where,
            "age_s": now - entry.added,
            "best": best,
        }
        rows.append((row, f"{_ago(now - entry.added):>6}  {entry.question}{of}"))
    return rows


def _nearest(
    loaded: Loaded, question: str, where: str | None, entries: Sequence[Entry[Hits]]
) -> list[tuple[dict[str, object], str]]:
    """As the cache would look: a repeat is served, and only where there is none the nearest is looked at twice."""
    from rag.build import open_encoder, open_matcher
    from rag.cache import normalised

    vector = open_encoder(loaded).encode_queries([question])[0]
    matcher, settings = open_matcher(loaded), loaded.settings.cache
    words = normalised(question)
    alike = [
        (float(entry.vector @ vector), normalised(entry.question) == words, entry)
        for entry in entries
        if entry.where == where
    ]
    repeated = any(exact for _, exact, _ in alike)
    rows: list[tuple[dict[str, object], str]] = []
    for place, (cosine, exact, entry) in enumerate(sorted(alike, key=lambda one: -one[0])):
        same = None
        if matcher is not None and place == 0 and not repeated and cosine >= settings.min_cosine:
            same = float(matcher.probabilities([(question, entry.question)])[0])
        served = exact or (matcher is not None and same is not None and same >= matcher.min_same)
        row = {"question": entry.question, "cosine": cosine, "exact": exact, "same": same, "served": served}
        look = "exact" if exact else "not looked at" if same is None else f"same {same:.3f}"
        rows.append((row, f"{'served' if served else '':6}  cosine {cosine:.3f}  {look:13}  {entry.question}"))
    return rows


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
