"""How an answer is told to a reader, in `rag ask` and `rag chat` alike."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag.cli.console import Stream, Terminal
    from rag.core import Answer, EngineInfo, Metadata, Prompt, StageTimings
    from rag.pipeline import Pipeline
    from rag.settings import Action


class Streaming:
    """An answer's text on a terminal, piece by piece; with `as_json` none of it. `begun` once there was a piece."""

    def __init__(self, terminal: Terminal, as_json: bool) -> None:
        self._terminal, self._as_json = terminal, as_json
        self.begun = False

    async def answer(
        self, pipeline: Pipeline, question: str, where: str | None, searched: Callable[[Prompt | None], None]
    ) -> Answer:
        """Its text is shown by then; `searched` was told what the model reads. Raises what `Pipeline.stream` raises."""
        from rag.pipeline import Delta, Searched

        with ExitStack() as waiting:
            async with aclosing(pipeline.stream(question, where)) as events:
                async for event in events:
                    if isinstance(event, Searched):
                        searched(event.prompt)
                        if pipeline.holds_back:
                            waiting.enter_context(self._terminal.step("writing and checking the answer"))
                    elif isinstance(event, Delta):
                        self.begun = True
                        self._print(event.text, end="")
                    else:
                        waiting.close()
                        self._print("" if self.begun else event.answer)
                        return event
        raise AssertionError("a stream ends with its answer")

    def _print(self, text: str, end: str = "\n") -> None:
        if not self._as_json:
            self._terminal.out.print(text, end=end, markup=False)
            self._terminal.out.file.flush()


def warnings(answer: Answer, action: Action) -> list[str]:
    """What a reader has to know before relying on it: that it was cut, that nothing is cited, what isn't supported."""
    lines = []
    if answer.truncated and not answer.withheld:
        at = f"{answer.tokens.output} tokens, " if answer.tokens.output is not None else ""
        lines.append(f"(cut at {at}generator.max_tokens)")
    if not answer.citations and not answer.abstained:
        lines.append("No source was found for this answer: don't rely on it.")
    return [*lines, *unsupported_lines(answer, action)]


def unsupported_lines(answer: Answer, action: Action) -> list[str]:
    """What a reader is told of the sentences that their sources don't support.

    Those not shown are only counted. Where nothing is cited at all, that is said once, elsewhere.
    """
    reasons = {"contradicted": "Contradicted by its source", "not_stated": "Not supported by its source"}
    unsupported = [sentence for sentence in answer.sentences if sentence.support in reasons]
    if action != "mark" and unsupported:
        counts = f"{len(unsupported)} of {len(answer.sentences)}"
        return [f"Unsupported and not shown: {counts} sentences (--json lists them)"]
    if not answer.citations:
        return []
    lines = []
    for sentence in unsupported:
        markers = "".join(f"[{marker}]" for marker in sentence.markers)
        reason = f"{reasons[sentence.support]} {markers}" if markers else "Without a source"
        lines.append(f"{reason}: {' '.join(sentence.text.split())}")
    return lines


def idle(engine: EngineInfo) -> str | None:
    """What was asked for and has done nothing since the engine started, or was had by something else; None where all of it has
    engaged as it was asked for, or may have."""
    told = {**engine.techniques, **engine.since_start}.items()
    notes = {
        "Not engaged": [f"{name} ({one.reason})" for name, one in told if one.asked and one.engaged is False],
        "Engaged": [f"{name} ({one.reason})" for name, one in told if one.engaged is True and one.reason is not None],
    }
    return ". ".join(f"{what}: {'; '.join(some)}" for what, some in notes.items() if some) or None


def from_cache(answer: Answer) -> str | None:
    """What an earlier question had to do with it; None where nothing had."""
    if not answer.cache.hit or answer.cache.similarity is None:
        return None
    what = "the answer to" if answer.timings.generate is None and answer.route is not None else "what was found for"
    words = (
        "the same question"
        if answer.cache.similarity == 1
        else f"one that asks the same (cosine {answer.cache.similarity:.2f})"
    )
    return f"from the cache: {what} {words}"


def show_source(metadata: Metadata, out: Stream, indent: int, described_too: bool = True) -> None:
    """Below a citation or a hit: what is known of its paper, and that it was retracted or corrected."""
    space = " " * indent
    if described_too and (about := described(metadata)):
        out.print(f"{space}{about}", style="dim", markup=False)
    for notice, style in (("retracted", "bold red"), ("corrected", "yellow")):
        if text := metadata.get(notice):
            out.print(f"{space}{' '.join(str(text).split())}", style=style, markup=False)


def described(metadata: Metadata) -> str:
    """What a reader wants to know of a paper, of what is known."""
    parts = [str(metadata[name]) for name in ("authors", "journal", "year") if name in metadata]
    if parts and len(parts[0]) > 60 and "authors" in metadata:
        parts[0] = f"{parts[0].split('; ')[0]} et al."
    parts += next(([f"{name}:{metadata[name]}"] for name in ("doi", "pmid") if name in metadata), [])
    return " ".join(", ".join(parts).split())  # a line, whatever a document says


def time_line(timings: StageTimings, output_tokens: int | None, startup_s: float | None) -> str:
    """Stages in order, those that ran, on one line."""
    values: dict[str, Any] = asdict(timings)
    parts = []
    for stage, seconds in values.items():
        if seconds is None or stage in ("queue", "ttft", "decode", "total"):
            continue
        part = f"{stage} {duration(seconds)}"
        if stage == "generate" and timings.ttft is not None and output_tokens is not None:
            part += f" (first token {duration(timings.ttft)}, {output_tokens} tokens)"
        parts.append(part)
    line = " · ".join([*parts, f"total {duration(timings.total or 0.0)}"])
    return line if startup_s is None else f"{line} · start {duration(startup_s)}"


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"
