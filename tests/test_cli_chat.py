"""A session of `rag chat` on fakes: its loop, its commands, Ctrl-C, a pipe. The real one: test_whole_path."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import pytest
from indexes import write_index
from serving import NoOp

from rag import settings
from rag.chat import Conversation
from rag.cli.chat import COMMANDS, ReadLine, Session, hold
from rag.cli.console import Stream, Terminal
from rag.core import Document, GenerationParams, GenerationStats, Message, Opening
from rag.errors import EngineDied, EngineError
from rag.index import IndexReader, Versions, check_current, open_index
from rag.ingest import chunk
from rag.pipeline import Pipeline
from rag.search import HybridSearcher
from rag.testing import FakeEncoder, FakeGenerator

DOCUMENTS = [
    Document("malaria", "Malaria", "Malaria is caused by Plasmodium parasites. A mosquito carries them."),
    Document(
        "scurvy", "Scurvy", "Scurvy is caused by a lack of vitamin C. Lemons cure it.", {"retracted": "Retracted 2020"}
    ),
]


@pytest.fixture
def index(tmp_path: Path) -> IndexReader:
    loaded = settings.load(environ={}).settings
    encoder, versions = FakeEncoder(), Versions(tmp_path, "test")
    passages = [passage for document in DOCUMENTS for passage in chunk.split(document, 1000)]
    vectors = encoder.encode_passages([passage.titled for passage in passages])
    batch = (DOCUMENTS, passages, vectors)
    write_index(versions, [batch], model=encoder.model, settings=loaded.index, chunking={"max_chars": 1000})
    return open_index(check_current(versions), loaded.index, loaded.retrieve, "cpu")


class Terminals:
    """What a session wrote."""

    def __init__(self) -> None:
        self.terminal = Terminal(Stream(io.StringIO()), Stream(io.StringIO()))

    @property
    def out(self) -> str:
        return self._text(self.terminal.out)

    @property
    def err(self) -> str:
        return self._text(self.terminal.err)

    def _text(self, stream: Stream) -> str:
        assert isinstance(stream.file, io.StringIO)
        return stream.file.getvalue()


def typed(lines: Sequence[str | type[BaseException]]) -> ReadLine:
    """Reads these; an exception's type is raised in its place."""
    rest: Iterator[str | type[BaseException]] = iter(lines)

    def read() -> str | None:
        line = next(rest, None)
        if isinstance(line, type):
            raise line
        return line

    return read


def held(
    index: IndexReader,
    generator: FakeGenerator,
    *lines: str | type[BaseException],
    as_json: bool = False,
    interactive: bool = True,
    where: str | None = None,
) -> Terminals:
    loaded = settings.load(assignments=["filter.min_cosine=-1"], environ={})
    searcher = HybridSearcher(index, loaded.settings.retrieve)
    seen = Terminals()
    pipeline = Pipeline(loaded.settings, loaded.profile, FakeEncoder(), searcher, generator)
    session = Session(pipeline, Conversation(loaded.settings.chat), where, as_json, seen.terminal)
    with asyncio.Runner() as runner:
        hold(session, typed(lines), runner.run, interactive)
    pipeline.close()
    return seen


def questions(generator: FakeGenerator) -> list[str]:
    return [messages[-1]["content"].rpartition("Question: ")[2] for messages, _ in generator.asked]


ANSWER = ["Malaria is caused ", "by Plasmodium parasites [1]."]


def test_a_follow_up_is_asked_as_it_stands_alone_and_shown_so(index: IndexReader) -> None:
    generator = FakeGenerator(ANSWER)
    seen = held(index, generator, "What causes malaria?", "", "How is it cured?")
    assert questions(generator) == ["What causes malaria?", "How is malaria cured?"]
    assert seen.err == "How is malaria cured?\n"
    shown = "Malaria is caused by Plasmodium parasites [1].\n[1] Malaria (malaria)\n\n"
    assert seen.out == shown + shown


def test_another_topic_is_not_dragged_into_the_old_one(index: IndexReader) -> None:
    generator = FakeGenerator(ANSWER)
    seen = held(index, generator, "What causes malaria?", "What causes scurvy?")
    assert questions(generator) == ["What causes malaria?", "What causes scurvy?"]
    assert seen.err == ""


def test_a_retracted_source_is_said_to_be_so(index: IndexReader) -> None:
    seen = held(index, FakeGenerator(["Lemons cure scurvy [1]."]), "What cures scurvy?", "/sources")
    assert seen.out.count("Retracted 2020") == 2


def test_after_clear_a_question_leans_on_nothing_and_there_is_no_last_answer(index: IndexReader) -> None:
    generator = FakeGenerator(ANSWER)
    seen = held(index, generator, "What causes malaria?", "/clear", "/sources", "How is it cured?")
    assert questions(generator)[1] == "How is it cured?"
    assert "No answer yet." in seen.err


def test_sources_shows_the_passages_that_the_last_answer_cites(index: IndexReader) -> None:
    seen = held(index, FakeGenerator(ANSWER), "/sources", "What causes malaria?", "/sources")
    assert "No answer yet." in seen.err
    listed = seen.out.split("\n\n")[1]
    assert listed.startswith("[1] Malaria  malaria#0, score 0.")
    assert "    Malaria is caused by Plasmodium parasites. A mosquito carries them." in listed


def test_sources_of_an_answer_that_cites_nothing(index: IndexReader) -> None:
    seen = held(index, FakeGenerator(["Who knows."]), "What causes malaria?", "/sources")
    assert "The last answer cites nothing." in seen.out
    assert "No source was found for this answer" in seen.err


def test_timings_shows_the_stages_that_ran(index: IndexReader) -> None:
    lines = held(index, FakeGenerator(ANSWER), "What causes malaria?", "/timings").out.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == [
        "rewrite",
        "embed",
        "retrieve",
        "filter",
        "context",
        "route",
        "generate",
        "total",
    ]
    assert all(line.endswith(("s", "ms", "µs")) for line in lines)


def test_timings_ends_with_what_was_switched_on_and_has_done_nothing_in_the_session(index: IndexReader) -> None:
    first, second = (
        held(index, NoOp(ANSWER), *["What causes malaria?"] * number, "/timings").out.splitlines()[-1]
        for number in (1, 2)
    )
    assert first == "Not engaged: speculation (nothing was drafted)"
    assert second.startswith(
        "Not engaged: prefix_caching (2 prompts share no whole block with an earlier one that is still there); spec"
    )


def test_help_names_every_command_and_an_unknown_one_names_them_too(index: IndexReader) -> None:
    seen = held(index, FakeGenerator(), "/help", "/nonsense", "/quit", "never")
    for name in COMMANDS:
        assert name in seen.out
        assert name in seen.err
    assert "rag: /nonsense is no command." in seen.err


def test_quit_ends_and_so_does_the_end_of_input(index: IndexReader) -> None:
    generator = FakeGenerator(ANSWER)
    held(index, generator, "What causes malaria?", "/quit", "What causes scurvy?")
    assert len(generator.asked) == 1


def test_a_question_that_is_refused_does_not_end_the_session(index: IndexReader) -> None:
    generator = FakeGenerator(ANSWER)
    seen = held(index, generator, "why? " * 1000, "What causes malaria?")
    assert "rag: The question has 4,999 characters" in seen.err
    assert "Plasmodium" in seen.out


def test_a_condition_that_no_document_can_meet_does_not_end_the_session(index: IndexReader) -> None:
    seen = held(index, FakeGenerator(ANSWER), "What causes malaria?", "/help", where="colour=red")
    assert "rag: " in seen.err
    assert "/quit" in seen.out


def test_an_engine_that_died_ends_the_session(index: IndexReader) -> None:
    with pytest.raises(EngineDied, match="after 1 tokens"):
        held(index, FakeGenerator(ANSWER, dies_after=1), "What causes malaria?", "never")


class Busy(FakeGenerator):
    """Fails at the first question, and lives."""

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[Opening | str | GenerationStats, None]:
        first = not self.asked
        async for item in super().stream(messages, params):
            if first:
                raise EngineError("The server can't answer (503): busy.")
            yield item


@pytest.mark.parametrize("as_json", [False, True])
def test_a_question_that_a_living_engine_fails_at_does_not_end_the_session(index: IndexReader, as_json: bool) -> None:
    generator = Busy(ANSWER)
    seen = held(index, generator, "What causes malaria?", "What causes scurvy?", as_json=as_json, interactive=False)
    assert "rag: The server can't answer (503): busy." in seen.err
    assert "Plasmodium" in seen.out
    assert len(generator.asked) == 2
    if as_json:
        refused, _ = map(json.loads, seen.out.splitlines())
        assert refused == {"question": "What causes malaria?", "error": "The server can't answer (503): busy."}


class Interrupted(FakeGenerator):
    """Ctrl-C is pressed after the first piece of the first answer."""

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[Opening | str | GenerationStats, None]:
        first = not self.asked
        stream = super().stream(messages, params)
        try:
            async for item in stream:
                yield item
                if first:
                    os.kill(os.getpid(), signal.SIGINT)
                    await asyncio.sleep(30)
        finally:
            await stream.aclose()


def test_ctrl_c_stops_the_answer_and_not_the_session_and_the_question_is_remembered(index: IndexReader) -> None:
    generator = Interrupted(ANSWER)
    seen = held(index, generator, "What causes malaria?", "How is it cured?")
    assert generator.aborted == 1
    assert seen.out.startswith("Malaria is caused\nMalaria is caused by Plasmodium parasites [1].\n")
    assert seen.err == "stopped\nHow is malaria cured?\n"
    assert questions(generator)[1] == "How is malaria cured?"


def test_in_a_pipe_ctrl_c_ends_it_all(index: IndexReader) -> None:
    generator = Interrupted(ANSWER)
    with pytest.raises(KeyboardInterrupt):
        held(index, generator, "What causes malaria?", "never", interactive=False)
    assert (generator.aborted, len(generator.asked)) == (1, 1)


def test_ctrl_c_at_the_prompt_throws_the_line_away(index: IndexReader) -> None:
    generator = FakeGenerator(ANSWER)
    held(index, generator, KeyboardInterrupt, "What causes malaria?")
    assert len(generator.asked) == 1
    with pytest.raises(KeyboardInterrupt):
        held(index, generator, KeyboardInterrupt, "What causes malaria?", interactive=False)


def test_json_is_a_line_an_answer_with_the_question_as_typed_and_as_asked(index: IndexReader) -> None:
    lines = ["What causes malaria?", "How is it cured?", "/sources", "x" * 3000, "/nonsense", "/timings"]
    seen = held(index, FakeGenerator(ANSWER), *lines, as_json=True)
    first, second, refused = map(json.loads, seen.out.splitlines())
    assert (first["question"], first["standalone"], first["rewritten_by"]) == (lines[0], lines[0], None)
    assert (second["question"], second["standalone"]) == ("How is it cured?", "How is malaria cured?")
    assert second["rewritten_by"] == "rule"
    assert second["rewrite_s"] >= 0
    assert second["citations"][0]["doc_id"] == "malaria"
    assert set(refused) == {"question", "error"}
    assert refused["question"] == "x" * 3000
    assert "3,000 characters" in refused["error"]
    assert "A mosquito carries them." in seen.err
