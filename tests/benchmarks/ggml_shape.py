"""Widening of a small ggml Whisper model to the exact shape of a larger one: the larger model's cost, the same words.

- Every channel of the residual stream stands several times, so LayerNorm's mean and variance are unchanged.
- A weight that reads the stream is divided by the number of copies and repeated along its input; one that writes it is
  repeated along its output.
- The last LayerNorm of the decoder is divided as well, since the tied output embedding sums the copies.
- Added heads, hidden units, layers and mel bands are computed in full and write nothing into the stream.

So a benchmark of the widened file costs what the real model of that shape costs, with real decode lengths, and needs no
download. It says nothing about the accuracy of the real model.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
MAGIC = 0x67676D6C


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a Whisper model."""

    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    mel_bands: int = 80


SHAPES = {
    "tiny": Shape(384, 6, 4, 4),
    "base": Shape(512, 8, 6, 6),
    "small": Shape(768, 12, 12, 12),
    "medium": Shape(1024, 16, 24, 24),
    "large-v3-turbo": Shape(1280, 20, 32, 4, 128),
}
"""Shapes of OpenAI's models: model cards of github.com/openai/whisper. Mel bands beyond the source's 80 are silent."""
QUANTISATIONS = {
    "f32": (0, 0),
    "f16": (1, 1),
    "q4_0": (2002, 2),
    "q5_0": (2008, 6),
    "q8_0": (2007, 8),
    "q4_k": (2012, 12),
}
"""The file type and the tensor type of each quantisation, as in ggml's headers."""
BLOCK_BYTES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 6: (32, 22), 8: (32, 34), 12: (256, 144)}
"""Weights and bytes of a block of each tensor type."""
NEVER_QUANTISED = ("encoder.positional_embedding", "decoder.positional_embedding")


@dataclass(frozen=True, slots=True)
class GgmlModel:
    """A model file. header: its 11 integers; filters: mel filters, shape (bands, 201); tokens: bytes of each token."""

    header: tuple[int, ...]
    filters: Array
    tokens: tuple[bytes, ...]
    tensors: dict[str, Array]

    @property
    def shape(self) -> Shape:
        return Shape(self.header[2], self.header[3], self.header[4], self.header[8], self.header[9])

    @property
    def vocabulary(self) -> int:
        """Number of tokens, including the special ones, which the file does not list."""
        return self.header[0]


def read(path: Path) -> GgmlModel:
    """Read a model of type f32, f16, q8_0 or q5_0. Raises ValueError for other files."""
    data = path.read_bytes()
    magic, *header = struct.unpack_from("<12i", data)
    if magic != MAGIC:
        raise ValueError(f"{path} is not a ggml file")
    bands, bins = struct.unpack_from("<2i", data, 48)
    filters = np.frombuffer(data, "<f4", bands * bins, 56).reshape(bands, bins)
    place = 56 + 4 * bands * bins
    (count,) = struct.unpack_from("<i", data, place)
    place += 4
    tokens: list[bytes] = []
    for _ in range(count):
        (length,) = struct.unpack_from("<i", data, place)
        tokens.append(data[place + 4 : place + 4 + length])
        place += 4 + length
    tensors: dict[str, Array] = {}
    while place < len(data):
        name, tensor, place = _read_tensor(data, place)
        tensors[name] = tensor
    return GgmlModel(tuple(header), filters, tuple(tokens), tensors)


def _read_tensor(data: bytes, place: int) -> tuple[str, Array, int]:
    """Return the name and the values of the tensor at `place`, and the place after it."""
    dimensions, name_length, kind = struct.unpack_from("<3i", data, place)
    shape = struct.unpack_from(f"<{dimensions}i", data, place + 12)[::-1]
    place += 12 + 4 * dimensions
    name = data[place : place + name_length].decode()
    place += name_length
    weights, size = BLOCK_BYTES[kind]
    end = place + int(np.prod(shape)) // weights * size
    return name, dequantise(data[place:end], kind).reshape(shape), end


def dequantise(data: bytes, kind: int) -> Array:
    """Return the values of a tensor of ggml's type 0, 1, 6 or 8, flat. Raises ValueError for other types."""
    if kind in (0, 1):
        return np.frombuffer(data, "<f4" if kind == 0 else "<f2").astype(np.float32)
    blocks = np.frombuffer(data, np.uint8).reshape(-1, BLOCK_BYTES[kind][1])
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    if kind == 8:
        return (scales * blocks[:, 2:].view(np.int8)).astype(np.float32).ravel()
    if kind != 6:
        raise ValueError(f"tensors of type {kind} cannot be read")
    high = np.ascontiguousarray(blocks[:, 2:6]).view("<u4") >> np.arange(32, dtype=np.uint32) & 1
    low = np.concatenate([blocks[:, 6:] & 15, blocks[:, 6:] >> 4], axis=1)
    return (scales * (low.astype(np.float32) + 16 * high.astype(np.float32) - 16)).astype(np.float32).ravel()


def widen(model: GgmlModel, target: Shape) -> GgmlModel:
    """Return a model of the target's shape that computes the same function. Its width has to be a multiple."""
    width = model.shape.width
    if target.width % width:
        raise ValueError(f"{target.width} is not a multiple of {width}")
    tensors = _Widener(model.tensors, width, target).widen(model.shape)
    filters = np.pad(model.filters, ((0, target.mel_bands - len(model.filters)), (0, 0)))
    vocabulary, audio_context, text_context = model.header[0], model.header[1], model.header[5]
    encoder = (vocabulary, audio_context, target.width, target.heads, target.encoder_layers)
    decoder = (text_context, target.width, target.heads, target.decoder_layers, target.mel_bands, 1)
    return replace(model, header=encoder + decoder, filters=filters, tensors=tensors)


class _Widener:
    def __init__(self, source: dict[str, Array], width: int, target: Shape) -> None:
        self._source, self._target = source, target
        self._copies = target.width // width
        self._random = np.random.default_rng(1)
        self._tensors: dict[str, Array] = {}

    def widen(self, source: Shape) -> dict[str, Array]:
        self._convolutions()
        for name in (*NEVER_QUANTISED, "decoder.token_embedding.weight"):
            self._tensors[name] = np.tile(self._source[name], (1, self._copies))
        for side, layers, present in (
            ("encoder", self._target.encoder_layers, source.encoder_layers),
            ("decoder", self._target.decoder_layers, source.decoder_layers),
        ):
            for index in range(layers):
                self._layer(f"{side}.blocks.{index}", copied=index < present, crossed=side == "decoder")
        self._norm("encoder.ln_post", copied=True)
        self._norm("decoder.ln", copied=True)
        for name in ("decoder.ln.weight", "decoder.ln.bias"):
            self._tensors[name] /= self._copies
        return self._tensors

    def _convolutions(self) -> None:
        first = self._source["encoder.conv1.weight"]
        first = np.pad(first, ((0, 0), (0, self._target.mel_bands - first.shape[1]), (0, 0)))
        self._tensors["encoder.conv1.weight"] = self._writing(first)
        second: Array = self._source["encoder.conv2.weight"] / np.float32(self._copies)
        self._tensors["encoder.conv2.weight"] = self._writing(np.tile(second, (1, self._copies, 1)))
        for name in ("encoder.conv1.bias", "encoder.conv2.bias"):
            self._tensors[name] = self._writing(self._source[name])

    def _layer(self, name: str, *, copied: bool, crossed: bool) -> None:
        width = self._target.width
        for attention in ("attn", "cross_attn")[: 1 + crossed]:
            for part in ("query", "key", "value"):
                self._reading_linear(f"{name}.{attention}.{part}", width, copied=copied, biased=part != "key")
            self._writing_linear(f"{name}.{attention}.out", width, copied=copied)
            self._norm(f"{name}.{attention}_ln", copied=copied)
        self._reading_linear(f"{name}.mlp.0", 4 * width, copied=copied)
        self._writing_linear(f"{name}.mlp.2", 4 * width, copied=copied)
        self._norm(f"{name}.mlp_ln", copied=copied)

    def _reading_linear(self, name: str, outputs: int, *, copied: bool, biased: bool = True) -> None:
        weight = (self._random.standard_normal((outputs, self._target.width)) * 0.02).astype(np.float32)
        bias = np.zeros(outputs, np.float32)
        if copied:
            source = self._source[f"{name}.weight"]
            weight[: len(source)] = np.tile(source / self._copies, (1, self._copies))
        if copied and biased:
            bias[: len(self._source[f"{name}.bias"])] = self._source[f"{name}.bias"]
        self._tensors[f"{name}.weight"] = weight
        if biased:
            self._tensors[f"{name}.bias"] = bias

    def _writing_linear(self, name: str, inputs: int, *, copied: bool) -> None:
        weight = np.zeros((self._target.width, inputs), np.float32)
        bias = np.zeros(self._target.width, np.float32)
        if copied:
            source = self._writing(self._source[f"{name}.weight"])
            weight[:, : source.shape[1]] = source
            bias = self._writing(self._source[f"{name}.bias"])
        self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"] = weight, bias

    def _norm(self, name: str, *, copied: bool) -> None:
        empty: dict[str, Callable[[int], Array]] = {"weight": _ones, "bias": _zeros}
        for part, fill in empty.items():
            key = f"{name}.{part}"
            self._tensors[key] = self._writing(self._source[key]) if copied else fill(self._target.width)

    def _writing(self, values: Array) -> Array:
        return np.tile(values, (self._copies, *[1] * (values.ndim - 1)))


def _ones(count: int) -> Array:
    return np.ones(count, np.float32)


def _zeros(count: int) -> Array:
    return np.zeros(count, np.float32)


def write(path: Path, model: GgmlModel, quantisation: str) -> None:
    """Write the model. quantisation: a key of QUANTISATIONS."""
    file_type, kind = QUANTISATIONS[quantisation]
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(struct.pack("<12i", MAGIC, *model.header[:10], file_type))
        file.write(struct.pack("<2i", *model.filters.shape) + model.filters.astype("<f4").tobytes())
        file.write(struct.pack("<i", len(model.tokens)))
        for token in model.tokens:
            file.write(struct.pack("<i", len(token)) + token)
        for name, values in model.tensors.items():
            _write_tensor(file, name, values, kind)
    temporary.replace(path)


def _write_tensor(file: BinaryIO, name: str, values: Array, kind: int) -> None:
    if values.ndim < 2 or name in NEVER_QUANTISED or name.endswith(("conv1.bias", "conv2.bias")):
        kind = 0
    elif values.ndim > 2:
        kind = min(kind, 1)
    encoded = name.encode()
    file.write(struct.pack("<3i", values.ndim, len(encoded), kind))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + encoded)
    file.write(values.astype("<f4" if kind == 0 else "<f2").tobytes() if kind < 2 else quantise(values, kind))


def quantise(values: Array, kind: int) -> bytes:
    """Quantise a matrix with ggml's own routine, from the library in pywhispercpp's wheel."""
    weights, size = BLOCK_BYTES[kind]
    if values.shape[1] % weights:
        raise ValueError(f"rows of {values.shape[1]} are no multiple of {weights}")
    library = _ggml()
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    matrix = np.ascontiguousarray(values, np.float32)
    output = np.empty(matrix.size // weights * size, np.uint8)
    places = [ctypes.c_int64(number) for number in (0, *matrix.shape)]
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (matrix, output)]
    library.ggml_quantize_chunk(kind, *pointers, *places, None)
    return output.tobytes()


def _ggml() -> ctypes.CDLL:
    spec = importlib.util.find_spec("_pywhispercpp")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    places = (folder, folder / "pywhispercpp.libs")
    found = [path for place in places for path in sorted(place.glob("libggml-base*.so*"))]
    return ctypes.CDLL(str(found[0]))
