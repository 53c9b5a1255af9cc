"""`rag`: cited answers over a literature corpus, with an account of every millisecond.

`rag.build.open_pipeline` assembles a pipeline from settings; `rag.core` holds the types it speaks.
"""

__version__ = "0.1.0"
