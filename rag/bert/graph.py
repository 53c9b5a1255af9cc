"""BERT as an OpenVINO graph: a classifier with weights of 8 bits, or an encoder. Written by hand and not traced: the same on
every machine, without torch, and free to leave out what the first token doesn't need.
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
    """`BertForSequenceClassification`: an `openvino.Model` from `INPUTS` to `logits`, float32, shape (pairs, labels).

    Raises `ModelError` for what isn't a BERT classifier.
    """
    return _built(config, name, lambda: _Bert(config, weights, "bert.", int8).classifier())


def encoder(config: Mapping[str, Any], weights: Weights, name: str) -> Any:
    """`BertModel`, the mean of its tokens, unit length: an `openvino.Model` from `INPUTS` to `vectors`, float32, shape
    (texts, hidden).

    Raises `ModelError` for what isn't BERT.
    """
    return _built(config, name, lambda: _Bert(config, weights, "", int8=False).encoder())


def _built(config: Mapping[str, Any], name: str, build: Callable[[], Any]) -> Any:
    expected = {"model_type": "bert", "hidden_act": "gelu"}
    found = {key: config.get(key) for key in expected}
    if found != expected or config.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f"{name} can't be converted for OpenVINO: expected {expected}, found {found}. Use torch.")
    try:
        return build()
    except KeyError as error:
        raise ModelError(f"{name} has no weight {error}: it isn't a whole BERT.") from error


class _Bert:
    """Devlin et al., 2019; names of weights as in transformers, after `prefix`. x is (texts, tokens, hidden) throughout."""

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
        pooled = op.tanh(self._linear(x, f"{self._prefix}pooler.dense"))
        logits = op.squeeze(self._linear(pooled, "classifier"), _ints(op, 1))
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
        padding = op.unsqueeze(padding, _ints(op, 1, 2))
        for layer in range(self._layers):
            last = layer == self._layers - 1
            x = self._layer(x, padding, f"{self._prefix}encoder.layer.{layer}.", first_only=first_only and last)
        return inputs, x

    def _embed(self, ids: Any, types: Any) -> Any:
        op = self._op
        axis = op.constant(np.int32(0))
        length = op.gather(op.shape_of(ids, "i32"), op.constant(np.int32(1)), axis)
        positions = op.range(op.constant(np.int32(0)), length, op.constant(np.int32(1)), "i32")
        words = op.gather(self._table("word"), ids, axis)
        segments = op.gather(self._table("token_type"), types, axis)
        places = op.unsqueeze(op.gather(self._table("position"), positions, axis), axis)
        return self._norm(op.add(op.add(words, segments), places), f"{self._prefix}embeddings.LayerNorm")

    def _layer(self, x: Any, padding: Any, name: str, first_only: bool) -> Any:
        op = self._op
        rows = op.slice(x, _ints(op, 0), _ints(op, 1), _ints(op, 1), _ints(op, 1)) if first_only else x
        # Not `scaled_dot_product_attention`: OpenVINO would compile that anew for each shape, 15 ms a time.
        query, key, value = (
            self._split(self._linear(source, f"{name}attention.self.{part}"))
            for source, part in ((rows, "query"), (x, "key"), (x, "value"))
        )
        scale = (self._hidden // self._heads) ** -0.5
        scores = op.add(op.multiply(op.matmul(query, key, False, True), _float(op, scale)), padding)
        mixed = op.matmul(op.softmax(scores, -1), value, False, False)
        mixed = op.reshape(op.transpose(mixed, _ints(op, 0, 2, 1, 3)), _ints(op, 0, 0, self._hidden), True)
        attended = self._linear(mixed, f"{name}attention.output.dense")
        rows = self._norm(op.add(attended, rows), f"{name}attention.output.LayerNorm")
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
