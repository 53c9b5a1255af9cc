"""BERT and MPNet as an OpenVINO graph: a classifier with weights of 8 bits, or an encoder. Written by hand and not traced: the same
on every machine, without torch, and free to leave out what the first token doesn't need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rag.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights: TypeAlias = Mapping[str, NDArray[np.float32]]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Of the graph, int32, shape (pairs, tokens)."""

VERSION = 1
"""Of the graphs that this writes: with another one, those that lie in a model store are written anew."""

LEAST_ROWS = 32
"""Rows of a matrix from which on it is stored in 8 bits: below, as in the head, there is nothing to gain."""


def read_weights(folder: Path) -> Weights:
    """Every tensor of `model.safetensors` as float32. Raises `ModelError` where it can't be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # NumPy has no BF16

    path = folder / "model.safetensors"
    try:
        return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} can't be read: {error}. Remove {folder} and build the model anew.") from error


def classifier(config: Mapping[str, Any], weights: Weights, name: str, int8: bool = True) -> Any:
    """`BertForSequenceClassification`, or MPNet's: an `openvino.Model` from `INPUTS` to `logits`, float32, shape (pairs, labels).

    Raises `ModelError` for what is no such classifier.
    """
    return _built(config, name, lambda network: network(config, weights, f"{config['model_type']}.", int8).classifier())


def encoder(config: Mapping[str, Any], weights: Weights, name: str) -> Any:
    """`BertModel` or `MPNetModel`, the mean of its tokens, unit length: an `openvino.Model` from `INPUTS` to `vectors`, float32,
    shape (texts, hidden).

    Raises `ModelError` for what is neither.
    """
    return _built(config, name, lambda network: network(config, weights, "", int8=False).encoder())


def _built(config: Mapping[str, Any], name: str, build: Callable[[type[_Bert]], Any]) -> Any:
    network, act = NETWORKS.get(config.get("model_type", "")), config.get("hidden_act")
    if network is None or act != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(
            f"{name} can't be converted for OpenVINO: expected the model_type {' or '.join(NETWORKS)} with gelu and absolute "
            f"positions, found {config.get('model_type')} with {act}. Use torch."
        )
    try:
        return build(network)
    except KeyError as error:
        raise ModelError(f"{name} has no weight {error}: it isn't a whole {network.__name__.lstrip('_')}.") from error


class _Bert:
    """Devlin et al., 2019; names of weights as in transformers, after `prefix`. x is (texts, tokens, hidden) throughout."""

    attention: Mapping[str, str] = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
        "norm": "attention.output.LayerNorm",
    }
    """Weights of a layer's attention."""

    head = ("bert.pooler.dense", "classifier")

    def __init__(self, config: Mapping[str, Any], weights: Weights, prefix: str, int8: bool) -> None:
        from openvino import opset13

        self._op = opset13
        self._weights = weights
        self._prefix = prefix
        self._int8 = int8
        self._layers: int = config["num_hidden_layers"]
        self._hidden: int = config["hidden_size"]
        self._heads: int = config["num_attention_heads"]
        self._epsilon: float = config["layer_norm_eps"]

    def classifier(self) -> Any:
        op = self._op
        inputs, x = self._network(first_only=True)
        pooler, classifier = self.head
        pooled = op.tanh(self._linear(x, pooler))
        logits = op.squeeze(self._linear(pooled, classifier), _ints(op, 1))
        return _model(op, inputs, logits, "logits")

    def encoder(self) -> Any:
        op = self._op
        inputs, x = self._network(first_only=False)
        mask = op.unsqueeze(op.convert(inputs[1], "f32"), _ints(op, 2))
        # Not divided by the number of tokens: the length becomes 1 anyhow.
        total = op.reduce_sum(op.multiply(x, mask), _ints(op, 1), False)
        return _model(op, inputs, op.normalize_l2(total, _ints(op, 1), 1e-12, "max"), "vectors")

    def _network(self, first_only: bool) -> tuple[list[Any], Any]:
        """The inputs, and what the last layer gives: of the first token alone, if that is all that is needed."""
        import openvino

        op = self._op
        inputs = [op.parameter([-1, -1], openvino.Type.i32) for _ in range(3)]
        for node, name in zip(inputs, INPUTS, strict=True):
            node.output(0).set_names({name})
        ids, mask, types = inputs
        x = self._embed(ids, types)
        # 0 for a token, -10,000 for padding: added to the attention scores, shape (texts, 1, 1, tokens).
        padding = op.multiply(op.subtract(op.convert(mask, "f32"), _float(op, 1)), _float(op, 1e4))
        bias = self._bias(ids, op.unsqueeze(padding, _ints(op, 1, 2)))
        for layer in range(self._layers):
            last = layer == self._layers - 1
            x = self._layer(x, bias, f"{self._prefix}encoder.layer.{layer}.", first_only=first_only and last)
        return inputs, x

    def _embed(self, ids: Any, types: Any) -> Any:
        op = self._op
        axis = op.constant(np.int32(0))
        words = op.gather(self._table("word"), ids, axis)
        segments = op.gather(self._table("token_type"), types, axis)
        places = op.unsqueeze(op.gather(self._table("position"), self._positions(ids), axis), axis)
        return self._norm(op.add(op.add(words, segments), places), f"{self._prefix}embeddings.LayerNorm")

    def _positions(self, ids: Any, first: int = 0) -> Any:
        """Of the tokens, int32, shape (tokens,)."""
        op = self._op
        length = op.gather(op.shape_of(ids, "i32"), op.constant(np.int32(1)), op.constant(np.int32(0)))
        end = op.add(length, op.constant(np.int32(first)))
        return op.range(op.constant(np.int32(first)), end, op.constant(np.int32(1)), "i32")

    def _bias(self, ids: Any, padding: Any) -> Any:  # noqa: ARG002
        """What is added to every layer's attention scores, shape (texts or 1, heads or 1, tokens or 1, tokens)."""
        return padding

    def _bias_of_first(self, bias: Any) -> Any:
        """What of it is the first token's."""
        return bias

    def _first(self, x: Any, axis: int) -> Any:
        op = self._op
        return op.slice(x, _ints(op, 0), _ints(op, 1), _ints(op, 1), _ints(op, axis))

    def _layer(self, x: Any, bias: Any, name: str, first_only: bool) -> Any:
        op = self._op
        rows, bias = (self._first(x, 1), self._bias_of_first(bias)) if first_only else (x, bias)
        parts = {part: f"{name}{weight}" for part, weight in self.attention.items()}
        # Not `scaled_dot_product_attention`: OpenVINO would compile that anew for each shape, 15 ms a time.
        query, key, value = (
            self._split(self._linear(source, parts[part]))
            for source, part in ((rows, "query"), (x, "key"), (x, "value"))
        )
        scale = (self._hidden // self._heads) ** -0.5
        scores = op.add(op.multiply(op.matmul(query, key, False, True), _float(op, scale)), bias)
        mixed = op.matmul(op.softmax(scores, -1), value, False, False)
        mixed = op.reshape(op.transpose(mixed, _ints(op, 0, 2, 1, 3)), _ints(op, 0, 0, self._hidden), True)
        rows = self._norm(op.add(self._linear(mixed, parts["output"]), rows), parts["norm"])
        wide = op.gelu(self._linear(rows, f"{name}intermediate.dense"), "erf")
        return self._norm(op.add(self._linear(wide, f"{name}output.dense"), rows), f"{name}output.LayerNorm")

    def _split(self, x: Any) -> Any:
        """(pairs, tokens, hidden) to (pairs, heads, tokens, hidden / heads)."""
        op = self._op
        shape = _ints(op, 0, 0, self._heads, self._hidden // self._heads)
        return op.transpose(op.reshape(x, shape, True), _ints(op, 0, 2, 1, 3))

    def _linear(self, x: Any, name: str) -> Any:
        op = self._op
        weight = self._weights[f"{name}.weight"]
        matrix = op.constant(weight)
        if self._int8 and len(weight) >= LEAST_ROWS:
            rounded, scales = quantize(weight)
            matrix = op.multiply(op.convert(op.constant(rounded), "f32"), op.constant(scales))
        return op.add(op.matmul(x, matrix, False, True), op.constant(self._weights[f"{name}.bias"].reshape(1, 1, -1)))

    def _norm(self, x: Any, name: str) -> Any:
        op = self._op
        scale, shift = (self._weights[f"{name}.{part}"].reshape(1, 1, -1) for part in ("weight", "bias"))
        normal = op.mvn(x, np.array([-1]), True, self._epsilon, "inside_sqrt")
        return op.add(op.multiply(normal, op.constant(scale)), op.constant(shift))

    def _table(self, name: str) -> Any:
        """Embeddings need no arithmetic: half precision halves the file and costs no time."""
        op = self._op
        table = self._weights[f"{self._prefix}embeddings.{name}_embeddings.weight"]
        return op.convert(op.constant(table.astype(np.float16)), "f32") if self._int8 else op.constant(table)


class _MPNet(_Bert):
    """Song et al., 2020: no segments, and a bias by how far two tokens stand apart, the same in all layers."""

    attention: Mapping[str, str] = {
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "output": "attention.attn.o",
        "norm": "attention.LayerNorm",
    }

    head = ("classifier.dense", "classifier.out_proj")

    def __init__(self, config: Mapping[str, Any], weights: Weights, prefix: str, int8: bool) -> None:
        super().__init__(config, weights, prefix, int8)
        self._pad: int = config["pad_token_id"]
        self._longest: int = config["max_position_embeddings"]

    def _embed(self, ids: Any, types: Any) -> Any:  # noqa: ARG002
        op = self._op
        axis = op.constant(np.int32(0))
        words = op.gather(self._table("word"), ids, axis)
        places = op.gather(self._table("position"), self._positions(ids, first=self._pad + 1), axis)
        return self._norm(op.add(words, op.unsqueeze(places, axis)), f"{self._prefix}embeddings.LayerNorm")

    def _bias(self, ids: Any, padding: Any) -> Any:
        op = self._op
        axis = op.constant(np.int32(0))
        by_bucket = self._weights[f"{self._prefix}encoder.relative_attention_bias.weight"]
        by_distance = by_bucket[buckets(np.arange(-self._longest, self._longest + 1), len(by_bucket))]
        positions = self._positions(ids)
        distance = op.subtract(op.unsqueeze(positions, axis), op.unsqueeze(positions, op.constant(np.int32(1))))
        rows = op.add(distance, op.constant(np.int32(self._longest)))
        apart = op.transpose(op.gather(op.constant(by_distance), rows, axis), _ints(op, 2, 0, 1))
        return op.add(op.unsqueeze(apart, axis), padding)

    def _bias_of_first(self, bias: Any) -> Any:
        return self._first(bias, 2)


NETWORKS: Mapping[str, type[_Bert]] = {"bert": _Bert, "mpnet": _MPNet}
"""By `model_type` of config.json."""


def buckets(distance: NDArray[np.int64], count: int, farthest: int = 128) -> NDArray[np.int64]:
    """Of a key's distance from its query, to the left below 0: half of the `count` buckets are for each side, half of these for one
    distance each, the others for ever more up to `farthest` (T5's, Raffel et al. 2020, as MPNet has them)."""
    side, apart = count // 2, np.abs(distance)
    exact = side // 2
    # In float32, as transformers does it: a distance of 16 lies on a bucket's edge.
    share = np.log(np.maximum(apart, exact).astype(np.float32) / np.float32(exact)) / np.float32(
        np.log(farthest / exact)
    )
    wide = np.minimum(exact + (share * np.float32(side - exact)).astype(np.int64), side - 1)
    found: NDArray[np.int64] = np.where(distance > 0, side, 0) + np.where(apart < exact, apart, wide)
    return found


def quantize(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric 8 bits, one scale a row: `rounded * scales` is the matrix to within half a scale."""
    scales = np.abs(weight).max(axis=1, keepdims=True) / np.float32(127)
    scales = np.where(scales > 0, scales, np.float32(1))
    return np.rint(weight / scales).astype(np.int8), scales


def _model(op: Any, inputs: list[Any], result: Any, name: str) -> Any:
    import openvino

    result.output(0).set_names({name})
    return openvino.Model([op.result(result)], inputs, name)


def _float(op: Any, value: float) -> Any:
    return op.constant(np.float32(value))


def _ints(op: Any, *values: int) -> Any:
    return op.constant(np.array(values, dtype=np.int32))
