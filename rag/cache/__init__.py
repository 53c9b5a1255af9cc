"""A cache of questions: what was found for one serves it again, in the same words or in others that mean the same.

`memory` holds entries and finds them, `file` keeps them between two processes, `searcher` puts both before a search, `query` is all
that a process has of them. An exact repeat is found by its words, before anything is embedded. Of other questions the nearest by
cosine is only a candidate: "treatment of X" is close to "symptoms of X". Whether it asks the same is said by a `Matcher`
(`rag.matching`).
"""

from rag.cache.file import FORMAT, EntryFile, load, save
from rag.cache.memory import CacheCounts, Entry, Memory, normalised
from rag.cache.query import VERSION, QueryCache, empty
from rag.cache.searcher import CachedEncoder, CachedSearcher, QuestionCache, QuestionCaches

__all__ = [
    "FORMAT",
    "VERSION",
    "CacheCounts",
    "CachedEncoder",
    "CachedSearcher",
    "Entry",
    "EntryFile",
    "Memory",
    "QueryCache",
    "QuestionCache",
    "QuestionCaches",
    "empty",
    "load",
    "normalised",
    "save",
]
