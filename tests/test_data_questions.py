"""Questions that are the same or nearly: those that the matcher learns from, and those that it and the cache are measured on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from test_data import PARAPHRASES, ROOT, Record, plain, questions, read

from rag.cache import normalised

CLUSTERS = ROOT / "data" / "training" / "same_questions.jsonl"
TERMS = ROOT / "data" / "lexicon" / "terms.jsonl"
FRAMES = ROOT / "data" / "training" / "frames.jsonl"
SLOTS = {"disease", "symptom", "drug", "procedure", "organism", "structure", "person"}
TOLD_APART = ROOT / "eval" / "told_apart.jsonl"
TRACE = ROOT / "eval" / "trace.jsonl"

LISTS = {"same": (3, 3), "near": (3, 3), "tiny_same": (1, 2), "tiny_near": (1, 4)}
"""How many each has, at least and at most."""


def said(cluster: Record) -> list[str]:
    """What asks the same."""
    return [cluster["question"], *cluster["same"], *cluster["tiny_same"]]


def texts(cluster: Record) -> list[str]:
    return [*said(cluster), *cluster["near"], *cluster["tiny_near"]]


def learnt() -> Iterator[str]:
    return (text for cluster in read(CLUSTERS) for text in texts(cluster))


# --- what is learnt from ---------------------------------------------------------------------------


def test_every_cluster_has_the_schema() -> None:
    for number, cluster in enumerate(read(CLUSTERS), start=1):
        assert set(cluster) == {"topic", "question", *LISTS}, number
        assert all(least <= len(cluster[name]) <= most for name, (least, most) in LISTS.items()), number
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cluster["topic"]), number
        for text in texts(cluster):
            assert isinstance(text, str), number
            assert " ".join(text.split()) == text != "", number


def test_there_are_thousands_of_clusters_of_many_topics() -> None:
    topics = Counter(cluster["topic"] for cluster in read(CLUSTERS))
    assert topics.total() >= 6000
    assert len(topics) >= 4000
    assert max(topics.values()) <= 20


@pytest.mark.parametrize(("file", "said"), [(TERMS, "term"), (FRAMES, "frame")], ids=["terms", "frames"])
def test_every_line_of_the_lexicon_has_the_schema_and_no_wording_twice(file: Path, said: str) -> None:
    lines = read(file)
    assert {line["kind"] for line in lines} == SLOTS
    for number, line in enumerate(lines, start=1):
        assert set(line) == {"kind", said, "same", "near"}, number
        assert len(line["same"]) >= 1, number
        assert len(line["near"]) >= 2, number
        wordings = [line[said], *line["same"], *line["near"]]
        assert len({text.lower() for text in wordings}) == len(wordings), number
        for text in wordings:
            assert " ".join(text.split()) == text != "", number
            assert text.count("{}") == (file == FRAMES), number


def test_what_one_line_calls_the_same_no_other_one_calls_something_else() -> None:
    lines = read(TERMS)
    same = {frozenset(two) for line in lines for two in combinations({*map(term, [line["term"], *line["same"]])}, 2)}
    near = {
        frozenset((term(name), term(other)))
        for line in lines
        for name in [line["term"], *line["same"]]
        for other in line["near"]
    }
    assert same & near == set()


def term(text: str) -> str:
    """Without its article."""
    return re.sub(r"^(?:a|an|the) ", "", plain(text))


def test_there_are_thousands_of_terms_and_hundreds_of_frames() -> None:
    assert len(read(TERMS)) >= 6000
    assert len(read(FRAMES)) >= 900


def test_no_measured_pair_is_put_together_of_the_lexicon() -> None:
    """A question of one may be: of "What causes scurvy?" everybody thinks."""
    terms: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for number, line in enumerate(read(TERMS)):
        for text in [line["term"], *line["same"], *line["near"]]:
            terms[plain(text)].add((line["kind"], number))
    frames: dict[tuple[str, ...], set[tuple[str, int]]] = defaultdict(set)
    for number, line in enumerate(read(FRAMES)):
        for text in [line["frame"], *line["same"], *line["near"]]:
            frames[tuple(map(plain, text.split("{}")))].add((line["kind"], number))

    def made(question: str) -> set[tuple[int, int]]:
        """Lines of the terms and of the frames that it can be put together of."""
        words = question.split()
        found = set()
        for first, after in combinations(range(len(words) + 1), 2):
            rest = " ".join(words[:first]), " ".join(words[after:])
            for kind, term in terms.get(" ".join(words[first:after]), ()):
                found |= {(term, frame) for of, frame in frames.get(rest, ()) if of == kind}
        return found

    measured = [pair for pair in read(PARAPHRASES) if pair["split"] == "heldout"]
    assert sum(bool(made(plain(pair["a"]))) for pair in measured) > 0, "some questions are that plain"
    assert [pair for pair in measured if made(plain(pair["a"])) & made(plain(pair["b"]))] == []


def test_no_question_stands_twice_in_a_cluster() -> None:
    """In words that the cache takes for the same without the matcher."""
    twice = [c["question"] for c in read(CLUSTERS) if len(set(map(normalised, texts(c)))) < len(texts(c))]
    assert twice == []


def test_no_two_clusters_ask_the_same() -> None:
    """Two questions about a topic are learnt as different ones, so they have to be; and neither asks what the other does."""
    clusters: dict[str, list[str]] = defaultdict(list)
    for cluster in read(CLUSTERS):
        for text in set(map(plain, said(cluster))):
            clusters[text].append(f"{cluster['topic']}: {cluster['question']}")
    assert {text: of for text, of in clusters.items() if len(of) > 1} == {}


def test_no_question_that_is_measured_is_learnt() -> None:
    measured = {plain(text) for pair in read(PARAPHRASES) for text in (pair["a"], pair["b"])}
    measured |= {plain(text) for pair in read(TOLD_APART) for text in (pair["a"], pair["b"])}
    measured |= {plain(text) for row in read(TRACE) for text in row["wordings"]}
    measured |= {plain(one["question"]) for one in questions("qa_120")}
    assert [text for text in learnt() if plain(text) in measured] == []


def test_no_topic_that_is_held_out_is_learnt() -> None:
    held_out = {pair["topic"] for pair in read(PARAPHRASES) if pair["split"] == "heldout"}
    assert {cluster["topic"] for cluster in read(CLUSTERS)} & held_out == set()


def test_no_question_that_is_held_out_is_learnt_in_another_order_of_its_words() -> None:
    """It may slip in under another topic's name."""
    orders = {frozenset(plain(text).split()): text for text in learnt()}
    asked = {pair[name] for pair in read(PARAPHRASES) if pair["split"] == "heldout" for name in ("a", "b")}
    again = {text: orders[words] for text in asked if (words := frozenset(plain(text).split())) in orders}
    assert again == {}


# --- pairs that differ by what decides -------------------------------------------------------------

KINDS = {"drug", "negation", "age", "dose", "direction", "number", "organism", "year", "body", "aspect"}


def test_pairs_that_are_told_apart_are_a_hundred_at_least_and_of_every_kind() -> None:
    pairs = read(TOLD_APART)
    assert len(pairs) >= 100
    kinds = Counter(pair["kind"] for pair in pairs)
    assert set(kinds) == KINDS
    assert min(kinds.values()) >= 5


def test_every_pair_that_is_told_apart_has_the_schema_and_stands_there_once() -> None:
    pairs = read(TOLD_APART)
    for number, pair in enumerate(pairs, start=1):
        assert set(pair) == {"a", "b", "kind"}, number
        for name in ("a", "b"):
            assert " ".join(pair[name].split()) == pair[name] != "", number
        assert plain(pair["a"]) != plain(pair["b"]), number
    assert len({frozenset((plain(pair["a"]), plain(pair["b"]))) for pair in pairs}) == len(pairs)


def test_what_is_told_apart_is_alike() -> None:
    """Else it would be no feat: half of both questions' words are the same."""
    for pair in read(TOLD_APART):
        ours, theirs = (set(plain(pair[name]).split()) for name in ("a", "b"))
        assert len(ours & theirs) / len(ours | theirs) >= 0.5, (pair["a"], pair["b"])


def test_no_pair_is_called_the_same_in_one_file_and_not_in_another() -> None:
    apart = {frozenset((plain(pair["a"]), plain(pair["b"]))) for pair in read(TOLD_APART)}
    same = {frozenset((plain(pair["a"]), plain(pair["b"]))) for pair in read(PARAPHRASES) if pair["same"]}
    for cluster in read(CLUSTERS):
        same.update(frozenset(two) for two in combinations(map(plain, said(cluster)), 2))
    assert apart & same == set()


# --- the trace -------------------------------------------------------------------------------------


def test_the_trace_is_of_questions_of_the_test_set_that_can_be_answered() -> None:
    answerable = {one["id"]: one for one in questions("qa_120") if one["type"] != "unanswerable"}
    ids = [row["id"] for row in read(TRACE)]
    assert len(set(ids)) == len(ids) >= 3
    assert set(ids) <= set(answerable)
    assert all(answerable[name]["key_facts"] for name in ids), "else nothing tells whether an answer is right"


def test_every_question_of_the_trace_is_put_in_many_words_each_unlike_the_others() -> None:
    everywhere = Counter(plain(text) for row in read(TRACE) for text in row["wordings"])
    assert [text for text, count in everywhere.items() if count > 1] == []
    for row in read(TRACE):
        assert set(row) == {"id", "wordings"}
        assert len(row["wordings"]) >= 20
        assert [text for text in row["wordings"] if " ".join(text.split()) != text or not text] == []


def test_no_wording_of_the_trace_is_a_question_of_the_test_set() -> None:
    asked = {plain(one["question"]) for one in questions("qa_120")}
    assert [text for row in read(TRACE) for text in row["wordings"] if plain(text) in asked] == []
