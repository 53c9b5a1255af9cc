"""Engines on a GPU beside one another: BF16, FP8, INT8, AWQ, GPTQ, FP8 KV cache, speculation, at the source's lengths.

    python scripts/bench_gpu.py [--models qwen2.5-7b] [--weights dummy|real] [--repeats 3] [-o eval/results/gpu/engines]

With dummy weights it needs no hub: latency, memory and throughput are those of the model, and nothing else is reported. Where
the real ones are, `rag bench breakdown --models MODELS` measures whole answers, stage by stage. Runs on vLLM 0.24 and later.
Goes on where it was interrupted.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rag import build, settings
from rag.cli import ending
from rag.cli.console import library_output
from rag.cli.measuring import show
from rag.engine.spec import EngineSpec
from rag.errors import UsageError
from rag.variants import engines
from rag.variants.engines import Load, Measurement, Variant

VARIANTS = {
    "v3": ("v3", []),
    "v3_1": ("v3_1", []),
    "v3_2": ("v3_2", []),
    "fp8_kv": ("v3_1", ["generator.kv_cache_dtype=fp8"]),
    "int8": ("v3_1", ["generator.quantization=int8"]),
    "awq": ("v3_1", ["generator.quantization=awq"]),
    "gptq": ("v3_1", ["generator.quantization=gptq"]),
}
"""By name a profile, and what is set beside it."""

LONGEST = 8192
"""Tokens of prompt and answer, which the engines make room for."""

TOKENIZER = "smollm2-135m-instruct"


def main(
    models: Annotated[
        str, typer.Option(help="Models file: what the engines run, or have the shape of.")
    ] = "qwen2.5-7b",
    weights: Annotated[Load, typer.Option(help="Random numbers, or the model's own.")] = "dummy",
    only: Annotated[str, typer.Option(help="Engines, comma-separated; the first is what others are held against.")] = (
        ",".join(VARIANTS)
    ),
    repeats: Annotated[int, typer.Option(min=1, help="Requests of each length.")] = 3,
    requests: Annotated[int, typer.Option(min=1, help="Requests at once, for the throughput.")] = 16,
    kv_cache_mb: Annotated[int, typer.Option(min=512, help="Of each engine's KV pool.")] = 4096,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the tokenizer for dummy weights.", show_default=TOKENIZER)
    ] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Settings, KEY=VALUE.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of samples and report.")] = Path(
        "eval/results/gpu/engines"
    ),
    report_only: Annotated[bool, typer.Option("--report-only", help="Make the report of the samples again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what vLLM says.")] = False,
) -> None:
    """Engines beside one another, by requests of the source's lengths."""
    command = shlex.join(["python", "scripts/bench_gpu.py", *sys.argv[1:]])
    common = [
        f"generator.max_model_len={LONGEST}",
        f"generator.max_num_seqs={requests}",
        f"generator.kv_cache_mb={kv_cache_mb}",
        "generator.gpu_memory_utilization=0.05",  # of which so much has to be free as an engine starts beside the others
        *(assignments or []),
    ]
    with library_output(verbose) as (terminal, _):
        if not report_only:
            variants = _variants(only, models, common)
            with terminal.count("preparing") as progress:
                folder = tokenizer if tokenizer is not None else build.resolve(TOKENIZER, progress).path
                measurement = Measurement(variants, weights, folder, repeats, requests, _adapt)
                engines.measure(measurement, output, command, progress)
        show(engines.summarise(output), output, terminal, as_json)


def _variants(only: str, models: str, common: Sequence[str]) -> list[Variant]:
    names = [name.strip() for name in only.split(",")]
    if unknown := [name for name in names if name not in VARIANTS]:
        raise UsageError(f"--only: {unknown[0]!r} is no engine. Name some of {', '.join(VARIANTS)}.")
    found = []
    for name in names:
        profile, changes = VARIANTS[name]
        found.append(Variant(name, settings.load(profile, models, [*common, *changes], device="cuda")))
    return found


def _adapt(spec: EngineSpec) -> EngineSpec:
    """To the vLLM that is installed: 0.24 counts no drafts by request."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.outputs import CompletionOutput

    counted = "per_request_spec_decode_metrics"
    if counted in AsyncEngineArgs.__dataclass_fields__:
        return spec
    CompletionOutput.spec_decode_metrics = None
    return replace(spec, args={name: value for name, value in spec.args.items() if name != counted})


if __name__ == "__main__":
    ending.run_script(main)
