"""rag/settings.py: five layers, where each value came from, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from rag import settings
from rag.errors import SettingsError
from rag.settings import Device, Loaded, Settings, describe, load, shipped_names

pytestmark = pytest.mark.usefixtures("cpu_with_bf16")

QWEN_DRAFT = (
    "generator.speculation.method=draft_model",
    "generator.speculation.draft_model=Qwen/Qwen2.5-1.5B-Instruct",
    "generator.speculation.draft_vocab_size=151936",
)


def loaded(
    *assignments: str,
    environ: Mapping[str, str] | None = None,
    profile: str = "auto",
    models: str = "auto",
    device: Device = "cpu",
) -> Loaded:
    return load(profile, models, assignments, device=device, environ={} if environ is None else environ)


def refusal(
    *assignments: str, environ: Mapping[str, str] | None = None, profile: str = "auto", models: str = "auto"
) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(*assignments, environ=environ, profile=profile, models=models)
    assert caught.value.exit_code == 2
    return str(caught.value)


def written(folder: Path, values: object, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def nested(values: Mapping[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, leaf = key.split(".")
        target = tree
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value
    return tree


def value(of: Loaded, key: str) -> object:
    return dict(of.leaves())[key]


def all_keys() -> list[str]:
    return [key for key, _ in loaded().leaves()]


def environment_name(key: str) -> str:
    return "RAG__" + key.replace(".", "__").upper()


def sections() -> dict[str, BaseModel]:
    found: dict[str, BaseModel] = {"": loaded().settings}
    for name in (*Settings.model_fields, "generator.speculation"):
        section: Any = found[""]
        for part in name.split("."):
            section = getattr(section, part)
        found[name] = section
    return found


def numeric_bounds() -> list[tuple[str, str, float]]:
    """Every bound of every number: key, operator, limit."""
    found = []
    for prefix, section in sections().items():
        for name, field in type(section).model_fields.items():
            for bound in field.metadata:
                found += [
                    (f"{prefix}.{name}", operator, getattr(bound, operator))
                    for operator in ("ge", "gt", "le", "lt")
                    if hasattr(bound, operator)
                ]
    return found


# --- precedence and provenance -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected", "origin", "explicit"),
    [
        (5, 14, "--set", True),
        (4, 13, "environment", True),
        (3, 12, "models file {models}", False),
        (2, 11, "profile {profile}", False),
        (1, 256, "default", False),
    ],
)
def test_the_strongest_layer_that_names_a_key_decides_it(
    tmp_path: Path, layers: int, expected: int, origin: str, explicit: bool
) -> None:
    profile = written(tmp_path, {"generator": {"max_tokens": 11}} if layers >= 2 else {}, "profile.yaml")
    models = written(tmp_path, {"generator": {"max_tokens": 12}} if layers >= 3 else {}, "models.yaml")
    environ = {"RAG__GENERATOR__MAX_TOKENS": "13"} if layers >= 4 else {}
    assignments = ["generator.max_tokens=14"] if layers >= 5 else []
    effective = loaded(*assignments, environ=environ, profile=profile, models=models)
    assert effective.settings.generator.max_tokens == expected
    assert effective.origin("generator.max_tokens").name == origin.format(profile=profile, models=models)
    assert effective.explicit("generator.max_tokens") is explicit


def test_layers_are_merged_key_by_key_also_inside_a_nested_section(tmp_path: Path) -> None:
    profile = written(tmp_path, {"generator": {"speculation": {"method": "ngram", "tokens": 7}}}, "profile.yaml")
    models = written(tmp_path, {"generator": {"model": "m", "speculation": {"draft_model": "d"}}}, "models.yaml")
    effective = loaded("generator.speculation.tokens=9", profile=profile, models=models)
    speculation = effective.settings.generator.speculation
    assert (speculation.method, speculation.tokens, speculation.draft_model) == ("ngram", 9, "d")
    assert speculation.lookup_max == 4
    assert [
        effective.origin(f"generator.{key}").name
        for key in (
            "speculation.method",
            "speculation.tokens",
            "speculation.draft_model",
            "speculation.lookup_max",
            "model",
        )
    ] == [f"profile {profile}", "--set", f"models file {models}", "default", f"models file {models}"]


def test_the_later_of_two_assignments_of_a_key_wins() -> None:
    assert loaded("generator.max_tokens=3", "generator.max_tokens=4").settings.generator.max_tokens == 4


def test_a_null_of_a_stronger_layer_beats_the_value_of_a_weaker_one() -> None:
    effective = loaded("context.chars_per_passage=null")
    assert effective.settings.context.chars_per_passage is None
    assert effective.origin("context.chars_per_passage").name == "--set"


def test_a_value_equal_to_the_default_still_counts_as_asked_for_by_hand() -> None:
    effective = loaded("generator.seed=0")
    assert effective.settings.generator.seed == loaded().settings.generator.seed == 0
    assert effective.explicit("generator.seed")
    assert not loaded().explicit("generator.seed")


def test_a_mapping_is_merged_entry_by_entry_and_keeps_what_a_weaker_layer_says() -> None:
    effective = loaded("generator.quantized.awq=mine", models="qwen3-8b")
    assert dict(effective.settings.generator.quantized) == {"fp8": "Qwen/Qwen3-8B-FP8", "awq": "mine"}
    assert effective.explicit("generator.quantized")


def test_a_mapping_that_was_emptied_by_hand_is_empty() -> None:
    effective = loaded("generator.quantized={}", models="qwen3-8b")
    assert effective.explicit("generator.quantized")
    assert dict(effective.settings.generator.quantized) == {}


def test_the_leaves_are_every_key_once_with_its_effective_value() -> None:
    effective = loaded("chunk.max_chars=700", "generator.speculation.tokens=9")
    leaves = list(effective.leaves())
    keys = [key for key, _ in leaves]
    assert len(keys) == len(set(keys))
    assert ("chunk.max_chars", 700) in leaves
    assert ("generator.speculation.tokens", 9) in leaves
    assert nested(dict(leaves)) == effective.settings.model_dump()


def test_two_loads_of_the_same_layers_are_equal() -> None:
    assert loaded("chunk.max_chars=700").settings == loaded("chunk.max_chars=700").settings
    assert loaded("chunk.max_chars=700").settings != loaded("chunk.max_chars=701").settings


# --- profiles and models files -----------------------------------------------------------------


@pytest.mark.parametrize("profile", ["auto", *shipped_names("profiles")])
@pytest.mark.parametrize("models", ["auto", *shipped_names("models")])
def test_every_shipped_profile_loads_with_every_shipped_models_file(profile: str, models: str) -> None:
    for device in get_args(Device):
        effective = loaded(profile=profile, models=models, device=device)
        assert effective.settings.generator.model is not None


@pytest.mark.parametrize(
    ("device", "profile", "models"), [("cpu", "auto-cpu", "embedded"), ("cuda", "auto-gpu", "qwen3-8b")]
)
def test_auto_is_resolved_by_the_device_and_named(device: Device, profile: str, models: str) -> None:
    effective = loaded(device=device)
    assert (effective.profile, effective.models, effective.device) == (profile, models, device)
    assert [layer.name for layer in effective.layers] == [
        "--set",
        "environment",
        f"models file {models}",
        f"profile {profile}",
        "default",
    ]


def test_a_profile_and_a_models_file_can_be_given_by_path(tmp_path: Path) -> None:
    profile = written(tmp_path, "description: mine\nretrieve: {candidates: 5}\n", "fast.yaml")
    models = written(tmp_path, "generator: {model: /models/mine}\n", "box.yml")
    effective = loaded(profile=profile, models=models)
    assert effective.settings.retrieve.candidates == 5
    assert effective.settings.generator.model == "/models/mine"
    assert (effective.profile, effective.models) == (profile, models)
    assert effective.origin("retrieve.candidates").name == f"profile {profile}"
    assert effective.origin("generator.model").name == f"models file {models}"


def test_an_unknown_profile_names_the_nearest_and_all_known_ones() -> None:
    message = refusal(profile="auto_cpu")
    assert "Unknown profile 'auto_cpu'." in message
    assert "Did you mean 'auto-cpu'?" in message
    for known in shipped_names("profiles"):
        assert known in message


def test_an_unknown_models_file_names_the_nearest_and_all_known_ones() -> None:
    message = refusal(models="embeded")
    assert "Unknown models file 'embeded'." in message
    assert "Did you mean 'embedded'?" in message
    for known in shipped_names("models"):
        assert known in message


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.yaml") in refusal(profile=str(tmp_path / "none.yaml"))


def test_a_broken_yaml_file_is_refused_with_its_path_and_the_line(tmp_path: Path) -> None:
    broken = written(tmp_path, "generator:\n  max_tokens: [1\n")
    for message in (refusal(profile=broken), refusal(models=broken)):
        assert broken in message
        assert "line 2" in message
        assert "\n" not in message


def test_a_profile_that_is_not_utf_8_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"description: caf\xe9\n")
    message = refusal(profile=str(path))
    assert str(path) in message
    assert "utf-8" in message


def test_a_profile_that_is_a_folder_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert f"Can't read the profile {tmp_path / 'folder.yaml'}" in refusal(profile=str(tmp_path / "folder.yaml"))


@pytest.mark.parametrize(("text", "found"), [("- generator\n", "list"), ("", "NoneType"), ("fast\n", "str")])
def test_a_file_that_is_no_mapping_is_refused_with_what_it_is(tmp_path: Path, text: str, found: str) -> None:
    path = written(tmp_path, text)
    assert refusal(profile=path) == f"The profile {path} must be a mapping of sections, and is a {found}."


@pytest.mark.parametrize("section", ["chunk", "generator"])
def test_a_section_that_is_no_mapping_is_refused_even_where_a_stronger_layer_has_it(
    tmp_path: Path, section: str
) -> None:
    path = written(tmp_path, f"{section}: 5\n")
    message = refusal(profile=path)
    assert f"{section}=5 (from profile {path})" in message
    assert not message.endswith("; .")


# --- the environment ---------------------------------------------------------------------------


def test_the_process_environment_is_read_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG__CHUNK__MAX_CHARS", "777")
    assert load(device="cpu").settings.chunk.max_chars == 777
    assert load(device="cpu", environ={}).settings.chunk.max_chars == 1000
    assert load(device="cpu", environ={"RAG__CHUNK__MAX_CHARS": "555"}).settings.chunk.max_chars == 555


def test_names_in_the_environment_may_be_lower_case_and_others_are_none_of_ours() -> None:
    environ = {"rag__generator__max_tokens": "55", "RAG_HOME": "/x", "PATH": "/bin", "XRAG__NOPE": "1"}
    effective = loaded(environ=environ)
    assert effective.settings.generator.max_tokens == 55
    assert effective.layers[1].values == {"generator": {"max_tokens": "55"}}


@pytest.mark.parametrize(
    ("key", "models"),
    [
        ("context.chars_per_passage", "embedded"),
        ("generator.seed", "embedded"),
        ("rerank.model", "qwen3-8b"),
        ("generator.speculation.draft_model", "qwen3-8b"),
    ],
)
def test_null_in_the_environment_is_no_value(key: str, models: str) -> None:
    assert value(loaded(models=models), key) is not None
    effective = loaded(environ={environment_name(key): "null"}, models=models)
    assert value(effective, key) is None
    assert effective.origin(key).name == "environment"


def test_null_in_the_environment_is_refused_where_a_value_is_needed() -> None:
    message = refusal(environ={"RAG__GENERATOR__MAX_TOKENS": "null"})
    assert "generator.max_tokens" in message
    assert "(from environment)" in message


def test_a_section_can_be_given_as_json_and_a_key_of_its_own_beats_it() -> None:
    environ = {"RAG__GENERATOR": '{"max_tokens": 77, "seed": 5}', "RAG__GENERATOR__MAX_TOKENS": "78"}
    generator = loaded(environ=environ).settings.generator
    assert (generator.max_tokens, generator.seed) == (78, 5)


def test_a_mapping_in_the_environment_that_is_no_json_is_refused_with_its_name_and_value() -> None:
    message = refusal(environ={"RAG__GENERATOR__QUANTIZED": "mine"})
    assert "RAG__GENERATOR__QUANTIZED" in message
    assert "mine" in message


# --- unknown keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("generator.max_tokns", "generator.max_tokens"),
        ("generator.speculation.metod", "generator.speculation.method"),
        ("retrieve.candidate", "retrieve.candidates"),
    ],
)
def test_an_unknown_key_of_any_layer_is_refused_with_the_layer_and_the_nearest_name(
    tmp_path: Path, key: str, nearest: str
) -> None:
    path = written(tmp_path, nested({key: 1}))
    for message, layer in [
        (refusal(f"{key}=1"), "--set"),
        (refusal(environ={environment_name(key): "1"}), "environment"),
        (refusal(models=path), f"models file {path}"),
        (refusal(profile=path), f"profile {path}"),
    ]:
        assert message == f"Unknown setting {key!r} (from {layer}). Did you mean {nearest!r}?"


def test_an_unknown_section_of_any_layer_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = written(tmp_path, {"genrator": {"max_tokens": 1}})
    assert refusal("genrator.max_tokens=1").endswith("(from --set). Did you mean 'generator.max_tokens'?")
    assert refusal(models=path).endswith(f"(from models file {path}). Did you mean 'generator.max_tokens'?")
    assert refusal(profile=path).endswith(f"(from profile {path}). Did you mean 'generator.max_tokens'?")
    message = refusal(environ={"RAG__GENRATOR__MAX_TOKENS": "1"})
    assert "RAG__GENRATOR__MAX_TOKENS" in message
    assert "Did you mean 'generator'?" in message


def test_every_key_is_found_again_when_its_last_letter_is_missing() -> None:
    for key in all_keys():
        assert refusal(f"{key[:-1]}=1").endswith(f"Did you mean {key!r}?")


def test_a_key_that_is_near_to_nothing_gets_no_suggestion() -> None:
    assert refusal("zzzzz.qqqqq=1") == "Unknown setting 'zzzzz.qqqqq' (from --set)."


def test_a_description_is_for_files_only() -> None:
    assert "Unknown setting 'description.x'" in refusal("description.x=1")


def test_a_key_below_a_single_value_is_refused_with_where_it_came_from() -> None:
    message = refusal("generator.max_tokens.x=4")
    assert "generator.max_tokens" in message
    assert "--set" in message


def test_an_unknown_name_in_a_mapping_is_refused_with_the_known_ones() -> None:
    message = refusal("generator.quantized.fp9=x")
    assert "generator.quantized.fp9" in message
    for known in settings.QUANTIZATIONS:
        assert known in message


def test_a_wrong_value_in_a_mapping_is_refused_with_its_key_and_layer() -> None:
    message = refusal(environ={"RAG__GENERATOR__QUANTIZED__FP8": "null"})
    assert "generator.quantized.fp8" in message
    assert "environment" in message


# --- wrong values ------------------------------------------------------------------------------


def test_every_bound_of_every_number_is_kept_and_explained() -> None:
    bounds = numeric_bounds()
    assert len(bounds) > 60
    for key, operator, limit in bounds:
        outside = {"ge": limit - 1, "gt": limit, "le": limit + 1, "lt": limit}[operator]
        message = refusal(f"{key}={outside}")
        assert message.startswith(f"{key}={outside} (from --set): input should be "), message
        assert f"; {describe(key)}." in message
        assert str(limit) in message


@pytest.mark.parametrize(
    ("key", "lowest", "highest"),
    [
        ("chunk.max_chars", 100, 20_000),
        ("filter.min_cosine", -1, 1),
        ("context.passages", 1, 100),
        ("retrieve.candidates", 1, 1000),
        ("generator.temperature", 0, 2),
    ],
)
def test_the_bounds_themselves_are_allowed(key: str, lowest: int, highest: int) -> None:
    assert value(loaded(f"{key}={lowest}"), key) == lowest
    assert value(loaded(f"{key}={highest}"), key) == highest


def test_a_value_out_of_bounds_is_refused_with_the_layer_it_came_from(tmp_path: Path) -> None:
    path = written(tmp_path, {"generator": {"max_tokens": 0}})
    for message, layer in [
        (refusal("generator.max_tokens=0"), "--set"),
        (refusal(environ={"RAG__GENERATOR__MAX_TOKENS": "0"}), "environment"),
        (refusal(models=path), f"models file {path}"),
        (refusal(profile=path, models=written(tmp_path, {}, "none.yaml")), f"profile {path}"),
    ]:
        assert message == (
            f"generator.max_tokens=0 (from {layer}): input should be greater than or equal to 1; answer, tokens at most."
        )


def test_the_number_of_further_problems_is_told() -> None:
    assert refusal("generator.max_tokens=0", "generator.temperature=9", "generator.top_p=0").endswith(" (2 more)")


@pytest.mark.parametrize(
    ("assignment", "allowed"),
    [
        ("retrieve.lexical=lucene", "'bm25s' or 'rank_bm25'"),
        ("generator.quantization=int4", "'fp8', 'awq', 'gptq' or 'int8'"),
        ("generator.speculation.method=medusa", "'none', 'ngram' or 'draft_model'"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(assignment: str, allowed: str) -> None:
    message = refusal(assignment)
    assert message.startswith(f"{assignment} (from --set): ")
    assert allowed in message


@pytest.mark.parametrize("name", ["Upper", "../up", ".hidden", "a/b", "a b", "", "x" * 65])
def test_an_index_name_that_is_no_plain_folder_name_is_refused(name: str) -> None:
    assert "index.name" in refusal(f"index.name={json.dumps(name)}")


def test_one_core_can_be_named_by_set_as_by_the_environment() -> None:
    assert loaded(environ={"RAG__GENERATOR__CORES": "2"}).settings.generator.cores == "2"
    assert loaded("generator.cores=2").settings.generator.cores == "2"


@pytest.mark.parametrize("assignment", ["generator.max_tokens", "max_tokens=3", "=3", ""])
def test_an_assignment_of_another_form_is_refused_with_an_example(assignment: str) -> None:
    message = refusal(assignment)
    assert message.startswith(f"--set {assignment}: ")
    assert "--set generator.max_tokens=256" in message


@pytest.mark.parametrize("text", ["{", "[1", "'x", "!!python/object/apply:os.getcwd []"])
def test_an_assignment_whose_value_is_no_plain_yaml_is_refused(text: str) -> None:
    message = refusal(f"generator.model={text}")
    assert message.startswith(f"--set generator.model={text}: the value isn't valid YAML")


@pytest.mark.parametrize(
    "assignments",
    [
        ("generator.speculation=3", "generator.speculation.method=ngram"),
        ("generator.max_tokens=3", "generator.max_tokens.x=4"),
    ],
)
def test_assignments_that_contradict_one_another_are_refused(assignments: tuple[str, str]) -> None:
    assert assignments[1].partition("=")[0] in refusal(*assignments)


# --- a server in the engine's place ------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://api.example.org/v1", "http://[::1]:80/x/v1"])
def test_the_address_of_a_server_is_taken_without_a_last_slash(url: str) -> None:
    assert loaded(f"generator.base_url={url}").settings.generator.base_url == url
    assert loaded(f"generator.base_url={url}/").settings.generator.base_url == url
    assert loaded().settings.generator.base_url is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000/v1", "it should be like http://HOST:PORT/v1 or https://HOST/v1"),
        ("ftp://host/v1", "it should be like"),
        ("http:///v1", "it should be like"),
        ("https://host/v1?key=5", "it should be like"),
        ("http://host:port/v1", "it is no URL, which is like http://HOST:PORT/v1"),
        ("http://[::1/v1", "it is no URL, which is like http://HOST:PORT/v1"),
    ],
)
def test_an_address_that_is_none_is_refused_with_how_one_looks(url: str, said: str) -> None:
    message = refusal(f"generator.base_url={json.dumps(url)}")
    assert message.startswith(f"generator.base_url={url} (from --set): {said}")
    assert "e.g. http://127.0.0.1:8000/v1" in message


@pytest.mark.parametrize("secret", ["me:hunter2", "hunter2", "me:b/hunter2"])
def test_an_address_with_credentials_is_refused_without_showing_them(secret: str) -> None:
    for message in (
        refusal(f"generator.base_url=https://{secret}@host/v1"),
        refusal(environ={"RAG__GENERATOR__BASE_URL": f"https://{secret}@host/v1"}),
    ):
        assert message.startswith("generator.base_url=https://...@host/v1 (from ")
        assert "put the key where api_key_env names it" in message or "/" in secret
        assert "hunter2" not in message


@pytest.mark.parametrize("key", ["sk-hunter2", "gsk_hunter2", "hunter2"])
def test_a_key_in_place_of_its_variables_name_is_refused_without_showing_it(key: str) -> None:
    message = refusal(f"generator.api_key_env={key}")
    assert message.startswith("generator.api_key_env=... (from --set): ")
    assert "the NAME of the environment variable" in message
    assert "hunter2" not in message
    assert loaded("generator.api_key_env=MY_KEY_2").settings.generator.api_key_env == "MY_KEY_2"


def test_more_fields_of_a_request_are_merged_and_keep_their_types() -> None:
    key = "generator.extra_body"
    effective = loaded(f"{key}.chat_template_kwargs.enable_thinking=false", f"{key}.top_k=5")
    assert value(effective, key) == {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 5}
    assert value(loaded(environ={environment_name(key): '{"top_k": 5}'}), key) == {"top_k": 5}


def test_a_tokenizer_is_that_of_its_model(tmp_path: Path) -> None:
    models = written(tmp_path, {"generator": {"model": "a", "tokenizer": "org/a"}})
    assert loaded(models=models).settings.generator.tokenizer == "org/a"
    assert loaded("generator.model=b", models=models).settings.generator.tokenizer is None
    both = loaded("generator.model=b", "generator.tokenizer=org/b", models=models)
    assert both.settings.generator.tokenizer == "org/b"


# --- values that don't go together -------------------------------------------------------------


def test_a_draft_model_of_another_vocabulary_is_refused_with_both_sizes_and_a_way_out() -> None:
    message = refusal(*QWEN_DRAFT, models="qwen2.5-7b")
    assert "Qwen/Qwen2.5-7B-Instruct has 152064 tokens, Qwen/Qwen2.5-1.5B-Instruct 151936" in message
    assert "speculation.method=ngram" in message


def test_a_draft_model_of_the_same_vocabulary_is_accepted() -> None:
    effective = loaded("generator.speculation.method=draft_model", models="qwen3-8b")
    assert effective.settings.generator.speculation.draft_model == "Qwen/Qwen3-0.6B"


def test_a_draft_model_of_unknown_vocabulary_is_left_to_the_engine() -> None:
    assert loaded(*QWEN_DRAFT[:2], models="qwen2.5-7b").settings.generator.speculation.draft_vocab_size is None


def test_the_vocabularies_matter_only_to_a_draft_model() -> None:
    effective = loaded(*QWEN_DRAFT[1:], "generator.speculation.method=ngram", models="qwen2.5-7b")
    assert effective.settings.generator.speculation.method == "ngram"


def test_a_profiles_draft_model_that_the_models_file_lacks_is_left_to_the_engine_plan(tmp_path: Path) -> None:
    """DESIGN: what a profile asks for and the models file can't supply is left out, not refused."""
    profile = written(tmp_path, {"generator": {"speculation": {"method": "draft_model"}}})
    assert loaded(profile=profile, models="embedded").settings.generator.speculation.draft_model is None


def test_an_answer_as_long_as_the_context_window_is_refused_with_both_lengths() -> None:
    assert loaded("generator.max_tokens=1023", "generator.max_model_len=1024").settings.generator.max_tokens == 1023
    for max_tokens in (1024, 1025):
        message = refusal(f"generator.max_tokens={max_tokens}", "generator.max_model_len=1024")
        assert f"max_tokens ({max_tokens}) leaves no room in max_model_len (1024)" in message


def test_a_lookup_whose_shortest_is_above_its_longest_is_refused() -> None:
    message = refusal("generator.speculation.lookup_min=5", "generator.speculation.lookup_max=4")
    assert "lookup_min (5) is above lookup_max (4)" in message


def test_an_answer_can_not_be_withheld_where_nothing_checks_it() -> None:
    said = refusal("verify.action=withhold", "verify.model=null")
    assert "action is withhold, and model is null: nothing would be checked" in said
    assert "action is drop" in refusal("verify.action=drop", "verify.model=null")
    settings.load(assignments=["verify.action=drop", "verify.model=some-folder"], environ={})


def test_one_of_the_two_searches_must_be_on() -> None:
    assert loaded("retrieve.dense_n=0").settings.retrieve.dense_n == 0
    assert loaded("retrieve.lexical_n=0").settings.retrieve.lexical_n == 0
    assert "switch one of the two searches on" in refusal("retrieve.dense_n=0", "retrieve.lexical_n=0")


# --- sections ----------------------------------------------------------------------------------


def test_every_key_has_a_description() -> None:
    for key in all_keys():
        assert len(describe(key)) > 5, key
    assert describe("generator.max_tokens") == "answer, tokens at most"
    assert describe("generator.speculation.tokens") == "draft tokens per step"


@pytest.mark.parametrize("name", list(sections()))
def test_every_section_is_frozen(name: str) -> None:
    section = sections()[name]
    for field in type(section).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, getattr(section, field))


@pytest.mark.parametrize("name", [name for name in sections() if name])
def test_every_section_refuses_keys_it_does_not_have(name: str) -> None:
    with pytest.raises(ValidationError, match="nope"):
        type(sections()[name]).model_validate({"nope": 1})


@pytest.mark.parametrize("name", [name for name in sections() if "." not in name and name])
def test_settings_with_the_values_that_they_have_are_the_same(name: str) -> None:
    before = loaded("generator.extra_body={a: {b: 1}}", "generator.speculation.method=ngram")
    assert before.having(name, **dict(getattr(before.settings, name))) == before


def test_settings_with_another_value_are_checked_as_they_would_be() -> None:
    before = loaded()
    after = before.having("generator", cores=2, max_tokens=100)
    assert (after.settings.generator.cores, after.settings.generator.max_tokens) == ("2", 100)
    assert after.having("generator", cores="auto", max_tokens=before.settings.generator.max_tokens) == before
    for section, values, said in (
        ("index", {"name": "My papers"}, r"index\.name: String should match"),
        ("context", {"passage": 3}, r"context\.passage: Extra inputs"),
        ("batch", {"lookahead": 2}, r"batch: lookahead \(2\) is below search_batch"),
    ):
        with pytest.raises(SettingsError, match=said):
            before.having(section, **values)


def test_a_batch_answers_as_many_at_once_as_the_engine_unless_it_is_told() -> None:
    assert loaded("generator.max_num_seqs=5", "batch.at_once=null", "batch.together=1").settings.at_once == 5
    assert loaded("generator.max_num_seqs=5", "batch.at_once=2").settings.at_once == 2


def test_prompts_that_go_on_together_are_got_ready_beside_those_that_run() -> None:
    assert loaded("generator.max_num_seqs=5", "batch.at_once=null", "batch.together=3").settings.at_once == 8


# --- round trips -------------------------------------------------------------------------------

WORDS = st.text(st.sampled_from("abcXYZ019-_./: #'\"{}[],&*!|>%@\\é中"), min_size=1, max_size=20).filter(
    lambda text: text != "null"
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "chunk.max_chars": st.integers(100, 20_000),
    "embed.query_prefix": WORDS,
    "index.name": st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
    "retrieve.lexical": st.sampled_from(["bm25s", "rank_bm25"]),
    "retrieve.lexical_weight": st.floats(0, 1),
    "rerank.model": st.none() | WORDS,
    "filter.min_cosine": st.floats(-1, 1),
    "context.chars_per_passage": st.none() | st.integers(50, 100_000),
    "generator.prefix_caching": st.booleans(),
    "generator.quantization": st.none() | st.sampled_from(settings.QUANTIZATIONS),
    "generator.quantized": st.dictionaries(st.sampled_from(settings.QUANTIZATIONS), WORDS, min_size=1),
    "generator.speculation.tokens": st.integers(1, 16),
}
SOME_VALUES = st.fixed_dictionaries({}, optional=VALUES)


@given(chosen=SOME_VALUES)
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_arrive_as_they_were_given_by_set_environment_and_file(tmp_path: Path, chosen: dict[str, Any]) -> None:
    bare = written(tmp_path, {}, "bare.yaml")
    environ = {
        environment_name(key): given if isinstance(given, str) else json.dumps(given) for key, given in chosen.items()
    }
    assignments = [f"{key}={json.dumps(given, ensure_ascii=False)}" for key, given in chosen.items()]
    ways = {
        "--set": loaded(*assignments, profile=bare, models=bare),
        "environment": loaded(environ=environ, profile=bare, models=bare),
        f"profile {tmp_path / 'mine.yaml'}": loaded(profile=written(tmp_path, nested(chosen)), models=bare),
    }
    defaults = dict(loaded(profile=bare, models=bare).leaves())
    for layer, effective in ways.items():
        assert dict(effective.leaves()) == defaults | chosen
        assert {key: effective.origin(key).name for key in defaults} == {
            key: layer if key in chosen else "default" for key in defaults
        }


@given(chosen=SOME_VALUES)
@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_effective_settings_written_as_a_profile_load_as_the_same_settings(
    tmp_path: Path, chosen: dict[str, Any]
) -> None:
    assignments = [f"{key}={json.dumps(given, ensure_ascii=False)}" for key, given in chosen.items()]
    before = dict(loaded(*assignments).leaves())
    profile = written(tmp_path, nested(before))
    assert dict(loaded(profile=profile, models=written(tmp_path, {}, "bare.yaml")).leaves()) == before


# --- a CPU without BF16 --------------------------------------------------------------------------


@pytest.mark.usefixtures("cpu_with_avx2_alone")
def test_a_cpu_without_bf16_computes_in_32_bits_and_says_why() -> None:
    found = loaded()
    assert found.settings.generator.dtype == "float32"
    assert found.origin("generator.dtype").name == "this CPU, which has no BF16"
    assert not found.explicit("generator.dtype")


@pytest.mark.usefixtures("cpu_with_avx2_alone")
def test_what_is_asked_for_comes_before_what_suits_the_cpu(tmp_path: Path) -> None:
    mine = written(tmp_path, {"generator": {"dtype": "float16"}})
    assert loaded(profile=mine).settings.generator.dtype == "float16"
    assert loaded("generator.dtype=bfloat16").settings.generator.dtype == "bfloat16"


@pytest.mark.usefixtures("cpu_with_avx2_alone")
def test_a_gpu_beside_such_a_cpu_has_its_own() -> None:
    assert loaded(device="cuda").settings.generator.dtype == "bfloat16"
