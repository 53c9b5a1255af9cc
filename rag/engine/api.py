"""An OpenAI-compatible server over HTTP: what it serves, an answer in pieces, and its refusals as our errors."""

from __future__ import annotations

import asyncio
import codecs
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from rag.core import Clock, Tokens
from rag.errors import EngineError, SettingsError
from rag.settings import Generator

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncStream
    from openai.types.chat import ChatCompletionChunk

RETRY_PAUSES = (0.1, 0.4, 1.6)
"""Seconds before each further try to connect: a server that is being restarted is back, one that is down is soon known."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`max_model_len`: prompt and answer together, tokens; `owner` is "vllm" where vLLM serves it."""

    id: str
    max_model_len: int | None
    owner: str | None


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of an answer's stream holds. `thought`: text that the model wrote for itself."""

    text: str = ""
    thought: str = ""
    finish_reason: str | None = None
    usage: Tokens | None = None


class Server:
    """Use one for all requests, since it keeps connections open, and `close` it."""

    def __init__(self, settings: Generator, clock: Clock = time.monotonic) -> None:
        """Raises `SettingsError` where the environment variable that should hold the key isn't set."""
        from openai import AsyncOpenAI, Timeout

        assert settings.base_url is not None
        self.url = settings.base_url
        self._settings = settings
        self._key = _read_key(settings.api_key_env)
        self._clock = clock
        self._client = AsyncOpenAI(
            base_url=self.url,
            # The library would send OPENAI_API_KEY, and its organization, to whatever server this is.
            api_key=self._key if self._key is not None else "none",
            timeout=Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s),
            max_retries=0,  # its own would ask again after a status error too
        )
        self._client.organization = self._client.project = None

    async def models(self) -> list[ServedModel]:
        """Raises `EngineError` where the server can't be reached, refuses, or isn't one of this API."""
        from openai import OpenAIError

        try:
            return read_models(await self._trying(lambda: self._client.get("/models", cast_to=object)))
        except (OpenAIError, ValueError) as error:
            raise await self._explain(error, None, 0, ()) from error

    async def version(self) -> str | None:
        """What vLLM says of itself, beside the API; None where it doesn't."""
        from openai import OpenAIError

        parts = urlsplit(self.url)
        try:
            body: object = await self._client.get(f"{parts.scheme}://{parts.netloc}/version", cast_to=object)
        except (OpenAIError, ValueError):
            return None
        version = body.get("version") if isinstance(body, dict) else None
        return version if isinstance(version, str) else None

    async def pieces(self, request: Mapping[str, Any], extra: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """The answer to a chat completion's `request`; `extra` are fields that this API doesn't have.

        A connection that fails within `connect_timeout_s` is tried again until the first piece has come, and then no more.
        Closing the generator closes the connection, on which a server aborts.

        Raises `EngineError` where no answer comes, or one breaks off: the next may well be whole.
        """
        from openai import OpenAIError

        heard, finished = 0, False
        whole = _WholeCharacters()
        try:
            stream, piece = await self._trying(lambda: self._begin(request, extra))
            async with stream:
                while piece is not None:
                    heard += len(piece.text)
                    finished = finished or piece.finish_reason is not None
                    yield replace(piece, text=whole(piece.text, final=piece.finish_reason is not None))
                    piece = await _next(stream)
        except (OpenAIError, ValueError) as error:
            raise await self._explain(error, request["model"], heard, tuple(extra)) from error
        if not finished:
            raise self._broken(heard, "the stream ended without a finish_reason")

    async def close(self) -> None:
        await self._client.close()

    async def _begin(
        self, request: Mapping[str, Any], extra: Mapping[str, Any]
    ) -> tuple[AsyncStream[ChatCompletionChunk], Piece | None]:
        """The open answer and its first piece."""
        stream: AsyncStream[ChatCompletionChunk] = await self._client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}, extra_body=dict(extra)
        )
        try:
            return stream, await _next(stream)
        except BaseException:
            await stream.close()
            raise

    async def _trying(self, send: Callable[[], Awaitable[T]]) -> T:
        """Again where the connection failed, as long as `connect_timeout_s` isn't over."""
        from openai import APIConnectionError, APITimeoutError

        end = self._clock() + self._settings.connect_timeout_s
        for pause in RETRY_PAUSES:
            try:
                return await send()
            except APITimeoutError:
                raise
            except APIConnectionError:
                if self._clock() + pause > end:
                    raise
            await asyncio.sleep(pause)
        return await send()

    # --- errors -----------------------------------------------------------------------------

    async def _explain(self, error: Exception, model: str | None, heard: int, extra: tuple[str, ...]) -> EngineError:
        """Our error for what the library raised after `heard` characters; `model` is None where none was asked for."""
        import httpx2
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, NotFoundError

        settings = self._settings
        match error:
            case NotFoundError() if model is not None:
                return EngineError(await self._no_model(model, error))
            case APIStatusError():
                return EngineError(self._refusal(error, extra))
            case APITimeoutError(__cause__=httpx2.ConnectTimeout()):
                return self._unreachable(f"no connection within {settings.connect_timeout_s:g} s")
            case APITimeoutError() if heard:
                return self._broken(heard, f"nothing more came for {settings.read_timeout_s:g} s")
            case APITimeoutError():
                return EngineError(
                    f"The server at {self.url} sent nothing for {settings.read_timeout_s:g} s. "
                    "Ask again when it is less busy, or raise generator.read_timeout_s."
                )
            case APIConnectionError() if heard:
                return self._broken(heard, self._cause(error))
            case APIConnectionError(__cause__=httpx2.ConnectError()):
                return self._unreachable(self._cause(error))
            case APIConnectionError():
                return EngineError(
                    f"The server at {self.url} broke the connection off before it answered ({self._cause(error)}). Ask again."
                )
            case APIError() if heard:
                return self._broken(heard, self._one_line(error.message))
            case APIError():
                return EngineError(f"The server at {self.url} gave no answer: {self._sentence(error.message)}")
        return self._broken(heard, f"what it sends isn't this API's ({self._one_line(error)})")

    def _unreachable(self, why: str) -> EngineError:
        return EngineError(
            f"The server at {self.url} can't be reached ({why}). Is it running, and is generator.base_url its address?"
        )

    def _broken(self, heard: int, why: str) -> EngineError:
        if heard:
            return EngineError(f"The server at {self.url} broke off after {heard} characters of the answer: {why}.")
        return EngineError(
            f"The server at {self.url} doesn't answer as an OpenAI-compatible one: {why}. Check generator.base_url, "
            "which mostly ends in /v1."
        )

    async def _no_model(self, model: str, error: APIStatusError) -> str:
        try:
            served = [one.id for one in await self.models()]
        except EngineError:
            served = []
        if model in served or not served:
            return f"The server at {self.url} finds nothing to ask {model} by (404): {self._reason(error)}"
        return f"The server at {self.url} serves no {model!r}. It serves {', '.join(served)}: set generator.model."

    def _refusal(self, error: APIStatusError, extra: tuple[str, ...]) -> str:
        status, reason, variable = error.status_code, self._reason(error), self._settings.api_key_env
        if status == 401 and variable is None:
            return (
                f"The server at {self.url} wants a key (401). Name the variable that holds it: generator.api_key_env."
            )
        if status in (401, 403):
            whose = f"the key in {variable}" if variable is not None else "to answer without a key"
            return f"The server at {self.url} refuses {whose} ({status}): {reason}"
        if status == 404:
            return f"The server at {self.url} has no /models (404). Check generator.base_url, which mostly ends in /v1."
        if status in (400, 422):
            beyond = (
                f" Beyond the API the request held {', '.join(extra)}, which not every server knows." if extra else ""
            )
            return f"The server at {self.url} refuses the request ({status}): {reason}{beyond}"
        return f"The server at {self.url} can't answer ({status}): {reason}"

    def _reason(self, error: APIStatusError) -> str:
        body = error.body
        if isinstance(body, dict):
            body = next((body[key] for key in ("message", "detail", "error") if body.get(key)), body)
        return self._sentence(body if body else error.response.reason_phrase)

    def _sentence(self, text: object) -> str:
        line = self._one_line(text)
        return line if line.endswith((".", "!", "?")) else f"{line}."

    def _cause(self, error: Exception) -> str:
        cause = error.__cause__
        return self._one_line(cause) or type(cause).__name__

    def _one_line(self, text: object) -> str:
        """A server may repeat the key that it refuses, and send what UTF-8 can't hold."""
        line = " ".join(str(text).encode("utf-8", "replace").decode().split())
        return (line.replace(self._key, "...") if self._key is not None else line)[:400]


class _WholeCharacters:
    """Of text that comes in pieces: a character whose halves (surrogates) stand in two is whole in the second, and half of one alone,
    which UTF-8 can't hold, is replaced."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-16-le")("replace")

    def __call__(self, text: str, final: bool) -> str:
        return self._decoder.decode(text.encode("utf-16-le", "surrogatepass"), final)


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise SettingsError(f"generator.api_key_env={variable}, and the environment has no {variable}: export it.")
    return key


async def _next(stream: AsyncStream[ChatCompletionChunk]) -> Piece | None:
    """The next piece that holds anything; None at the end."""
    while (chunk := await anext(stream, None)) is not None:
        piece = read_piece(chunk.model_dump(warnings=False) if hasattr(chunk, "model_dump") else chunk)
        if piece != Piece():
            return piece
    return None


def read_models(body: object) -> list[ServedModel]:
    """Of what `/models` answers. Raises `ValueError` for anything else."""
    try:
        return [
            ServedModel(_text(card["id"]), _count(card.get("max_model_len")), card.get("owned_by"))
            for card in body["data"]  # type: ignore[index]  # a wrong type is what is caught
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("/models lists none") from error


def read_piece(event: object) -> Piece:
    """Of one event of an answer. Raises `ValueError` for anything else.

    Servers keep to the API in what is read here, and few do in all of it: the library checks none of it.
    """
    try:
        choices: Any = event["choices"]  # type: ignore[index]  # a wrong type is what is caught
        if choices is None and event.get("usage") is not None:  # type: ignore[attr-defined]
            choices = ()
        choice = choices[0] if len(choices) else {"delta": {}}
        delta = choice["delta"] or {}
        return Piece(
            text=_text(delta.get("content")),
            thought=_text(delta.get("reasoning")) or _text(delta.get("reasoning_content")),
            finish_reason=choice.get("finish_reason"),
            usage=_usage(event.get("usage"), event.get("metrics")),  # type: ignore[attr-defined]
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("an event without choices") from error


def _usage(usage: Any, metrics: Any) -> Tokens | None:
    """`metrics` are vLLM's own (`--per-request-spec-decode-metrics`), and stand beside the usage."""
    if usage is None:
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if details is not None else None
    drafts = metrics.get("speculative_decoding") if isinstance(metrics, dict) else None
    drafts = drafts if isinstance(drafts, dict) else {}
    return Tokens(
        _count(usage.get("prompt_tokens")),
        _count(cached),
        _count(usage.get("completion_tokens")),
        _count(drafts.get("num_draft_tokens")),
        _count(drafts.get("num_accepted_draft_tokens")),
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"a text expected, and found a {type(value).__name__}")
    return value


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None
