"""The numbers of a text and their units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.quantities import missing_numbers, numbers, numbers_stand, wrong_units


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("In 2020 it fell by 3.5 to 12.", "2020 3.5 12"),
        ("1,200 and 1200", "1200"),
        ("12,345,678.50 euros", "12345678.5"),
        ("1\u202f200\u00a0000 people", "1200000"),
        ("3,5 and 3·50 and 3.500", "3.5"),
        ("0,125 mg", "0.125"),
        ("grades 1,2,3", "1 2 3"),
        ("5%, 5 % and 5 per cent", "5"),
        ("5-10 mg, 5\u201310%", "5 10"),
        ("Five species, twelve days, ONE dose", "5 12 1"),
        ("twenty-five or ninety two, and seventeen", "25 92 17"),
        ("two-thirds", "2"),
        ("someone, tensile, oneness, weight", ""),
        ("COVID-19 and H1N1 and B12", "19 1 12"),
        ("section 1.2.3", "1.2.3"),
        ("007 and 0 and 0.0", "7 0"),
        ("in 10⁶ cells, ²", "10"),
        ("none.", ""),
    ],
)
def test_numbers_are_read_as_values(text: str, found: str) -> None:
    assert numbers(text) == set(found.split())


@given(st.text(alphabet=st.sampled_from("0123456789.,·\u00a0\u2009\u202f -%aone"), max_size=30))
def test_any_text_has_numbers_that_stand_in_itself(text: str) -> None:
    assert missing_numbers(text, text) == frozenset()


@given(st.decimals(0, 10**7, places=3, allow_nan=False, allow_infinity=False))
def test_a_number_is_the_same_with_its_thousands_parted(value: object) -> None:
    assert numbers(f"{value:,}") == numbers(f"{value}") == numbers(f"{value:f}0")
    assert len(numbers(f"{value}")) == 1


@pytest.mark.parametrize(
    ("sentence", "passage", "missing"),
    [
        ("Five species infect people.", "5 species", ""),
        ("5 species infect people.", "five species", ""),
        ("Six species infect people.", "five species", "6"),
        ("It fell by 5%.", "It fell by 5 per cent.", ""),
        ("It fell by 50%.", "It fell by 5 per cent.", "50"),
        ("One of them is P. vivax.", "P. vivax", ""),
        ("1 of them is P. vivax.", "One is P. vivax", ""),
        ("1 of them is P. vivax.", "P. vivax", "1"),
        ("Between 2 and 3.5 mg", "2.5 to 3 mg", "2 3.5"),
        ("One infection in three passes unnoticed.", "Up to a third of infections pass unnoticed.", ""),
        ("33% pass unnoticed.", "A third pass unnoticed.", ""),
        ("34% pass unnoticed.", "A third pass unnoticed.", "34"),
        ("25 per cent of the sodium", "about a quarter of the sodium", ""),
        ("Nine out of ten smoke.", "More than 90 per cent smoke.", ""),
        ("Seven out of ten smoke.", "More than 90 per cent smoke.", "7 10"),
        ("Two in three smoke.", "67% smoke.", ""),
        ("90% smoke.", "Nine people in ten smoke.", ""),
        ("80% smoke.", "Nine people in ten smoke.", "80"),
        ("111% smoke.", "Ten in nine smoke.", "111"),
        ("12% smoke.", "12.5% smoke.", ""),
        ("13% smoke.", "12.5% smoke.", ""),
        ("14% smoke.", "12.5% smoke.", "14"),
        ("12.5% smoke.", "An eighth smoke.", ""),
        ("76.3% smoke.", "76% smoke.", "76.3"),
        ("Three quarters smoke.", "75% smoke.", ""),
        ("Three quarters smoke.", "25% smoke.", "3"),
        ("2 in 4 smoke.", "One in two smokes.", ""),
        ("Take 100 mg daily.", "5% of patients had nausea.", "100"),
        ("Give it for 10 days.", "It occurs in 30% of patients.", "10"),
        ("Give 4 mg.", "25% improved.", "4"),
        ("3 patients died.", "A third of patients died.", "3"),
        ("Take 50 mg.", "Half of the dose is given.", "50"),
        ("20% died.", "The fifth patient recovered.", "20"),
        ("About 33% die.", "A rash appears on the third day.", "33"),
        ("It took 6 days.", "It had gone by the sixth day.", "6"),
        ("52 in a hundred were healed.", "52 per cent were healed.", ""),
        ("60% of it was gone.", "three fifths of it had gone", ""),
        ("A third of it was gone.", "33% of it had gone", ""),
        ("It was gone by day six.", "It had gone by the sixth day.", ""),
        ("It was gone by day five.", "It had gone by the sixth day.", "5"),
        ("Of these 76% go untreated.", "Of these 76.3% go untreated.", ""),
        ("Take 76 mg.", "Take 76.3 mg.", "76"),
        ("It was found in the 1930s.", "It was found in 1933.", ""),
        ("It was found in the 1930s.", "It was found in 1943.", "1930"),
        ("It was found in 1930.", "It was found in 1933.", "1930"),
    ],
)
def test_numbers_that_a_passage_lacks(sentence: str, passage: str, missing: str) -> None:
    assert missing_numbers(sentence, passage) == set(missing.split())


@pytest.mark.parametrize(
    ("sentence", "passage", "wrong"),
    [
        ("It lasts 2 months.", "It lasts two weeks.", "2"),
        ("It lasts two weeks.", "It lasts 2 weeks.", ""),
        ("It lasts 2 weeks.", "It lasts between 2 and 4 weeks.", ""),  # without a unit of its own it may have any
        ("2 of them fell ill.", "It lasts 2 weeks.", ""),
        ("Half die, 50%.", "Of these 50 per cent die.", ""),
        ("A 7-day course.", "For 7 days.", ""),
        ("Take 5 mg.", "Take 5 g each day.", "5"),
        ("Take 5 mg.", "Take 5 milligrams each day.", ""),
        ("Take 10 \u00b5g.", "Take 10 mcg.", ""),
        ("People aged 60 years.", "A 60-year-old man.", ""),
        ("3 feet long.", "3 inches long.", "3"),
        ("Type 2 diabetes.", "Diabetes of 2 kinds.", ""),
        ("5 days, then 5 weeks.", "5 days, then 5 months.", "5"),
        ("5 days.", "5 days, then 5 months.", ""),
        ("5 ng of it.", "5 mg of it.", "5"),
        ("5000 IU.", "5000 mg.", "5000"),
        ("120 mmHg.", "120 kPa.", "120"),
        ("120 mm Hg.", "120 mmHg.", ""),
        ("37 \u00b0C.", "37 \u00b0F.", "37"),
        ("37 \u00b0C.", "37 degrees Celsius.", ""),
        ("37 \u00b0C.", "37 degrees.", ""),
        ("9 weeks.", "5 days.", ""),  # that the number isn't there at all is `missing_numbers`' to say
        ("2 million people.", "2 m long.", ""),
    ],
)
def test_a_number_with_another_unit_only_is_wrong(sentence: str, passage: str, wrong: str) -> None:
    assert wrong_units(sentence, passage) == set(wrong.split())


@given(st.text(max_size=120))
def test_a_text_s_units_are_its_own(text: str) -> None:
    assert wrong_units(text, text) == frozenset()


@pytest.mark.parametrize(
    ("sentence", "passage", "stand"),
    [
        ("Take .5 mg.", "Take 5 mg.", False),
        ("p < .05", "p < 0.05", True),
        ("Thirty people fell ill.", "20 people fell ill.", False),
        ("20 people fell ill.", "Twenty people fell ill.", True),
        ("Take 5 mg/kg.", "Take 5 mg.", False),
        ("Take 5 mg per kg.", "Take 5 mg/kg.", True),
        ("Take 10 mg/week.", "Take 10 mg/day.", False),
        ("Take 10 mg weekly.", "Take 10 mg daily.", False),
        ("Creatinine was 5 \u00b5mol/L.", "Creatinine was 5 mmol/L.", False),
        ("Creatinine was 5 \u00b5mol/L.", "Creatinine was 5 \u03bcmol/l.", True),
        ("The dose was 200 MBq.", "The dose was 200 GBq.", False),
        ("Take 5 units.", "Take 5 IU.", True),
        ("Take 5 ug.", "Take 5 mg.", False),
        ("Take 10 mg daily.", "Take 10 mg every day, or 20 mg a week.", True),
        ("Take 20 mg/d.", "Take 10 mg every day, or 20 mg a week.", False),
        ("A dose is 10 mg.", "Take 10 mg daily.", True),
        ("Take 10 mg daily.", "A dose is 10 mg.", True),
        ("Take 10 mg once a day.", "Take 10 mg/day.", True),
        ("Take 10 mg twice daily.", "Take 10 mg daily.", False),
        ("Take 10 mg three times a day.", "10 mg are taken 3 times daily.", True),
        ("Take 10 mg three times a day.", "10 mg are taken twice a day.", False),
        ("Take it three times: 10 mg.", "Take 10 mg 3 times a day.", True),
        ("Take 5 mg/kg/day.", "Take 5 mg/kg each day.", True),
        ("Take 5 mg/kg/day.", "Take 5 mg/kg per hour.", False),
        ("It rises by 5% a year.", "It rises by 5% yearly.", True),
        ("Take 5 mg daily.", "Take 5 mg/day.", True),
        ("It takes 2 min.", "It takes 2 hours.", False),
        ("It takes 24 h.", "It takes 24 hours.", True),
        ("1.5 million people have it.", "1,500,000 people have it.", True),
        ("Two hundred thousand people have it.", "200,000 have it.", True),
        ("One hundred and fifty people have it.", "150 have it.", True),
        ("A thousand people have it.", "One thousand people have it.", True),
        ("Twenty-one of them.", "20 of them.", False),
        ("One in ten dies.", "1 in 10 dies.", True),
    ],
)
def test_numbers_and_units_stand_or_not(sentence: str, passage: str, stand: bool) -> None:
    assert numbers_stand(sentence, passage) is stand
