"""The compiled graphs of a model, for each number of threads in use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from core.errors import OutOfMemoryError, WhisperCrashError
from core.files import sync
from worker import model_files
from worker.model_files.weights import Array, Weights
from worker.whisper import graphs
from worker.whisper.openvino_settings import FOLDER, QUANTISATION_GROUP, limit_instructions

KEPT_FORMS = 2
"""Numbers of threads for which compiled graphs are kept. Each form has its own copy of the weights."""
HIDDEN = np.float32(-1e9)
"""Added to the attention scores of hidden positions."""
LOCK_SECONDS = 600.0
"""Seconds to wait for another process that writes the graphs."""


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Translate OpenVINO's errors to OutOfMemoryError and WhisperCrashError."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError from error
    except RuntimeError as error:
        if "alloc" in str(error).lower():
            raise OutOfMemoryError from error
        raise WhisperCrashError("The engine could not process the audio.") from error


class Runtime:
    """Inference on one model. Raises OutOfMemoryError and WhisperCrashError."""

    def __init__(self, model: Weights, path: Path) -> None:
        limit_instructions()
        self._model = model
        self._core = ov.Core()
        self._native_bf16, self._group = supported(self._core)
        self._compiled: dict[int, dict[str, Any]] = {1: {}}
        self._threads = 1
        with _engine_errors():
            self._graphs = load_graphs(self._core, model, path)

    def use(self, threads: int) -> None:
        """Set the number of threads of the next calls. The graphs are kept for the last two numbers."""
        self._threads = threads
        self._compiled[threads] = self._compiled.pop(threads, {})
        while len(self._compiled) > KEPT_FORMS:
            del self._compiled[next(iter(self._compiled))]

    def _get(self, name: str) -> Any:
        """Return the compiled graph for the current number of threads."""
        compiled = self._compiled[self._threads]
        if name not in compiled:
            # 16-bit logits would tie, so the decoder works with 32 bits
            bf16 = self._native_bf16 and name in ("encoder", "cross")
            properties = {
                "INFERENCE_NUM_THREADS": self._threads,
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,
                **precision(bf16, self._group),
                "KV_CACHE_PRECISION": "u8",
            }
            compiled[name] = self._core.compile_model(self._graphs[name], "CPU", properties)
        return compiled[name]

    def encode(self, mel: Array) -> Array:
        """Encode features of shape (mels, 3000); return shape (1, 1500, width)."""
        with _engine_errors():
            return np.array(self._get("encoder")(mel[None])[0])

    def decoder(self, encoded: Sequence[Array]) -> Decoder:
        """Return a decoder of these windows, each of shape (1, 1500, width)."""
        with _engine_errors():
            # a request's states must not change their number of rows, so each batch has its own
            request = self._get("decoder").create_infer_request()
            states = {state.name: state for state in request.query_state()}
            for name, values in self._projections(encoded).items():
                states[name].state = ov.Tensor(values)
            return Decoder(request, self._model.header.frames)

    def _projections(self, encoded: Sequence[Array]) -> dict[str, NDArray[np.float16]]:
        """Return the keys and values of each layer, by the names of their states, one row for each window."""
        header = self._model.header
        shape = (len(encoded), header.text_heads, header.frames, header.text_width // header.text_heads)
        names = [f"cross_{kind}{layer}" for layer in range(header.text_layers) for kind in ("key", "value")]
        projections = {name: np.empty(shape, np.float16) for name in names}
        for row, window in enumerate(encoded):  # one at a time, since the graph's buffers are twice as large in 32 bits
            outputs = self._get("cross")(window)
            for index, name in enumerate(names):
                projections[name][row] = outputs[index][0]
        return projections

    def attention(self, encoded: Array, tokens: Sequence[int], heads: Sequence[tuple[int, int]]) -> Array:
        """Return the attention weights of a transcript, shape (heads, tokens, 1500)."""
        with _engine_errors():
            if "attention" not in self._graphs:
                self._graphs["attention"] = graphs.attention(self._model, heads)
            compiled = self._get("attention")
            inputs: dict[str, Any] = {
                "tokens": np.array([tokens], np.int64),
                "positions": np.arange(len(tokens), dtype=np.int64),
            }
            needed = {port.any_name for port in compiled.inputs}
            inputs |= {name: values for name, values in self._projections([encoded]).items() if name in needed}
            return np.array(compiled(inputs)[0])


def precision(bf16: bool, group: int) -> dict[str, Any]:
    """Return properties of compiled graphs. group: channels that share a scale of quantised activations, 0 for none."""
    return {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": group}


def supported(core: Any) -> tuple[bool, int]:
    """Return the fastest precision that works here, as `precision` takes it, after running a small graph with it.

    OpenVINO selects by the processor's flags, and fails where oneDNN is limited to a smaller instruction set.
    """
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hidden = np.ones((1, 4, graphs.PROBE_WIDTH), np.float32)
    for bf16, group in ((True, QUANTISATION_GROUP), (False, QUANTISATION_GROUP)):
        with suppress(RuntimeError):
            if native or not bf16:
                core.compile_model(graphs.probe(), "CPU", precision(bf16, group))(hidden)
                return bf16, group
    return False, 0


class Decoder:
    """The decoder's state over a batch of windows."""

    def __init__(self, request: Any, frames: int) -> None:
        self._request, self._frames = request, frames
        self._length = 0

    def step(self, tokens: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> list[NDArray[np.float32]]:
        """Append tokens, as many to each row; return the logits after the last one, by row, each (vocabulary,).

        rows: indices of the rows of the step before that continue; None for all.
        """
        batch, count = len(tokens), len(tokens[0])
        length = self._length + count
        mask = np.triu(np.full((count, length), HIDDEN, np.float32), self._length + 1)
        cross_mask = np.zeros((count, self._frames + length), np.float32)
        cross_mask[:, self._frames :] = HIDDEN
        inputs = {
            "tokens": np.array(tokens, np.int64),
            "positions": np.arange(self._length, length, dtype=np.int64),
            "rows": np.array(range(batch) if rows is None else rows, np.int32),
            "mask": np.ascontiguousarray(np.broadcast_to(mask, (batch, 1, *mask.shape))),
            "cross_mask": np.ascontiguousarray(np.broadcast_to(cross_mask, (batch, 1, *cross_mask.shape))),
        }
        with _engine_errors():
            logits = np.array(self._request.infer(inputs)[0])
        self._length = length
        return list(logits.reshape(batch, -1))


def load_graphs(core: Any, model: Weights, path: Path) -> dict[str, Any]:
    """Return the graphs of a model, from its cache beside the model file if that folder can be used."""
    try:
        folder = _cached(model, path)
        try:
            return {name: core.read_model(folder / f"{name}.xml") for name in graphs.GRAPHS}
        except RuntimeError:  # damaged; the next start writes it again
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, RuntimeError, Timeout):  # such as a full disk, which OpenVINO reports as RuntimeError
        pass
    return {name: build(model) for name, build in graphs.GRAPHS.items()}


def kept_graph(core: Any, path: Path, name: str) -> Any | None:
    """Return a graph of a model if an engine has kept it beside the model file."""
    with suppress(OSError, RuntimeError):
        file = _folder(path) / f"{name}.xml"
        return core.read_model(file) if file.is_file() else None
    return None


def _folder(path: Path) -> Path:
    """Return the folder for a model's graphs. Raises OSError."""
    states = model_files.state(path)
    size, changed = sum(state[0] for state in states), max(state[1] for state in states)
    version = ov.__version__.split("-")[0]
    return path.resolve().parent / FOLDER / f"{path.name}-{size}-{changed}-{version}-{graphs.FORMAT}"


def _cached(model: Weights, path: Path) -> Path:
    """Return the folder of the model's graphs, written if needed. Graphs of a replaced file are removed."""
    folder = _folder(path)
    cache = folder.parent
    if folder.is_dir():
        return folder
    cache.mkdir(exist_ok=True)
    with FileLock(cache / f"{path.name}.lock", timeout=LOCK_SECONDS):
        if folder.is_dir():
            return folder
        for old in cache.glob(f"{path.name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix="new-", dir=cache))
        try:
            for name, build in graphs.GRAPHS.items():
                ov.save_model(build(model), temporary / f"{name}.xml", compress_to_fp16=False)
            for file in temporary.iterdir():
                sync(file)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return folder
