"""`rag cache` in this process: what it tells of a cache beside the index of the sample corpus, and what it calibrates."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, Cli
from test_calibrate import Angles, judged, unmarked

from rag import build, index, paths, settings
from rag.build import parts
from rag.build.caching import cache_path, shape
from rag.cache import Entry, save
from rag.core import Hit, Hits, Passage
from rag.matching import LABEL, QuestionMatcher
from rag.stats import upper_bound
from rag.testing import FakeEncoder

MALARIA, SCURVY, GOUT = "What causes malaria?", "What cures scurvy?", "Why do joints swell in gout?"
ELSEWHERE = "year>2020"
DIMENSION = 384

Rag = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rag(rag: Cli) -> Rag:
    """`rag ...`; its exit status, standard output, and standard error without the lines of what it is doing."""

    def run(*arguments: str) -> tuple[int, str, str]:
        done = rag(*arguments)
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.endswith("...")]
        return done.returncode, done.stdout, "\n".join(lines)

    return run


class Encoder(FakeEncoder):
    """With as many dimensions as the index of the sample corpus."""

    dimension = DIMENSION


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    made = Encoder()
    monkeypatch.setattr(build, "open_encoder", lambda *_: made)
    return made


@pytest.fixture
def path(in_real_home: Path) -> Iterator[Path]:
    """Of the cache's file, which isn't there yet."""
    del in_real_home
    file = cache_path(loaded())
    file.unlink(missing_ok=True)
    yield file
    file.unlink(missing_ok=True)


def loaded() -> settings.Loaded:
    return settings.load(assignments=[f"index.name={build.SAMPLE}"])


def hits(*names: str) -> Hits:
    return tuple(Hit(Passage(f"{name}#0", name, name.capitalize(), f"All about {name}.", 0, 9), 0.5) for name in names)


def entry(question: str, found: Hits, age: float, where: str | None = None) -> Entry[Hits]:
    [vector] = Encoder().encode_queries([question])
    return Entry(question, where, vector, found, time.time() - age)


def fill(file: Path, *entries: Entry[Hits], **shaped_by: str) -> Path:
    version = index.check_current(index.Versions(paths.indexes_dir(), build.SAMPLE))
    save(file, entries, {**shape(loaded(), version), **shaped_by}, DIMENSION)
    return file


@pytest.fixture
def filled(path: Path) -> Path:
    """Four questions in the order of their use, three passages."""
    return fill(
        path,
        entry(GOUT, hits("gout"), 3 * 86_400 + 60),
        entry(MALARIA, hits("malaria", "gout"), 160),
        entry(SCURVY, (), 7300),
        entry(MALARIA, hits("rabies"), 100, ELSEWHERE),
    )


# --- stats -----------------------------------------------------------------------------------------


def test_of_an_index_without_a_cache_there_is_nothing_to_tell(rag: Rag, path: Path) -> None:
    code, out, err = rag("cache", "stats", "--sample", "--set", "cache.enabled=false")
    assert (code, out) == (0, f"0 of 1,000 questions, 0 passages, 0 bytes in {path}\n")
    assert err == "It isn't in use with these settings: cache.enabled=true switches it on."
    code, out, err = rag("cache", "stats", "--sample", "--json", "--set", "cache.enabled=false")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "file": str(path),
        "bytes": 0,
        "entries": 0,
        "max_entries": 1000,
        "passages": 0,
        "newest_s": None,
        "oldest_s": None,
        "enabled": False,
        "unusable": None,
    }
    assert not path.exists()


def test_questions_passages_and_ages_are_counted(rag: Rag, filled: Path) -> None:
    before = filled.read_bytes()
    code, out, err = rag("cache", "stats", "--sample", "--set", "cache.enabled=true", "--set", "cache.max_entries=2000")
    assert (code, err) == (0, "")
    assert out == (
        f"4 of 2,000 questions, 3 passages, {len(before):,} bytes in {filled}\n"
        "the newest of 2 min ago, the oldest of 3 d ago\n"
    )
    _, out, _ = rag("cache", "stats", "--sample", "--json", "--set", "cache.enabled=true")
    told = json.loads(out)
    assert (told.pop("newest_s"), told.pop("oldest_s")) == pytest.approx((100, 3 * 86_400 + 60), abs=30)
    assert told == {
        "file": str(filled),
        "bytes": len(before),
        "entries": 4,
        "max_entries": 1000,
        "passages": 3,
        "enabled": True,
        "unusable": None,
    }
    assert filled.read_bytes() == before, "who looks changes nothing"


@pytest.mark.parametrize("command", ["stats", "inspect"])
def test_a_cache_of_before_an_update_is_told_of_and_is_no_error(rag: Rag, path: Path, command: str) -> None:
    fill(path, entry(MALARIA, hits("malaria"), 60), **{"version of the index": "sample/000000 abc"})
    code, out, err = rag("cache", command, "--sample")
    assert code == 0
    assert re.search(r"won't be used: .*version of the index", out + err)
    _, out, _ = rag("cache", command, "--sample", "--json")
    told = json.loads(out)
    assert told["entries"] == 0
    assert "version of the index" in told["unusable"]
    assert path.is_file()


def test_other_settings_of_a_search_have_a_cache_of_their_own(rag: Rag, filled: Path) -> None:
    _, out, _ = rag("cache", "stats", "--sample", "--json", "--set", "retrieve.candidates=7")
    told = json.loads(out)
    assert (told["entries"], told["unusable"]) == (0, None)
    assert Path(told["file"]).parent == filled.parent
    assert Path(told["file"]) != filled


def damaged(file: Path, how: str) -> Path:
    whole = file.read_bytes()
    if how == "a byte":
        place = whole.index(b"All about gout")
        file.write_bytes(whole[:place] + b"B" + whole[place + 1 :])
    else:
        file.write_bytes({"cut off": whole[: len(whole) // 2], "empty": b"", "something else": b"x" * 5000}[how])
    return file


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("a byte", "it has changed since it was written (SHA-256 differs)"),
        ("cut off", "it can't be read ("),
        ("empty", "it can't be read ("),
        ("something else", "it can't be read ("),
    ],
)
def test_a_damaged_file_is_told_of_and_can_be_cleared(rag: Rag, filled: Path, how: str, said: str) -> None:
    damaged(filled, how)
    code, out, err = rag("cache", "stats", "--sample")
    assert (code, err) == (0, "")
    assert out.startswith(f"{filled} won't be used: {said}")
    assert out.count("\n") == 1
    code, out, err = rag("cache", "inspect", "--sample")
    assert (code, out) == (0, "Nothing is kept.\n")
    assert err.startswith(f"It won't be used: {said}")
    for command in ("stats", "inspect"):
        code, out, err = rag("cache", command, "--sample", "--json")
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert told["entries"] == 0
        assert told["unusable"].startswith(said)
    assert rag("cache", "clear", "--sample")[0] == 0
    assert not filled.exists()


# --- inspect ---------------------------------------------------------------------------------------


def test_what_is_kept_is_listed_with_the_newest_first(rag: Rag, filled: Path) -> None:
    del filled
    code, out, err = rag("cache", "inspect", "--sample")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f" 2 min  {MALARIA}  (where {ELSEWHERE})",
        f" 3 min  {MALARIA}",
        f"   2 h  {SCURVY}",
        f"   3 d  {GOUT}",
    ]
    _, out, _ = rag("cache", "inspect", "--sample", "-n", "2")
    assert out.count("\n") == 2
    _, out, _ = rag("cache", "inspect", "--sample", "--json", "--count", "3")
    told = json.loads(out)
    ages = [one.pop("age_s") for one in told["questions"]]
    assert ages == pytest.approx([100, 160, 7300], abs=30)
    assert told == {
        "entries": 4,
        "unusable": None,
        "questions": [
            {"question": MALARIA, "where": ELSEWHERE, "best": "Rabies"},
            {"question": MALARIA, "where": None, "best": "Malaria"},
            {"question": SCURVY, "where": None, "best": None},
        ],
    }


def test_of_an_empty_cache_there_is_nothing_to_list(rag: Rag, path: Path, encoder: Encoder) -> None:
    del path, encoder
    for more in ((), (MALARIA,)):
        code, out, err = rag("cache", "inspect", "--sample", *more, "--set", "cache.model=null")
        assert (code, out, err) == (0, "Nothing is kept.\n", "")
        _, out, _ = rag("cache", "inspect", "--sample", *more, "--json", "--set", "cache.model=null")
        assert json.loads(out) == {"entries": 0, "unusable": None, "questions": []}


def test_only_what_has_the_condition_is_listed_where_one_is_given(rag: Rag, filled: Path) -> None:
    del filled
    _, out, _ = rag("cache", "inspect", "--sample", "--json", "--where", ELSEWHERE)
    assert [(one["question"], one["where"]) for one in json.loads(out)["questions"]] == [(MALARIA, ELSEWHERE)]


NO_MODEL = ("--set", "cache.model=null")


def nearest(rag: Rag, question: str, *more: str) -> list[dict[str, Any]]:
    code, out, err = rag("cache", "inspect", "--sample", "--json", question, *more)
    assert (code, err) == (0, "")
    rows: list[dict[str, Any]] = json.loads(out)["questions"]
    return rows


@pytest.mark.usefixtures("filled", "encoder")
def test_without_a_model_a_repeat_alone_is_served(rag: Rag) -> None:
    rows = nearest(rag, "  what causes  malaria", *NO_MODEL)
    assert [(row["question"], row["exact"], row["same"], row["served"]) for row in rows] == [
        (MALARIA, True, None, True),
        *((row["question"], False, None, False) for row in rows[1:]),
    ]
    assert {tuple(row) for row in rows} == {("question", "cosine", "exact", "same", "served")}
    assert sorted(row["question"] for row in rows) == sorted([MALARIA, SCURVY, GOUT]), "once, of the same condition"
    assert [row["cosine"] for row in rows] == sorted((row["cosine"] for row in rows), reverse=True)
    assert rows[0]["cosine"] == pytest.approx(1.0)
    _, out, _ = rag("cache", "inspect", "--sample", "What causes malaria?", *NO_MODEL)
    assert out.splitlines()[0] == f"served  cosine 1.000  exact          {MALARIA}"
    assert re.fullmatch(r" {8}cosine 0\.\d{3}  not looked at  What cures scurvy\?", out.splitlines()[1])
    assert not any(row["served"] for row in nearest(rag, "What causes gout?", *NO_MODEL))


@pytest.mark.usefixtures("filled", "encoder")
def test_under_a_condition_only_what_was_asked_under_it_is_near(rag: Rag) -> None:
    [row] = nearest(rag, MALARIA, "--where", ELSEWHERE, *NO_MODEL)
    assert (row["question"], row["exact"], row["served"]) == (MALARIA, True, True)
    assert nearest(rag, MALARIA, "--where", "year>2021", *NO_MODEL) == []


class Same:
    """A pair model that is sure that both are the same, and keeps what it is asked."""

    labels = (LABEL,)

    def __init__(self, logit: float) -> None:
        self.logit = logit
        self.asked: list[set[str]] = []

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Any:
        import numpy as np

        self.asked += [set(map(unmarked, pair)) for pair in pairs]
        return np.full((len(pairs), 1), self.logit, dtype=np.float32)


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch) -> Same:
    model = Same(2.0)
    opened = QuestionMatcher(model, 0.8)
    monkeypatch.setattr(build, "open_matcher", lambda *_, anyhow=False: opened)  # noqa: ARG005
    return model


@pytest.mark.usefixtures("filled", "encoder")
@pytest.mark.parametrize(("logit", "served"), [(2.0, True), (1.0, False)])
def test_of_other_words_the_nearest_alone_is_looked_at_twice(rag: Rag, same: Same, logit: float, served: bool) -> None:
    same.logit = logit
    rows = nearest(rag, "What causes the malaria?")
    assert rows[0]["question"] == MALARIA
    assert rows[0]["same"] == pytest.approx({2.0: 0.880797, 1.0: 0.731059}[logit], abs=1e-6)
    assert [(row["exact"], row["served"]) for row in rows] == [(False, served), (False, False), (False, False)]
    assert [row["same"] for row in rows[1:]] == [None, None]
    assert same.asked
    assert all(pair == {"What causes the malaria?", MALARIA} for pair in same.asked)
    _, out, _ = rag("cache", "inspect", "--sample", "What causes the malaria?")
    assert out.splitlines()[0].startswith("served" if served else " " * 6)
    assert f"same {rows[0]['same']:.3f}" in out.splitlines()[0]


@pytest.mark.usefixtures("filled", "encoder")
def test_what_is_too_far_away_is_not_looked_at(rag: Rag, same: Same) -> None:
    [first, *_] = nearest(rag, "What causes the malaria?", "--set", "cache.min_cosine=0.99")
    assert (first["same"], first["served"]) == (None, False)
    assert same.asked == []


@pytest.mark.usefixtures("filled", "encoder")
def test_a_repeat_is_not_looked_at_and_nothing_beside_it(rag: Rag, same: Same) -> None:
    rows = nearest(rag, MALARIA)
    assert [(row["exact"], row["served"]) for row in rows] == [(True, True), (False, False), (False, False)]
    assert same.asked == []


@pytest.mark.usefixtures("filled", "encoder")
def test_what_is_older_than_may_be_is_served_no_more(rag: Rag) -> None:
    """As the cache has it, which drops it when it is looked for."""
    old = ("--set", "cache.ttl_s=130", *NO_MODEL)
    assert [row for row in nearest(rag, MALARIA, *old) if row["served"]] == []
    _, out, _ = rag("cache", "stats", "--sample", "--json", *old)
    assert json.loads(out)["entries"] == 1


# --- clear -----------------------------------------------------------------------------------------


def test_what_is_kept_is_removed_by_whatever_settings_and_nothing_beside_it(rag: Rag, filled: Path) -> None:
    beside = sorted(one.name for one in filled.parent.iterdir() if one != filled)
    other = filled.with_name("queries-0123456789ab.safetensors")
    other.write_bytes(b"of settings that nobody has any more")
    code, out, err = rag("cache", "clear", "--sample")
    assert (code, out) == (0, "")
    assert sorted(err.splitlines()) == sorted(f"removed {file}" for file in (filled, other))
    assert sorted(one.name for one in filled.parent.iterdir()) == beside
    assert rag("cache", "clear", "--sample") == (0, "", "Nothing is kept beside index 'sample'.")
    _, out, _ = rag("cache", "stats", "--sample", "--json")
    assert json.loads(out)["entries"] == 0


def test_another_index_keeps_its_own(rag: Rag, filled: Path) -> None:
    assert rag("cache", "clear", "--index", "other") == (0, "", "Nothing is kept beside index 'other'.")
    assert filled.is_file()


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("stats",), 1, "No index named 'default'"),
        (("stats", "--json"), 1, "No index named 'default'"),
        (("inspect",), 1, "No index named 'default'"),
        (("inspect", MALARIA, "--index", "papers"), 1, "No index named 'papers'"),
        (("inspect", MALARIA, "--where", "year>>2020"), 2, "at character 6"),
        (("stats", "--sample", "--index", "other"), 2, "name two indexes"),
        (("clear", "--index", "../data"), 2, "a name has small letters"),
        (("stats", "--set", "cache.max_entris=3"), 2, "Did you mean 'cache.max_entries'?"),
        (("calibrate", "nowhere.jsonl", *NO_MODEL), 2, "cache.model is null: name the model that is to be calibrated"),
        (("calibrate", "nowhere.jsonl", "--set", "cache.model=x"), 2, "Can't read nowhere.jsonl"),
    ],
)
def test_what_is_refused_is_told_in_one_line(rag: Rag, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, out, err = rag("cache", *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("rag: ")
    assert said in err
    assert "\n" not in err


def test_of_an_index_that_is_not_there_nothing_is_left_to_clear(rag: Rag, home: Path) -> None:
    assert rag("cache", "clear") == (0, "", "Nothing is kept beside index 'default'.")
    assert not home.exists(), "no model is built for that"


# --- calibrate -------------------------------------------------------------------------------------


def written(folder: Path, pairs: Sequence[Any]) -> Path:
    path = folder / "pairs.jsonl"
    rows: list[Mapping[str, Any]] = [{"a": one.a, "b": one.b, "same": one.same} for one in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def calibrated(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes pairs that have these logits, by a matcher that gives them."""
    del home

    def make(same: Sequence[float], others: Sequence[float]) -> Path:
        pairs, matcher = judged(same, others)
        monkeypatch.setattr(build, "open_encoder", lambda *_: Angles())
        monkeypatch.setattr(build, "open_matcher", lambda *_, anyhow=False: matcher if anyhow else None)
        return written(tmp_path, pairs)

    return make


MODEL = ("--set", "cache.model=x", "--set", "cache.max_wrong_hits=0.03")


def test_the_setting_goes_to_standard_output_and_what_it_comes_to_beside(
    rag: Rag, calibrated: Callable[..., Path]
) -> None:
    path = calibrated([3.0, 2.0, -3.0], [number / 100 - 1 for number in range(200)])
    assert upper_bound(1, 200) <= 0.03 < upper_bound(2, 200)
    code, out, err = rag("cache", "calibrate", str(path), *MODEL)
    assert code == 0
    assert re.fullmatch(r"cache\.min_same=0\.\d+\n", out)
    bound = upper_bound(1, 200)
    assert err.splitlines()[-2:] == [
        "2 of 3 pairs that ask the same are served (67%)",
        f"1 of 200 others are, wrongly: at most {bound:.2%} at 95%",
    ]
    code, out, err = rag("cache", "calibrate", str(path), *MODEL, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told.pop("min_same") == pytest.approx(1 / (1 + 2.718281828**-0.98), abs=1.1e-4)
    assert told == {"paraphrases": 3, "hits": 2, "near_misses": 200, "wrong": 1, "wrong_upper95": bound}


@pytest.mark.parametrize("logit", [0.970, 0.973, 0.977, 3.001, 3.004, 8.0, 12.0])
def test_what_is_printed_can_be_set_and_holds_the_bound(
    rag: Rag, calibrated: Callable[..., Path], logit: float
) -> None:
    """Not rounded down: the pair that has nearly this probability asks something else."""
    path = calibrated([logit + 1], [logit] * 3 + [-5.0] * 197)
    code, out, _ = rag("cache", "calibrate", str(path), *MODEL)
    assert code == 0
    chosen = settings.load(environ={}, assignments=[out.strip()]).settings.cache.min_same
    assert chosen is not None
    pairs, matcher = judged([logit + 1], [logit] * 3 + [-5.0] * 197)
    weighed = QuestionMatcher(matcher._model, chosen)
    wrong = sum(weighed.same(one.a, one.b) for one in pairs if not one.same)
    assert upper_bound(wrong, 200) <= 0.03


def test_too_few_pairs_and_a_bad_line_are_told_in_one_line(
    rag: Rag, calibrated: Callable[..., Path], tmp_path: Path
) -> None:
    path = calibrated([3.0], [0.0] * 98)
    code, out, err = rag("cache", "calibrate", str(path), *MODEL)
    assert (code, out) == (2, "")
    assert err == (
        "rag: No threshold: 98 pairs that ask something else, at least 99 are needed for a bound of 0.03. "
        "Add pairs, or raise cache.max_wrong_hits."
    )
    with path.open("a") as file:
        file.write('{"a": "What causes gout?", "same": false}\n')
    code, out, err = rag("cache", "calibrate", str(tmp_path / "pairs.jsonl"), *MODEL)
    assert (code, out) == (2, "")
    assert err.startswith(f"rag: {path}:100: b: Field required; expected like ")
    assert "\n" not in err


def test_a_model_is_calibrated_and_then_used(
    rag: Rag,
    cross_encoder: Callable[[Sequence[str]], Path],
    in_real_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A small one, of which nothing is known but what the pairs tell."""
    del in_real_home
    monkeypatch.setattr(parts, "MATCHED_TOKENS", 64)
    words = [word for word in WORDS if word.isalpha()]
    lines = [
        {"a": f"What is {one} and {other}?", "b": f"What is {other} or {one}?", "same": (row + place) % 3 == 0}
        for row, one in enumerate(words)
        for place, other in enumerate(words)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    model = cross_encoder((LABEL,))
    named = ("--set", f"cache.model={model}", "--set", "cache.max_wrong_hits=0.1")
    code, out, err = rag("cache", "calibrate", str(path), *named, "--json")
    assert code == 0, err
    told = json.loads(out)
    others = sum(not line["same"] for line in lines)
    assert (told["near_misses"], told["paraphrases"]) == (others, len(lines) - others)
    assert told["wrong_upper95"] == upper_bound(told["wrong"], others) <= 0.1
    assert 0 < told["min_same"] < 1
    refused = rag("cache", "calibrate", str(path), "--set", f"cache.model={cross_encoder(('relevant',))}")
    assert refused[0] == 1
    assert "this model gives relevant. Name another one in cache.model." in refused[2]


def test_a_model_that_is_not_calibrated_yet_is_named_with_what_to_do(
    rag: Rag, filled: Path, cross_encoder: Callable[[Sequence[str]], Path]
) -> None:
    del filled
    code, out, err = rag("cache", "inspect", "--sample", MALARIA, "--set", f"cache.model={cross_encoder((LABEL,))}")
    assert (code, out) == (2, "")
    assert "Set cache.min_same to what rag cache calibrate finds, or cache.model=null." in err
    assert "\n" not in err


# --- after a search --------------------------------------------------------------------------------


def test_what_a_search_has_kept_is_there(rag: Rag, path: Path) -> None:
    searching = ("search", "--sample", "--json", "--set", "cache.enabled=true", *NO_MODEL)
    code, out, err = rag(*searching, MALARIA)
    assert code == 0, err
    best = json.loads(out)["hits"][0]["passage"]["title"]
    assert path.is_file()
    [row] = nearest(rag, "what causes malaria", *NO_MODEL)
    assert (row["question"], row["exact"], row["served"]) == (MALARIA, True, True)
    _, out, _ = rag("cache", "inspect", "--sample", "--json")
    [kept] = json.loads(out)["questions"]
    assert (kept["question"], kept["best"]) == (MALARIA, best)
    _, out, _ = rag("cache", "stats", "--sample", "--json")
    assert json.loads(out)["entries"] == 1
    assert rag("cache", "clear", "--sample")[0] == 0
    _, out, _ = rag("cache", "stats", "--sample", "--json")
    assert json.loads(out)["entries"] == 0
