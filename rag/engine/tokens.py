"""Tokens of a prompt: by the engine's own tokenizer, or, where a server will read it, by one that is read here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rag.core import Message
from rag.errors import ModelError

if TYPE_CHECKING:
    from jinja2 import Template

_MENDING = "Name a folder or a hub id that has one: generator.tokenizer."


class EngineTokenizer:
    """By transformers' tokenizer, which vLLM has."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Of the messages with the template around them."""
        # Qwen3 would think aloud for longer than an answer may be; other templates ignore the switch.
        text = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return self.encode(text)


class ChatTokenizer:
    """Of a model that a server runs: tokenizer and chat template without transformers, which would load torch, for seconds.
    Thread-safe. `arguments` are the template's own, e.g. `enable_thinking`."""

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        """Raises `ModelError` where the folder has no tokenizer.json or no chat template, or one can't be read."""
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{folder} has no tokenizer.json, which counts a prompt's tokens. {_MENDING}")
        self._folder = folder
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises this very class
            raise ModelError(f"{path} can't be read: {error}. {_MENDING}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        config = _read_config(folder)
        self._template = _compile(_find_template(folder, config), folder)
        self._arguments = {**_special_tokens(config), **arguments}

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count_chat(self, messages: Sequence[Message]) -> int:
        """Tokens of the messages with the template around them. Raises `ModelError` where the template refuses them."""
        return self.count(self.render(messages))

    def render(self, messages: Sequence[Message]) -> str:
        from jinja2 import TemplateError

        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, **self._arguments)
        except TemplateError as error:
            raise ModelError(f"The chat template in {self._folder} refuses the prompt: {error}.") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}.") from error
    return config if isinstance(config, dict) else {}


def _find_template(folder: Path, config: Mapping[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((one["template"] for one in template if one["name"] == "default"), None)
    if not isinstance(template, str):
        raise ModelError(f"{folder} has no chat template, without which a prompt's tokens can't be counted. {_MENDING}")
    return template


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and its like, which templates put where they belong."""
    tokens = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {name: value["content"] if isinstance(value, dict) else value for name, value in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _compile(template: str, folder: Path) -> Template:
    """In a sandbox, since a template comes with a model; with what transformers gives it (`chat_template_utils`)."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what a training learns; here it is its content."""

        tags = {"generation"}  # noqa: RUF012  (as the base class has it)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def tojson(value: object, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})  # jinja's own escapes HTML

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except TemplateError as error:
        raise ModelError(f"The chat template in {folder} can't be read: {error}.") from error
