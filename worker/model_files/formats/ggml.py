"""ggml files, of any type: the format of whisper.cpp.

It is that of whisper.cpp's `models/convert-pt-to-ggml.py`: a header of 11 integers, the mel filters, the vocabulary,
and the tensors, each with its dimensions in reverse order. What whisper.cpp would crash on is damage here.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.model_files import json_files
from worker.model_files.shape import BINS, TEXT_TOKENS, Header
from worker.model_files.types import BY_FILE_TYPE, VERSION_FACTOR, TensorType, to_floats, type_of_tensor
from worker.model_files.weights import Array, Damage, Weights

DESCRIPTION = "a ggml file"
MAGIC = 0x67676D6C
FILTERS_AT = 48
MAX_TOKEN_BYTES = 1024
MAX_NAME = 64
"""Bytes of a tensor's name; the longest has 41."""


def recognises(path: Path) -> bool:
    if not path.is_file():
        path.stat()
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC.to_bytes(4, "little")


def read(path: Path) -> Weights:
    model = GgmlModel(path)
    heads = heads_file(path)
    if heads.is_file():
        config = json_files.read_json(heads)
        layers, count = model.header.text_layers, model.header.text_heads
        model.alignment_heads = json_files.alignment_heads(config.get("alignment_heads"), layers, count)
    return model


def heads_file(path: Path) -> Path:
    """Return the file beside a ggml file that names its alignment heads, `ggml-x.bin` → `ggml-x.heads.json`."""
    return path.with_suffix(".heads.json")


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]
    kind: TensorType
    offset: int


class GgmlModel(Weights):
    """An open ggml file. Raises Damage, OSError."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # an empty file
                raise Damage("header") from error
        self._tensors: dict[str, _Tensor] = {}
        try:
            self._read_tensors(self._read_tokens(self._read_header()))
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> int:
        """Read header and mel filters; return the position after them."""
        size = len(self._data)
        if size < FILTERS_AT + 8:
            raise Damage("header")
        self.header = Header(*self._integers(11, 4))
        self.kind = BY_FILE_TYPE.get(self.header.file_type % VERSION_FACTOR)
        invalid = next(self.header.invalid_fields(), None)
        if self._integers(1, 0) != (MAGIC,) or self.kind is None or invalid is not None:
            raise Damage("header")
        mels = self.header.mels
        if self._integers(2, FILTERS_AT) != (mels, BINS):
            raise Damage("mel filters")
        end = FILTERS_AT + 8 + 4 * mels * BINS
        self._require(end + 4, "mel filters")
        self.filters: Array = np.frombuffer(self._data[FILTERS_AT + 8 : end], "<f4").reshape(mels, BINS)
        if not np.isfinite(self.filters).all():
            raise Damage("mel filters")
        return end

    def _read_tokens(self, position: int) -> int:
        """Read the vocabulary; return the position after it."""
        (count,) = self._integers(1, position)
        if not TEXT_TOKENS <= count <= self.header.vocabulary:
            raise Damage("vocabulary")
        position += 4
        self.tokens: list[bytes] = []
        for _ in range(count):
            self._require(position + 4, "vocabulary")
            (length,) = self._integers(1, position)
            if not 0 <= length <= MAX_TOKEN_BYTES:
                raise Damage("vocabulary")
            self._require(position + 4 + length, "vocabulary")
            self.tokens.append(self._data[position + 4 : position + 4 + length])
            position += 4 + length
        return position

    def _read_tensors(self, position: int) -> None:
        """Register the tensors, of which each has to be there once, and nothing else."""
        missing, size = self.header.tensors(), len(self._data)
        nominal = {name: self._stored_bytes(name, shape) for name, shape in missing.items()}
        remaining = sum(nominal.values())
        while missing:
            if position + remaining > size:
                raise Damage("length", size, position + remaining)
            name, position = self._read_tensor(position, missing)
            del missing[name]
            remaining -= nominal[name]
        if position != size:
            raise Damage("length", size, position)

    def _read_tensor(self, position: int, missing: Mapping[str, tuple[int, ...]]) -> tuple[str, int]:
        """Register the tensor at this position; return its name and the position after it."""
        dimensions, length, number = self._integers(3, position)
        start = position + 12 + 4 * dimensions
        if not (1 <= dimensions <= 4 and 1 <= length <= MAX_NAME and start + length <= len(self._data)):
            raise Damage(next(iter(missing)))
        sizes = self._integers(dimensions, position + 12)
        name = self._data[start : start + length].decode("ascii", errors="replace")
        if name not in missing:
            raise Damage(next(iter(missing)))
        assert self.kind is not None
        shape, kind = missing[name], type_of_tensor(self.kind, name, missing[name])
        end = start + length + kind.size(shape)
        if _padded(sizes) != _padded(shape[::-1]) or number != kind.number or end > len(self._data):
            raise Damage(name)
        self._tensors[name] = _Tensor(shape, kind, start + length)
        return name, end

    def _stored_bytes(self, name: str, shape: tuple[int, ...]) -> int:
        """Return the bytes of a tensor with its own header."""
        assert self.kind is not None
        try:
            return 12 + 4 * len(shape) + len(name) + type_of_tensor(self.kind, name, shape).size(shape)
        except ValueError as error:
            raise Damage("header") from error

    def _integers(self, count: int, position: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}i", self._data, position)

    def _require(self, end: int, part: str) -> None:
        """Raises Damage if the file ends before `end`."""
        if end > len(self._data):
            raise Damage(part)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> Array:
        tensor = self._tensors[name]
        data = np.frombuffer(self._data, np.uint8, tensor.kind.size(tensor.shape), tensor.offset)
        return to_floats(data, tensor.kind).reshape(tensor.shape)

    def close(self) -> None:
        self._data.close()


def _padded(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return sizes + (1,) * (4 - len(sizes))
