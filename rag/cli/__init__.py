"""The command line, a module a command group; `commands` puts them together.

This file and `client` import next to nothing: a server that is up answers `rag ask` before the rest would have been imported.
"""

from __future__ import annotations

import sys


def main() -> None:
    from rag.cli import client

    code = client.ask(sys.argv[1:])
    if code is not None:
        sys.exit(code)
    from rag.cli import commands

    commands.main()
