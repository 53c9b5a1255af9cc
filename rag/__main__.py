"""`python -m rag`."""

from rag.cli import main

if __name__ == "__main__":  # the engine's processes import this module again
    main()
