"""BERT on a CPU: the fast form of a model's folder, and what runs it.

The fast form lies under `openvino/` in the folder: the same network as an OpenVINO graph. A cross-encoder's has weights of
8 bits, whose activations are quantised as they come, so that it needs no calibration; a sentence encoder's has 16, since
its vectors are compared with one another for as long as an index lives.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag import files, workers
from rag.bert import graph
from rag.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag.core import Matrix

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

MANY = 128
"""Texts from which on each core has a batch of its own, instead of all cores one batch. On two cores of a Zen 4 CPU this
takes 0.95 of the time, since no core waits for the other; a lone text would take longer, and a second compiled network
takes 50 MB."""

STREAM_BATCH = 8
"""Texts a batch then: what a layer makes of them stays in a core's own cache, and fewer are padded to the longest. It takes
0.97 of the time that 16 take."""


def choose(folder: Path, device: str, backend: Literal["auto", "torch", "openvino"]) -> Literal["torch", "openvino"]:
    """What `auto` means for a model: OpenVINO on a CPU where the folder holds a fast form, else torch."""
    if backend != "auto":
        return backend
    return "openvino" if device == "cpu" and (folder / FAST_FORM / "model.xml").is_file() else "torch"


class Network:
    """A folder's fast form, compiled. Thread-safe by locks: few texts run as one batch on all cores, many as one a core."""

    def __init__(self, folder: Path, output: str, width: int) -> None:
        """`output` is the graph's, of shape (texts, `width`)."""
        self._folder = folder
        self._output = output
        self._width = width
        self._pad: int = read_json(folder, "config.json").get("pad_token_id", 0)
        self._lock = threading.Lock()
        self._request = _compile(folder, output, width).create_infer_request()
        self._cores = workers.cores()
        self._streams_lock = threading.Lock()
        self._streams: Any = None

    def run(self, encoded: Sequence[Any], longest: int, batch_size: int) -> Matrix:
        """Of `tokenizers.Encoding`s, none above `longest` tokens, in their order. Shape (texts, width)."""
        found = np.empty((len(encoded), self._width), dtype=np.float32)
        many = len(encoded) >= MANY and self._cores > 1
        planned = batches([len(one.ids) for one in encoded], min(batch_size, STREAM_BATCH) if many else batch_size)
        inputs = ((rows, self._pad_together([encoded[row] for row in rows], longest)) for rows in planned)
        if many:
            self._run_in_streams(inputs, found)
            return found
        for rows, batch in inputs:
            with self._lock:
                found[rows] = self._request.infer(batch)[self._output]
        return found

    def _run_in_streams(self, inputs: Iterable[tuple[list[int], dict[str, NDArray[np.int32]]]], found: Matrix) -> None:
        """Fills the rows of `found`, shape (texts, width)."""
        with self._streams_lock:
            if self._streams is None:
                compiled = _compile(self._folder, self._output, self._width, streams=self._cores)
                self._streams = _openvino().AsyncInferQueue(compiled, self._cores)

            def keep(request: Any, rows: list[int]) -> None:
                found[rows] = request.get_tensor(self._output).data

            self._streams.set_callback(keep)
            try:
                for rows, batch in inputs:
                    self._streams.start_async(batch, rows)
            finally:
                self._streams.wait_all()

    def _pad_together(self, batch: Sequence[Any], most: int) -> dict[str, NDArray[np.int32]]:
        longest = max(len(one.ids) for one in batch)
        width = min(-(-longest // WIDTH_STEP) * WIDTH_STEP, most)
        ids = np.full((len(batch), width), self._pad, dtype=np.int32)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, one in enumerate(batch):
            length = len(one.ids)
            ids[row, :length], types[row, :length], mask[row, :length] = one.ids, one.type_ids, 1
        return dict(zip(graph.INPUTS, (ids, mask, types), strict=True))


def batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of all pairs, longest first, in batches of like length."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if found and len(found[-1]) < batch_size and lengths[index] >= LEAST_FILLED * lengths[found[-1][0]]:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def read_tokenizer(folder: Path) -> Any:
    """A `tokenizers.Tokenizer` that neither pads nor cuts. Raises `ModelError` where the folder's is damaged."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # it raises nothing narrower
        raise damaged(folder, folder / "tokenizer.json", error) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def form() -> str:
    """What `convert` writes here, told apart from what it wrote before and from nothing."""
    return f"openvino-{graph.VERSION}" if importlib.util.find_spec("openvino") is not None else "none"


def convert(folder: Path) -> bool:
    """Write the fast form of a BERT cross-encoder or sentence encoder into its folder; False where OpenVINO isn't installed.

    The lock for GPUs leaves OpenVINO out: there torch reads the folder as it is. Raises `ModelError` for
    another architecture or a damaged folder, `StorageError` where there is no room.
    """
    try:
        openvino = _openvino()
    except ModuleNotFoundError:
        return False
    encodes = (folder / "modules.json").is_file()
    if encodes:
        _require_mean(folder)
    build = graph.encoder if encodes else graph.classifier
    network = build(read_json(folder, "config.json"), graph.read_weights(folder), folder.name)
    with files.replacing_folder(folder / FAST_FORM) as fast:
        # A classifier's graph says itself which weights are stored in fewer bits.
        openvino.save_model(network, fast / "model.xml", compress_to_fp16=encodes)
    return True


def _require_mean(folder: Path) -> None:
    """Raises `ModelError` for a sentence-transformers model that isn't BERT, the mean of its tokens, and unit length."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        pooling = read_json(folder / modules[1]["path"], "config.json")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise damaged(folder, folder / "modules.json", error) from error
    modes = [name for name, wanted in pooling.items() if name.startswith("pooling_mode") and wanted]
    if kinds != ["Transformer", "Pooling", "Normalize"] or modes != ["pooling_mode_mean_tokens"]:
        raise ModelError(
            f"{folder.name} can't be converted for OpenVINO: expected Transformer, Pooling by the mean and Normalize, found "
            f"{', '.join(kinds)} with {', '.join(modes) or 'no pooling'}. Use torch."
        )


def _openvino() -> Any:
    """OpenVINO without its reporting: where `openvino_telemetry` can be imported, each import of OpenVINO
    and each conversion sends an event. OpenVINO goes without where it can't."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes its import fail
    import openvino

    return openvino


def _compile(folder: Path, output: str, width: int, streams: int = 1) -> Any:
    """An `openvino.CompiledModel` from the graph's inputs to its `output`, of shape (texts, `width`): for as many batches
    at once as `streams`, each on one core, or for one on all of them."""
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
    if streams > 1:
        options |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams}
    try:
        compiled = core.compile_model(core.read_model(network), "CPU", options)
        inputs = {name for port in compiled.inputs for name in port.names}
        found = compiled.output(output).partial_shape[1]
        if inputs != set(graph.INPUTS) or found != width:
            raise RuntimeError(f"config.json says {width} {output}, it gives {found} from {', '.join(sorted(inputs))}")
        return compiled
    except RuntimeError as error:
        raise damaged(folder, network, error) from error


def read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(folder, folder / name, error) from error
    if not isinstance(value, dict):
        raise damaged(folder, folder / name, ValueError("not a JSON object"))
    return value


def damaged(folder: Path, path: Path, error: Exception) -> ModelError:
    # OpenVINO begins with the places in its own source that the error came through.
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip(" .!")[:200]
    return ModelError(f"{path} can't be read: {reason}. Remove {folder} and run rag models build {folder.name}.")
