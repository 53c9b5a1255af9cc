"""What two questions of nearly the same words can't both ask: opposites, a negation, two members of one class, roles exchanged. Pure.

A small model takes "overactive" for another word for "underactive" now and then, as a cosine does. Where two questions differ in
little else, that it is an opposite is looked up. In longer rewordings an opposite may say the same ("isn't raised", "stays normal"):
those are the model's to judge.
"""

from __future__ import annotations

import re

ALIKE = 0.7
"""Share of the shorter question's words that the other one has too."""

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|cannot|nor|neither|none|without|unlike|non|avoid(?:s|ed|ing)?|forbid(?:s|den)?|fail(?:s|ed)?|contraindicated|unsuitable|useless)\b"
    r"|n['\u2019]t\b",
    re.IGNORECASE,
)
"""Also what says as much: "not given" is "avoided"."""

_OPPOSITES = [
    tuple(frozenset(side.split()) for side in line.split("|"))
    for line in """
raise raises raised raising | lower lowers lowered lowering
increase increases increased increasing | decrease decreases decreased decreasing
high higher highest | low lower lowest
more most | less least fewer fewest
gain gains | loss lose loses
before | after
above over | below under
early earlier earliest | late later latest
start starts started starting begin begins beginning | stop stops stopped stopping end ends
initial starting loading | maintenance
minimum lowest | maximum highest
upper | lower
left | right
inner internal | outer external
anterior | posterior
proximal | distal
superficial | deep
artery arterial | vein venous
systolic | diastolic
motor | sensory
acute sudden suddenly | chronic gradual gradually
fast faster fastest rapid rapidly | slow slower slowest slowly
short shorter shortest | long longer longest
small smaller smallest | large larger largest
best | worst
mild | severe
benign | malignant
common commoner commonest | rare rarer rarest
overactive hyperthyroidism | underactive hypothyroidism
positive | negative
present presence | absent absence
safe safely | unsafe dangerous harmful
able can could | unable cannot
possible | impossible
lengthen lengthens prolong prolongs | shorten shortens
strengthen strengthens | weaken weakens
daily | weekly
therapeutic | prophylactic
hot warm warmer | cold cool cooler
active | inactive
living live alive | dead deceased killed inactivated
dominant | recessive
primary | secondary
sensitivity | specificity
advantage advantages benefit benefits | disadvantage disadvantages drawback drawbacks
morning | evening
inhaled | injected oral swallowed
oral swallowed | intravenous injected
newborn newborns neonates baby babies infant infants toddlers | adult adults elderly adolescents teenager teenagers
newborn newborns neonate neonates | infant infants toddler toddlers child children
child children | adult adults elderly
young younger youngest | old older oldest elderly
men man male males boy boys | women woman female females girl girls
mother mothers maternal | father fathers paternal
gram-positive | gram-negative
cause causes | treatment treatments treat treated cure
cause causes | symptom symptoms sign signs
prevented prevention | treated treatment
""".strip().split("\n")
]

_CLASSES = [
    re.compile(rf"\b(?:{pattern})\b", flags)
    for pattern, flags in (
        ("first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth", re.IGNORECASE),
        ("I{1,3}|IV|VI{0,3}|IX|XI{0,2}", 0),
        ("(?<=hepatitis )[a-e]|(?<=vitamin )[a-k]|(?<=influenza )[a-c]", re.IGNORECASE),
        # Species of a genus: Enterococcus faecalis and faecium.
        (r"(?!Which|Where|Whose|Could|Should|Would)[A-Z][a-z]{4,} ([a-z]{3,}(?:um|us|is|ae|ii?|ans|ens))", 0),
        # Drugs, by the stems of their international nonproprietary names (World Health Organization 2018, "Use of stems").
        (
            r"[a-z]{2,}(?:olol|alol|pril|sartan|statin|azole|mab|tinib|cillin|m[yi]cin|floxacin|dipine|gliptin|gliflozin|prazole|setron"
            r"|triptan|azepam|azolam|barbital|caine|vir|oxetine|profen|parin|xaban|gatran|cycline|thiazide|semide|tidine|glitazone"
            r"|glutide|dronate|lukast|terol|tropium|prost|ciclib|parib|cept|stim|grel|afil|triptyline|penem|bactam|tecan|taxel|rubicin"
            r"|platin|mustine|trexate|fenac|coxib|oxicam|zosin|curium|flurane|fibrate|vudine|citabine|morphone|codone)",
            re.IGNORECASE,
        ),
    )
]


def contrast(a: str, b: str) -> bool:
    """Do questions of nearly the same words differ in what can't be the same?"""
    one, other = _words(a), _words(b)
    if not one or not other or len(one & other) < ALIKE * min(len(one), len(other)):
        return False
    negated = bool(_NEGATION.search(a)) != bool(_NEGATION.search(b))
    turned = _opposed(one, other) != _exchanged(
        a, b
    )  # both, "A is more than B" and "B is less than A", is the same again
    return negated or turned or _of_one_class(a, b)


def _opposed(one: frozenset[str], other: frozenset[str]) -> bool:
    """Has each a word of one side, and none of the other?"""
    return any(
        one & left and not one & right and other & right and not other & left
        for first, second in _OPPOSITES
        for left, right in ((first, second), (second, first))
    )


def _of_one_class(a: str, b: str) -> bool:
    """Names each a member that the other doesn't?"""
    for pattern in _CLASSES:
        one, other = ({name.lower() for name in pattern.findall(text)} for text in (a, b))
        if one - other and other - one:
            return True
    return False


def _exchanged(a: str, b: str) -> bool:
    """Do two words change sides of what sets one against the other: "stents rather than bypasses", "from warfarin to apixaban"?"""
    for pattern in _BETWEEN:
        first, second = pattern.search(a), pattern.search(b)
        if first is not None and second is not None:
            (before, after), (before_too, after_too) = _sides(first), _sides(second)
            to_the_right = (before & after_too) - after - before_too
            to_the_left = (after & before_too) - before - after_too
            if to_the_right and to_the_left:
                return True
    return False


_BETWEEN = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?P<between>than)\b",
        r"\b(?P<between>but|whereas|while|instead of)\b",
        r"\bpreferred (?P<between>to)\b",
        r"\bfrom [\w-]+ (?P<between>to)\b",
    )
]


def _sides(found: re.Match[str]) -> tuple[frozenset[str], frozenset[str]]:
    start, end = found.span("between")
    return _words(found.string[:start]), _words(found.string[end:])


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
