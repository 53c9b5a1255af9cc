"""Every error that `rag` raises on purpose.

    RagError                 exit 1
    ├── UsageError           exit 2: the user's call or settings
    │   ├── QuestionError    an empty, blank or oversized question
    │   └── SettingsError    unknown key, profile or value; a technique that this machine can't do
    ├── CorpusError          a corpus folder or file that can't be read
    ├── SearchIndexError     an index that is missing, damaged or made with another model
    │   └── IndexMissing     there is none of that name
    ├── ModelError           a model that is missing, damaged or can't be built
    ├── StorageError         no room, no permission
    ├── StaleCache           a file of the query cache that isn't to be used
    ├── Mixed                an index that is of two revisions of its corpus (found by the soak)
    └── EngineError          the engine can't start or broke
        ├── NotEnoughMemory  weights and KV pool don't fit
        ├── EngineDied       it was lost in the middle of a request
        └── NotReady         a server that is starting, rebuilding its engine, or stopping

A message names the value that was found, what was expected, and the fix, in one line.
"""

from __future__ import annotations


class RagError(Exception):
    exit_code = 1


class UsageError(RagError):
    exit_code = 2


class QuestionError(UsageError):
    pass


class SettingsError(UsageError):
    pass


class CorpusError(RagError):
    pass


class SearchIndexError(RagError):
    pass


class IndexMissing(SearchIndexError):
    pass


class ModelError(RagError):
    pass


class StorageError(RagError):
    pass


class StaleCache(RagError):
    def __init__(self, reason: str, differs: tuple[str, ...] = ()) -> None:
        """`reason` goes behind "the query cache ... is left aside: ". `differs` names what shaped the file, and is another now."""
        super().__init__(reason)
        self.differs = differs


class Mixed(RagError):
    pass


class EngineError(RagError):
    pass


class NotEnoughMemory(EngineError):
    pass


class EngineDied(EngineError):
    pass


class NotReady(EngineError):
    pass
