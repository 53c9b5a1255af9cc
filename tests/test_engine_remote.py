"""rag/engine/remote.py against a server that plays, and the whole path against vLLM's own server."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from real_server import KEY
from starlette.responses import JSONResponse
from tiny_server import ANSWER, MODELS, Play, event, free_port, usage, write_tokenizer

from rag import build, settings
from rag.core import GenerationParams, GenerationStats, Message, Technique
from rag.engine.remote import RemoteGenerator
from rag.errors import EngineDied, EngineError, ModelError, SettingsError

CHAT: tuple[Message, ...] = ({"role": "user", "content": "What causes malaria?"},)
TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}{{ enable_thinking }}"


@pytest.fixture
def play() -> Iterator[Play]:
    with Play().running() as running:
        yield running


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path, TEMPLATE)


def load(
    play: Play, *sets: str, profile: str = "auto-cpu", environ: Mapping[str, str] | None = None
) -> settings.Loaded:
    named = [f"generator.base_url={play.url}", "generator.model=served"]
    return settings.load(profile, "embedded", [*named, *sets], device="cpu", environ=environ if environ else {})


@asynccontextmanager
async def connected(play: Play, tokenizer: Path, *sets: str) -> AsyncIterator[RemoteGenerator]:
    loaded = load(play, f"generator.tokenizer={tokenizer}", *sets)
    async with build.open_generator(loaded) as generator:
        assert isinstance(generator, RemoteGenerator)
        yield generator


async def ask(generator: RemoteGenerator, params: GenerationParams) -> tuple[list[str], GenerationStats]:
    *deltas, stats = [item async for item in generator.stream(CHAT, params)]
    assert isinstance(stats, GenerationStats)
    return [delta for delta in deltas if isinstance(delta, str)], stats


# --- an answer ---------------------------------------------------------------------------------


async def test_deltas_then_what_the_server_reports(play: Play, tokenizer: Path) -> None:
    play.scripts = [play.says(0.1, ANSWER[0], ANSWER[1], 0.5, *ANSWER[2:])]
    async with connected(play, tokenizer) as generator:
        began = time.monotonic()
        deltas, stats = await ask(generator, GenerationParams(9, temperature=0.5, top_p=0.9, seed=7))
        took = time.monotonic() - began
    assert deltas == ["Malaria ", "is a disease."]
    assert (stats.prompt_tokens, stats.cached_prompt_tokens, stats.output_tokens) == (40, 32, 3)
    assert (stats.finish_reason, stats.queue, stats.draft_tokens) == ("stop", None, None)
    assert stats.ttft is not None
    assert stats.decode is not None
    assert stats.ttft > 0.1
    assert stats.decode > 0.2  # not the whole pause, where this side was slow to read what came before it
    assert stats.ttft + stats.decode < took
    [(body, _)] = play.asked
    assert body == {
        "model": "served",
        "messages": list(CHAT),
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_what_the_server_does_not_tell_is_none(play: Play, tokenizer: Path) -> None:
    play.scripts = [play.says(event("", finish="stop"))]
    async with connected(play, tokenizer) as generator:
        assert await ask(generator, GenerationParams(9)) == ([], GenerationStats(None, finish_reason="stop"))
    assert "seed" not in play.asked[0][0]


async def test_what_the_api_does_not_have_is_sent_only_where_it_is_asked_for(play: Play, tokenizer: Path) -> None:
    thinking = "generator.extra_body.chat_template_kwargs.enable_thinking=false"
    async with connected(play, tokenizer, thinking) as generator:
        await ask(generator, GenerationParams(9, ignore_eos=True))
        await ask(generator, GenerationParams(9))
        assert generator._tokenizer.render(CHAT) == "user What causes malaria? False"
    assert [body.get("ignore_eos") for body, _ in play.asked] == [True, None]
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body, _ in play.asked)


async def test_a_missing_capability_is_named(play: Play, tokenizer: Path) -> None:
    play.scripts = [lambda: JSONResponse({"error": {"message": "Extra inputs are not permitted"}}, 422)]
    async with connected(play, tokenizer) as generator:
        with pytest.raises(EngineError, match=r"not permitted\. Beyond the API the request held ignore_eos, which not"):
            await ask(generator, GenerationParams(9, ignore_eos=True))


async def test_an_answer_that_breaks_off_is_an_error_of_that_answer_alone(play: Play, tokenizer: Path) -> None:
    play.scripts = [play.says(ANSWER[1], breaks=True)]
    async with connected(play, tokenizer) as generator:
        with pytest.raises(EngineError, match="broke off after 8 characters") as caught:
            await ask(generator, GenerationParams(9))
        assert not isinstance(caught.value, EngineDied)
        assert generator.alive


async def test_a_model_that_only_thinks_is_told_how_not_to(play: Play, tokenizer: Path) -> None:
    play.scripts = [play.says(event(None, reasoning="Hm, "), event(None, finish="length", reasoning="malaria"))]
    async with connected(play, tokenizer) as generator:
        with pytest.raises(EngineError, match=r"served thought for all of its 9 tokens .*enable_thinking=false"):
            await ask(generator, GenerationParams(9))
        assert (await ask(generator, GenerationParams(1)))[0] == []
        play.scripts = [play.says(event(None, reasoning="Hm."), *ANSWER)]
        assert (await ask(generator, GenerationParams(9)))[0] == ["Malaria ", "is a disease."]


async def test_closing_a_stream_early_closes_the_connection(play: Play, tokenizer: Path) -> None:
    play.scripts = [play.says(*(event(f"{number} ") if number % 2 else 0.05 for number in range(2000)))]
    async with connected(play, tokenizer) as generator:
        async with aclosing(generator.stream(CHAT, GenerationParams(4000))) as deltas:
            assert await anext(deltas) == "1 "
        assert await asyncio.to_thread(play.left.wait, 5), "the server still streams"


# --- what is known of the server ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "sets", "window"),
    [
        ("served", (), 512),
        ("served", ("generator.max_model_len=400",), 400),
        ("other", (), 8192),
        ("an-alias", ("generator.max_model_len=1000",), 1000),
    ],
)
async def test_the_context_window_is_the_servers_unless_a_smaller_one_was_asked_for(
    play: Play, tokenizer: Path, model: str, sets: tuple[str, ...], window: int
) -> None:
    async with connected(play, tokenizer, f"generator.model={model}", *sets) as generator:
        assert (generator.model, generator.context_window) == (model, window)
        assert generator.info(None).version == ("0.32.0" if model == "served" else None)


async def test_a_context_window_beyond_the_servers_is_refused(play: Play, tokenizer: Path) -> None:
    with pytest.raises(SettingsError, match=r"max_model_len=513 \(from --set\): the server's .* window of 512 tokens"):
        async with connected(play, tokenizer, "generator.max_model_len=513"):
            pass


async def test_prompts_are_counted_with_their_template(play: Play, tokenizer: Path) -> None:
    async with connected(play, tokenizer) as generator:
        assert generator.count_tokens("What causes malaria?") == 4
        assert generator.count_prompt_tokens(CHAT) == 5


async def test_cached_and_drafted_tokens_show_what_the_server_does_and_nothing_shows_the_rest(
    play: Play, tokenizer: Path
) -> None:
    drafts = {"speculative_decoding": {"num_draft_tokens": 8, "num_accepted_draft_tokens": 5}}
    play.scripts = [play.says(*ANSWER[:-1], json.dumps({**json.loads(ANSWER[-1]), "metrics": drafts}))]
    async with connected(play, tokenizer) as generator:
        _, stats = await ask(generator, GenerationParams(9))
        info = generator.info(stats)
    assert (info.backend, info.device) == ("openai", "remote")
    assert (stats.draft_tokens, stats.accepted_tokens) == (8, 5)
    assert {name: one.evidence for name, one in info.techniques.items()} == {
        "quantization": None,
        "attention_backend": None,
        "kv_cache_dtype": None,
        "prefix_caching": "32 of 40 prompt tokens came from the cache",
        "speculation": "5 of 8 draft tokens accepted among 2 decoded",
    }
    assert info.since_start == info.techniques
    assert {name for name, one in info.techniques.items() if one.engaged} == {"prefix_caching", "speculation"}


async def test_what_the_server_does_not_tell_stays_open(play: Play, tokenizer: Path) -> None:
    play.scripts = [play.says(*ANSWER[:-1], usage(prompt_tokens_details=None))]
    async with connected(play, tokenizer) as generator:
        _, stats = await ask(generator, GenerationParams(9))
        info = generator.info(stats)
    started = f"the server at {play.url} runs as it was started, and doesn't tell whether"
    for told in (info.techniques, info.since_start):
        assert told["prefix_caching"] == Technique(True, reason=f"{started} prompts are cached")
        assert told["speculation"] == Technique(True, reason=f"{started} it speculates")


async def test_a_server_that_says_again_and_again_that_nothing_was_cached_caches_nothing(
    play: Play, tokenizer: Path
) -> None:
    play.scripts = [play.says(*ANSWER[:-1], usage(prompt_tokens_details={"cached_tokens": 0}))]
    async with connected(play, tokenizer) as generator:
        engaged = []
        for _ in range(2):
            _, stats = await ask(generator, GenerationParams(9))
            engaged.append(generator.info(stats).techniques["prefix_caching"].engaged)
        assert engaged == [None, False]
        assert generator.info(None).since_start["prefix_caching"].engaged is False


async def test_a_server_that_can_not_be_asked_is_found_out_before_anything_is_loaded(tokenizer: Path) -> None:
    play, loads = Play(), []
    play.port = free_port()
    loaded = load(play, f"generator.tokenizer={tokenizer}", "generator.connect_timeout_s=0.1")

    async def meanwhile() -> None:
        loads.append("an encoder")

    with pytest.raises(EngineError, match="can't be reached"):
        async with build.open_generator(loaded, meanwhile=meanwhile):
            pass
    assert loads == []


async def test_a_tokenizer_must_be_named_where_the_model_is_none(play: Play, home: Path) -> None:
    del home
    with pytest.raises(ModelError, match=r"name it with generator\.tokenizer, .* Unknown model 'served'"):
        async with build.open_generator(load(play)):
            pass
    assert play.listed == 0


def test_neither_torch_nor_vllm_nor_transformers_is_loaded(play: Play, tokenizer: Path) -> None:
    script = """
import asyncio, json, sys
from rag import build, settings
from rag.core import GenerationParams

async def main():
    async with build.open_generator(settings.load(assignments=sys.argv[1:])) as generator:
        items = [item async for item in generator.stream([{"role": "user", "content": "?"}], GenerationParams(9))]
        generator.count_prompt_tokens([{"role": "user", "content": "?"}])
    print(items[0], sorted({"vllm", "torch", "transformers"} & set(sys.modules)))

asyncio.run(main())
"""
    sets = (f"generator.base_url={play.url}", "generator.model=served", f"generator.tokenizer={tokenizer}")
    done = subprocess.run(
        [sys.executable, "-c", script, *sets], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.stdout, done.stderr) == ("Malaria  []\n", "")


# --- the command line --------------------------------------------------------------------------


def test_doctor_asks_the_server(play: Play, tokenizer: Path, rag: Cli, home: Path) -> None:
    del home
    chosen = [f"--set=generator.{one}" for one in (f"base_url={play.url}", "model=served", f"tokenizer={tokenizer}")]
    done = rag("doctor", "--json", *chosen)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stderr
    assert checks["server"]["found"] == f"{play.url} serves served (512 tokens)"
    assert checks["tokenizer"]["state"] == "ok"
    assert re.fullmatch(r"openai 0\.32\.0 on remote: ready in [0-9.]+ s, 3 tokens", checks["engine"]["found"])
    assert not {"vllm", "memory", "generator"} & set(checks)
    play.models = lambda: JSONResponse({"data": [MODELS["data"][1]]})
    done = rag("doctor", "--json", "--no-engine", *chosen)
    server = {check["name"]: check for check in json.loads(done.stdout)}["server"]
    assert (server["state"], server["found"]) == ("note", f"{play.url} lists other")
    assert "generator.model=served" in server["fix"]


def test_doctor_fails_where_the_server_is_not_there(rag: Cli, tokenizer: Path, home: Path) -> None:
    del home
    url = f"http://127.0.0.1:{free_port()}/v1"
    sets = (f"base_url={url}", "model=served", f"tokenizer={tokenizer}", "connect_timeout_s=0.1")
    done = rag("doctor", "--json", *(f"--set=generator.{one}" for one in sets))
    assert done.returncode == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    for name in ("server", "engine"):
        assert checks[name]["state"] == "failed"
        assert f"The server at {url} can't be reached" in checks[name]["found"]
        assert checks[name]["fix"] is None


# --- the whole path ----------------------------------------------------------------------------

QUESTION = "What causes malaria?"


def running(url: str) -> int:
    """Requests that the server works on, by its own metrics."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(
        int(float(line.split()[-1])) for line in lines if re.match(r"vllm:num_requests_(running|waiting)\{", line)
    )


def test_an_answer_with_citations_from_vllms_own_server(rag: Cli, cli: Cli, served: list[str]) -> None:
    arguments: list[Any] = ["ask", "--sample", "--json", QUESTION, *(f"--set={one}" for one in served)]
    first, second = rag(*arguments), cli(*arguments)
    assert second.returncode == 0, second.stderr
    answer = json.loads(second.stdout)
    assert "Plasmodium" in answer["answer"]
    assert [(one["doc_id"], one["origin"]) for one in answer["citations"]] == [("malaria", "model")]
    assert answer["answer"] == json.loads(first.stdout)["answer"]
    assert answer["tokens"]["cached_prompt"] >= answer["tokens"]["prompt"] - 64  # all but for its last block or two
    assert 150 < answer["tokens"]["prompt"] < 1500
    assert answer["tokens"]["output"] > 10
    assert answer["engine"]["backend"] == "openai"
    assert answer["engine"]["version"] is not None
    techniques = answer["engine"]["techniques"]
    assert techniques["prefix_caching"]["engaged"] is True
    assert techniques["speculation"]["engaged"] is True
    assert 0 < answer["tokens"]["accepted"] <= answer["tokens"]["draft"]
    times = answer["timings"]
    assert times["queue"] is None
    assert 0 < times["ttft"] < times["generate"] < times["total"]
    assert KEY not in second.stdout + second.stderr


async def test_a_prompt_is_counted_as_vllm_counts_it_and_closing_a_stream_aborts_there(served: list[str]) -> None:
    loaded = settings.load(assignments=served)
    async with build.open_generator(loaded) as generator:
        assert generator.context_window == 4096
        stats = [item async for item in generator.stream(CHAT, GenerationParams(4, ignore_eos=True))][-1]
        assert isinstance(stats, GenerationStats)
        assert stats.prompt_tokens == generator.count_prompt_tokens(CHAT)
        assert (stats.output_tokens, stats.finish_reason) == (4, "length")
        url = loaded.settings.generator.base_url
        assert url is not None
        async with aclosing(generator.stream(CHAT, GenerationParams(4000, ignore_eos=True))) as deltas:
            await anext(deltas)
            assert await asyncio.to_thread(running, url) == 1
        end = time.monotonic() + 5  # 4,000 tokens would take a minute
        while await asyncio.to_thread(running, url):
            assert time.monotonic() < end, "it still generates"
            await asyncio.sleep(0.1)


async def test_vllms_own_refusals_are_told(
    served: list[str], vllm_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(params: GenerationParams, *sets: str) -> None:
        async with build.open_generator(settings.load(assignments=[*served, *sets])) as generator:
            async for _ in generator.stream(CHAT, params):
                pass

    async def refused(params: GenerationParams, *sets: str) -> str:
        with pytest.raises(EngineError) as caught:
            await read(params, *sets)
        return str(caught.value)

    assert "serves no 'large'. It serves grounded: set" in await refused(GenerationParams(4), "generator.model=large")
    too_long = await refused(GenerationParams(5000))
    assert too_long.startswith(f"The server at {vllm_server} refuses the request (400): ")
    assert "4096" in too_long
    monkeypatch.setenv("RAG_TEST_KEY", "another")
    assert "refuses the key in RAG_TEST_KEY (401)" in await refused(GenerationParams(4))
