"""rag/variants/engines: models without weights, their engines in processes of their own, and what is made of the samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Cli

from rag import build, settings
from rag.bench import results
from rag.core import GenerationStats, Technique
from rag.engine.evidence import Weights
from rag.engine.spec import EngineSpec
from rag.engine.tokens import ChatTokenizer
from rag.errors import EngineDied, EngineError, UsageError
from rag.progress import quiet
from rag.variants import engines
from rag.variants.breakdown.lengths import SHAPES, RequestShape
from rag.variants.engines import Measurement, Variant, measuring, samples, shapes
from rag.variants.engines.prompts import Prompts
from rag.variants.engines.samples import ALIKE, Start, Taken
from rag.variants.engines.worker import Came, Engine, Plan, Requests, Started

TINY = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vocab_size": 49_216,
}
PROFILES = ("v3", "v3_1", "v3_2")
REPORTS = ROOT / "eval" / "results"


@pytest.fixture(scope="module")
def tokenizer(real_home: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_HOME", str(real_home))
        return build.resolve("smollm2-135m-instruct", quiet).path


def unchanged(spec: EngineSpec) -> EngineSpec:
    return spec


def tiny(profile: str, folder: Path, *assignments: str) -> settings.Loaded:
    models = folder / "tiny.yaml"
    models.write_text("generator: {model: tiny/model, vocab_size: 49216, max_model_len: 1024}\n", encoding="utf-8")
    fixed = ["generator.kv_cache_mb=64", "generator.enforce_eager=true"]
    fixed.append("generator.dtype=bfloat16")  # on a CPU without BF16 too
    return settings.load(profile, str(models), [*fixed, *assignments], device="cpu", environ={})


def measurement(folder: Path, tokenizer: Path, names: Sequence[str] = PROFILES, repeats: int = 2) -> Measurement:
    variants = [Variant(name, tiny(name, folder)) for name in names]
    return Measurement(variants, "dummy", tokenizer, repeats, requests=2, adapt=unchanged)


def silent(what: str, done: int = 0, total: int = 0) -> None:
    pass


# --- models without weights --------------------------------------------------------------------------


def test_a_models_tokenizer_has_all_its_tokens_and_reads_text_as_before(tokenizer: Path, tmp_path: Path) -> None:
    folder = shapes.write(tmp_path / "tiny", TINY, tokenizer).tokenizer
    content = json.loads((folder / shapes.TOKENIZER).read_text(encoding="utf-8"))
    ids = {*content["model"]["vocab"].values(), *(token["id"] for token in content["added_tokens"])}
    assert ids == set(range(49_216))
    messages: Any = ({"role": "user", "content": "Does metformin lower HbA1c? <|nothing 49215|>"},)
    before, after = ChatTokenizer(tokenizer, {}), ChatTokenizer(folder, {})
    assert after.render(messages) == before.render(messages)
    assert after.count_chat(messages) == before.count_chat(messages)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has 49,152 tokens, the model 1,000\. Name a --tokenizer"):
        shapes.write(tmp_path, {**TINY, "vocab_size": 1000}, tokenizer)
    with pytest.raises(UsageError, match=r"tokenizer\.json is missing"):
        shapes.write(tmp_path, TINY, tmp_path / "nowhere")


def test_every_checkpoint_of_the_sources_models_file_has_a_shape() -> None:
    loaded = settings.load("v3", "qwen2.5-7b", device="cuda", environ={})
    generator = loaded.settings.generator
    assert {generator.model, *generator.quantized.values()} == shapes.SHAPES.keys()
    assert all(config["vocab_size"] == generator.vocab_size for config in shapes.SHAPES.values())


def test_a_model_of_another_shape_is_refused_before_anything_starts(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The shape of tiny/model isn't known"):
        engines.measure(measurement(tmp_path, tokenizer), tmp_path / "out", "x", silent)


# --- real engines -------------------------------------------------------------------------------------


def test_real_engines_without_weights_are_asked_for_exactly_so_many_tokens(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(shapes.SHAPES, "tiny/model", TINY)  # type: ignore[misc]
    shape = shapes.write(tmp_path / "tiny", TINY, tokenizer)
    engine = Engine(Plan(tiny("v3", tmp_path), shape.model, shape.tokenizer, "dummy", unchanged))
    try:
        prompts = Prompts(shape.tokenizer)
        started = engine.ready()
        table = 49_216 * 64 * 2
        assert started.weights.bytes - started.weights.read_bytes == table
        assert table < started.weights.read_bytes < 1.1 * table  # the other table, and two small layers

        params = measuring.fixed(RequestShape(300, 7), tiny("v3", tmp_path))
        came = engine.ask(Requests(prompts.get(300, 0, 2), params))
        assert [(stats.prompt_tokens, stats.output_tokens) for _, stats in came.each] == [(300, 7)] * 2
        assert came.each[0][1].cached_prompt_tokens == 0  # the second has the instruction in common with it
        assert 0 < max(seconds for seconds, _ in came.each) <= came.seconds
        assert engine.engaged()["prefix_caching"].asked
        again = engine.ask(Requests(prompts.get(300, 0, 1), params, fresh=False))
        assert (again.each[0][1].cached_prompt_tokens or 0) > 200
        assert engine.ask(Requests(prompts.get(300, 0, 1), params)).each[0][1].cached_prompt_tokens == 0
    finally:
        engine.close()
    with pytest.raises(EngineDied, match="process ended"):
        engine.ask(Requests(prompts.get(300, 0, 1), params))


@pytest.mark.skipif(not settings.has_avx512(), reason="vLLM's GPTQ on a CPU needs AVX-512")
@pytest.mark.parametrize("found", [True, False])
def test_whether_a_models_layers_are_quantised_is_told_by_the_engine_itself(
    tokenizer: Path, tmp_path: Path, found: bool
) -> None:
    """A checkpoint may name layers that aren't; where that are all, vLLM's configuration still says GPTQ."""
    gptq = dict(shapes.SHAPES["Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4"]["quantization_config"])
    if not found:
        gptq["dynamic"] = {"-:.*": {}}
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}
    shape = shapes.write(tmp_path / "tiny", {**TINY, **sizes, "quantization_config": gptq}, tokenizer)
    loaded = tiny("v3", tmp_path, "generator.quantized.gptq=tiny/gptq", "generator.quantization=gptq")
    engine = Engine(Plan(loaded, shape.model, shape.tokenizer, "dummy", unchanged))
    try:
        weights = engine.ready().weights
        told = engine.engaged()["quantization"]
    finally:
        engine.close()
    assert weights.quantised == (8 if found else 0)
    assert (told.engaged, weights.layers) == (found, 8)
    assert told.evidence is not None
    assert f"{weights.quantised} of 8 linear layers" in told.evidence


def test_an_engine_that_cant_start_says_why(tokenizer: Path, tmp_path: Path) -> None:
    shape = shapes.write(tmp_path / "tiny", {**TINY, "architectures": ["NoSuchModel"]}, tokenizer)
    engine = Engine(Plan(tiny("v3", tmp_path), shape.model, shape.tokenizer, "dummy", unchanged))
    try:
        with pytest.raises(EngineError, match="NoSuchModel"):
            engine.ready()
    finally:
        engine.close()


# --- taking samples, on fakes -------------------------------------------------------------------------


class Fake:
    """An engine whose tokens take as long as its profile says."""

    asked: list[tuple[str, int, int, bool]] = []  # noqa: RUF012  (emptied by the fixture)
    fails: dict[str, EngineError | EngineDied] = {}  # noqa: RUF012
    lost_after: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, plan: Plan) -> None:
        self._name = plan.loaded.profile
        self._requests = 0

    def ready(self) -> Started:
        if self._name in self.fails:
            raise self.fails[self._name]
        return Started(3.0, Weights(15_000_000_000, 14_000_000_000, 112, 0))

    def ask(self, requests: Requests) -> Came:
        self._requests += 1
        if self._requests > self.lost_after.get(self._name, 10**6):
            raise EngineDied("lost")
        params = requests.params
        self.asked.append((self._name, len(requests.prompts), params.max_tokens, requests.fresh))
        token = {"v3": 0.004, "v3_1": 0.002, "v3_2": 0.002}[self._name]
        first = 0.1 if requests.fresh else 0.01
        decode = token * (params.max_tokens - 1)
        drafts = {"draft_tokens": 10, "accepted_tokens": 1} if self._name == "v3_2" else {}
        cached = 0 if requests.fresh else 2900
        stats = GenerationStats(
            params.max_tokens, prompt_tokens=9, cached_prompt_tokens=cached, ttft=first, decode=decode, **drafts
        )
        return Came(first + decode, [(first + decode, stats)] * len(requests.prompts))

    def engaged(self) -> dict[str, Technique]:
        speculation = Technique(asked=True, engaged=False, evidence="0 of 80 drafts accepted", reason="none accepted")
        return {"prefix_caching": Technique(asked=True, engaged=True), "speculation": speculation}

    def close(self) -> None:
        pass


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setitem(shapes.SHAPES, "tiny/model", TINY)  # type: ignore[misc]
    monkeypatch.setattr(measuring, "Engine", Fake)
    monkeypatch.setattr(Prompts, "get", lambda *_: [()] * _[-1])
    Fake.asked, Fake.fails, Fake.lost_after = [], {}, {}
    return Fake


def taken(folder: Path) -> list[Taken]:
    return list(samples.read(folder)[1].taken.values())


def test_each_engine_is_asked_each_length_alone_some_again_and_many_together(
    fakes: type[Fake], tokenizer: Path, tmp_path: Path
) -> None:
    engines.measure(measurement(tmp_path, tokenizer), tmp_path / "out", "x", silent)
    found = taken(tmp_path / "out")
    for name in PROFILES:
        own = [one for one in found if one.variant == name]
        alone = {(one.shape, one.repeat) for one in own if one.kind == "alone"}
        assert alone == {(shape, repeat) for shape in SHAPES for repeat in (0, 1)}
        assert {one.requests for one in own if one.kind == "together"} == {2}
        assert {one.output_tokens for one in own if one.kind == "again"} == {1}
    warm_ups = fakes.asked[:3]
    assert [(count, tokens) for _, count, tokens, _ in warm_ups] == [(1, measuring.WARM_UP.answer)] * 3


def test_a_run_goes_on_where_it_was_interrupted(fakes: type[Fake], tokenizer: Path, tmp_path: Path) -> None:
    engines.measure(measurement(tmp_path, tokenizer), tmp_path / "out", "x", silent)
    path = tmp_path / "out" / "samples.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    told = 3  # of the techniques, after all requests
    path.write_text("".join(lines[: -5 - told]) + lines[-5 - told][:20], encoding="utf-8")
    fakes.asked.clear()
    engines.measure(measurement(tmp_path, tokenizer), tmp_path / "out", "x", silent)
    assert len(fakes.asked) == 3 + 5
    keys = [one.key for one in taken(tmp_path / "out")]
    assert len(keys) == len(set(keys)) == 2 * 3 * (6 + 2 + 1)
    fakes.asked.clear()
    engines.measure(measurement(tmp_path, tokenizer), tmp_path / "out", "x", silent)
    assert not fakes.asked


@pytest.mark.parametrize(
    "lose",
    [
        lambda fakes: fakes.fails.update({"v3_1": EngineError("no kernels")}),
        lambda fakes: fakes.lost_after.update({"v3_1": 3}),
    ],
)
def test_an_engine_that_fails_is_left_out_and_the_report_says_why(
    fakes: type[Fake], tokenizer: Path, tmp_path: Path, lose: Callable[[type[Fake]], None]
) -> None:
    lose(fakes)
    engines.measure(measurement(tmp_path, tokenizer), tmp_path / "out", "x", silent)
    found = taken(tmp_path / "out")
    assert sum(one.variant == "v3" for one in found) == sum(one.variant == "v3_2" for one in found) == 18
    assert sum(one.variant == "v3_1" for one in found) < 3
    engines.summarise(tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "`v3_1` is lacking: " in report


def test_without_any_engine_there_is_nothing_to_measure(fakes: type[Fake], tokenizer: Path, tmp_path: Path) -> None:
    fakes.fails.update({name: EngineError("no kernels") for name in PROFILES})
    with pytest.raises(EngineError, match="No engine is left"):
        engines.measure(measurement(tmp_path, tokenizer), tmp_path / "out", "x", silent)


# --- figures ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fakes")
def test_figures_are_made_of_the_samples_alone(tokenizer: Path, tmp_path: Path) -> None:
    engines.measure(measurement(tmp_path, tokenizer), tmp_path / "out", "x", silent)
    figures = {figure.name: figure for figure in engines.summarise(tmp_path / "out")}
    # V3 has 6,000 tokens and an answer of 512 there, V3.1 3,000 and 384.
    assert figures["v3_1_over_v3"].value == pytest.approx((0.1 + 0.002 * 383) / (0.1 + 0.004 * 511))
    assert figures["v3_1_over_v3_alike"].value == pytest.approx(
        (0.1 + 0.002 * 383) / (0.1 + 0.004 * 383)
    )  # the median length
    assert figures["v3_1_over_v3_decode"].value == pytest.approx(0.5)
    assert figures["v3_1_over_v3_prefill"].value == pytest.approx(1.0)
    assert figures["v3_1.cached_ttft_over_ttft"].value == pytest.approx(0.1)
    assert figures["v3.weights_gb"].value == 15
    assert figures["v3.weights_read"].value == pytest.approx(0.014 / 0.004)
    assert "v3_2.weights_read" not in figures  # a step of it isn't a token
    assert figures["v3.throughput"].value == pytest.approx(2 * ALIKE.answer / (0.1 + 0.004 * 347))
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "random numbers in the shape of the model" in report
    assert "`v3_2` | tiny/model | bfloat16 | auto | ngram" in report
    assert "| `v3_2` | `speculation` | **no** | 0 of 80 drafts accepted | none accepted |" in report
    assert (tmp_path / "out" / "engines.svg").is_file()


def test_an_engine_whose_quantisation_did_nothing_has_no_figures(tmp_path: Path) -> None:
    """As two on an H200: weights in GPTQ's form whose layers vLLM didn't take for quantised."""
    report = REPORTS / "h200" / "engines"
    (tmp_path / "samples.jsonl").write_bytes((report / "samples.jsonl").read_bytes())
    figures = {figure.name: figure.value for figure in engines.summarise(tmp_path)}
    assert figures["v3_1.weights_gb"] < 0.6 * figures["v3.weights_gb"]
    assert not [name for name in figures if name.startswith(("gptq", "int8"))]
    said = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "- `gptq` is lacking: its quantisation did nothing" in said


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("what", ["it says so", "of none of its layers", "and died later"])
def test_a_planted_quantisation_that_does_nothing_is_found(tokenizer: Path, tmp_path: Path, what: str) -> None:
    engines.measure(measurement(tmp_path, tokenizer), tmp_path, "x", silent)
    store = results.Samples(tmp_path)
    head, rows = store.read()
    head["settings"]["variants"]["v3_1"]["quantization"] = "fp8"  # which a CPU leaves out
    rows = [one for one in rows if one.get("kind") != "engaged"]
    nothing = Technique(asked=True, engaged=False, reason="no layer is quantised")
    if what == "it says so":
        rows.append(samples.row(samples.Engaged("v3_1", {"quantization": nothing})))
    weights = next(one["weights"] for one in rows if one.get("kind") == "start" and one["variant"] == "v3")
    for one in rows:
        if one.get("kind") == "start" and one["variant"] == "v3_1":
            if what == "of none of its layers":
                one["weights"] = {**one["weights"], "quantised": 0}
            elif what == "and died later":
                one["weights"] = weights
    if what == "and died later":
        rows.append(samples.row(Start("v3_1", error="The engine died.")))
        rows.append(samples.row(Start("v3", error="The engine died.")))
    store.replace(head, rows)
    names = [figure.name for figure in engines.summarise(tmp_path)]
    assert not [name for name in names if name.startswith("v3_1")]
    assert "- `v3_1` is lacking: its quantisation did nothing" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert [name for name in names if name.startswith("v3.")]


def test_lines_that_are_no_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"bench": "engines"}\n{"kind": "alone", "variant": "v3"}\n', encoding="utf-8")
    with pytest.raises(
        UsageError, match=r"samples\.jsonl:2: no sample of this version of rag \(shape: Field required\)"
    ):
        engines.summarise(tmp_path)
    path.write_text('{"bench": "engines"}\n' + json.dumps(samples.row(Start("v3", 1.0))) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="No requests in"):
        engines.summarise(tmp_path)


# --- the script ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "v3,int4"), "--only: 'int4' is no engine. Name some of v3, v3_1, v3_2, fp8_kv, int8, awq, gptq."),
        (("--models", "embedded"), "The shape of smollm2-grounded isn't known"),
    ],
)
def test_wrong_usage_is_one_line_and_nothing_is_written(
    script: Cli, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = script("bench_gpu.py", *arguments, "-o", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"bench_gpu.py: {said}")
    assert not (tmp_path / "out").exists()
