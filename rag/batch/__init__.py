"""Many questions over one pipeline: `answering` asks them, `files` reads them and keeps what came of each."""

from rag.batch.answering import Finished, Outcome, answer_all, attempt, for_batch
from rag.batch.files import AnswerFile, Item, part_of, read

__all__ = ["AnswerFile", "Finished", "Item", "Outcome", "answer_all", "attempt", "for_batch", "part_of", "read"]
