"""Text pairs in, logits out: cross-encoders, quickly on a CPU, by torch elsewhere.

A model folder that `convert` has been over holds its fast form under `openvino/`: the same network with
weights of 8 bits, whose activations are quantised as they come, so that it needs no calibration.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from rag import files
from rag.errors import ModelError, SettingsError
from rag.pairs.graph import INPUTS
from rag.settings import Backend, Device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits: TypeAlias = NDArray[np.float32]
    """Shape (pairs, labels)."""

FAST_FORM = "openvino"
"""Folder of the fast form inside a model's folder: `model.xml` and `model.bin`."""

WIDTH_STEP = 8
"""Tokens. A batch is padded to a multiple of it: OpenVINO compiles anew for each shape, which takes some ms."""

LEAST_FILLED = 0.9
"""Of a batch's width: a shorter pair begins the next batch, since padding costs as much time as text. On 20
passages of the sample corpus this takes a tenth less than one batch; that batches get small costs nothing."""

ACTIVATION_GROUP = 128
"""Activations that share a scale of their 8 bits. On MiniLM the pooled vector is 11% off float32's with it, 17% off
with 384, which is 4% faster, and 9% off with 64, which is 5% slower; the weights' 8 bits alone account for 5%."""

FIRST_AT_MOST = 3 / 4
"""Of a pair's tokens: a question of more is cut after all, or nothing of the passage would be read."""


class PairModel(Protocol):
    """Reads two texts together. Synchronous, thread-safe."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What the logits stand for, in their order."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        """Shape (len(pairs), len(labels)), in the order of the pairs. A pair that is too long loses the end
        of its second text."""
        ...


def open_pairs(folder: Path, device: Device, max_length: int, batch_size: int, backend: Backend = "auto") -> PairModel:
    """`max_length` is tokens of a pair, `batch_size` pairs per forward pass.

    Raises `ModelError` where the folder or its fast form is damaged or missing, `SettingsError` where the
    model can't read pairs of `max_length`.
    """
    if choose(folder, device, backend) == "openvino":
        return OpenVinoPairs(folder, max_length, batch_size)
    return TorchPairs(folder, device, max_length, batch_size)


def choose(folder: Path, device: Device, backend: Backend) -> Literal["torch", "openvino"]:
    """What `auto` means for a model: OpenVINO on a CPU where the folder holds a fast form, else torch."""
    if backend != "auto":
        return backend
    return "openvino" if device == "cpu" and (folder / FAST_FORM).is_dir() else "torch"


class TorchPairs:
    """sentence-transformers' `CrossEncoder`: any architecture, any device.

    Thread-safe by a lock: the tokenizer underneath isn't. Of a pair that is too long it cuts the longer
    text, until both are equally long.
    """

    def __init__(self, folder: Path, device: Device, max_length: int, batch_size: int) -> None:
        from sentence_transformers import CrossEncoder
        from torch.nn import Identity

        self.labels = _labels(_config(folder, max_length))
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._model = CrossEncoder(
            str(folder),
            device=device,
            max_length=max_length,
            activation_fn=Identity(),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        with self._lock:
            found = self._model.predict(list(pairs), batch_size=self._batch_size, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32).reshape(len(pairs), len(self.labels))


class OpenVinoPairs:
    """The fast form on a CPU. Imports no torch. Thread-safe by a lock: one request runs on all cores."""

    def __init__(self, folder: Path, max_length: int, batch_size: int) -> None:
        from tokenizers import Tokenizer

        config = _config(folder, max_length)
        self.labels = _labels(config)
        self._pad: int = config.get("pad_token_id", 0)
        self._max_length = max_length
        self._batch_size = batch_size
        self._lock = threading.Lock()
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # it raises nothing narrower
            raise _damaged(folder, folder / "tokenizer.json", error) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._request = _compile(folder, len(self.labels))

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Logits:
        encoded = self._encode(pairs)
        found = np.empty((len(pairs), len(self.labels)), dtype=np.float32)
        for rows in batches([len(one.ids) for one in encoded], self._batch_size):
            inputs = self._pad_together([encoded[row] for row in rows])
            with self._lock:
                found[rows] = self._request.infer(inputs)["logits"]
        return found

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """`tokenizers.Encoding`s. The first texts, which are few, are read once each."""
        tokenizer = self._tokenizer
        room = self._max_length - tokenizer.num_special_tokens_to_add(True)
        unique = list(dict.fromkeys(first for first, _ in pairs))
        firsts = dict(zip(unique, tokenizer.encode_batch(unique, add_special_tokens=False), strict=True))
        for first in firsts.values():
            first.truncate(int(room * FIRST_AT_MOST))
        seconds = tokenizer.encode_batch([second for _, second in pairs], add_special_tokens=False)
        encoded = []
        for (text, _), second in zip(pairs, seconds, strict=True):
            first = firsts[text]
            second.truncate(room - len(first.ids))
            encoded.append(tokenizer.post_process(first, second))
        return encoded

    def _pad_together(self, batch: Sequence[Any]) -> dict[str, NDArray[np.int32]]:
        longest = max(len(one.ids) for one in batch)
        width = min(-(-longest // WIDTH_STEP) * WIDTH_STEP, self._max_length)
        ids = np.full((len(batch), width), self._pad, dtype=np.int32)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, one in enumerate(batch):
            length = len(one.ids)
            ids[row, :length], types[row, :length], mask[row, :length] = one.ids, one.type_ids, 1
        return dict(zip(INPUTS, (ids, mask, types), strict=True))


def batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of all pairs, longest first, in batches of like length."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if found and len(found[-1]) < batch_size and lengths[index] >= LEAST_FILLED * lengths[found[-1][0]]:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def convert(folder: Path) -> bool:
    """Write the fast form of a BERT cross-encoder into its folder; False where OpenVINO isn't installed.

    The lock for GPUs leaves OpenVINO out: there torch reads the folder as it is. Raises `ModelError` for
    another architecture or a damaged folder, `StorageError` where there is no room.
    """
    try:
        openvino = _openvino()
    except ModuleNotFoundError:
        return False
    from rag.pairs import graph

    network = graph.build(_read_json(folder, "config.json"), graph.read_weights(folder), folder.name)
    with files.replacing_folder(folder / FAST_FORM) as fast:
        # The graph says which weights are stored in fewer bits.
        openvino.save_model(network, fast / "model.xml", compress_to_fp16=False)
    return True


def _openvino() -> Any:
    """OpenVINO without its reporting: where `openvino_telemetry` can be imported, each import of OpenVINO
    and each conversion sends an event. OpenVINO goes without where it can't."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes its import fail
    import openvino

    return openvino


def _compile(folder: Path, labels: int) -> Any:
    """An `openvino.InferRequest` from the graph's inputs to its logits."""
    try:
        openvino = _openvino()
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{folder / FAST_FORM} needs OpenVINO, which isn't installed. Install it (pip install --no-deps openvino), "
            "or set the model's backend to torch, which is slower."
        ) from error
    network = folder / FAST_FORM / "model.xml"
    if not network.is_file():
        raise ModelError(
            f"{network} is missing: {folder.name} has no form for OpenVINO. Set its backend to torch or auto, or, for a "
            f"recipe's model, remove {folder} and run rag models build {folder.name}."
        )
    core = openvino.Core()
    bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": ACTIVATION_GROUP,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # the engine's threads have cores of their own
    }
    try:
        compiled = core.compile_model(core.read_model(network), "CPU", options)
        inputs = {name for port in compiled.inputs for name in port.names}
        outputs = compiled.output("logits").partial_shape[1]
        if inputs != set(INPUTS) or outputs != labels:
            raise RuntimeError(f"config.json has {labels} labels, it gives {outputs} from {', '.join(sorted(inputs))}")
        return compiled.create_infer_request()
    except RuntimeError as error:
        raise _damaged(folder, network, error) from error


def _config(folder: Path, max_length: int) -> dict[str, Any]:
    config = _read_json(folder, "config.json")
    positions = config.get("max_position_embeddings", max_length)
    if max_length > positions:
        raise SettingsError(
            f"max_length is {max_length}, and {folder.name} reads {positions} tokens at most. "
            "Lower rerank.max_length or verify.max_length."
        )
    return config


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers' default
    return tuple(named[key] for key in sorted(named, key=int))


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, folder / name, error) from error
    if not isinstance(value, dict):
        raise _damaged(folder, folder / name, ValueError("not a JSON object"))
    return value


def _damaged(folder: Path, path: Path, error: Exception) -> ModelError:
    # OpenVINO begins with the places in its own source that the error came through.
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip(" .!")[:200]
    return ModelError(f"{path} can't be read: {reason}. Remove {folder} and run rag models build {folder.name}.")
