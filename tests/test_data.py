from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from rag import paths
from rag.index.lexical import STOP_WORDS
from rag.ingest import LeftOut, find_files, read_corpus

ROOT = Path(__file__).parent.parent
CORPUS = paths.shipped("data", "corpus")
PARAPHRASES = ROOT / "eval" / "paraphrases.jsonl"
QUESTION_SETS = {
    "qa_120": {"simple": 66, "synthesis": 36, "unanswerable": 18},
    "dev_60": {"simple": 33, "synthesis": 18, "unanswerable": 9},
}
SHIPPED = sorted(path for folder in ("data", "eval") for path in (ROOT / folder).rglob("*.jsonl"))

# What a word is, is open: letters and digits alone, or with the apostrophes inside it (as in `rag.index.lexical`),
# or with the hyphens too. The splits share no template under any of them.
WORDS = {
    "letters_and_digits": r"\w+",
    "apostrophes_inside": r"\w+(?:['\u2019]\w+)*",
    "hyphens_inside": r"\w+(?:['\u2019-]\w+)*",
}

Record: TypeAlias = dict[str, Any]
Words: TypeAlias = Callable[[str], Sequence[str]]


@cache
def read(path: Path) -> tuple[Record, ...]:
    return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


@cache
def corpus() -> dict[str, Record]:
    return {record["id"]: record for path in sorted(CORPUS.glob("*.jsonl")) for record in read(path)}


def questions(name: str) -> tuple[Record, ...]:
    return read(ROOT / "eval" / f"{name}.jsonl")


def plain(text: str) -> str:
    """Lower case, words alone: what a comparison should see."""
    return " ".join(re.findall(r"\w+", text.lower()))


def holds(text: str, variant: str) -> bool:
    """`variant` stands in `text`, and doesn't begin in the middle of a word."""
    return re.search(rf"(?<!\w){re.escape(variant.lower())}", text.lower()) is not None


def whole(document: Record) -> str:
    return f"{document['title']}\n{document['text']}"


def templates(pairs: Iterable[Record], words: Words, topics_at_least: int) -> dict[str, set[str]]:
    """Each template with the splits it stands in.

    A template is a question with every word masked that occurs under fewer than `topics_at_least` topics;
    a run of masked words is one `_`.
    """
    topics: dict[str, set[str]] = defaultdict(set)
    asked: list[tuple[str, str]] = []
    for pair in pairs:
        for question in (pair["a"], pair["b"]):
            asked.append((question, pair["split"]))
            for word in words(question.lower()):
                topics[word].add(pair["topic"])
    found: dict[str, set[str]] = defaultdict(set)
    for question, split in asked:
        masked = [word if len(topics[word]) >= topics_at_least else "_" for word in words(question.lower())]
        kept = [word for i, word in enumerate(masked) if word != "_" or i == 0 or masked[i - 1] != "_"]
        found[" ".join(kept)].add(split)
    return found


def shared(found: dict[str, set[str]]) -> list[str]:
    return sorted(template for template, splits in found.items() if len(splits) > 1)


# --- files ---------------------------------------------------------------------------------------


def test_the_shipped_files_are_the_ones_that_are_looked_at() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in SHIPPED}
    assert {"eval/qa_120.jsonl", "eval/dev_60.jsonl", "eval/paraphrases.jsonl"} <= names
    assert sum(name.startswith("data/corpus/") for name in names) == 20


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_jsonl_is_utf8_with_one_object_a_line_and_a_final_newline(path: Path) -> None:
    raw = path.read_bytes()
    assert raw.endswith(b"\n")
    assert not raw.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in raw
    text = raw.decode("utf-8")
    assert "\ufffd" not in text
    lines = text.removesuffix("\n").split("\n")
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert len(text.splitlines()) == len(lines)  # no separator inside a string that other readers would split at


# --- corpus --------------------------------------------------------------------------------------


def test_the_corpus_is_large_and_wide_enough_and_partly_confusable() -> None:
    documents = corpus().values()
    groups = Counter(document["group"] for document in documents if document["group"] is not None)
    assert len(documents) >= 240
    assert len({document["speciality"] for document in documents}) >= 12
    assert min(groups.values()) >= 2
    assert sum(groups.values()) >= 60


def test_document_ids_are_unique_slugs_over_all_files() -> None:
    ids = [record["id"] for path in CORPUS.glob("*.jsonl") for record in read(path)]
    assert [identity for identity, count in Counter(ids).items() if count > 1] == []
    assert [identity for identity in ids if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", identity)] == []


def test_titles_and_texts_are_unique() -> None:
    for field in ("title", "text"):
        values = Counter(plain(document[field]) for document in corpus().values())
        assert [value for value, count in values.items() if count > 1] == []


def test_every_document_has_the_schema() -> None:
    for path in CORPUS.glob("*.jsonl"):
        for document in read(path):
            where = f"{path.name}: {document['id']}"
            assert set(document) == {"id", "title", "text", "speciality", "keywords", "group"}, where
            assert document["speciality"] == path.stem, where
            assert document["group"] is None or re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", document["group"]), where
            for field in ("title", "text"):
                assert document[field].strip() == document[field] != "", where


def test_every_text_has_120_to_220_words() -> None:
    lengths = {identity: len(document["text"].split()) for identity, document in corpus().items()}
    assert {identity: length for identity, length in lengths.items() if not 120 <= length <= 220} == {}


def test_every_document_has_keywords_that_are_its_own() -> None:
    for identity, document in corpus().items():
        keywords = document["keywords"]
        assert isinstance(keywords, list), identity
        assert 3 <= len(keywords) <= 10, identity
        assert all(isinstance(keyword, str) and keyword.strip() == keyword != "" for keyword in keywords), identity
        assert len({keyword.lower() for keyword in keywords}) == len(keywords), identity
        words = set(plain(whole(document)).split())
        assert any(words & (set(plain(keyword).split()) - STOP_WORDS) for keyword in keywords), identity


def test_the_reader_takes_the_corpus_as_it_is() -> None:
    left_out = LeftOut()
    located = list(read_corpus(find_files([CORPUS], left_out), left_out))
    assert left_out == LeftOut()
    assert {one.document.id: one.document.text for one in located} == {i: d["text"] for i, d in corpus().items()}


def test_the_readme_states_the_corpus_size() -> None:
    readme = paths.shipped("data", "README.md").read_text(encoding="utf-8")
    specialities = {document["speciality"] for document in corpus().values()}
    assert f"{len(corpus())} documents, {len(specialities)} specialities" in readme


# --- question sets -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_a_question_set_has_its_exact_numbers_by_type(name: str) -> None:
    assert Counter(question["type"] for question in questions(name)) == QUESTION_SETS[name]


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_every_question_has_the_schema(name: str) -> None:
    found = questions(name)
    assert len({question["id"] for question in found}) == len(found)
    assert len({plain(question["question"]) for question in found}) == len(found)
    for question in found:
        where = question["id"]
        assert set(question) == {"id", "question", "type", "answer", "gold_doc_ids", "key_facts"}, where
        for field in ("id", "question", "answer"):
            assert isinstance(question[field], str), where
            assert question[field].strip() == question[field] != "", where
        assert question["question"].endswith("?"), where
        assert isinstance(question["key_facts"], list), where
        for variants in question["key_facts"]:
            assert isinstance(variants, list), where
            assert variants != [], where
            assert all(isinstance(variant, str) and variant.strip() == variant != "" for variant in variants), where


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_simple_has_one_gold_document_synthesis_two_or_more_and_unanswerable_none(name: str) -> None:
    for question in questions(name):
        gold, facts = question["gold_doc_ids"], question["key_facts"]
        assert len(set(gold)) == len(gold), question["id"]
        match question["type"]:
            case "simple":
                assert len(gold) == 1, question["id"]
            case "synthesis":
                assert len(gold) >= 2, question["id"]
            case "unanswerable":
                assert gold == facts == [], question["id"]
        assert (facts == []) == (question["type"] == "unanswerable"), question["id"]


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_every_gold_document_exists(name: str) -> None:
    assert {gold for question in questions(name) for gold in question["gold_doc_ids"]} - set(corpus()) == set()


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_every_key_fact_has_a_variant_in_a_gold_document_and_in_the_answer(name: str) -> None:
    for question in questions(name):
        gold = [whole(corpus()[identity]) for identity in question["gold_doc_ids"]]
        for variants in question["key_facts"]:
            assert any(holds(text, variant) for text in gold for variant in variants), (question["id"], variants)
            assert any(holds(question["answer"], variant) for variant in variants), (question["id"], variants)


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_every_gold_document_of_a_synthesis_holds_a_key_fact(name: str) -> None:
    for question in questions(name):
        for identity in question["gold_doc_ids"]:
            variants = [variant for fact in question["key_facts"] for variant in fact]
            assert any(holds(whole(corpus()[identity]), variant) for variant in variants), (question["id"], identity)


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_no_question_stands_verbatim_in_the_corpus(name: str) -> None:
    everything = "\n".join(plain(whole(document)) for document in corpus().values())
    assert [q["id"] for q in questions(name) if plain(q["question"]) in everything] == []


def test_the_two_sets_share_no_question_no_id_and_no_gold_document() -> None:
    first, second = questions("qa_120"), questions("dev_60")
    assert {plain(q["question"]) for q in first} & {plain(q["question"]) for q in second} == set()
    assert {q["id"] for q in first} & {q["id"] for q in second} == set()
    gold = [{identity for q in found for identity in q["gold_doc_ids"]} for found in (first, second)]
    assert gold[0] & gold[1] == set()


# --- conversations -------------------------------------------------------------------------------


def test_conversations_begin_with_a_question_that_stands_alone_and_lean_on_it_as_often_as_not() -> None:
    conversations = questions("chat_40")
    assert len(conversations) == 40
    assert Counter(one["split"] for one in conversations) == {"dev": 20, "heldout": 20}
    assert {len(one["turns"]) for one in conversations} <= {2, 3, 4}
    assert not any(one["turns"][0]["leans"] for one in conversations)
    later = [turn["leans"] for one in conversations for turn in one["turns"][1:]]
    assert 0.4 < sum(later) / len(later) < 0.6


def test_every_turn_has_its_meaning_and_the_document_that_holds_the_answer() -> None:
    for one in questions("chat_40"):
        for turn in one["turns"]:
            assert set(turn) == {"question", "leans", "standalone", "gold_doc_ids"}, one["id"]
            assert (turn["question"] != turn["standalone"]) is turn["leans"], one["id"]
            assert turn["gold_doc_ids"], one["id"]
            assert set(turn["gold_doc_ids"]) <= set(corpus()), one["id"]


def test_no_turn_of_a_conversation_is_like_a_question_of_the_sets() -> None:
    sets = [set(plain(q["question"]).split()) for name in QUESTION_SETS for q in questions(name)]
    for one in questions("chat_40"):
        for turn in one["turns"]:
            ours = set(plain(turn["standalone"]).split())
            assert max(len(ours & theirs) / len(ours | theirs) for theirs in sets) < 0.6, turn["standalone"]


# --- paraphrases ---------------------------------------------------------------------------------


def test_there_are_enough_pairs_of_both_kinds_in_both_splits() -> None:
    kinds = Counter(pair["kind"] for pair in read(PARAPHRASES))
    assert set(kinds) == {"paraphrase", "near_miss"}
    assert min(kinds.values()) >= 600
    assert min(Counter((pair["split"], pair["kind"]) for pair in read(PARAPHRASES)).values()) >= 200


def test_every_pair_has_the_schema() -> None:
    topics = {document["group"] or document["id"] for document in corpus().values()}
    for pair in read(PARAPHRASES):
        where = pair["id"]
        assert set(pair) == {"id", "a", "b", "same", "kind", "topic", "split"}, where
        assert pair["same"] is (pair["kind"] == "paraphrase"), where
        assert pair["split"] in ("calibration", "heldout"), where
        assert pair["topic"] in topics, where
        for field in ("a", "b"):
            assert isinstance(pair[field], str), where
            assert pair[field].strip() == pair[field] != "", where
        assert plain(pair["a"]) != plain(pair["b"]), where


def test_pair_ids_and_pairs_are_unique() -> None:
    pairs = read(PARAPHRASES)
    assert len({pair["id"] for pair in pairs}) == len(pairs)
    assert len({frozenset((plain(pair["a"]), plain(pair["b"]))) for pair in pairs}) == len(pairs)


def test_no_topic_and_no_question_stands_in_both_splits() -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for pair in read(PARAPHRASES):
        splits[f"topic {pair['topic']}"].add(pair["split"])
        splits[f"question {plain(pair['a'])}"].add(pair["split"])
        splits[f"question {plain(pair['b'])}"].add(pair["split"])
    assert shared(splits) == []


@pytest.mark.parametrize("topics_at_least", [20, 10])
@pytest.mark.parametrize("words", WORDS)
def test_no_question_template_stands_in_both_splits(words: str, topics_at_least: int) -> None:
    found = templates(read(PARAPHRASES), re.compile(WORDS[words]).findall, topics_at_least)
    assert len(found) > 1000  # so few words are masked that templates tell questions apart
    assert shared(found) == []


def test_the_template_of_a_question_masks_rare_words_and_collapses_runs() -> None:
    def pair(topic: str, split: str, a: str, b: str) -> Record:
        return {"a": a, "b": b, "topic": topic, "split": split}

    pairs = [
        pair("rabies", "calibration", "What causes rabies?", "Rabies virus: which animal?"),
        pair("mumps", "heldout", "What causes mumps virus spread?", "Is mumps severe?"),
    ]
    found = templates(pairs, re.compile(r"\w+").findall, 2)
    assert found == {
        "what causes _": {"calibration"},
        "_ virus _": {"calibration"},
        "what causes _ virus _": {"heldout"},
        "_": {"heldout"},
    }
    pairs.append(pair("measles", "heldout", "What causes measles?", "Why?"))
    assert shared(templates(pairs, re.compile(r"\w+").findall, 2)) == ["what causes _"]
