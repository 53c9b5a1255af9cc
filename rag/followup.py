"""A question that leans on the conversation before it, made one that stands alone. By rule, for English. Pure.

    it leans where                                          and becomes, after "How is malaria treated?"
    a pronoun stands for nothing in the question            How is it prevented?   -> How is malaria prevented?
    it is a fragment                                        And in children?       -> How is malaria treated in children?
                                                            What about scurvy?     -> How is scurvy treated?
    all its words go with any topic                         Is there a vaccine?    -> Malaria: is there a vaccine?
    "the ..." was spoken of, and little else is in it       Who saw the parasite?  -> Malaria: who saw the parasite?

The topic is put where a pronoun stood only if that can't say anything else: otherwise before the question. One that names
its topic, or another, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.text import STOP_WORDS
from rag.topics import (
    ASPECTS,
    KINDS,
    LONGEST_NAME,
    PEOPLE,
    goes_with_any,
    is_plural,
    lowered,
    mentions,
    own_words,
    shared_phrase,
    stem,
    stems,
    words_of,
)

LONGEST = 200
"""Characters. A longer question says itself what it is about."""

LONGEST_PHRASE = 3
"""Words that name people: more may say what the question is about."""

_ASKS = frozenset("what which who whom whose when where why how".split())  # noqa: SIM905
_AUXILIARIES = frozenset(
    """am are can could did do does had has have is may might must shall should was were will would isn't aren't wasn't
    weren't don't doesn't didn't can't won't shouldn't""".split()  # noqa: SIM905
)
_PREPOSITIONS = frozenset("after among at before by during for from in on since under until with without".split())  # noqa: SIM905
_PERSONS = frozenset("he him his she her hers".split())  # noqa: SIM905
_POSSESSIVES = frozenset("its their theirs his her hers".split())  # noqa: SIM905
_PLURALS = frozenset("they them their theirs these those".split())  # noqa: SIM905
_DEMONSTRATIVES = frozenset({"this", "that", "these", "those"})
_PRONOUNS = _PERSONS | _POSSESSIVES | _PLURALS | _DEMONSTRATIVES | {"it"}

_LEAD = re.compile(r"(?:and|but|or|so|then|ok|okay|well|now)\b[,:]?\s+", re.IGNORECASE)
_ABOUT = re.compile(r"(?:what|how)\s+about\s+", re.IGNORECASE)
_BARE = re.compile(
    r"""(?:(?:by|for|from|in|since|to|until|with)\s+)?
    (?:why(?:\ not)?|when|where|whom?|how(?:\ (?:come|long|many|much|often|so|soon|exactly|quickly|far|old))?|which|what)
    (?:\ (?:is|was|are|were|did|does)\ (?:that|this|it)(?:\ (?:so|happen|then))?)?""",
    re.IGNORECASE | re.VERBOSE,
)
_EXPLETIVE = re.compile(
    r"""it\s+(?:(?:is|was|be|really|always|ever|still)\s+)*
    (?:true|possible|safe|normal|common|dangerous|harmful|useful|ok|okay|right|better|best|necessary|important|likely|bad|good
      |wise|usual|rare|known|said|thought|advisable|recommended|worth|takes?|means?|help|matter|hurt)
    \s+(?:[^\W_]+\s+)?(?:that|to|for|when|if|before|until)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_CONTRACTION = re.compile(r"\b(it|that|they|he|she|what|who|how|where)['\u2019](s|re)\b", re.IGNORECASE)
_CLAUSE = re.compile(
    r"[,;:.?!]|\b(?:and|but|or|when|if|because|after|before|while|although|unless|once)\b", re.IGNORECASE
)
_POINTS_ELSEWHERE = re.compile(
    r"\s+(?:who|whom|whose|which|with|that|of|afternoon|century|day|evening|month|moment|morning|time|way|week|year)s?\b"
)
_COMPLEMENT = re.compile(r"\s+(?:of|in|for|with|against|that|which|who)\b")
_CONTINUES = re.compile(r"(?:please\s+)?(?:tell|say|give|show|explain)\b.*\bmore\b", re.IGNORECASE)
_LISTS = re.compile(r"(?:what|which)\s+(?:is|are|was|were)\b", re.IGNORECASE)
_DEFINES = re.compile(r"what\s+(?:is|was)\s+an?\s", re.IGNORECASE)
_ASKS_FOR_A_THING = re.compile(r"(?:[^\W_]+\s+)?(?:which|who|whose)\b", re.IGNORECASE)
_PERSON = re.compile(r"[A-Z][\w'\u2019-]+(?:\s+(?:[A-Z]\.|von|van|de))*(?:\s+[A-Z][\w'\u2019-]+)+")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question as it stands alone, what was answered, and what both are about: the main topic first, perhaps none."""

    question: str
    answer: str
    topics: tuple[str, ...]


def standalone(question: str, turns: Sequence[Turn]) -> str:
    """The question so that it can be understood without `turns`, the oldest first; the same text where it can be already."""
    about = next((turn for turn in reversed(turns) if turn.topics), None)
    if about is None or len(question) > LONGEST or any(mentions(question, topic) for topic in about.topics):
        return question
    led = _LEAD.match(question)
    rest = question[led.end() :] if led else question
    if of := _ABOUT.match(rest):
        made = _fragment(rest[of.end() :], True, about)
    else:
        made = _fragment(rest, led is not None, about) or _without_pronoun(_uncontracted(rest), about)
        if made is None and (_general(rest) or _spoken_of(rest, about)):
            made = _of_topic(rest, about.topics[0])
    return question if made is None else made[0].upper() + made[1:]


# --- the ways in which a question leans -----------------------------------------------------------


def _fragment(text: str, led: bool, about: Turn) -> str | None:
    """Made whole by the question before it; None where `text` is no fragment. `led`: after "and" or "what about"."""
    base, topic, whole, text = about.question.rstrip(" ?.!"), about.topics[0], text, text.rstrip(" ?.!")
    words = [word.group().lower() for word in words_of(text)]
    if not words:
        return None
    if _BARE.fullmatch(text):
        return f"{base}, and {lowered(text)}?"
    if not (_ASKS | _AUXILIARIES).isdisjoint(words) or len(words) > LONGEST_NAME:
        return None
    if words[0] in _PREPOSITIONS:
        return _with_phrase(base, lowered(text), about)
    if _general(text):
        if _of_people(text):
            return _with_phrase(base, f"in {lowered(text)}", about)
        return _of_topic(whole, topic)
    phrase = shared_phrase(base, topic) if led else None
    return f"{base.replace(phrase, text, 1)}?" if phrase is not None else None


def _with_phrase(base: str, phrase: str, about: Turn) -> str:
    """Behind the question before it, or in place of its own last words: "... in children", and then "in adults"."""
    head, found, tail = base.rpartition(f" {phrase.split()[0]} ")
    replaced = found and _of_people(tail) and not any(mentions(tail, one) for one in about.topics)
    return f"{head if replaced else base} {phrase}?"


def _of_people(phrase: str) -> bool:
    """Does it say whom something is asked of, and not what? "old women", "pregnancy"."""
    words = [stem(word.group()) for word in words_of(phrase)]
    return 0 < len(words) <= LONGEST_PHRASE and (words[-1] in PEOPLE or words[-1] == "pregnancy")


def _without_pronoun(question: str, about: Turn) -> str | None:
    """None where each pronoun has something in the question to stand for."""
    pronoun = next(_unbound(question), None)
    if pronoun is None:
        return None
    word = pronoun.group().lower()
    name = _meant(word, question[pronoun.end() :], about)
    if name is None:
        return _after_topic(question, about.topics[0])
    if word in _POSSESSIVES:
        name += "'" if name.endswith("s") else "'s"
    return question[: pronoun.start()] + name + question[pronoun.end() :]


def _meant(pronoun: str, after: str, about: Turn) -> str | None:
    """What can be written in a pronoun's place; None where that isn't certain."""
    if pronoun in _PERSONS:
        return _person(f"{about.answer}\n{about.question}") if pronoun != "her" else None
    if pronoun in _DEMONSTRATIVES and _is_determiner(after):
        return None
    if pronoun in ("it", "its") and _ASKS_FOR_A_THING.match(about.question):
        return None  # "Which drug treats gout?" "How does it work?": the drug, as far as anybody can tell
    several = pronoun in _PLURALS
    names = " and ".join(about.topics) if several else about.topics[0]
    return names if several == (is_plural(names) or (several and len(about.topics) > 1)) else None


def _person(text: str) -> str | None:
    """The first name of two words or more, as of "Alexander Fleming"; None where another one is joined to it."""
    # "The Scottish", "In British India": a sentence's first word is no name.
    found = [match for match in _PERSON.finditer(text) if match.group().split()[0].lower() not in STOP_WORDS]
    if not found or (len(found) > 1 and re.fullmatch(r",? and |, ", text[found[0].end() : found[1].start()])):
        return None
    return found[0].group()


def _general(question: str) -> bool:
    """Has it no word of a topic's own? "What is a virus?" asks for the thing itself."""
    return not own_words(question) and not _DEFINES.match(question)


def _spoken_of(question: str, about: Turn) -> bool:
    """Does it say "the" of a kind of thing, or of something that the turn spoke of, and no word of its own but beside that?"""
    if _CONTINUES.match(question):
        return True
    before = stems(f"{about.question} {about.answer}")
    words = [stem(word.group()) for word in words_of(question)]
    new = own_words(question) - before
    for place, noun in enumerate(words_of(question)[1:], start=1):
        behind = [word for word in words[place + 1 :] if word not in STOP_WORDS]
        beside = {*words[max(0, place - 2) : place], *behind[:1]}
        spoken_of = words[place - 1] == "the" and words[place] in before | KINDS
        if spoken_of and new <= beside and not _COMPLEMENT.match(question, noun.end()):
            return True
    return False


def _unbound(question: str) -> Iterator[re.Match[str]]:
    """Pronouns that nothing before them in the question can be meant by."""
    words = words_of(question)
    for place, word in enumerate(words):
        pronoun, after = word.group().lower(), question[word.end() :]
        if pronoun not in _PRONOUNS or _has_antecedent(question, pronoun, word.start()):
            continue
        fixed = _EXPLETIVE.match(question, word.start())
        if fixed is not None and own_words(question[fixed.end() :]):
            continue
        if pronoun == "that" and words_of(after) and (place == 0 or not _takes_object(words[place - 1].group())):
            continue  # "the fly that carries it", "is it true that"
        if pronoun in _POSSESSIVES and re.match(r"\s+own\b", after):
            continue
        if pronoun in _DEMONSTRATIVES and _POINTS_ELSEWHERE.match(after):
            continue
        yield word


def _has_antecedent(question: str, pronoun: str, at: int) -> bool:
    """Words of a topic's own in the clauses before; for "its" and "their" in their own clause too, if the number agrees."""
    ends = [clause.start() for clause in _CLAUSE.finditer(question, 0, at)]
    if ends and own_words(question[: ends[-1]]):
        return True
    nouns = [word.group() for word in words_of(question[:at])[1:] if not goes_with_any(word.group())]
    return pronoun in _POSSESSIVES and any(is_plural(noun) == (pronoun in _PLURALS) for noun in nouns)


def _takes_object(word: str) -> bool:
    return word.lower() in _AUXILIARIES | _PREPOSITIONS | {"about", "by", "like", "of", "to"}


def _is_determiner(after: str) -> bool:
    """Is it "this drug", not "is this done"?"""
    words = words_of(after)
    if not words or words[0].group().lower() in _AUXILIARIES | STOP_WORDS:
        return False
    return not goes_with_any(words[0].group()) or stem(words[0].group()) in ASPECTS | KINDS | PEOPLE


def _of_topic(question: str, topic: str) -> str:
    """For a question that says nothing of a topic's own: the topic behind what is asked of it, or before it all."""
    words = words_of(question)
    asks_of = stem(words[-1].group()) in ASPECTS and (len(words) <= 3 or _LISTS.match(question) is not None)
    return f"{question.rstrip(' ?.!')} of {topic}?" if asks_of else _after_topic(question, topic)


def _after_topic(question: str, topic: str) -> str:
    return f"{topic}: {lowered(question)}"


def _uncontracted(question: str) -> str:
    return _CONTRACTION.sub(lambda match: f"{match[1]} {'is' if match[2].lower() == 's' else 'are'}", question)
