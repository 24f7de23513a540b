"""Model files of any format for tests, written from the demo model or from a tiny one without meaning."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.speech import MODEL
from worker.model_files import Weights, ggml_writer, json_files, open_model
from worker.model_files.formats import ctranslate2, huggingface
from worker.model_files.mel import mel_filters
from worker.model_files.shape import FRAMES, TEXT_LENGTH, Header
from worker.model_files.types import BF16, F16, F32, TYPES, TensorType, from_floats
from worker.model_files.weights import Array

WIDTH = 2
MARK = b"mark of a tiny model".ljust(64)
END_OF_TEXT = 50257
SAFETENSORS = {"F32": F32, "F16": F16, "BF16": BF16}
CT2_KINDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}


class TinyModel(Weights):
    """A model of one layer whose weights are all `value`."""

    def __init__(self, value: float = 0.0) -> None:
        self._value = value
        self.header = Header(51865, FRAMES, WIDTH, 1, 1, TEXT_LENGTH, WIDTH, 1, 1, 80, 0)
        self.filters = mel_filters(80)
        self.tokens = [str(number).encode() for number in range(END_OF_TEXT - 1)] + [MARK]

    def __contains__(self, name: str) -> bool:
        return name in self.header.tensors()

    def tensor(self, name: str) -> Array:
        return np.full(self.header.tensors()[name], self._value, np.float32)

    def close(self) -> None: ...


@cache
def _tiny() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ggml-tiny.bin"
        ggml_writer.write(path, TinyModel(), F16)
        return path.read_bytes()


def tiny(mark: bytes = b"") -> bytes:
    """Return a file that is a ggml model by its structure. Another mark makes another checksum."""
    return _tiny().replace(MARK, mark.ljust(len(MARK)))


def write_tiny(path: Path, mark: bytes = b"") -> Path:
    path.write_bytes(tiny(mark))
    return path


def demo() -> Weights:
    return open_model(MODEL)


def token_names(model: Weights) -> list[str]:
    """Return the name of each token as in OpenAI's vocabulary files; special ones after the text are numbered."""
    letters = json_files.byte_letters()
    names = ["".join(letters[byte] for byte in token) for token in model.tokens[:END_OF_TEXT]]
    special = ["<|endoftext|>", *(f"<|{number}|>" for number in range(END_OF_TEXT + 1, model.header.vocabulary))]
    return names + special


# -- CTranslate2 -----------------------------------------------------------------------------------------------------
def write_ctranslate2(folder: Path, model: Weights, kind: str = "int8_float16") -> Path:
    """Write a folder as CTranslate2's converter does. kind: one of its types of quantisation."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in _stacked(model).items():
        arrays |= _quantised(name, values, kind)
    header = model.header
    arrays["encoder/num_heads"] = np.array(header.audio_heads, np.int16)
    arrays["decoder/num_heads"] = np.array(header.text_heads, np.int16)
    data = [ctranslate2.START, struct.pack("<II", 3, len(arrays))]
    for name, array in sorted(arrays.items()):
        number = CT2_KINDS["bfloat16" if array.dtype == np.uint16 else array.dtype.name]
        data += [_string(name), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        data += [struct.pack("<BI", number, array.nbytes), array.tobytes()]
    data += [struct.pack("<I", 1), _string("decoder/projection/weight"), _string("decoder/embeddings/weight")]
    (folder / "model.bin").write_bytes(b"".join(data))
    (folder / "config.json").write_text(json.dumps({"alignment_heads": [[header.text_layers - 1, 0]]}))
    (folder / "vocabulary.json").write_text(json.dumps(token_names(model)))
    return folder


def _stacked(model: Weights) -> dict[str, Array]:
    """Return the arrays of CTranslate2 by name, with queries, keys and values in one."""
    parts: dict[str, dict[int, Array]] = {}
    for name, shape in model.header.tensors().items():
        stored, part, _ = ctranslate2.place(name)
        values = model.tensor(name)
        parts.setdefault(stored, {})[part] = values.reshape(-1) if shape[1:] == (1,) else values
    for stored, known in parts.items():
        if stored.endswith("self_attention/linear_0/bias"):
            known[1] = np.zeros_like(known[0])
        if "/attention/linear_1/bias" in stored:
            known[0] = np.zeros_like(known[1])
    return {stored: np.concatenate([known[part] for part in sorted(known)]) for stored, known in parts.items()}


def _quantised(name: str, values: Array, kind: str) -> dict[str, NDArray[Any]]:
    quantised, _, floats = kind.partition("_")
    if quantised in ("int8", "int16") and name.endswith("/weight"):
        rows = values.reshape(len(values), -1)
        if quantised == "int16":
            scale = np.array(1024 / np.abs(rows).max(), np.float32)
            return {name: np.rint(values * scale).astype(np.int16), f"{name}_scale": scale}
        scale = (127 / np.maximum(np.abs(rows).max(axis=1), 1e-9)).astype(np.float32)
        return {name: np.rint(rows * scale[:, None]).astype(np.int8).reshape(values.shape), f"{name}_scale": scale}
    return {name: _as(values, floats or (kind if kind in ("float16", "bfloat16") else "float32"))}


def _as(values: Array, kind: str) -> NDArray[Any]:
    if kind == "bfloat16":
        return from_floats(values.reshape(1, -1), BF16).view(np.uint16).reshape(values.shape)
    return values.astype(kind)


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


# -- Hugging Face ----------------------------------------------------------------------------------------------------
def write_huggingface(folder: Path, model: Weights, kind: str = "F16", shards: int = 1) -> Path:
    """Write a folder as `save_pretrained` does, its weights as safetensors in one file or several."""
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(zip(huggingface.SIZES, model.header.integers(), strict=False))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "whisper"}))
    names = token_names(model)
    vocabulary = {name: number for number, name in enumerate(names[: END_OF_TEXT + 1])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    heads = [[model.header.text_layers - 1, head] for head in range(model.header.text_heads)]
    (folder / "generation_config.json").write_text(json.dumps({"alignment_heads": heads}))
    tensors = {}
    for name, shape in model.header.tensors().items():
        values = model.tensor(name)
        tensors[f"model.{huggingface.stored_name(name)}"] = values.reshape(-1) if shape[1:] == (1,) else values
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, kind)
        return folder
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        part = dict(list(tensors.items())[shard::shards])
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, part, kind)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def write_safetensors(path: Path, tensors: Mapping[str, Array], kind: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data: list[bytes] = []
    end = 0
    for name, values in tensors.items():
        data.append(_floats(values, SAFETENSORS[kind]))
        offsets = [end, end + len(data[-1])]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": offsets}
        end = offsets[1]
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(data))


def _floats(values: Array, kind: TensorType) -> bytes:
    return from_floats(values.reshape(1, -1), TYPES[kind.name]).tobytes()
