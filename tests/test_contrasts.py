"""Opposites, negations and members of one class in questions of nearly the same words."""

from __future__ import annotations

from itertools import combinations

import pytest
from test_data import PARAPHRASES, read
from test_data_questions import CLUSTERS, said

from rag import contrasts
from rag.contrasts import contrast, opposite
from rag.differences import align


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Which heart drugs raise the potassium level?", "Which heart drugs lower the potassium level?"),
        ("How does an overactive thyroid affect the heart?", "How does an underactive thyroid affect the heart?"),
        ("When should a sore throat be given penicillin?", "When should a sore throat not be given penicillin?"),
        ("Which fish can I eat while pregnant?", "Which fish can't I eat while pregnant?"),
        ("Which fish can I eat while pregnant?", "Which fish can\u2019t I eat while pregnant?"),
        ("When should metformin be stopped before surgery?", "When should metformin not be stopped before surgery?"),
        ("Is it only children who can have it?", "Is it not only children who can have it?"),
        ("How fast does atorvastatin work?", "How fast does simvastatin work?"),
        ("Can acetylsalicylic acid be given in dengue?", "Can paracetamol be given in dengue?"),
        ("Can I take aspirin with warfarin?", "Can I take digoxin with warfarin?"),
        ("How is morphine dosed in renal failure?", "How is oxycodone dosed in renal failure?"),
        ("When is the first dose of MMR given?", "When is the second dose of MMR given?"),
        ("Is stage II colon cancer irradiated?", "Is stage III colon cancer irradiated?"),
        ("How dangerous is hepatitis A in pregnancy?", "How dangerous is hepatitis E in pregnancy?"),
        ("Who does better with stents than with bypasses?", "Who does better with bypasses than with stents?"),
        ("Is warfarin better than apixaban in men?", "Is apixaban better than warfarin in women?"),
        ("How do you switch from warfarin to apixaban?", "How do you switch from apixaban to warfarin?"),
        (
            "Why is lorazepam preferred to diazepam in cirrhosis?",
            "Why is diazepam preferred to lorazepam in cirrhosis?",
        ),
        ("What heart rate is normal in infants?", "What heart rate is normal in adolescents?"),
        ("When does the rash of measles appear?", "Where does the rash of measles appear?"),
        ("How long do attacks of gout last?", "How often do attacks of gout return?"),
        ("How is pertussis diagnosed in infants?", "How is pertussis treated in infants?"),
        ("Which gland is affected in mumps?", "Which gland is spared in mumps?"),
        ("Does lead poisoning harm the liver?", "Does lead poisoning harm the kidneys?"),
        ("Which drug can shrink a prolactinoma?", "Which operation can remove a prolactinoma?"),
        ("Which of my drugs aren't safe with grapefruit?", "Which of my drugs are safe with grapefruit?"),
    ],
)
def test_what_cant_be_the_same_is_found_either_way_round(a: str, b: str) -> None:
    assert contrast(a, b)
    assert contrast(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Why should NSAIDs not be used in dengue?", "Why should NSAIDs be avoided in dengue?"),
        ("Why is A raised and B lowered in gout?", "In gout, why is B lowered and A raised?"),
        ("What causes malaria?", "What is the cause of malaria?"),
        ("Is acetaminophen safe in pregnancy?", "Is paracetamol safe in pregnancy?"),
        ("Does aciclovir shorten an attack of shingles?", "Does acyclovir shorten an attack of shingles?"),
        ("Can everyone except children take ASA?", "Can everyone but children take aspirin?"),
        (
            "Which painkillers should people with systolic heart failure stay away from?",
            "Which painkillers should be avoided by people with systolic heart failure?",
        ),
        ("How is TB treated with rifampin?", "How is TB treated with rifampicin?"),
        ("Which value stays normal in Gilbert syndrome?", "In Gilbert's, which one is never raised at all by it?"),
        ("Can adults have ibuprofen before paracetamol?", "Before paracetamol, can adults have ibuprofen?"),
        (
            "Why are cat bites infected more often than dog bites?",
            "Dog bites are infected less often than cat bites: why?",
        ),
        ("Is aspirin better than heparin after a stroke?", "After a stroke, is aspirin better than heparin?"),
        ("Is warfarin safer than apixaban in men?", "Is apixaban more dangerous than warfarin in men?"),
        ("Why is the dose higher for men than for women?", "Why is the dose lower for women than for men?"),
        ("Which stain is used for type II cells?", "Which stain is used for cells?"),
        ("Why is CRP not reliable in patients on tocilizumab?", "Why is CRP unreliable in patients on tocilizumab?"),
        ("Why can a patient after a stroke not swallow?", "Why is a patient after a stroke unable to swallow?"),
        (
            "When is a fever dangerous, and where is it measured?",
            "Where is a fever measured, and when is it dangerous?",
        ),
        ("", "What causes malaria?"),
    ],
)
def test_what_may_be_the_same_is_left_to_the_model(a: str, b: str) -> None:
    assert not contrast(a, b)
    assert not contrast(b, a)


def test_of_questions_that_ask_the_same_hardly_any_are_refused() -> None:
    """Of ten thousands that are written in clusters; of those that look alike many times as many."""
    same = near = refused = caught = 0
    for cluster in read(CLUSTERS):
        for pair in combinations(said(cluster), 2):
            same, refused = same + 1, refused + contrast(*pair)
        for other in cluster["tiny_near"]:
            near, caught = near + 1, caught + contrast(cluster["question"], other)
    assert refused / same < 0.003
    assert caught / near > 0.15


def test_so_it_is_with_questions_that_the_opposites_were_not_found_in() -> None:
    """Those for calibration: what is held out stays so."""
    pairs = [pair for pair in read(PARAPHRASES) if pair["split"] == "calibration"]
    refused = [pair["same"] for pair in pairs if contrast(pair["a"], pair["b"])]
    assert sum(refused) <= 0.003 * sum(pair["same"] for pair in pairs)
    assert len(refused) - sum(refused) >= 0.12 * sum(not pair["same"] for pair in pairs)


PASSAGE = (
    "Gout\nGout is more common in men than in women. Allopurinol lowers urate, and colchicine is often given before it. "
    "Gout follows from an excess of urate in the blood."
)


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("Allopurinol raises urate, and colchicine is often given before it.", True),
        ("Allopurinol lowers urate, and colchicine is seldom given before it.", True),
        ("Colchicine is often given before it, and allopurinol lowers urate.", False),  # in another order
        ("Gout is more common in mice than in women.", True),
        ("Gout follows from a deficiency of urate in the blood.", True),
        ("Gout is more common in men than in women.", False),
        ("Gout is more common in men than in ladies.", False),
        ("Allopurinol lowers urate, and colchicine is given long before it.", False),  # asks nothing
        ("Women have less urate than men until they are past the menopause.", False),  # follows no sentence
        ("Allopurinol is not unsafe, and colchicine is often given before it.", False),
        ("", False),
    ],
)
def test_a_sentence_that_says_the_opposite_of_the_one_it_follows_is_found(sentence: str, found: bool) -> None:
    assert opposite(sentence, PASSAGE, align(sentence, PASSAGE)) is found


@pytest.mark.parametrize(
    ("sentence", "passage"),
    [
        ("Aspirin is not safe for children.", "Aspirin is unsafe for children."),
        ("The lump is not painful at all.", "The lump is painless at all times."),
        ("Fever is more severe in older people.", "Fever is less severe in younger people."),
        ("The risk is higher after surgery than before it.", "The risk is lower before surgery than after it."),
        ("At least one in three patients has a relapse.", "More than one in three patients has a relapse."),
        ("Treatment of the cause relieves it.", "Management of the cause relieves it."),
        ("It is fatal within days if left untreated.", "It is fatal within days if not treated right away."),
        ("Symptoms of it last for two weeks.", "Symptoms of it at first persist for two weeks."),
        (
            "Warfarin is used to prevent blood clots in atrial fibrillation.",
            "Warfarin is used to treat blood clots and to prevent them in atrial fibrillation.",
        ),
    ],
)
def test_what_may_follow_from_a_passage_is_left_to_the_model(sentence: str, passage: str) -> None:
    assert not opposite(sentence, passage, align(sentence, passage))


@pytest.mark.parametrize("name", ["opposites.txt", "asked.txt"])
def test_every_line_of_a_table_has_sides_of_lower_case_words_that_no_other_side_has(name: str) -> None:
    lines = contrasts._lines(name)
    assert lines
    for line in lines:
        sides = [set(side.split()) for side in line.split("|")]
        assert len(sides) > 1, line
        assert all(sides), line
        assert line == line.lower()
        assert sum(map(len, sides)) == len(set.union(*sides)), line


def test_a_table_is_of_words_and_its_comments_are_none() -> None:
    """As the rules find words; a comma or a capital would never be met."""
    words = {
        word for name in ("opposites.txt", "asked.txt") for line in contrasts._lines(name) for word in line.split()
    }
    assert {word for word in words if not contrasts._WORD.fullmatch(word)} == {"|"}
    stems = " ".join(contrasts._lines("drug_stems.txt")).split()
    assert all(stem.isascii() and stem.isalpha() and stem.islower() for stem in stems)
    assert len(set(stems)) == len(stems) > 50
    names = " ".join(contrasts._lines("drugs.txt")).split()
    assert all(name.isascii() and name.isalpha() and name.islower() for name in names)
    assert len(set(names)) == len(names) > 150, "a name stands in one line"
    alone = [line for line in contrasts._lines("drugs.txt") if " " not in line]
    assert [name for name in alone if contrasts._STEM.fullmatch(name)] == [], "which its ending tells already"
