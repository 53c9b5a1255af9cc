"""The shortest way to a first token with vLLM: what `rag ask`'s start is measured against.

    python -m rag.bench.bare SPEC.json

SPEC holds AsyncEngineArgs' keywords (`args`), the environment, the messages and `max_tokens`. Writes the
first token's text as soon as it is there, and ends at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any


async def first_token(spec: dict[str, Any]) -> None:
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**spec["args"]))
    text = engine.get_tokenizer().apply_chat_template(
        spec["messages"], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    async for output in engine.generate(text, SamplingParams(temperature=0, max_tokens=spec["max_tokens"]), "0"):
        if output.outputs[0].text:
            os.write(int(spec["descriptor"]), output.outputs[0].text.encode())
            return


if __name__ == "__main__":
    content = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ.update(content["environment"])
    # vLLM logs to standard output: keep that for the token, as `rag` does.
    content["descriptor"] = os.dup(1)
    os.dup2(2, 1)
    asyncio.run(first_token(content))
