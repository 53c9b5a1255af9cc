"""How good are the answers to a set of questions: asked, measured, and compared with another run's.

`runner` asks the questions of a set (`rag.questions`), `samples` is what it keeps of each, on disk. From these alone `scores` takes
what each question counts, `report` figures, and `compare` paired tests of two runs; `judge` asks a model about the answers.
"""

from rag.evaluate.compare import Comparison, Difference, compare
from rag.evaluate.judge import judge
from rag.evaluate.report import failures, summarise
from rag.evaluate.runner import Plan, measure, plan
from rag.evaluate.samples import BENCH
from rag.questions import Question, QuestionSet
from rag.questions import read as read_questions

__all__ = [
    "BENCH",
    "Comparison",
    "Difference",
    "Plan",
    "Question",
    "QuestionSet",
    "compare",
    "failures",
    "judge",
    "measure",
    "plan",
    "read_questions",
    "summarise",
]
