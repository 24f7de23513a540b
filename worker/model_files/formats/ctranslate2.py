"""Folders of CTranslate2, such as faster-whisper's: model.bin, config.json, vocabulary.json or .txt.

model.bin is a list of named arrays (version 6, CTranslate2's `specs/model_spec.py`). Matrices of 8 or 16 bits have a
scale by which they were multiplied, one for each row or one in all.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.model_files import json_files
from worker.model_files.mel import mel_filters
from worker.model_files.shape import Header
from worker.model_files.weights import Array, Damage, Weights

DESCRIPTION = "a CTranslate2 folder"
MODEL, CONFIG = "model.bin", "config.json"
PARTS = (
    *(MODEL, CONFIG, "vocabulary.json", "vocabulary.txt", "shared_vocabulary.json"),
    *("tokenizer.json", "preprocessor_config.json"),
)
VERSION, SPECIFICATION = 6, b"WhisperSpec"
START = struct.pack("<IH", VERSION, len(SPECIFICATION) + 1) + SPECIFICATION + b"\0"
KINDS = ("<f4", "<i1", "<i2", "<i4", "<f2", "<u2")
"""Types of arrays by their numbers; the last one is bfloat16."""
BF16 = KINDS[5]
MAX_ARRAYS = 10_000
LAYERS = {
    "conv1": ("conv1", 0, 1),
    "conv2": ("conv2", 0, 1),
    "ln_post": ("layer_norm", 0, 1),
    "ln": ("layer_norm", 0, 1),
    "token_embedding": ("embeddings", 0, 1),
    "attn_ln": ("self_attention/layer_norm", 0, 1),
    "attn.query": ("self_attention/linear_0", 0, 3),
    "attn.key": ("self_attention/linear_0", 1, 3),
    "attn.value": ("self_attention/linear_0", 2, 3),
    "attn.out": ("self_attention/linear_1", 0, 1),
    "cross_attn_ln": ("attention/layer_norm", 0, 1),
    "cross_attn.query": ("attention/linear_0", 0, 1),
    "cross_attn.key": ("attention/linear_1", 0, 2),
    "cross_attn.value": ("attention/linear_1", 1, 2),
    "cross_attn.out": ("attention/linear_2", 0, 1),
    "mlp_ln": ("ffn/layer_norm", 0, 1),
    "mlp.0": ("ffn/linear_0", 0, 1),
    "mlp.2": ("ffn/linear_1", 0, 1),
}
"""CTranslate2's name of each layer, which part of its array along the first axis, and the number of parts."""


def recognises(path: Path) -> bool:
    if not path.is_dir():
        return False
    model = path / MODEL
    if not model.is_file():
        return False
    with model.open("rb") as file:
        return file.read(len(START)) == START


def parts(folder: Path) -> list[Path]:
    """Return the files that make up the model, without others in the folder."""
    return [folder / name for name in PARTS if (folder / name).is_file()]


def read(path: Path) -> Weights:
    return CTranslate2Model(path)


@dataclass(frozen=True, slots=True)
class _Stored:
    shape: tuple[int, ...]
    kind: str
    offset: int


class CTranslate2Model(Weights):
    """An open folder. Raises Damage, OSError."""

    def __init__(self, folder: Path) -> None:
        with (folder / MODEL).open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._arrays = self._read_arrays()
            self.header = self._read_header()
            self._places = {name: place(name) for name in self.header.tensors()}
            for name, shape in self.header.tensors().items():
                self._check(name, shape)
            self.tokens = json_files.text_tokens(_token_names(folder))
            self.filters = mel_filters(self.header.mels)
            config = json_files.read_json(folder / CONFIG)
            layers, heads = self.header.text_layers, self.header.text_heads
            self.alignment_heads = json_files.alignment_heads(config.get("alignment_heads"), layers, heads)
        except (struct.error, IndexError) as error:
            self.close()
            raise Damage(MODEL) from error
        except BaseException:
            self.close()
            raise

    def _read_arrays(self) -> dict[str, _Stored]:
        """Read the names and places of all arrays. Raises Damage, struct.error, IndexError."""
        revision, count = struct.unpack_from("<II", self._data, len(START))
        if not revision or count > MAX_ARRAYS:
            raise Damage(MODEL)
        position, arrays = len(START) + 8, dict[str, _Stored]()
        for _ in range(count):
            name, position = self._string(position)
            rank = self._data[position]
            shape = struct.unpack_from(f"<{min(rank, 4)}I", self._data, position + 1)
            position += 1 + 4 * rank
            number, size = struct.unpack_from("<BI", self._data, position)
            position += 5
            kind = KINDS[number]
            if _bytes(shape, kind) != size or position + size > len(self._data) or name in arrays:
                raise Damage(f"{MODEL}: {name}")
            arrays[name] = _Stored(shape, kind, position)
            position += size
        (count,) = struct.unpack_from("<I", self._data, position)
        position += 4
        for _ in range(min(count, MAX_ARRAYS)):
            alias, position = self._string(position)
            name, position = self._string(position)
            if name in arrays:
                arrays.setdefault(alias, arrays[name])
        if position != len(self._data):
            raise Damage(MODEL, len(self._data), position)
        return arrays

    def _string(self, position: int) -> tuple[str, int]:
        (length,) = struct.unpack_from("<H", self._data, position)
        end = position + 2 + length
        if not length or end > len(self._data):
            raise Damage(MODEL)
        return self._data[position + 2 : end - 1].decode("ascii", errors="replace"), end

    def _read_header(self) -> Header:
        """Derive the sizes from the arrays. Raises Damage."""
        vocabulary, width = self._shape("decoder/embeddings/weight", 2)
        _, mels, _ = self._shape("encoder/conv1/weight", 3)
        frames, _ = self._shape("encoder/position_encodings/encodings", 2)
        length, _ = self._shape("decoder/position_encodings/encodings", 2)
        layers = {side: self._layers(side) for side in ("encoder", "decoder")}
        heads = {side: self._heads(side) for side in ("encoder", "decoder")}
        encoder = (vocabulary, frames, width, heads["encoder"], layers["encoder"])
        header = Header(*encoder, length, width, heads["decoder"], layers["decoder"], mels, 0)
        if (invalid := next(header.invalid_fields(), None)) is not None:
            raise Damage(invalid)
        return header

    def _shape(self, name: str, rank: int) -> tuple[int, ...]:
        stored = self._arrays.get(name)
        if stored is None or len(stored.shape) != rank:
            raise Damage(f"{MODEL}: {name}")
        return stored.shape

    def _layers(self, side: str) -> int:
        names = (name.split("/") for name in self._arrays if name.count("/") > 1)
        return len({layer for top, layer, *inner in names if top == side and inner[:1] == ["ffn"]})

    def _heads(self, side: str) -> int:
        self._shape(f"{side}/num_heads", 0)
        return int(self._array(self._arrays[f"{side}/num_heads"]))

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises Damage if the array of a tensor has another shape."""
        stored_name, _, parts = self._places[name]
        wanted = (shape[0] * parts, *shape[1:]) if shape[1:] != (1,) else shape[:1]
        if self._shape(stored_name, len(wanted)) != wanted:
            raise Damage(f"{MODEL}: {stored_name}")
        scale = self._arrays.get(f"{stored_name}_scale")
        if scale is not None and scale.shape not in ((), wanted[:1]):
            raise Damage(f"{MODEL}: {stored_name}_scale")

    def _array(self, stored: _Stored) -> NDArray[Any]:
        return np.frombuffer(self._data, stored.kind, _count(stored.shape), stored.offset).reshape(stored.shape)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def tensor(self, name: str) -> Array:
        stored_name, part, parts = self._places[name]
        stored = self._arrays[stored_name]
        rows = stored.shape[0] // parts
        values = _floats(self._array(stored)[part * rows : (part + 1) * rows], stored.kind)
        scale = self._arrays.get(f"{stored_name}_scale")
        if scale is not None:
            scales = _floats(self._array(scale), scale.kind)
            if scales.ndim:
                scales = scales[part * rows : (part + 1) * rows].reshape(rows, *[1] * (values.ndim - 1))
            values /= scales
        return values.reshape(self.header.tensors()[name])

    def close(self) -> None:
        self._data.close()


def place(name: str) -> tuple[str, int, int]:
    """Return the array that holds a tensor, which of its parts along the first axis, and the number of parts."""
    layer, _, suffix = name.rpartition(".")
    if suffix == "positional_embedding":
        return f"{layer}/position_encodings/encodings", 0, 1
    side, *rest = layer.split(".", 3)
    prefix, inner = (f"{side}/layer_{rest[1]}", rest[2]) if rest[0] == "blocks" else (side, rest[0])
    stored, part, parts = LAYERS[inner]
    if stored.endswith("layer_norm"):
        suffix = {"weight": "gamma", "bias": "beta"}[suffix]
    return f"{prefix}/{stored}/{suffix}", part, parts


def _token_names(folder: Path) -> list[Any]:
    """Return the names of all tokens. Raises Damage, OSError."""
    for path in (folder / "vocabulary.json", folder / "shared_vocabulary.json"):
        if path.exists():
            names: list[Any] = json_files.read_json(path, list)
            return names
    try:
        return json_files.read_part(folder / "vocabulary.txt").decode().split("\n")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise Damage("vocabulary") from error


def _floats(values: NDArray[Any], kind: str) -> Array:
    """Return a copy in 32 bits."""
    return (values.astype(np.uint32) << 16).view(np.float32) if kind == BF16 else values.astype(np.float32)


def _bytes(shape: tuple[int, ...], kind: str) -> int:
    return _count(shape) * np.dtype(kind).itemsize


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for axis in shape:
        count *= axis
    return count
