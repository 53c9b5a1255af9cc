"""An index under attack: writers that are killed at any moment, bytes that change, readers while it is updated.

A small corpus has numbered revisions, each of which changes a third of its documents, so that a version tells by its
passages of which revision it is, and whether it is whole. What it takes to pass: no failure at all.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag import build, paths, settings
from rag.bench import Progress, commands, models, results
from rag.core import Document, Hits, Query, Trace
from rag.errors import IndexMissing, RagError, SearchIndexError, UsageError
from rag.index import IndexReader
from rag.search import HybridSearcher
from rag.settings import Loaded
from rag.training import corpora

if TYPE_CHECKING:
    from rag.core import Encoder

BENCH = "index"
SAMPLES, SUMMARY, HOME = "soak.jsonl", "soak.json", "soak"
SEED = 0
INDEX = "soak"
QUESTIONS = ("Which samples lie in drawer 3?", "When was sample 5 revised?", "What was revised in round 1?")

STARTING, READING, SWITCHING, SWITCHED = "starting", "reading and encoding", "switching", "switched"
REPORTED = (READING, "passages and vectors", "lexical index", "dense index", "checksums", SWITCHING)
"""The steps that `rag index` tells of, in their order."""

PHASES = (STARTING, *REPORTED, SWITCHED)
"""When a process may be killed: before its first step, in each, and once its version is in use."""

CHUNK = 100
"""Changes of a byte that are one sample."""

AT_ONCE = 10
"""Updates that are one sample."""

KILL, BYTES, READ = "kill", "bytes", "read"


@dataclass(frozen=True, slots=True)
class Counts:
    kills: int
    changes: int
    updates: int
    readers: int


class Mixed(Exception):
    """What an index holds, or answers with, isn't one revision's."""


# --- a corpus that tells its revision ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Corpus:
    size: int

    def revision(self, number: int) -> list[Document]:
        return [Document(f"d{row}", f"Sample {row}", self._text(row, number)) for row in range(self.size)]

    def revision_of(self, index: IndexReader) -> int:
        """The revision that an index holds. Raises `Mixed` where it isn't all of one, or has another number of vectors than of
        passages."""
        passages = index.passages.get(range(len(index.passages)))
        held = {passage.doc_id: passage.text for passage in passages}
        number = max((int(re.findall(r"\d+", text)[-1]) for text in held.values()), default=0)
        wanted = {document.id: document.text for document in self.revision(number)}
        if held != wanted or len(passages) != len(held):
            wrong = sum(held.get(name) != text for name, text in wanted.items())
            raise Mixed(f"of {len(passages)} passages and {len(held)} documents, {wrong} aren't of revision {number}")
        if not len(passages) == len(index.dense.vectors) == index.manifest.passages:
            raise Mixed(f"{len(passages)} passages, {len(index.dense.vectors)} vectors")
        return number

    def require(self, hits: Hits, number: int) -> None:
        """Raises `Mixed` where an answer is none, or isn't this revision's."""
        if not hits or any(hit.passage.text != self._text(int(hit.passage.doc_id[1:]), number) for hit in hits):
            raise Mixed(f"{len(hits)} hits that aren't all of revision {number}")

    @staticmethod
    def _text(row: int, number: int) -> str:
        changed = max(0, number - (row + number) % 3)  # the last round that was its turn
        return f"Sample {row} lies in drawer {row % 7}. It was revised in round {changed}."


@dataclass(frozen=True, slots=True)
class Soaked:
    """The index under attack: `loaded` names it, `file` is the corpus that its writers read."""

    loaded: Loaded
    corpus: Corpus
    file: Path
    queries: Sequence[Query]

    def write(self, revision: int) -> list[str]:
        """The corpus of a revision; the command that indexes it."""
        corpora.write(self.file, self.corpus.revision(revision))
        return commands.rag(self.loaded, "index", str(self.file), "--json")

    def open(self) -> tuple[int, HybridSearcher]:
        """As `rag search` opens it; its revision, all of which it holds. Raises `Mixed` or `SearchIndexError`."""
        reader = build.open_reader(self.loaded, build.check_index(self.loaded))
        return self.corpus.revision_of(reader), HybridSearcher(reader, self.loaded.settings.retrieve)

    def search(self, searcher: HybridSearcher, revision: int) -> None:
        for hits in searcher.search(self.queries, Trace()):
            self.corpus.require(hits, revision)

    def check(self) -> int:
        """The revision of a fresh open, which answers from it."""
        revision, searcher = self.open()
        self.search(searcher, revision)
        return revision

    def parts(self) -> int:
        """How many files of what it has encoded a writer has left for the next one."""
        return len(list((paths.indexes_dir() / INDEX / "unfinished").glob("*.npz")))

    def newest(self) -> int:
        """As `check`; 0 where there is no index yet."""
        try:
            return self.check()
        except IndexMissing:
            return 0


def prepare(folder: Path, size: int, encoder: Encoder | None = None) -> Soaked:
    """What to attack in `folder`, which is `RAG_HOME` by now."""
    loaded = settings.load(assignments=[f"index.name={INDEX}", "index.exact_up_to=100", "rerank.model=null"])
    encoder = encoder if encoder is not None else build.open_encoder(loaded)
    vectors = encoder.encode_queries(QUESTIONS)
    queries = [Query(text, vector) for text, vector in zip(QUESTIONS, vectors, strict=True)]
    return Soaked(loaded, Corpus(size), folder / "corpus.jsonl", queries)


@contextmanager
def home(folder: Path) -> Iterator[None]:
    """State of its own, with the models that are there already."""
    models.folder(settings.load().settings.embed.model)
    here = folder / "cache" / "models"
    here.parent.mkdir(parents=True, exist_ok=True)
    if not here.is_symlink():
        here.symlink_to(paths.models_dir().absolute())
    before = os.environ.get("RAG_HOME")
    os.environ["RAG_HOME"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAG_HOME"]
        else:
            os.environ["RAG_HOME"] = before


# --- kill -9 -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One process: `steps` with the seconds at which it told of them, and how it ended (-9: killed)."""

    steps: Mapping[str, float]
    seconds: float
    code: int
    said: str

    @property
    def phase(self) -> str:
        """The last one that it told of."""
        return next((step for step in reversed(REPORTED) if step in self.steps), STARTING)

    def lengths(self) -> dict[str, float]:
        """Seconds of each phase."""
        begun = [(STARTING, 0.0), *sorted(self.steps.items(), key=lambda step: step[1])]
        ends = [*(at for _, at in begun[1:]), self.seconds]
        return {phase: end - at for (phase, at), end in zip(begun, ends, strict=True)}


def run(command: Sequence[str], kill_in: str | None = None, after: float = 0.0) -> Run:
    """A process of `rag index`, killed `after` seconds in a phase of it unless it ends before."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    began = time.monotonic()
    steps: dict[str, float] = {}
    lines: list[str] = []

    def kill() -> None:
        time.sleep(after)
        process.kill()

    waiting = threading.Thread(target=kill)
    if kill_in == STARTING:
        waiting.start()
    for line in process.stderr:
        lines.append(line)
        step = line.removesuffix("\n").removesuffix(" ...")
        if step in REPORTED and step not in steps:
            steps[step] = time.monotonic() - began
            if step == kill_in:
                waiting.start()
    code = process.wait()
    process.stderr.close()
    seconds = time.monotonic() - began
    if waiting.ident is not None:
        waiting.join()
    return Run(steps, seconds, code, "".join(lines))


def kills(soaked: Soaked, count: int, taken: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Writers until `count` of them, with those `taken` before, were killed: a sample each, also of those that were quicker.

    The phases take turns. Each writer has something to write: the revision that the last one was killed over, of which it
    may find parts, or the next.
    """
    tried = Counter(sample["wanted"] for sample in taken)
    done = sum(sample["killed"] for sample in taken)
    goal = max((sample["goal"] for sample in taken), default=0)
    lengths = _first(soaked)
    before = soaked.check()
    goal = max(goal, before)
    number = len(taken)
    while done < count:
        chance = random.Random(f"{SEED}-{number}")
        wanted = min(PHASES, key=lambda phase: tried[phase])
        tried[wanted] += 1
        if goal == before or wanted == READING or chance.random() < 0.5:
            goal += 1
        reported = SWITCHING if wanted == SWITCHED else wanted
        ended = run(soaked.write(goal), reported, chance.random() * lengths[reported])
        found, problem = _after(soaked, ended, (before, goal))
        killed = ended.code == -9
        done += killed
        phase = SWITCHED if killed and found == goal else ended.phase
        yield {
            "id": number,
            "wanted": wanted,
            "killed": killed,
            "phase": phase,
            "before": before,
            "goal": goal,
            "found": found,
            "parts": soaked.parts(),
            "problem": problem,
        }
        before, number = found if found is not None else before, number + 1


def _first(soaked: Soaked) -> dict[str, float]:
    """How long each phase takes, by a writer that isn't killed. Raises `RagError` where that fails."""
    ended = run(soaked.write(soaked.newest() + 1))
    if ended.code != 0:
        raise RagError(f"rag index failed without being killed: {ended.said[-500:]}")
    return dict.fromkeys(PHASES, 0.1) | ended.lengths()


def _after(soaked: Soaked, ended: Run, expected: Sequence[int]) -> tuple[int | None, str | None]:
    """The revision that is found after a writer has ended, and what is wrong with it."""
    try:
        found = soaked.check()
    except (Mixed, RagError, OSError, ValueError, RuntimeError) as error:
        return None, f"{type(error).__name__}: {error}"
    if found not in expected:
        return found, f"revision {found}, expected one of {', '.join(map(str, expected))}"
    if ended.code not in (0, -9):
        return found, f"the writer failed: {ended.said[-300:]}"
    if ended.code == 0 and found != expected[-1]:
        return found, f"revision {found} after revision {expected[-1]} was written"
    return found, None


# --- bytes that change -------------------------------------------------------------------------


def changes(loaded: Loaded, count: int, chance: random.Random) -> list[str]:
    """Change a byte of the current version's files and change it back, `count` times; the places that went unnoticed.

    Half of them in whatever file, half wherever a byte is. `CURRENT` isn't among them: it names a whole version, or none.
    """
    folder = build.check_index(loaded).folder
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0)
    sizes = [path.stat().st_size for path in files]
    missed = []
    for number in range(count):
        path = chance.choice(files) if number % 2 else chance.choices(files, sizes)[0]
        position = chance.randrange(path.stat().st_size)
        with _changed(path, position, chance.randrange(1, 256)):
            try:
                build.check_index(loaded)
            except SearchIndexError:
                continue
            missed.append(f"{path.relative_to(folder)}:{position}")
    build.check_index(loaded)
    return missed


@contextmanager
def _changed(path: Path, position: int, by: int) -> Iterator[None]:
    with path.open("r+b", buffering=0) as file:

        def flip() -> None:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ by]))

        flip()
        try:
            yield
        finally:
            flip()


# --- readers while it is updated ---------------------------------------------------------------


@dataclass(slots=True)
class Reading:
    """What readers saw, together. Each opens the index anew after a while, and may keep a version that is long out of date."""

    soaked: Soaked
    answers: int = 0
    opened: int = 0
    problems: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, seed: str) -> None:
        chance, newest = random.Random(seed), 0
        while not self.stop.is_set():
            try:
                revision, searcher = self.soaked.open()
                with self.lock:
                    self.opened += 1
                if revision < newest:
                    raise Mixed(f"revision {revision} after {newest}")
                newest = revision
                for _ in range(chance.randrange(1, 20)):
                    self.soaked.search(searcher, revision)
                    with self.lock:
                        self.answers += len(self.soaked.queries)
                    if self.stop.wait(0.01):
                        break
            except Exception as error:
                with self.lock:
                    self.problems.append(f"{type(error).__name__}: {error}")
                self.stop.wait(0.1)


def read_during(soaked: Soaked, updates: Sequence[int], readers: int, update: Callable[[int], None]) -> dict[str, Any]:
    """What `readers` threads saw while the index went through these revisions."""
    reading = Reading(soaked)
    threads = [threading.Thread(target=reading.read, args=(f"{SEED}-{n}-{updates[0]}",)) for n in range(readers)]
    for thread in threads:
        thread.start()
    try:
        for revision in updates:
            update(revision)
    finally:
        reading.stop.set()
        for thread in threads:
            thread.join()
    return {
        "updates": len(updates),
        "answers": reading.answers,
        "opened": reading.opened,
        "problems": reading.problems,
    }


# --- the whole of it ---------------------------------------------------------------------------


def measure(folder: Path, size: int, counts: Counts, command: str, progress: Progress) -> None:
    """Take what samples there aren't yet of an earlier run with a corpus of the same size."""
    samples = results.Samples(folder, SAMPLES)
    taken = samples.resume(results.header(BENCH, command, settings={"documents": size}))
    of = {kind: [sample for sample in taken if sample["kind"] == kind] for kind in (KILL, BYTES, READ)}
    place = results.unpublished(folder, HOME)
    with home(place):
        progress("preparing")
        soaked = prepare(place, size)
        done = sum(sample["killed"] for sample in of[KILL])
        if done < counts.kills:
            progress("kills", done, counts.kills)
            for sample in kills(soaked, counts.kills, of[KILL]):
                samples.add({"kind": KILL, **sample})
                done += sample["killed"]
                progress("kills", done, counts.kills)
        if soaked.newest() == 0:
            _first(soaked)
        for number in range(len(of[BYTES]), -(-counts.changes // CHUNK)):
            few = min(CHUNK, counts.changes - number * CHUNK)
            missed = changes(soaked.loaded, few, random.Random(f"{SEED}-{number}"))
            samples.add({"kind": BYTES, "id": number, "changes": few, "missed": missed})
            progress("changed bytes", number * CHUNK + few, counts.changes)

        def update(revision: int) -> None:
            commands.run(soaked.write(revision))

        for number in range(len(of[READ]), -(-counts.updates // AT_ONCE)):
            progress("updates while readers search", number * AT_ONCE, counts.updates)
            first = soaked.check() + 1
            some = range(first, first + min(AT_ONCE, counts.updates - number * AT_ONCE))
            samples.add({"kind": READ, "id": number, **read_during(soaked, some, counts.readers, update)})


def summarise(folder: Path) -> list[results.Figure]:
    """Counts, from the samples on disk. Raises `UsageError` where there are none."""
    head, samples = results.Samples(folder, SAMPLES).read()
    if not samples:
        raise UsageError(f"No samples in {folder / SAMPLES}: run it, without --report-only.")
    killed = [s for s in samples if s["kind"] == KILL and s["killed"]]
    phases = Counter(s["phase"] for s in killed)
    changed = [s for s in samples if s["kind"] == BYTES]
    read = [s for s in samples if s["kind"] == READ]
    figures = [
        results.observed("kills", len(killed), "processes", at_least=1000),
        *(
            results.observed(f"kills_{phase.replace(' ', '_')}", phases[phase], "processes", at_least=1)
            for phase in PHASES
        ),
        results.observed(
            "kills_between_parts",
            sum(s["phase"] == READING and s["parts"] > 0 for s in killed),
            "processes",
            at_least=1,
        ),
        results.observed(
            "kills_failed", sum(s["problem"] is not None for s in samples if s["kind"] == KILL), "times", at_most=0
        ),
        results.observed("byte_changes", sum(s["changes"] for s in changed), "changes", at_least=10_000),
        results.observed("byte_changes_missed", sum(len(s["missed"]) for s in changed), "changes", at_most=0),
        results.observed("updates", sum(s["updates"] for s in read), "updates", at_least=100),
        results.observed("answers", sum(s["answers"] for s in read), "answers"),
        results.observed("answers_failed", sum(len(s["problems"]) for s in read), "times", at_most=0),
    ]
    results.write_summary(folder / SUMMARY, head, figures)
    return figures
