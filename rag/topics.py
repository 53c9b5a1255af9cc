"""What a text is about: its words, those that go with any topic, and names of topics. For English. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from rag.text import STOP_WORDS

Words: TypeAlias = list[re.Match[str]]

LONGEST_NAME = 8
"""Words. A longer title is a sentence, and no name of what it is about."""

LONGEST_TITLE = 32
"""Words of a title that are compared: some corpora have whole texts there."""

PEOPLE = frozenset("adult baby boy child female girl infant man newborn patient people person toddler woman".split())  # noqa: SIM905

ASPECTS = frozenset(
    """advantage alternative benefit cause complication contraindication cost course danger definition diagnosis difference
    disadvantage dose effect example form frequency function goal history interaction kind limit meaning mechanism method
    mortality name origin outcome outlook prevention prognosis purpose reason result risk role severity sign stage
    structure symptom test transmission treatment type use warning""".split()  # noqa: SIM905
)
"""What is asked for *of* a topic."""

KINDS = frozenset(
    """agent animal antibiotic antibody antidote bacteria bacterium cell condition cure damage device disease disorder drug
    gene germ illness infection injection insect medicine microbe mutation operation organism parasite poison procedure
    protein substance surgery syndrome tablet technique therapy toxin vaccination vaccine virus worm""".split()  # noqa: SIM905
)
"""What a topic is one of, or comes with: nothing by themselves."""

GENERAL = (
    STOP_WORDS
    | PEOPLE
    | ASPECTS
    | KINDS
    | frozenset(
        """able acute affect age ago almost already also always another anybody anyone anything apart around attack available
        avoid bad become begin best better born bring call carry case catch certain chance chronic come common commonly
        condition confirm continue contagious control country curable cure current dangerous day dead deadly death describe
        described detail detect detected develop die diagnose discover discovered doctor done early easily effective else end
        ensure especially ever every everyone exactly explain factor famous fast fatal find first follow found further general
        get give given go good great happen harm harmful help helpful hereditary high home hour important increase infectious
        inherit inherited instead invent invented involve kill know known large last late later lead less life lifelong like
        likely little live long look low main major make many matter may mean mild minute month more most mostly much must
        name naturally need needed never new next normal normally notice number often old one oneself only part pass past
        people permanent place possible pregnancy pregnant prevent problem proceed progress protect quickly rare rate rather
        recognise recognize recommend recover recur reduce relapse repeat required return reversible run safe safely say see
        serious seriously severe shape short should show side similar soon special spread start stay step still stop success
        suddenly suffer suspect take taken tell then thing think time together top treat treatable treated true try turn
        two typical typically unusual used usual usually vary warn wait way week well whether whole without work world worse
        worst would year young""".split()  # noqa: SIM905
    )
)
"""Words, as a dictionary lists them, that go with any topic: a question of these alone has none."""

_WORD = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*")
_GENITIVE = re.compile(r"['\u2019]s?$")
_INFLECTION = re.compile(r"(?:e?d|es|ing|ly)$")
_IRREGULAR = {"children": "child", "men": "man", "women": "woman"}
_SINGULAR = frozenset("diabetes herpes measles mumps pancreas rabies rickets scabies shingles".split())  # noqa: SIM905


def topics(question: str, titles: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """What a question and its answer are about: the titles of the cited sources that share words with the question, else the
    first title, if it is a name (of a file it needn't be: what its text says nowhere), else the question's last words of their own.
    `texts`, theirs, also show how a title is written inside a sentence."""
    shared = dict.fromkeys(_name(title, phrase) for title in titles if (phrase := shared_phrase(question, title)))
    if not shared and titles and _is_name(_head(titles[0]), texts):
        shared = {_head(titles[0]): None}
    if not shared:
        shared = dict.fromkeys(list(_own_runs(question))[-1:])
    return tuple(_in_sentence(name, (question, *texts)) for name in shared)


def shared_phrase(question: str, title: str) -> str | None:
    """The longest run of words that both have, as the question writes it; None where each word of it goes with any topic."""
    words = words_of(question)
    ours = [stem(word.group()) for word in words]
    own = [not goes_with_any(word.group()) for word in words]
    theirs = [stem(word.group()) for word in words_of(title)[:LONGEST_TITLE]]
    best = slice(0, 0)
    for start in range(len(ours)):
        for end in range(start + 1, min(len(ours), start + len(theirs)) + 1):
            run = slice(start, end)
            if not _holds(theirs, ours[run]):
                break
            if end - start > best.stop - best.start and any(own[run]) and not {ours[start], ours[end - 1]} & STOP_WORDS:
                best = run
    if best.stop == 0:
        return None
    return _GENITIVE.sub("", question[words[best.start].start() : words[best.stop - 1].end()])


def mentions(question: str, topic: str) -> bool:
    own = own_words(topic)
    return bool(own) and own <= stems(question)


def own_words(text: str) -> set[str]:
    """Stems of the words that don't go with any topic."""
    return {stem(word.group()) for word in words_of(text) if not goes_with_any(word.group())}


def goes_with_any(word: str) -> bool:
    word = word.lower()
    begun = _INFLECTION.sub("", word)
    return not GENERAL.isdisjoint({word, stem(word), begun, f"{begun}e"})


def words_of(text: str) -> Words:
    return list(_WORD.finditer(text))


def stems(text: str) -> set[str]:
    return {stem(word.group()) for word in words_of(text)}


def stem(word: str) -> str:
    """In small letters, without the plural's or genitive's s."""
    word = _GENITIVE.sub("", word.lower())
    if word.endswith("ies") and is_plural(word) and len(word) > 4:
        return word[:-3] + "y"
    return _IRREGULAR.get(word, word[:-1] if is_plural(word) else word)


def is_plural(phrase: str) -> bool:
    """By its last word."""
    last = phrase.lower().rpartition(" ")[2]
    return last in _IRREGULAR or (re.search(r"..[^sui']s$", last) is not None and last not in _SINGULAR)


def lowered(text: str) -> str:
    """With a small first letter, but for "I" and words that begin with two capitals or hold a digit."""
    first = _WORD.match(text)
    if first is None or first.group() == "I" or re.search(r".[A-Z\d]", first.group()):
        return text
    return text[0].lower() + text[1:]


def _head(title: str) -> str:
    """A title without what follows a colon or stands in brackets."""
    head = re.sub(r"\s*\([^)]*\)", "", title.split(": ")[0]).strip()
    return head if head else title


def _is_name(title: str, texts: Sequence[str]) -> bool:
    return len(words_of(title)) <= LONGEST_NAME and (not texts or own_words(title) <= stems(" ".join(texts)))


def _name(title: str, phrase: str) -> str:
    """The title's head where that is one short term that holds the phrase: "mitral" alone says little of "Mitral stenosis"."""
    head = _head(title)
    one_term = len(words_of(head)) <= LONGEST_NAME // 2 and stems(head).isdisjoint(STOP_WORDS)
    return head if one_term and shared_phrase(phrase, head) is not None else phrase


def _in_sentence(name: str, texts: Sequence[str]) -> str:
    small = lowered(name)
    return small if any(f" {small}" in text for text in texts) else name


def _holds(words: Sequence[str], run: Sequence[str]) -> bool:
    return any(words[at : at + len(run)] == run for at in range(len(words) - len(run) + 1))


def _own_runs(text: str) -> Iterator[str]:
    """Runs of neighbouring words that don't go with any topic."""
    run: Words = []
    for word in words_of(text):
        if not goes_with_any(word.group()):
            run.append(word)
        elif run:
            yield text[run[0].start() : run[-1].end()]
            run = []
    if run:
        yield text[run[0].start() : run[-1].end()]
