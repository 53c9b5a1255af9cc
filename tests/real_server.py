"""vLLM's own server of an embedded model, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from tiny_server import free_port

from rag.engine import processes, spec

NAME, KEY = "grounded", "a-key"


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[str]:
    """Its URL, once it answers. Whatever it starts ends with it."""
    port = free_port()
    options = {
        "model": model,
        "served-model-name": NAME,
        "host": "127.0.0.1",
        "port": port,
        "dtype": "bfloat16",
        "max-model-len": 4096,
        "block-size": 32,
        "kv-cache-memory-bytes": 256 * spec.MIB,
        "enforce-eager": None,
        "enable-prompt-tokens-details": None,
        "speculative-config": json.dumps({"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2}),
        "per-request-spec-decode-metrics": "summary",
        "api-key": KEY,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value) if part is not None]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "VLLM_CPU_KVCACHE_SPACE"},
        **{"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TMPDIR": str(folder), "VLLM_RPC_BASE_PATH": str(folder)},
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *map(str, arguments)],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    root = psutil.Process(server.pid)
    try:
        end = time.monotonic() + 600  # half a minute on a machine that has nothing else to do
        while not _answers(f"http://127.0.0.1:{port}/health"):
            said = (folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]
            assert server.poll() is None, said
            assert time.monotonic() < end, f"it took too long:\n{said}"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        processes.Footprint(processes.started(by=root) | {root}, folder).remove()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
