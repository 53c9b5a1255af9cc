"""Did each technique engage? Pure: the engine's own numbers, against what was asked.

Asked twice: of one answer, and of all that the engine has done since it started. A technique that was switched on and did
nothing is reported as not engaged; what can't be told yet, or isn't told at all, as None and never as a yes.

* `prefix_caching` engaged where prompt tokens came from the cache. None in the engine's first prompt, which no earlier one
  shares anything with; so a single question isn't a false alarm.
* `speculation` engaged where draft tokens were accepted: drafts that are all rejected only cost time. None where nothing was
  decoded beyond a prompt's first token, as in most refusals, since nothing can be drafted then.
* `kv_cache_dtype` engaged where the engine runs with the dtype that was asked for, and the pool that it allocated has that
  many bits a value.
* `quantization` engaged where the engine runs with it, and most linear layers of its model are quantised (a
  checkpoint may leave out a few; where only a few are, a loader has skipped the rest).
* Of the others the engine's resolved configuration tells.

What was left out for this machine, or for a server, stays so with its reason (`rag.engine.spec`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TypeAlias

from rag.core import GenerationStats, Technique

Techniques: TypeAlias = Mapping[str, Technique]

FP8_BITS = 8
"""Of a value in each KV dtype that can be asked for (`generator.kv_cache_dtype`)."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Of one request, or of several together; None where the engine doesn't tell.

    vLLM has them, of a request and since its start, as `num_cached_tokens` and `prefix_cache_queries`, `prefix_cache_hits`
    (tokens that were looked up and found); `spec_decode_metrics` and `spec_decode_num_draft_tokens`,
    `spec_decode_num_accepted_tokens`. `prompts` are those that were read, `decode_tokens` those generated after each prompt's
    first.
    """

    prompts: int = 0
    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    decode_tokens: int | None = None
    draft_tokens: int | None = None
    accepted_tokens: int | None = None

    def __add__(self, other: TokenCounts) -> TokenCounts:
        pairs = ((one.name, getattr(self, one.name), getattr(other, one.name)) for one in fields(self))
        return TokenCounts(**{name: b if a is None else a if b is None else a + b for name, a, b in pairs})

    def named(self, *names: str) -> dict[str, int]:
        """Those of these that are known."""
        return {name: count for name, count in asdict(self).items() if name in names and count is not None}


def counts(stats: GenerationStats) -> TokenCounts:
    """Of one request."""
    return TokenCounts(
        1,
        stats.prompt_tokens,
        stats.cached_prompt_tokens,
        max(0, stats.output_tokens - 1) if stats.output_tokens is not None else None,
        stats.draft_tokens,
        stats.accepted_tokens,
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """The KV cache as it was allocated: room for so many tokens, of `values` numbers each (keys and values of all heads and
    layers), in so many bytes."""

    bytes: int
    tokens: int
    values: int

    @property
    def bits(self) -> float:
        """Bits a value; less than a block of tokens is left over, so it is a little more than what one takes."""
        return 8 * self.bytes / (self.tokens * self.values)


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's as they lie in the engine's memory: bytes of all, and of those that are read for each token (not the table of
    embeddings, of which that is a row, unless the same table ranks the next token); linear layers, and those that are quantised,
    where those were counted.
    """

    bytes: int
    read_bytes: int
    layers: int | None = None
    quantised: int | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a running engine says of itself, by technique, and nothing of those it doesn't tell. `asked` has the values that
    it was given, of those whose name has to be the engine's too."""

    reported: Mapping[str, str | None] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)
    pool: Pool | None = None
    weights: Weights | None = None


UNTOLD = Configuration()
"""A server behind an API says nothing of itself."""


def of_answer(
    techniques: Techniques, configuration: Configuration, stats: GenerationStats | None, since_start: TokenCounts
) -> dict[str, Technique]:
    """In the request of `stats`; None for an answer that nothing was generated for. `since_start` counts it too."""
    return _judge(techniques, configuration, counts(stats) if stats is not None else TokenCounts(), since_start.prompts)


def of_engine(techniques: Techniques, configuration: Configuration, since_start: TokenCounts) -> dict[str, Technique]:
    """Since the engine started, its warm-up included."""
    return _judge(techniques, configuration, since_start, since_start.prompts)


def of_answers(answers: Sequence[Techniques]) -> dict[str, Technique]:
    """In several answers together: numbers are added where they count something. What isn't counted is the worst of what was
    said of it."""
    together: dict[str, Technique] = {}
    for name in dict.fromkeys(name for techniques in answers for name in techniques):
        asked = [one for techniques in answers if (one := techniques.get(name)) is not None and one.asked]
        if not asked:
            together[name] = Technique(asked=False)
        elif name in _COUNTED and any(one.numbers for one in asked):
            total = sum((TokenCounts(**one.numbers) for one in asked), TokenCounts())  # type: ignore[arg-type]  # counts are whole
            # A no was given for earlier prompts, which needn't be among these.
            earlier = any(one.engaged is False for one in asked)
            found = _COUNTED[name](Technique(asked=True), total, total.prompts + earlier)
            # Which tells more than their numbers.
            same = asked[0].reason if len({one.reason for one in asked}) == 1 else None
            together[name] = replace(found, reason=same) if found.engaged is False and same is not None else found
        else:
            together[name] = min(asked, key=lambda one: {False: 0, True: 1, None: 2}[one.engaged])
    return together


def _judge(
    techniques: Techniques, configuration: Configuration, counted: TokenCounts, prompts: int
) -> dict[str, Technique]:
    """`prompts` are all that the engine has read."""
    judged = dict(techniques)
    for name, technique in techniques.items():
        if not technique.asked or technique.engaged is False:
            continue
        if name in _COUNTED:
            judged[name] = _COUNTED[name](technique, counted, prompts)
        elif name in configuration.reported:
            judged[name] = _configured(name, technique, configuration)
    return judged


def _prefix_caching(technique: Technique, counted: TokenCounts, prompts: int) -> Technique:
    cached = counted.cached_prompt_tokens
    if cached is None or counted.prompts == 0:
        return technique
    known = replace(
        technique,
        evidence=f"{cached:,} {_of(counted.prompt_tokens)}prompt tokens came from the cache",
        numbers=counted.named("prompts", "prompt_tokens", "cached_prompt_tokens"),
    )
    if cached > 0:
        return replace(known, engaged=True, reason=None)
    if counted.prompt_tokens == 0:
        return replace(known, engaged=False, reason="no prompt token was looked up in the cache")
    if prompts < 2:
        return replace(known, engaged=None, reason="there is no earlier prompt to share anything with")
    shared = "this prompt shares" if counted.prompts == 1 else f"{counted.prompts:,} prompts share"
    return replace(known, engaged=False, reason=f"{shared} no whole block with an earlier one that is still there")


def _speculation(technique: Technique, counted: TokenCounts, prompts: int) -> Technique:
    del prompts
    drafted, accepted, decoded = counted.draft_tokens, counted.accepted_tokens, counted.decode_tokens
    if counted.prompts > 0 and decoded == 0 and not drafted:
        return replace(technique, engaged=None, reason="nothing was decoded after the first token")
    if drafted is None or accepted is None or counted.prompts == 0:
        return technique
    known = replace(
        technique,
        evidence=f"{accepted:,} of {drafted:,} draft tokens accepted{_among(decoded)}",
        numbers=counted.named("prompts", "decode_tokens", "draft_tokens", "accepted_tokens"),
    )
    if accepted > 0:
        return replace(known, engaged=True, reason=None)
    if drafted > 0:
        return replace(known, engaged=False, reason="every draft token was rejected")
    because = f": {technique.reason}" if technique.reason is not None else ""
    return replace(known, engaged=False, reason=f"nothing was drafted{because}")


_COUNTED: Mapping[str, Callable[[Technique, TokenCounts, int], Technique]] = {
    "prefix_caching": _prefix_caching,
    "speculation": _speculation,
}


def _configured(name: str, technique: Technique, configuration: Configuration) -> Technique:
    reported, asked = configuration.reported[name], configuration.asked.get(name)
    said = f"the engine runs with {name} {reported}"
    if reported in (None, "auto"):
        return replace(technique, engaged=False, reason=f"the engine runs without it ({name} {reported})")
    if asked is not None and not _means(name, reported.lower(), asked.lower()):
        return replace(technique, engaged=False, reason=f"{said}, and {asked} was asked for")
    weights = configuration.weights
    if name == "quantization" and weights is not None and weights.layers is not None and weights.quantised is not None:
        return _quantised(technique, said, weights.quantised, weights.layers, weights.bytes)
    if name == "kv_cache_dtype" and configuration.pool is not None:
        return _pooled(technique, said, configuration.pool)
    return replace(technique, engaged=True, evidence=said)


def _quantised(technique: Technique, said: str, quantised: int, layers: int, in_all: int) -> Technique:
    known = replace(
        technique,
        evidence=f"{said}: {quantised:,} of {layers:,} linear layers, {in_all / 1e9:.2f} GB of weights",
        numbers={"layers": layers, "quantised_layers": quantised, "weight_bytes": in_all},
    )
    if 2 * quantised <= layers:
        few = (
            f"only {quantised:,} of the model's {layers:,} linear layers are"
            if quantised
            else "none of the model's linear layers is"
        )
        return replace(known, engaged=False, reason=f"{few} quantised")
    return replace(known, engaged=True)


def _pooled(technique: Technique, said: str, pool: Pool) -> Technique:
    known = replace(
        technique,
        evidence=f"{said}: {pool.tokens:,} tokens of {pool.bits:.1f} bits a value",
        numbers={"pool_bytes": pool.bytes, "pool_tokens": pool.tokens, "bits_per_value": round(pool.bits, 3)},
    )
    if pool.bits > 1.5 * FP8_BITS:
        return replace(known, engaged=False, reason=f"the pool that it allocated has {pool.bits:.1f} bits a value")
    return replace(known, engaged=True)


def _means(name: str, reported: str, asked: str) -> bool:
    """fp8 is fp8_e4m3 to some engines."""
    return reported.startswith(asked) if name == "kv_cache_dtype" else reported == asked


def _of(total: int | None) -> str:
    return f"of {total:,} " if total is not None else ""


def _among(total: int | None) -> str:
    return f" among {total:,} decoded" if total is not None else ""
