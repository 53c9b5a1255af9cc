"""Questions in many wordings, and what gives away a sentence that answers a kind of question. Pure.

MedQuAD asks each kind of question by one template; a model trained on that alone would answer the template.
"""

from __future__ import annotations

import random
import re

# `X` stands for the disease. The dataset's own template comes beside them.
WORDINGS: dict[str, tuple[str, ...]] = {
    "information": (
        "What is X?",
        "What is meant by X?",
        "Can you explain what X is?",
        "How would you describe X?",
        "What kind of condition is X?",
        "I have just been told about X. What is that?",
        "X: what is it?",
        "How is X defined?",
        "What does the term X mean?",
    ),
    "symptoms": (
        "What are the symptoms of X?",
        "How does X show itself?",
        "Which signs point to X?",
        "How do people with X feel or look?",
        "What problems does X cause in those who have it?",
        "How can one recognise X?",
        "Which features are typical of X?",
        "What would a patient with X notice?",
        "How does X present?",
    ),
    "treatment": (
        "How is X treated?",
        "What can be done about X?",
        "Which treatments are there for X?",
        "What helps against X?",
        "What therapy is given for X?",
        "How do doctors manage X?",
        "Is there a cure or a treatment for X?",
        "What is the management of X?",
        "My father has X; what are his options?",
    ),
    "causes": (
        "What causes X?",
        "Why do people get X?",
        "What brings about X?",
        "What is X due to?",
        "Where does X come from?",
        "What lies behind X?",
        "How does X come about?",
    ),
    "inheritance": (
        "Is X inherited?",
        "How is X passed on in families?",
        "Can X be inherited from one's parents?",
        "What is the inheritance pattern of X?",
        "Does X run in families?",
        "Will the children of someone with X have it too?",
    ),
    "frequency": (
        "How many people have X?",
        "How common is X?",
        "How often does X occur?",
        "What is the prevalence of X?",
        "Is X rare?",
        "How frequent is X in the population?",
    ),
    "genetic changes": (
        "Which gene is involved in X?",
        "What genetic changes underlie X?",
        "Which mutations lead to X?",
        "What is the genetic basis of X?",
        "Which genes are altered in X?",
    ),
    "exams and tests": (
        "How is X diagnosed?",
        "Which tests are done for X?",
        "How do doctors find out that someone has X?",
        "What examinations confirm X?",
        "How can X be detected?",
    ),
    "outlook": (
        "What is the outlook for people with X?",
        "What is the prognosis of X?",
        "How does X develop in the long run?",
        "Do people recover from X?",
        "Does X get better or worse with time?",
        "Is X fatal?",
        "What can someone with X expect for the future?",
        "How long do people with X live?",
    ),
    "susceptibility": (
        "Who gets X?",
        "Who is at risk of X?",
        "What raises the risk of X?",
        "Which people are more likely to develop X?",
        "Am I likely to get X?",
        "Which groups does X affect most?",
    ),
    "prevention": (
        "How can X be prevented?",
        "What can one do to avoid X?",
        "How does one lower the risk of X?",
        "Is there a way to prevent X?",
        "What protects against X?",
        "My aunt had X. How do I keep from getting it?",
    ),
    "research": (
        "What research is being done on X?",
        "Which studies of X are under way?",
        "What are scientists trying to find out about X?",
        "Are there clinical trials for X?",
        "Who does or pays for research on X?",
        "What do researchers hope to learn about X?",
        "Is anyone studying X?",
    ),
    "stages": ("What are the stages of X?", "How is X staged?", "Which stages does X go through?"),
    "complications": (
        "What are the complications of X?",
        "What can X lead to?",
        "Which problems can follow from X?",
        "What may happen if X gets worse or isn't treated?",
    ),
}

# Two kinds asked in one question.
BOTH: dict[tuple[str, str], tuple[str, ...]] = {
    ("causes", "treatment"): ("What causes X, and how is it treated?", "Where does X come from and what helps?"),
    ("symptoms", "treatment"): (
        "What are the symptoms of X, and how is it treated?",
        "How does X show itself, and what can be done about it?",
    ),
    ("information", "treatment"): ("What is X, and how is it treated?", "What is X and what is done about it?"),
    ("information", "frequency"): ("What is X, and how common is it?", "How common is X, and what is it?"),
    ("information", "inheritance"): ("What is X, and is it inherited?",),
    ("information", "genetic changes"): ("What is X, and which gene is involved?",),
    ("frequency", "inheritance"): ("How common is X, and how is it inherited?",),
    ("genetic changes", "inheritance"): ("Which gene is involved in X, and how is X inherited?",),
    ("information", "exams and tests"): ("What is X, and how is it diagnosed?",),
    ("symptoms", "exams and tests"): ("How does X present, and how is it diagnosed?",),
    ("causes", "symptoms"): ("What causes X, and what are its symptoms?",),
    ("information", "outlook"): ("What is X, and what is the outlook?",),
}

# The same kind asked of two diseases.
TWO: dict[str, tuple[str, ...]] = {
    "information": ("What are X and Y?", "What distinguishes X from Y?", "Explain X and Y."),
    "symptoms": ("What are the symptoms of X and of Y?", "How do X and Y present?"),
    "treatment": ("How are X and Y treated?", "What is done about X, and what about Y?"),
    "causes": ("What causes X and what causes Y?", "How do the causes of X and Y differ?"),
    "frequency": ("How common are X and Y?", "Which is more common, X or Y?"),
    "inheritance": ("How are X and Y inherited?", "Compare the inheritance of X and Y."),
    "genetic changes": ("Which genes are involved in X and in Y?",),
}

# A sentence with one of these answers the kind of question, or may.
_CUES = {
    "symptoms": r"symptom|signs?\b|characteri[sz]ed|features?\b|experience|pain|weakness|fever|affected (?:people|individuals)",
    "treatment": r"treat|therap|manag|surg|medicine|medication|drug|cure|relie[fv]|antibiotic|vaccin",
    "causes": r"caus|due to|result(?:s|ed)? (?:from|in)|mutation|lead(?:s)? to|triggered|linked to|occurs? (?:when|because)|arises?",
    "inheritance": r"inherit|autosomal|x-linked|sporadic|famil|passed|recessive|dominant|genetic",
    "frequency": r"\b1 in \b|affects|prevalence|incidence|estimated|approximately|rare|common|per \d|people|cases|newborns|unknown|"
    r"occurs in",
    "genetic changes": r"gene|mutation|chromosom|deletion|duplication",
    "exams and tests": r"diagnos|test|exam|detect|imag|biops|blood",
    "outlook": r"prognos|outlook|surviv|recover|life|fatal|progress|live|death|improve",
    "susceptibility": r"risk|more (?:likely|common)|affects|prone|age|occurs in",
    "prevention": r"prevent|avoid|reduc|lower|vaccin|protect",
    "complications": r"complicat|lead to|risk|can cause",
    "stages": r"stage",
    "research": r"research|trial|stud",
}  # fmt: skip
CUES = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _CUES.items()}


def ask(kind: str, focus: str, template: str, chance: random.Random, as_given: float = 0.4) -> str | None:
    """A question of a kind about `focus`: the dataset's own, where it has one, with probability `as_given`. None where
    there is none."""
    if kind not in WORDINGS or (template and chance.random() < as_given):
        question = re.sub(r"\s+([?.])", r"\1", template).replace("??", "?").replace("is (are)", "is")
        question = question[0].upper() + question[1:]
        return question if question.endswith("?") else None if kind not in WORDINGS else f"{question}?"
    return _filled(chance.choice(WORDINGS[kind]), focus)


def ask_both(kinds: tuple[str, str], focus: str, chance: random.Random) -> str | None:
    return _filled(chance.choice(BOTH[kinds]), focus) if kinds in BOTH else None


def ask_two(kind: str, first: str, second: str, chance: random.Random) -> str | None:
    return _filled(chance.choice(TWO[kind]), first, second) if kind in TWO else None


def _filled(template: str, first: str, second: str = "") -> str:
    names = {"X": first, "Y": second}
    question = re.sub(r"\b[XY]\b", lambda match: names[match[0]], template)
    return question[0].upper() + question[1:]
