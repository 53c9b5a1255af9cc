"""`rag ask` as somebody runs it: real models, real index, real engine, a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from conftest import Cli
from tiny_server import Play

from rag import paths
from rag.bert import convert
from rag.core import covered
from rag.settings import multiplies_bf16

QUESTION = "What causes malaria?"

CONTRACT = {
    "": "question answer abstained withheld sentences citations invalid_markers route cache timings spans tokens engine "
    "profile startup_s",
    "sentences.0": "text markers support",
    "citations.0": "marker doc_id passage_id title quote origin score",
    "route": "tier model max_tokens reason",
    "cache": "hit similarity index_version",
    "timings": "embed cache retrieve rerank filter context route generate queue ttft decode verify total",
    "tokens": "prompt cached_prompt output draft accepted",
    "engine": "backend version device techniques since_start",
    "engine.techniques.prefix_caching": "asked engaged evidence reason numbers",
    "engine.since_start.speculation": "asked engaged evidence reason numbers",
}


@pytest.fixture(autouse=True)
def _real(in_real_home: Path) -> None:
    del in_real_home


def at(value: object, path: str) -> object:
    for part in filter(None, path.split(".")):
        value = value[int(part)] if isinstance(value, list) else value[part]  # type: ignore[index]
    return value


def test_json_holds_the_contract_and_cites_the_malaria_document(cli: Cli) -> None:
    done = cli("ask", "--sample", "--json", QUESTION)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert "INFO" not in done.stdout + done.stderr, "vLLM's lines go to its log"
    for path, keys in CONTRACT.items():
        assert set(keys.split()) <= set(at(answer, path)), path  # type: ignore[call-overload]
    assert "malaria" in [citation["doc_id"] for citation in answer["citations"]]
    assert "Plasmodium" in answer["answer"]
    assert answer["engine"]["backend"] == "vllm"
    assert answer["engine"]["techniques"]["prefix_caching"]["engaged"] is True
    assert answer["engine"]["techniques"]["speculation"]["engaged"] is True
    assert answer["tokens"]["cached_prompt"] >= 32
    assert answer["profile"] == "auto-cpu"
    total = answer["timings"]["total"]
    assert total * 0.95 <= covered([tuple(span) for span in answer["spans"]]) <= total
    times = answer["timings"]
    assert times["queue"] < times["ttft"] < times["generate"] < total
    assert 0 < times["rerank"] < total
    assert 0 < times["verify"] < total
    assert {sentence["support"] for sentence in answer["sentences"]} <= {"supported", "contradicted", "not_stated"}
    assert [citation["origin"] for citation in answer["citations"]] == ["model"]


def test_an_answer_that_its_sources_do_not_support_is_withheld(
    rag: Cli, served: list[str], cross_encoder: Callable[[Sequence[str]], Path]
) -> None:
    folder = cross_encoder(["supported", "contradicted", "not_stated"])
    convert(folder)
    checker = (f"verify.model={folder}", "verify.action=withhold", "verify.min_support=1", "verify.max_length=64")
    chosen = (*served, *checker)
    done = rag("ask", "--sample", "--json", *(f"--set={one}" for one in chosen), QUESTION)
    assert done.returncode == 3, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["abstained"], answer["withheld"], answer["citations"]) == (True, True, [])
    assert "Plasmodium" in answer["sentences"][0]["text"]
    assert "Plasmodium" not in answer["answer"]
    assert {sentence["support"] for sentence in answer["sentences"]} <= {"contradicted", "not_stated"}
    assert 0 < answer["timings"]["verify"] < answer["timings"]["total"]


def test_in_a_pipe_the_answer_is_plain_text_and_progress_goes_elsewhere(cli: Cli, served: list[str]) -> None:
    done = cli("ask", "--sample", *(f"--set={one}" for one in served), "-", stdin=f"{QUESTION}\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Malaria is ")
    assert "Sources" in done.stdout
    assert "(malaria)" in done.stdout
    assert "\x1b" not in done.stdout
    assert "generate " in done.stderr.splitlines()[-1]
    assert "total " in done.stderr.splitlines()[-1]


def test_a_question_from_another_world_is_an_abstention_with_exit_3(rag: Cli) -> None:
    with Play().running() as play:
        chosen = (f"base_url={play.url}", "model=served", "tokenizer=smollm2-grounded")
        question = "Which football club won the cup in 1966?"
        done = rag("ask", "--sample", "--json", *(f"--set=generator.{one}" for one in chosen), question)
    assert done.returncode == 3, done.stderr
    assert [body for body, _ in play.asked if question in body["messages"][-1]["content"]] == [], "the warm-up alone"
    answer = json.loads(done.stdout)
    assert (answer["abstained"], answer["citations"], answer["timings"]["generate"]) == (True, [], None)


def test_in_a_conversation_the_second_question_leans_on_the_first(cli: Cli, served: list[str]) -> None:
    chosen = [f"--set={one}" for one in served]
    done = cli("chat", "--sample", "--json", *chosen, stdin=f"{QUESTION}\nHow is it diagnosed?\n/timings\n")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["question"], first["standalone"]) == (QUESTION, QUESTION)
    assert (second["question"], second["standalone"]) == ("How is it diagnosed?", "How is malaria diagnosed?")
    for answer in (first, second):
        assert "malaria" in [citation["doc_id"] for citation in answer["citations"]]
    assert second["startup_s"] == first["startup_s"]
    assert "\n  ttft " in done.stderr


def test_a_breakdown_asks_two_engines_of_eight_bits_neither_of_which_knows_the_prompt(
    rag: Cli, cli: Cli, tmp_path: Path
) -> None:
    sizes = ("--questions", "1", "--repeats", "0", "--set", "context.passages=13")
    command = ("bench", "breakdown", "--variants", "v3_1,v3_2", *sizes, "-o", str(tmp_path))
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert "starting the engine (2 of 2)" in done.stderr
    figures = {one["name"]: one["value"] for one in json.loads(done.stdout)}
    assert 0.2 < figures["v3_2_over_v3_1_total"] < 5
    assert 0.2 < figures["v3_1_over_v3_1_total"] < 5
    assert figures["span_coverage_min"] >= 0.95
    head, *samples = map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())
    assert head["settings"]["engines"] == [["v3_1", "v3_1_again"], ["v3_2"]]
    turns = {(one["variant"], one["cold"]): one["sample"]["answer"] for one in samples}
    assert set(turns) == {(name, cold) for name in ("v3_1", "v3_2") for cold in (True, False)} | {("v3_1_again", False)}
    for (_, cold), answer in turns.items():
        assert (answer["tokens"]["cached_prompt"] == 0) is cold
        assert answer["tokens"]["prompt"] > 2048, "vLLM would read it in one step anyway"
        assert answer["route"]["max_tokens"] == 384
        quantization = answer["engine"]["techniques"]["quantization"]
        assert (quantization["asked"], quantization["engaged"]) == (True, multiplies_bf16())
        assert "FP8" in quantization["reason"]
        if multiplies_bf16():  # INT8 stands in for it: of each of 30 layers four products, of which some are merged
            numbers = quantization["numbers"]
            assert (numbers["quantised_layers"], numbers["layers"]) == (120, 120)
            assert numbers["weight_bytes"] == pytest.approx(163.5e6, rel=0.03)
    assert turns["v3_2", False]["engine"]["techniques"]["speculation"]["asked"]
    assert not turns["v3_1", False]["engine"]["techniques"]["speculation"]["asked"]
    first, again = (turns[name, False]["tokens"] for name in ("v3_1", "v3_1_again"))
    assert again["cached_prompt"] == first["cached_prompt"] < first["prompt"] / 2, "it holds what the first one read"
    assert "All samples were there already." in rag(*command).stderr


def test_an_evaluation_of_five_questions_keeps_samples_and_goes_on_from_them(
    rag: Cli, cli: Cli, tmp_path: Path
) -> None:
    evaluation = ("eval", "--output", str(tmp_path / "results"), "--limit", "5")
    done = cli(*evaluation, "--json")
    assert done.returncode == 0, done.stderr
    figures = {one["name"]: one for one in json.loads(done.stdout)}
    assert {"recall_at_10", "key_fact_recall_simple", "citation_precision", "abstention_recall", "aurc"} <= set(figures)
    assert figures["recall_at_10"]["value"] >= 0.5
    assert figures["recall_at_10"]["n"] == 4
    path = tmp_path / "results" / "samples.jsonl"
    head, *samples = map(json.loads, path.read_text().splitlines())
    assert (head["settings"]["questions"]["name"], head["settings"]["at_once"]) == ("qa_120", 32)
    assert set(head["settings"]["weights"]) == {"generator", "reranker", "support"}
    assert len({sample["id"] for sample in samples}) == len(samples) == 5
    for sample in samples:
        assert sorted(sample["found"]["fused"]) == sorted(sample["found"]["reranked"])
        assert sample["answer"]["engine"]["techniques"]["speculation"]["asked"] is True
        assert 0 <= sample["answer"]["confidence"] <= 1

    cached = [sample["answer"]["engine"]["since_start"]["prefix_caching"]["numbers"] for sample in samples]
    assert max(numbers["cached_prompt_tokens"] for numbers in cached) > 0
    report = (tmp_path / "results" / "report.md").read_text()
    assert re.search(
        r"\| `prefix_caching` \| yes \| \d of 5 \| [\d,]+ of [\d,]+ prompt tokens came from the cache \|", report
    )

    before = path.read_bytes()
    again = rag(*evaluation)
    assert again.returncode == 0, again.stderr
    assert "All samples were there already." in again.stderr
    assert path.read_bytes() == before
    other = rag(*evaluation, "--set", "context.passages=2")
    assert other.returncode == 0, other.stderr
    assert "settings.pipeline.context.passages was 3, and is 2" in other.stderr
    (aside,) = (tmp_path / "results").glob("samples.*.before.jsonl")
    assert aside.read_bytes() == before
    back = rag(*evaluation)
    assert back.returncode == 0, back.stderr
    assert path.read_bytes() == before
    compared = rag("eval", "compare", str(tmp_path / "results"), str(tmp_path / "results"), "--json")
    assert compared.returncode == 0, compared.stderr
    assert [one for one in json.loads(compared.stdout)["differences"] if one["difference"] != 0] == []


def test_questions_about_documents_that_the_index_lacks_are_refused_before_an_engine_starts(
    rag: Cli, tmp_path: Path
) -> None:
    record = {"id": "q1", "question": "What?", "type": "simple", "answer": "It.", "gold_doc_ids": ["nowhere"]}
    (tmp_path / "set.jsonl").write_text(json.dumps(record | {"key_facts": [["it"]]}) + "\n")
    done = rag("eval", str(tmp_path / "set.jsonl"), "--sample", "--output", str(tmp_path / "results"))
    assert done.returncode == 2
    assert "Question 'q1' is answered by document 'nowhere', which index 'sample' lacks" in done.stderr
    assert "starting the engine" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_doctor_starts_the_engine_and_says_how_long_it_took(cli: Cli) -> None:
    done = cli("doctor", "--json", "--index", "sample")
    assert done.returncode == 0, done.stdout + done.stderr
    engine = json.loads(done.stdout)[-1]
    assert (engine["name"], engine["state"]) == ("engine", "ok")
    assert re.fullmatch(r"vllm \S+ on cpu: ready in [0-9.]+ s, 8 tokens", engine["found"])


RAMBLING = {"model": "smollm2-135m-instruct", "temperature": 2, "max_tokens": 4000, "speculation.method": "none"}
NEVER_STOPS = (
    "--sample",
    "--set=verify.action=mark",
    *(f"--set=generator.{name}={RAMBLING[name]}" for name in RAMBLING),
)


@contextmanager
def asking() -> Iterator[subprocess.Popen[bytes]]:
    """`rag ask` in a process group of its own, by a model that never stops; whatever is left of the group at the end is
    killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rag", "ask", *NEVER_STOPS, QUESTION],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for left in group(process.pid):
            left.kill()
        process.wait()


def group(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGINT, False, 130), (signal.SIGTERM, False, 143)],
)
def test_interrupted_while_the_engine_starts_it_ends_at_once_and_leaves_no_process(
    number: signal.Signals, whole_group: bool, code: int
) -> None:
    with asking() as process:
        wait_until(lambda: len(group(process.pid)) >= 3, 60)  # the engine's own processes are there
        (os.killpg if whole_group else os.kill)(process.pid, number)
        assert process.wait(timeout=10) == code
        wait_until(lambda: not group(process.pid), 5)


def test_interrupted_before_anything_has_started_it_ends_at_once() -> None:
    with asking() as process:
        time.sleep(1.5)
        assert [one.pid for one in group(process.pid)] == [process.pid], "the engine's processes are there"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=10) == 130
        wait_until(lambda: not group(process.pid), 5)


def test_interrupted_in_the_middle_of_an_answer_it_ends_at_once_and_leaves_nothing() -> None:
    before = set(Path("/dev/shm").glob("psm_*"))
    with asking() as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=10) == 130
        wait_until(lambda: not group(process.pid), 5)
    assert set(Path("/dev/shm").glob("psm_*")) <= before


def test_killed_in_the_middle_of_an_answer_it_leaves_nothing_either() -> None:
    def left() -> set[Path]:
        return {*Path("/dev/shm").glob("psm_*"), *Path(tempfile.gettempdir()).glob("rag-engine-*")}

    before = left()
    with asking() as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1)
        assert len(group(process.pid)) >= 3
        ours = left() - before
        assert {path.name[:4] for path in ours} == {"rag-"}
        process.kill()
        process.wait(timeout=10)
        wait_until(lambda: not group(process.pid), 10)
    wait_until(lambda: not any(path.exists() for path in ours), 5)


def test_an_engine_that_dies_in_the_middle_of_an_answer_is_one_clear_line_and_exit_1() -> None:
    with asking() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert os.read(process.stdout.fileno(), 1)
        for other in group(process.pid):
            if other.pid != process.pid:
                other.kill()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        last = errors.decode().splitlines()[-1]
        assert last.startswith("rag: The engine died after ")
        assert "vLLM's log: " in last
        assert b"Traceback" not in errors


class Typist:
    """`rag chat` at a terminal of its own, by a model that never stops, and somebody who waits for what is shown."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rag", "chat", *NEVER_STOPS],
            preexec_fn=partial(os.login_tty, theirs),  # so that Ctrl-C reaches the engine's processes too
            env={**os.environ, "TERM": "dumb"},
        )
        os.close(theirs)

    def types(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def waits_for(self, pattern: str, seconds: float = 20) -> None:
        """What was shown until then isn't looked at again."""
        seen, end = "", time.monotonic() + seconds
        while not re.search(pattern, seen):
            left = end - time.monotonic()
            assert left > 0, f"{pattern} isn't shown: {seen[-2000:]}"
            if select.select([self._ours], [], [], left)[0]:
                seen += os.read(self._ours, 4096).decode(errors="replace")

    def pauses(self) -> None:
        """Until the session waits for a key. CPython's readline module loses a signal that comes between a key's echo and its
        wait for the next key (it is heard at that key), which only a program is fast enough to hit."""
        wait_until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_SLEEPING, 5)

    def leaves(self) -> None:
        for left in group(self.process.pid):
            left.kill()
        self.process.wait()
        os.close(self._ours)


def test_ctrl_c_at_a_terminal_stops_the_answer_and_neither_the_session_nor_the_engine() -> None:
    typist = Typist()
    try:
        typist.waits_for("> ", 120)
        for question in (QUESTION, "How is it treated?"):
            typist.types(f"{question}\n")
            typist.waits_for(r"\?\s+(?:\S+\s+){12}")  # behind the question, which the terminal echoes
            typist.types("\x03")
            typist.waits_for("stopped\\s+> ")
        typist.types("half a line")
        typist.waits_for("half a line")
        typist.pauses()
        typist.types("\x03")
        typist.waits_for(r"\s> ")
        typist.types("/timings\n")
        typist.waits_for(r"No answer yet.\s+> ")  # before it the terminal would take Ctrl-D for the end of a line
        typist.types("\x04")
        assert typist.process.wait(timeout=20) == 0
        wait_until(lambda: not group(typist.process.pid), 5)
    finally:
        typist.leaves()
    history = paths.state_dir() / "chat_history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert QUESTION in history.read_text()
