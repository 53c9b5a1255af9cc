"""A pipeline that stays warm, and what asks it.

`warm` holds the pipeline and builds it again when its engine is lost, `app` answers over HTTP, `serving` runs both until told to
stop, `state` is how other processes find a server, `launching` how they start one. `rag.cli.hosted` is the command line's own way in.
"""

from __future__ import annotations

import os
import stat


def runtime_folder() -> str:
    """Where the servers of this user leave word of themselves.

    A string, and no more imports than `os`: `rag ask` looks here before it imports anything.
    """
    if home := os.environ.get("RAG_HOME"):
        return os.path.join(os.path.realpath(os.path.expanduser(home)), "run")  # noqa: PTH111, PTH118
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(base, "rag")  # noqa: PTH118
    return f"/tmp/rag-{os.getuid()}"


def is_ours(folder: str) -> bool:
    """May what lies there be trusted? Others must not be able to put a server of theirs in its place."""
    about = os.lstat(folder)
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022
