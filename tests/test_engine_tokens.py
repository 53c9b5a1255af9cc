"""rag/engine/tokens.py: a prompt's tokens, counted as its model's own library counts them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny_server import write_tokenizer

from rag.core import Message
from rag.engine.tokens import ChatTokenizer
from rag.errors import ModelError
from rag.models import ModelStore

CHAT: tuple[Message, ...] = (
    {"role": "system", "content": "Answer from the sources. [1] Fièvre & <b>café</b>"},
    {"role": "user", "content": "What causes malaria?\n\n\tAnd gout?"},
)


def tokenizer(folder: Path, template: str | None, config: dict[str, Any] | None = None, **arguments: Any) -> Any:
    return ChatTokenizer(write_tokenizer(folder, template, config), arguments)


@pytest.mark.usefixtures("in_real_home")
def test_it_counts_as_transformers_does() -> None:
    from transformers import AutoTokenizer

    folder = ModelStore().resolve("smollm2-grounded").path
    ours, theirs = ChatTokenizer(folder, {}), AutoTokenizer.from_pretrained(folder)
    for messages in (CHAT, CHAT[1:]):
        text = theirs.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        assert ours.render(messages) == text
        assert ours.count_chat(messages) == len(theirs.encode(text, add_special_tokens=False)) > 20
    assert ours.count("Fièvre 5 mg/kg") == len(theirs.encode("Fièvre 5 mg/kg", add_special_tokens=False))


def test_a_template_gets_what_templates_are_written_for(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}{% for message in messages %}\n  {% if loop.first %}{% continue %}{% endif %}\n"
        "{% generation %}{{ message.content | tojson }}{% endgeneration %}{% endfor %}"
        "{% if add_generation_prompt and not enable_thinking %}!{% endif %}{{ strftime_now('%Y') | length }}"
    )
    config = {"bos_token": {"content": "<s>"}, "model_max_length": 5, "pad_token": None}
    one = tokenizer(tmp_path, template, config, enable_thinking=False)
    assert one.render(CHAT) == '<s>"What causes malaria?\\n\\n\\tAnd gout?"!4'


def test_a_template_may_stand_in_the_configuration_alone_or_by_name(tmp_path: Path) -> None:
    for template in (
        "{{ messages | length }}",
        [{"name": "tool", "template": "x"}, {"name": "default", "template": "2"}],
    ):
        assert tokenizer(tmp_path, None, {"chat_template": template}).render(CHAT) == "2"


def test_a_tokenizer_that_cuts_and_pads_does_neither_here(tmp_path: Path) -> None:
    one = tokenizer(tmp_path, "x")
    assert one.count("a a a a a a a a a a a a") == 12
    assert one.count("a") == 1


def test_a_template_reaches_nothing_outside_its_sandbox(tmp_path: Path) -> None:
    one = tokenizer(tmp_path, "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(ModelError, match=r"refuses the prompt: .*unsafe"):
        one.count_chat(CHAT)


def test_a_template_that_refuses_the_messages_is_heard(tmp_path: Path) -> None:
    one = tokenizer(tmp_path, "{{ raise_exception('System role not supported') }}")
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path} refuses the prompt: System role not supported.")):
        one.count_chat(CHAT)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", None, "has no tokenizer.json, which counts a prompt's tokens"),
        ("tokenizer.json", "{", "tokenizer.json can't be read: "),
        ("tokenizer_config.json", "{", "tokenizer_config.json is no JSON: "),
        ("chat_template.jinja", None, "has no chat template, without which"),
        ("chat_template.jinja", "{% if %}", "can't be read: "),
    ],
)
def test_what_can_not_be_used_is_named_with_the_way_out(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    write_tokenizer(tmp_path, "x")
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=re.escape(said)) as caught:
        ChatTokenizer(tmp_path, {})
    assert str(tmp_path) in str(caught.value)


def test_a_configuration_is_not_needed(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "{{ messages | length }}")
    (tmp_path / "tokenizer_config.json").unlink()
    assert ChatTokenizer(tmp_path, {}).render(CHAT) == "2"
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["padding"] is not None
