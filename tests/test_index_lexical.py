"""BM25: two implementations, one order; and the words they count."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.index import lexical
from rag.index.lexical import K1, B, LexicalIndex, Tokenizer
from rag.text import STOP_WORDS

Implementation = Literal["bm25s", "rank_bm25"]
both = pytest.mark.parametrize("implementation", get_args(Implementation))

PASSAGES = 300
VOCABULARY = 400


def synthetic_corpus() -> list[list[str]]:
    """Passages of 5 to 80 words drawn as a language draws them: the n-th word of the vocabulary 1/n as often."""
    random = np.random.default_rng(0)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    weights /= weights.sum()
    return [
        [f"w{word}" for word in random.choice(VOCABULARY, size=random.integers(5, 80), p=weights)]
        for _ in range(PASSAGES)
    ]


CORPUS = synthetic_corpus()
FREQUENCIES = Counter(word for passage in CORPUS for word in set(passage))
RARE = sorted(word for word, frequency in FREQUENCIES.items() if 2 * frequency < PASSAGES)
COMMON = sorted(set(FREQUENCIES) - set(RARE))


def write(folder: Path, passages: Sequence[Sequence[str]]) -> None:
    with lexical.TokenWriter(folder, {}) as writer:
        for tokens in passages:
            writer.add(tokens)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lexical")
    write(folder, CORPUS)
    return folder


@pytest.fixture(scope="module")
def indexes(folder: Path) -> dict[str, LexicalIndex]:
    return {name: lexical.open_index(folder, name) for name in get_args(Implementation)}


def make(folder: Path, passages: Sequence[Sequence[str]], implementation: Implementation) -> LexicalIndex:
    write(folder, passages)
    return lexical.open_index(folder, implementation)


def okapi(passages: Sequence[Sequence[str]], query: Sequence[str], row: int) -> float:
    """BM25 as its paper has it (Robertson et al., TREC-3), of one passage."""
    average = sum(map(len, passages)) / len(passages)
    score = 0.0
    for word in query:
        holding = sum(word in passage for passage in passages)
        times = passages[row].count(word)
        weight = math.log((len(passages) - holding + 0.5) / (holding + 0.5))
        score += weight * times * (K1 + 1) / (times + K1 * (1 - B + B * len(passages[row]) / average))
    return score


# --- scores ------------------------------------------------------------------------------------


def test_the_corpus_of_these_tests_holds_rare_and_common_words() -> None:
    assert len(RARE) > 300
    assert len(COMMON) >= 3


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(RARE), min_size=1, max_size=6))
def test_both_agree_in_order_and_score(indexes: dict[str, LexicalIndex], query: list[str]) -> None:
    (some_scores, some_rows), (other_scores, other_rows) = (index.search(query, 50) for index in indexes.values())
    assert some_rows.tolist() == other_rows.tolist()
    np.testing.assert_allclose(some_scores, other_scores, rtol=1e-5)


@both
def test_scores_are_those_of_the_formula(indexes: dict[str, LexicalIndex], implementation: Implementation) -> None:
    query = [RARE[0], RARE[50], RARE[120]]
    scores, rows = indexes[implementation].search(query, PASSAGES)
    np.testing.assert_allclose(scores, [okapi(CORPUS, query, row) for row in rows], rtol=1e-5)
    assert set(rows.tolist()) == {row for row in range(PASSAGES) if set(query) & set(CORPUS[row])}
    assert np.all(np.diff(scores) <= 0)


@both
def test_a_word_asked_twice_counts_twice(indexes: dict[str, LexicalIndex], implementation: Implementation) -> None:
    once, twice = (indexes[implementation].search(query, 10) for query in ([RARE[7]], [RARE[7], RARE[7]]))
    np.testing.assert_allclose(2 * once[0], twice[0], rtol=1e-6)
    assert once[1].tolist() == twice[1].tolist()


def test_a_word_of_over_half_of_the_passages_counts_nothing_or_a_quarter_of_the_mean(
    indexes: dict[str, LexicalIndex],
) -> None:
    word = COMMON[0]
    assert indexes["bm25s"].search([word], 10)[0].size == 0
    scores, rows = indexes["rank_bm25"].search([word], 10)
    weights = {each: math.log((PASSAGES - n + 0.5) / (n + 0.5)) for each, n in FREQUENCIES.items()}
    assert weights[word] < 0
    ratio = 0.25 * float(np.mean(list(weights.values()))) / weights[word]
    np.testing.assert_allclose(scores, [ratio * okapi(CORPUS, [word], row) for row in rows], rtol=1e-5)


@both
@pytest.mark.parametrize("k", [0, 1, 3, 1000])
def test_at_most_k_are_found(indexes: dict[str, LexicalIndex], implementation: Implementation, k: int) -> None:
    scores, rows = indexes[implementation].search([RARE[0], RARE[1]], k)
    holding = sum(bool({RARE[0], RARE[1]} & set(passage)) for passage in CORPUS)
    assert len(scores) == len(rows) == min(k, holding)
    assert rows.tolist() == indexes[implementation].search([RARE[0], RARE[1]], PASSAGES)[1][:k].tolist()


@both
@pytest.mark.parametrize("query", [[], ["unknown"], ["unknown", "w1000000"]])
def test_a_query_without_a_known_word_finds_nothing(
    indexes: dict[str, LexicalIndex], implementation: Implementation, query: list[str]
) -> None:
    scores, rows = indexes[implementation].search(query, 10)
    assert (scores.shape, rows.shape) == ((0,), (0,))
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


@both
def test_unknown_words_change_nothing(indexes: dict[str, LexicalIndex], implementation: Implementation) -> None:
    known, mixed = (indexes[implementation].search(query, 10) for query in ([RARE[3]], ["?", RARE[3], "unknown"]))
    assert known[0].tolist() == mixed[0].tolist()
    assert known[1].tolist() == mixed[1].tolist()


@both
@pytest.mark.parametrize("k", [1, 2, 5, 9, 10])
def test_ties_are_broken_by_row(tmp_path: Path, implementation: Implementation, k: int) -> None:
    filler = [[f"other{n}", f"word{n}"] for n in range(30)]
    passages = [*filler[:10], *[["gout", "swells"]] * 9, ["gout", "gout"], *filler[10:]]
    _, rows = make(tmp_path, passages, implementation).search(["gout"], k)
    assert rows.tolist() == [19, *range(10, 19)][:k]


@both
def test_a_passage_without_a_word_is_never_found_and_shifts_no_row(
    tmp_path: Path, implementation: Implementation
) -> None:
    passages = [[], ["gout"], [], ["scurvy", "lemons"], ["malaria"], ["fever"], []]
    index = make(tmp_path, passages, implementation)
    assert index.search(["lemons"], 10)[1].tolist() == [3]
    assert index.search(["fever"], 10)[1].tolist() == [5]


@both
def test_a_corpus_of_one_passage_opens_and_is_searched(tmp_path: Path, implementation: Implementation) -> None:
    assert make(tmp_path, [["gout"]], implementation).search(["unknown"], 10)[1].tolist() == []


@both
def test_a_corpus_without_any_word_is_searched_in_vain(tmp_path: Path, implementation: Implementation) -> None:
    assert make(tmp_path, [[], []], implementation).search(["gout"], 10)[1].tolist() == []


def test_the_tokens_are_kept_for_any_later_implementation(folder: Path) -> None:
    offsets = np.load(folder / "token_offsets.npy", allow_pickle=False)
    assert np.diff(offsets).tolist() == [len(passage) for passage in CORPUS]
    assert len(np.load(folder / "tokens.npy", allow_pickle=False)) == sum(map(len, CORPUS))


# --- words -------------------------------------------------------------------------------------


def test_function_words_are_left_out_in_any_case() -> None:
    assert Tokenizer()("What is THE cause of it, and why does it do so?") == ["caus"]
    assert Tokenizer()(" ".join(STOP_WORDS)) == []


def test_words_that_only_begin_like_a_function_word_stay() -> None:
    assert Tokenizer()("Theory, Andes, isotope") == ["theori", "andes", "isotop"]


@pytest.mark.parametrize(
    "forms", ["disease diseases diseased", "infect infected infecting infection infections", "bleed bleeds bleeding"]
)
def test_forms_of_a_word_share_a_stem(forms: str) -> None:
    assert len(set(Tokenizer()(forms))) == 1


def test_words_are_runs_of_letters_and_digits() -> None:
    assert Tokenizer()("HbA1c, beta-blocker; snake_case (COVID-19) 3.5µg") == [
        *("hba1c", "beta", "blocker", "snake", "case", "covid", "19", "3", "5µg")
    ]


@pytest.mark.parametrize("form", ["Crohn's", "Crohn\u2019s", "CROHN'S"])
def test_a_possessive_is_found_by_its_name(form: str) -> None:
    assert Tokenizer()(form) == Tokenizer()("Crohn") == ["crohn"]


def test_letters_of_other_alphabets_are_words() -> None:
    assert Tokenizer()("Größe Ångström 糖尿病 малярия") == ["größe", "ångström", "糖尿病", "малярия"]


@pytest.mark.parametrize("text", ["", " \n", "... -- ?!", "[1] ."])
def test_a_text_without_words_has_only_its_numbers(text: str) -> None:
    assert Tokenizer()(text) == [character for character in text if character.isdigit()]
