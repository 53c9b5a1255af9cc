"""A model behind a server that somebody else runs: any that speaks OpenAI's chat completions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from rag.core import Clock, EngineInfo, GenerationParams, GenerationStats, Message, Tokens
from rag.engine import evidence
from rag.engine.api import ServedModel, Server
from rag.engine.spec import RemoteSpec
from rag.engine.tokens import ChatTokenizer
from rag.errors import EngineError, SettingsError
from rag.settings import Loaded


class RemoteGenerator:
    """Make it with `connect`, and `close` it: the connections are ours, the server isn't."""

    def __init__(
        self,
        server: Server,
        spec: RemoteSpec,
        loaded: Loaded,
        tokenizer: Path,
        context_window: int,
        version: str | None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._server = server
        self._spec = spec
        self._extra_body = dict(loaded.settings.generator.extra_body)
        # The server's template gets the same: else a prompt would be counted that isn't the one it reads.
        self._tokenizer = ChatTokenizer(tokenizer, self._extra_body.get("chat_template_kwargs", {}))
        self._context_window = context_window
        self._version = version
        self._clock = clock
        self._since_start = evidence.TokenCounts()

    @classmethod
    async def connect(cls, spec: RemoteSpec, loaded: Loaded, tokenizer: Path) -> RemoteGenerator:
        """`tokenizer` is the folder that the spec's name stands for.

        Raises `EngineError` where the server can't be asked, `SettingsError` where its context window is smaller than
        the one asked for by hand, `ModelError` where the tokenizer can't be used.
        """
        server = Server(loaded.settings.generator)
        try:
            served = next((one for one in await server.models() if one.id == spec.model), None)
            version = await server.version() if served is not None and served.owner == "vllm" else None
            return cls(server, spec, loaded, tokenizer, context_window(loaded, served), version)
        except BaseException:
            await server.close()
            raise

    @property
    def model(self) -> str:
        return self._spec.model

    @property
    def alive(self) -> bool:
        return True  # a server that is away may come back, and each request connects anew

    @property
    def generating(self) -> None:
        return None

    @property
    def context_window(self) -> int:
        return self._context_window

    def count_tokens(self, text: str) -> int:
        return self._tokenizer.count(text)

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        return self._tokenizer.count_chat(messages)

    async def stream(
        self, messages: Sequence[Message], params: GenerationParams
    ) -> AsyncGenerator[str | GenerationStats, None]:
        # Seconds are those of this side: the way to the server and back is in them, and its queue isn't told apart.
        arrival = self._clock()
        first = last = finish_reason = None
        usage, thought = Tokens(), False
        async with aclosing(self._server.pieces(self._request(messages, params), self._beyond(params))) as pieces:
            async for piece in pieces:
                if piece.text:
                    last = self._clock()
                    first = first if first is not None else last
                    yield piece.text
                thought = thought or bool(piece.thought)
                finish_reason = piece.finish_reason if piece.finish_reason is not None else finish_reason
                usage = piece.usage if piece.usage is not None else usage
        if thought and first is None and params.max_tokens > 1:  # a warm-up's only token may well be a thought
            raise EngineError(
                f"{self.model} thought for all of its {params.max_tokens} tokens and wrote no answer. Switch that off where "
                "its template can (generator.extra_body.chat_template_kwargs.enable_thinking=false), or raise "
                "generator.max_tokens."
            )
        stats = GenerationStats(
            output_tokens=usage.output,
            finish_reason=finish_reason,
            prompt_tokens=usage.prompt,
            cached_prompt_tokens=usage.cached_prompt,
            draft_tokens=usage.draft,
            accepted_tokens=usage.accepted,
            ttft=first - arrival if first is not None else None,
            decode=last - first if first is not None and last is not None else None,
        )
        self._since_start += evidence.counts(stats)
        yield stats

    def info(self, stats: GenerationStats | None) -> EngineInfo:
        techniques, since_start = self._spec.techniques, self._since_start
        return EngineInfo(
            "openai",
            self._version,
            "remote",
            evidence.of_answer(techniques, evidence.UNTOLD, stats, since_start),
            evidence.of_engine(techniques, evidence.UNTOLD, since_start),
        )

    async def reset_prefix_cache(self) -> bool:
        return False

    async def close(self) -> None:
        await self._server.close()

    def _request(self, messages: Sequence[Message], params: GenerationParams) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
            # Its successor max_completion_tokens is unknown to most servers but OpenAI's own.
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
        return request if params.seed is None else {**request, "seed": params.seed}

    def _beyond(self, params: GenerationParams) -> dict[str, Any]:
        """Fields that the API doesn't have. OpenAI refuses a request for one, so none is sent unasked."""
        return {**self._extra_body, "ignore_eos": True} if params.ignore_eos else self._extra_body


def context_window(loaded: Loaded, served: ServedModel | None) -> int:
    """Tokens that the server says it has room for; fewer where that was asked for by hand, and as many as the settings
    say where it says nothing. Raises `SettingsError` where more was asked for by hand."""
    asked = loaded.settings.generator.max_model_len
    there = served.max_model_len if served is not None else None
    if there is None:
        return asked
    if not loaded.explicit("generator.max_model_len"):
        return there
    if asked > there:
        raise SettingsError(
            f"generator.max_model_len={asked} (from {loaded.origin('generator.max_model_len').name}): the server's model has a "
            f"context window of {there} tokens. Lower it, or leave it out."
        )
    return asked
