"""Is a sentence supported by the passages that it cites? The model's word, and what overrules it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rag.bert import convert
from rag.core import Hit, Passage, Sentence, Source, Support
from rag.differences import marked
from rag.errors import ModelError
from rag.pairs import open_pairs
from rag.settings import Verify
from rag.testing import FakeSupportChecker
from rag.verify import LABELS, CrossEncoderChecker, Judged, premise, shown, verdict


def source(marker: int, title: str, text: str) -> Source:
    return Source(marker, Hit(Passage(f"p{marker}", "d", title, "the whole passage", 0, 17), 1.0), text)


SOURCES = (
    source(1, "Malaria", "Plasmodium parasites cause malaria. Five species infect people."),
    source(2, "Scurvy", "A lack of vitamin C causes scurvy."),
    source(3, "Gout", "Crystals of urate cause gout."),
)


class Judge:
    """A pair model that finds what it was told for a premise's title, in an order of labels of its own."""

    labels = ("not_stated", "supported", "contradicted")

    def __init__(self, **verdicts: Support) -> None:
        self.verdicts = verdicts
        self.asked: list[tuple[str, str]] = []

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.asked += pairs
        said = [self.verdicts[second.split("\n")[0]] for _, second in pairs]
        rows = [[4.0 if label == one else 0.0 for label in self.labels] for one in said]
        return np.array(rows, dtype=np.float32).reshape(len(pairs), 3)


def support(judge: Judge, text: str, *markers: int, **settings: float) -> Support:
    checker = CrossEncoderChecker(judge, Verify(**settings))  # type: ignore[arg-type]
    (checked,) = checker.check([Sentence(text, markers)], SOURCES)
    assert (checked.text, checked.markers) == (text, markers)
    return checked.support


# --- the model's word ----------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS)
def test_a_sentence_has_the_verdict_of_its_passage(label: Support) -> None:
    judge = Judge(Malaria=label, Scurvy="supported", Gout="supported")
    assert support(judge, "Parasites cause malaria.", 1) == label
    assert judge.asked == [("Parasites cause malaria.", f"Malaria\n{SOURCES[0].quote}")]


@pytest.mark.parametrize(
    ("verdicts", "best"),
    [
        (("not_stated", "contradicted", "supported"), "supported"),
        (("contradicted", "not_stated", "contradicted"), "contradicted"),
        (("not_stated", "not_stated", "not_stated"), "not_stated"),
    ],
)
def test_of_several_cited_passages_the_best_verdict_counts(verdicts: tuple[Support, ...], best: Support) -> None:
    judge = Judge(**dict(zip(("Malaria", "Scurvy", "Gout"), verdicts, strict=True)))
    assert support(judge, "It is so.", 1, 2, 3) == best
    assert len(judge.asked) == 3


def test_a_sentence_that_cites_nothing_is_not_stated_and_costs_nothing() -> None:
    judge = Judge()
    assert support(judge, "It is so.") == "not_stated"
    assert judge.asked == []


def test_sentences_keep_their_order_and_their_passages() -> None:
    judge = Judge(Malaria="contradicted", Scurvy="supported", Gout="not_stated")
    written = [
        Sentence("A.", (2,)),
        Sentence("B.", ()),
        Sentence("C.", (1,)),
        Sentence("D.", (3, 2)),
        Sentence("E.", (3,)),
    ]
    checked = CrossEncoderChecker(judge, Verify()).check(written, SOURCES)
    assert [(one.text, one.support) for one in checked] == [
        ("A.", "supported"),
        ("B.", "not_stated"),
        ("C.", "contradicted"),
        ("D.", "supported"),
        ("E.", "not_stated"),
    ]


def test_no_sentences_are_none_checked() -> None:
    assert CrossEncoderChecker(Judge(), Verify()).check([], SOURCES) == ()


def test_more_certainty_can_be_asked_for() -> None:
    certainty = np.exp(4) / (np.exp(4) + 2)
    for asked, expected in ((certainty - 0.01, "supported"), (certainty + 0.01, "not_stated")):
        assert support(Judge(Malaria="supported"), "It is so.", 1, min_support=asked) == expected


def test_a_model_of_other_labels_is_refused() -> None:
    judge = Judge()
    judge.labels = ("entailment", "neutral", "contradiction")  # type: ignore[assignment]
    with pytest.raises(ModelError, match=r"supported, contradicted, not_stated.*has entailment.*verify\.model"):
        CrossEncoderChecker(judge, Verify())


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_real_cross_encoder_checks(cross_encoder: Callable[[Sequence[str]], Path], backend: str) -> None:
    folder = cross_encoder(["not_stated", "contradicted", "supported"])
    convert(folder)
    model = open_pairs(folder, "cpu", 64, 8, backend)  # type: ignore[arg-type]
    passage = source(1, "virus", "fever cough rash")
    likelier = set()
    for text in ("fever", "rash pain", "lemons cure"):
        powers = np.exp(model.logits([marked(text, "virus\nfever cough rash")])[0])
        not_stated, contradicted, supported = (powers / powers.sum()).tolist()
        likelier.add(supported > contradicted)
        for asked, enough in ((supported * 0.98, True), (supported * 1.02, False)):
            checker = CrossEncoderChecker(model, Verify(min_support=min(asked, 1.0)))
            (checked,) = checker.check([Sentence(text, (1,))], [passage])
            assert (checked.support == "supported") is (enough and supported > contradicted)
            assert (checked.support == "contradicted") is (contradicted > max(supported, not_stated))
    assert True in likelier, "no text is supported: this test can't fail"


@pytest.mark.parametrize(
    ("judged", "found"),
    [
        (Judged((0.6, 0.3, 0.1)), "supported"),
        (Judged((0.5, 0.5, 0.0)), "supported"),
        (Judged((0.6, 0.3, 0.1), numbers_stand=False), "not_stated"),
        (Judged((0.49, 0.41, 0.1)), "not_stated"),
        (Judged((0.3, 0.4, 0.3)), "contradicted"),
        (Judged((0.3, 0.4, 0.3), numbers_stand=False), "contradicted"),
        (Judged((0.1, 0.4, 0.5)), "not_stated"),
        (Judged((0.9, 0.05, 0.05), opposite=True), "contradicted"),
        (Judged((0.1, 0.4, 0.5), opposite=True), "not_stated"),
        (Judged((0.9, 0.06, 0.04), opposite=True), "contradicted"),
    ],
)
def test_a_verdict(judged: Judged, found: Support) -> None:
    assert verdict(judged, 0.5) == found


def test_the_model_is_told_which_words_differ() -> None:
    judge = Judge(Scurvy="contradicted")
    support(judge, "A lack of vitamin D causes scurvy.", 2)
    assert judge.asked == [("A lack of vitamin ⟨D⟩ causes scurvy.", "Scurvy\nA lack of vitamin ⟨C⟩ causes scurvy.")]


def test_the_opposite_of_a_passage_is_contradicted_whatever_the_model_says() -> None:
    judge = Judge(Scurvy="supported")
    assert support(judge, "A lack of vitamin C causes scurvy.", 2) == "supported"
    assert support(judge, "A lack of vitamin C prevents scurvy.", 2) == "contradicted"


# --- numbers -------------------------------------------------------------------------------------


def test_a_number_that_the_passage_lacks_overrules_the_model() -> None:
    judge = Judge(Malaria="supported", Scurvy="supported", Gout="contradicted")
    assert support(judge, "Five species infect people.", 1) == "supported"
    assert support(judge, "Six species infect people.", 1) == "not_stated"
    assert support(judge, "Six species infect people.", 3) == "contradicted"
    assert support(judge, "Five species infect people.", 2) == "not_stated"
    assert support(judge, "Five species infect people.", 2, 1) == "supported"


def test_a_number_may_stand_in_the_title_or_outside_what_the_model_reads() -> None:
    text = "Joints swell at night. " * 30 + "It began in 1846. " + "Urate crystals cause gout in joints. " * 3
    where = [source(1, "The year 1901", text)]
    checker = CrossEncoderChecker(Judge(**{"The year 1901": "supported"}), Verify(premise_chars=60))  # type: ignore[arg-type]
    for number, found in (("1901", "supported"), ("1846", "supported"), ("1847", "not_stated")):
        (checked,) = checker.check([Sentence(f"Urate crystals cause gout ({number}).", (1,))], where)
        assert checked.support == found, number


# --- what the model reads ------------------------------------------------------------------------

TEXT = (
    "Gout is painful. Joints swell at night. Crystals of urate form in cold joints. They inflame the tissue. "
    "Colchicine, 0.5 mg twice a day, calms it. Diet matters less than genes. Tophi are late."
)


def test_a_short_passage_is_read_whole() -> None:
    assert premise("Gout", TEXT, "anything", len(TEXT)) == f"Gout\n{TEXT}"


@pytest.mark.parametrize(
    ("sentence", "read"),
    [
        ("Urate crystals form in joints.", "Joints swell at night. Crystals of urate form in cold joints."),
        ("The dose is 0.5 mg.", "They inflame the tissue. Colchicine, 0.5 mg twice a day, calms it."),
        ("Late tophi and painful gout.", "Gout is painful. Joints swell at night. Tophi are late."),
        ("Nothing of the sort.", "Gout is painful. Joints swell at night. They inflame the tissue."),
    ],
)
def test_of_a_long_passage_the_sentences_nearest_to_the_one_checked_are_read_in_their_order(
    sentence: str, read: str
) -> None:
    assert premise("Gout", TEXT, sentence, 75) == f"Gout\n{read}"


def test_a_sentence_too_long_by_itself_is_cut() -> None:
    read = premise("T", "Short one here. " + "urate " * 50 + "end.", "urate", 60)
    assert read.startswith("T\nurate urate")
    assert len(read) <= 2 + 60


@given(
    st.lists(st.lists(st.sampled_from(["urate", "joints", "genes"]), max_size=8), min_size=1, max_size=12),
    st.lists(st.sampled_from(["urate", "joints", "tophi"]), max_size=3),
    st.integers(70, 200),
)
def test_a_premise_is_whole_sentences_in_their_order_and_leaves_no_room_for_another(
    contents: list[list[str]], sentence: list[str], limit: int
) -> None:
    parts = [" ".join([f"Sentence{number}", *words]) + "." for number, words in enumerate(contents)]
    read = premise("T", " ".join(parts), " ".join(sentence), limit).removeprefix("T\n")
    taken = [part for part in parts if part in read]
    assert read == " ".join(taken)
    assert len(read) <= limit
    assert all(len(read) + 1 + len(part) > limit for part in parts if part not in taken)
    shared = [len(set(sentence) & set(words)) for words in contents]
    assert parts[shared.index(max(shared))] in taken


@given(st.text(max_size=300), st.text(max_size=80), st.integers(50, 200))
def test_any_text_has_a_premise(text: str, sentence: str, limit: int) -> None:
    read = premise("T", text, sentence, limit)
    assert read.startswith("T\n")
    assert len(read) <= len("T\n") + limit


# --- what may be shown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("supports", "mark", "drop", "withhold"),
    [
        (("supported", "supported"), (True, True), (True, True), (True, True)),
        (("supported", "not_stated"), (True, True), (True, False), (False, False)),
        (("contradicted", "not_stated"), (True, True), (False, False), (False, False)),
        ((), (), (), ()),
    ],
)
def test_what_may_be_shown(
    supports: tuple[Support, ...], mark: tuple[bool, ...], drop: tuple[bool, ...], withhold: tuple[bool, ...]
) -> None:
    written = [Sentence("x", (1,), one) for one in supports]
    assert (shown(written, "mark"), shown(written, "drop"), shown(written, "withhold")) == (mark, drop, withhold)


def test_the_fake_knows_all_three_verdicts() -> None:
    written = [
        Sentence("Parasites cause malaria.", (1,)),
        Sentence("Parasites cause not malaria.", (2, 1)),
        Sentence("Parasites cause scurvy.", (1, 2)),
        Sentence("Parasites cause malaria.", ()),
    ]
    found = [one.support for one in FakeSupportChecker().check(written, SOURCES)]
    assert found == ["supported", "contradicted", "not_stated", "not_stated"]
