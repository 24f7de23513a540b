"""Reader of Whisper models in ggml format, of any quantisation.

The format is that of whisper.cpp's `models/convert-pt-to-ggml.py`: a header of 11 integers, the mel filters, the
vocabulary, and the tensors, each with its dimensions in reverse order.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from core.errors import ModelMissingError
from worker.model_format import GGML_MAGIC

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Header:
    """Sizes of a model, in the order of the file."""

    vocabulary: int
    frames: int
    audio_width: int
    audio_heads: int
    audio_layers: int
    text_length: int
    text_width: int
    text_heads: int
    text_layers: int
    mels: int
    file_type: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int
    size: int


class GgmlModel:
    """An open model file.

    filters: mel filters, shape (mels, 201). tokens: the bytes of each text token. Raises ModelMissingError if the file
    is not a complete Whisper model, OSError.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._tensors: dict[str, _Tensor] = {}
        try:
            self._read()
        except (struct.error, ValueError, UnicodeDecodeError, OverflowError) as error:
            raise ModelMissingError("{name} is not a ggml model file.", name=path.name) from error

    def _read(self) -> None:
        magic, *sizes = self._integers(12, 0)
        if magic != int.from_bytes(GGML_MAGIC, "little"):
            raise ValueError("not a ggml file")
        self.header = Header(*sizes)
        mels, bins = self._integers(2, 48)
        self.filters: Array = np.frombuffer(self._data, "<f4", mels * bins, 56).reshape(mels, bins)
        position = 56 + 4 * mels * bins
        (count,) = self._integers(1, position)
        position += 4
        self.tokens: list[bytes] = []
        for _ in range(count):
            (length,) = self._integers(1, position)
            self.tokens.append(self._data[position + 4 : position + 4 + length])
            position += 4 + length
        while position < len(self._data):
            position = self._read_tensor(position)

    def _read_tensor(self, position: int) -> int:
        """Register the tensor at this position and return the position after it."""
        dimensions, length, kind = self._integers(3, position)
        shape = tuple(reversed(self._integers(dimensions, position + 12)))
        start = position + 12 + 4 * dimensions
        name = self._data[start : start + length].decode()
        quantisation = GGMLQuantizationType(kind)
        block, block_bytes = GGML_QUANT_SIZES[quantisation]
        size = int(np.prod(shape)) // block * block_bytes
        if size < 0 or start + length + size > len(self._data):
            raise ValueError("truncated file")
        self._tensors[name] = _Tensor(shape, quantisation, start + length, size)
        return start + length + size

    def _integers(self, count: int, position: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}i", self._data, position)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> Array:
        """Return a tensor in its shape. Raises ModelMissingError if the file has none of this name."""
        try:
            tensor = self._tensors[name]
        except KeyError as error:
            raise ModelMissingError("The model file has no tensor {name}.", name=name) from error
        data = np.frombuffer(self._data, np.uint8, tensor.size, tensor.offset)
        rows = data.reshape(*tensor.shape[:-1], -1)
        return np.ascontiguousarray(dequantize(rows, tensor.kind), np.float32).reshape(tensor.shape)

    def vector(self, name: str) -> Array:
        """Return a tensor of one axis, such as a bias, which some files store as a column."""
        return self.tensor(name).reshape(-1)
