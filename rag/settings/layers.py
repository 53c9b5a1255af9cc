"""Where settings come from: layers, merged, with the origin of every value."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from rag import paths
from rag.errors import SettingsError
from rag.records import problems
from rag.settings.cpu import multiplies_bf16
from rag.settings.sections import ENV_PREFIX, Device, Settings, describe, is_mapping, leaf_types

# libyaml's, where PyYAML was built with it: a server reads the settings of every question that it is asked.
_SafeLoader: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one origin, nested by section. `explicit`: somebody asked for these by hand."""

    name: str
    values: Mapping[str, Any]
    explicit: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """Merged settings, the names they were loaded by, and the layers, strongest first."""

    settings: Settings
    profile: str
    models: str
    device: Device
    layers: tuple[Layer, ...]

    def origin(self, key: str) -> Layer:
        """The layer that a dotted key's value came from."""
        return _origin(self.layers, key)

    def explicit(self, key: str) -> bool:
        return self.origin(key).explicit

    def having(self, section: str, **values: Any) -> Loaded:
        """These with other values of a section; `origin` tells where the old ones came from. Raises `SettingsError`."""
        try:
            return replace(self, settings=self.settings.having(section, **values))
        except ValidationError as error:
            problem = problems(error)[0]
            key = ".".join(filter(None, (section, problem.place)))
            raise SettingsError(f"{key}: {problem.what}.") from error

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Every dotted key with its effective value."""
        for key, _ in leaf_types():
            value: Any = self.settings
            for part in key.split("."):
                value = getattr(value, part)
            yield key, value


def load(
    profile: str = "auto",
    models: str = "auto",
    assignments: Sequence[str] = (),
    *,
    device: Device | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Merge all layers.

    `profile` and `models` are names of shipped files, paths of YAML files, or "auto" (by device);
    `assignments` are `section.key=value` with a YAML value.

    Raises `SettingsError` for an unknown profile, key or value, naming the nearest known one.
    """
    device = device if device is not None else detect_device()
    profile = profile if profile != "auto" else {"cpu": "auto-cpu", "cuda": "auto-gpu"}[device]
    models = models if models != "auto" else {"cpu": "embedded", "cuda": "qwen3-8b"}[device]
    layers: tuple[Layer, ...] = (
        Layer("--set", _from_assignments(assignments), explicit=True),
        Layer("environment", _from_environment(os.environ if environ is None else environ), explicit=True),
        Layer(f"models file {models}", _from_file("models", models)),
        Layer(f"profile {profile}", _from_file("profiles", profile)),
        *([WITHOUT_BF16] if device == "cpu" and not multiplies_bf16() else []),
        Layer("default", {}),
    )
    for layer in layers:
        _check_keys(layer)
    return Loaded(_merge(layers), profile, models, device, layers)


def detect_device() -> Device:
    """ "cuda" where a CUDA build of vLLM is installed and an NVIDIA device is there; else "cpu"."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm")
    except PackageNotFoundError:
        return "cpu"
    return "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"


# Without instructions for it, vLLM's BF16 is made of 32-bit steps, and slower than 32 bits:
# rag bench sweep --over generator.dtype=float32,bfloat16.
WITHOUT_BF16 = Layer("this CPU, which has no BF16", {"generator": {"dtype": "float32"}})


def shipped_names(kind: Literal["profiles", "models"]) -> list[str]:
    return sorted(path.stem for path in paths.shipped("configs", kind).glob("*.yaml"))


# --- layers ------------------------------------------------------------------------------------


def _from_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or "." not in key:
            raise SettingsError(f"--set {assignment}: expected section.key=value, e.g. --set generator.max_tokens=256")
        try:
            value = yaml.load(text, _SafeLoader)
        except yaml.YAMLError as error:
            raise SettingsError(
                f"--set {assignment}: the value isn't valid YAML ({error.__class__.__name__})"
            ) from error
        *sections, leaf = key.strip().split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise SettingsError(f"--set {assignment}: {section!r} was set to a single value before.")
        target[leaf] = value
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    mine = {name: value for name, value in environ.items() if name.upper().startswith(ENV_PREFIX)}
    for name in mine:
        section = name[len(ENV_PREFIX) :].split("__")[0].lower()
        if section not in Settings.model_fields:
            raise SettingsError(f"Unknown setting {name} in the environment.{nearest(section, Settings.model_fields)}")
    if not mine:
        return {}
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): None if value == "null" else value for name, value in mine.items()}
    try:
        return source()
    except ValueError as error:
        mappings = {key for key, annotation in leaf_types() if is_mapping(annotation)} | set(Settings.model_fields)
        suspects = [f"{n}={v}" for n, v in mine.items() if n[len(ENV_PREFIX) :].lower().replace("__", ".") in mappings]
        raise SettingsError(f"Can't read {', '.join(suspects)} in the environment: a mapping must be JSON.") from error


def _from_file(kind: Literal["profiles", "models"], name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else paths.shipped("configs", kind, f"{name}.yaml")
    what = {"profiles": "profile", "models": "models file"}[kind]
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _SafeLoader)
    except FileNotFoundError:
        known = shipped_names(kind)
        raise SettingsError(f"Unknown {what} {name!r}.{nearest(name, known)} Known: {', '.join(known)}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"Can't read the {what} {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"The {what} {path} must be a mapping of sections, and is a {type(values).__name__}.")
    return {key: value for key, value in values.items() if key != "description"}


def _merge(layers: Sequence[Layer]) -> Settings:
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        _drop_companions(values, layer.values)
        _overlay(values, layer.values)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_first_problem(error, layers)) from error


def _drop_companions(weak: dict[str, Any], strong: Mapping[str, Any]) -> None:
    """What a weaker layer says of a model isn't true of the one that a stronger layer puts in its place."""
    for model, companions in _COMPANIONS.items():
        *sections, name = model.split(".")
        below: Any = weak
        above: Any = strong
        for section in sections:
            below = below.get(section, {}) if isinstance(below, dict) else {}
            above = above.get(section, {}) if isinstance(above, Mapping) else {}
        if isinstance(above, Mapping) and name in above and below.get(name) != above[name]:
            for companion in companions:
                below.pop(companion, None)


_COMPANIONS = {
    "generator.model": ("revision", "vocab_size", "quantized", "tokenizer"),
    "generator.speculation.draft_model": ("draft_vocab_size",),
}


def _overlay(weak: dict[str, Any], strong: Mapping[str, Any]) -> None:
    """Merge mappings entry by entry; an empty one clears what it meets, any other value replaces it."""
    for name, value in strong.items():
        if isinstance(value, Mapping) and value:
            below = weak.get(name)
            weak[name] = dict(below) if isinstance(below, Mapping) else {}
            _overlay(weak[name], value)
        else:
            weak[name] = value


# --- errors ------------------------------------------------------------------------------------


def _first_problem(error: ValidationError, layers: Sequence[Layer]) -> str:
    problem, *others = problems(error)
    key = problem.place.removesuffix(".[key]")
    message = problem.what[:1].lower() + problem.what[1:]
    leaf = next((name for name, _ in leaf_types() if f"{key}.".startswith(f"{name}.")), None)
    if leaf is None:  # what a section's values say together
        return f"{key}: {message}."
    more = f" ({len(others)} more)" if others else ""
    shown = _without_secrets(key, problem.found)
    return f"{key}={shown} (from {_origin(layers, key).name}): {message}; {describe(leaf)}.{more}"


def _without_secrets(key: str, value: Any) -> Any:
    """What may be shown of a refused value: it may be a key, or an address that holds one."""
    if key == "generator.api_key_env":
        return "..."
    return re.sub(r"//.*@", "//...@", value) if key == "generator.base_url" and isinstance(value, str) else value


def _check_keys(layer: Layer) -> None:
    """Raises `SettingsError` for a key that no section has, and for a section that is no mapping."""
    kinds = dict(leaf_types())
    sections = {key.rpartition(".")[0] for key in kinds}
    for key, value in _entries(layer.values):
        if key in sections and value != {}:
            example = next(name for name in kinds if name.startswith(f"{key}."))
            raise SettingsError(f"{key}={value} (from {layer.name}): a section, with keys of its own like {example}.")
        mapping = any(key.startswith(f"{name}.") and is_mapping(kind) for name, kind in kinds.items())
        if key not in kinds and key not in sections and not mapping:
            raise SettingsError(f"Unknown setting {key!r} (from {layer.name}).{nearest(key, list(kinds))}")


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The beginning of a hint, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _origin(layers: Sequence[Layer], key: str) -> Layer:
    for layer in layers:
        if any(name == key or name.startswith(f"{key}.") for name, _ in _entries(layer.values)):
            return layer
    return layers[-1]


def _entries(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; an empty mapping is a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
