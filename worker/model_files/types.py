"""ggml's types of tensors: conversion of their values, by ggml's own routines where they are quantised."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import EngineUnavailableError

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A type of `ggml.h`. number, file_type: its numbers in a tensor's and in a file's header.

    block: values that are stored together; block_bytes: their size; routine: the name of ggml's that reads them.
    """

    name: str
    number: int
    file_type: int
    block: int
    block_bytes: int
    routine: str = ""

    def size(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of a tensor of this shape. Raises ValueError if its rows are no whole blocks."""
        if shape[-1] % self.block:
            raise ValueError(f"rows of {shape[-1]} are not whole blocks of {self.block}")
        count = 1
        for axis in shape:
            count *= axis
        return count // self.block * self.block_bytes


F32, F16 = TensorType("f32", 0, 0, 1, 4), TensorType("f16", 1, 1, 1, 2)
BF16 = TensorType("bf16", 30, 24, 1, 2)
QUANTISED = (
    TensorType("q4_0", 2, 2, 32, 18, "dequantize_row_q4_0"),
    TensorType("q4_1", 3, 3, 32, 20, "dequantize_row_q4_1"),
    TensorType("q5_0", 6, 8, 32, 22, "dequantize_row_q5_0"),
    TensorType("q5_1", 7, 9, 32, 24, "dequantize_row_q5_1"),
    TensorType("q8_0", 8, 7, 32, 34, "dequantize_row_q8_0"),
    TensorType("q2_k", 10, 10, 256, 84, "dequantize_row_q2_K"),
    TensorType("q3_k", 11, 11, 256, 110, "dequantize_row_q3_K"),
    TensorType("q4_k", 12, 12, 256, 144, "dequantize_row_q4_K"),
    TensorType("q5_k", 13, 13, 256, 176, "dequantize_row_q5_K"),
    TensorType("q6_k", 14, 14, 256, 210, "dequantize_row_q6_K"),
)
TYPES = {kind.name: kind for kind in (F32, F16, BF16, *QUANTISED)}
"""Types that whisper.cpp computes with, by their names."""
BY_FILE_TYPE = {kind.file_type: kind for kind in TYPES.values()}
VERSION_FACTOR = 1000
"""A file's type is that of its matrices plus VERSION_FACTOR times the version of quantisation."""
QUANTISATION_VERSION = 2


def file_type(kind: TensorType) -> int:
    """Return the number for a file's header."""
    return kind.file_type + (QUANTISATION_VERSION * VERSION_FACTOR if kind in QUANTISED else 0)


def type_of_tensor(matrices: TensorType, name: str, shape: tuple[int, ...]) -> TensorType:
    """Return the type that whisper.cpp requires of a tensor in a file whose matrices have the type `matrices`.

    Vectors, positions and biases of convolutions stay in 32 bits, weights of convolutions in 16.
    """
    if len(shape) < 2 or name.endswith(("positional_embedding", ".bias")):
        return F32
    if len(shape) > 2:
        return F32 if matrices is F32 else F16
    return matrices


def to_floats(data: Bytes, kind: TensorType) -> Array:
    """Return the values of a tensor, flat. data: its bytes. Raises EngineUnavailableError without ggml's library."""
    if kind is F32:
        return data.view("<f4").astype(np.float32)
    if kind is F16:
        return data.view("<f2").astype(np.float32)
    if kind is BF16:
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    count = data.size // kind.block_bytes * kind.block
    values, source = np.empty(count, np.float32), np.ascontiguousarray(data)
    routine = getattr(_library(), kind.routine)
    routine.restype = None
    routine(_pointer(source), _pointer(values), ctypes.c_int64(count))
    return values


def from_floats(values: Array, kind: TensorType, threads: int = 1) -> Bytes:
    """Return the bytes of a tensor. Raises EngineUnavailableError, ValueError if its rows are no whole blocks."""
    size = kind.size(values.shape)
    if kind in (F32, F16):
        with np.errstate(over="ignore"):  # such values become infinite, which verification finds
            values = values.astype("<f4" if kind is F32 else "<f2")
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    rows, width = -(-values.size // values.shape[-1]), values.shape[-1]
    source, output = np.ascontiguousarray(values, np.float32), np.empty(size, np.uint8)
    quantise = _library().ggml_quantize_chunk
    quantise.restype = ctypes.c_size_t

    def run(first: int, last: int) -> None:
        numbers = [ctypes.c_int64(number) for number in (first * width, last - first, width)]
        quantise(kind.number, _pointer(source), _pointer(output), *numbers, None)

    step = -(-rows // max(threads, 1))
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for done in [pool.submit(run, first, min(first + step, rows)) for first in range(0, rows, step)]:
            done.result()
    return output


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


@functools.cache
def _library() -> ctypes.CDLL:
    """Load ggml from pywhispercpp's wheel. Raises EngineUnavailableError."""
    spec = importlib.util.find_spec("_pywhispercpp")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    for place in (folder / "pywhispercpp.libs", folder / ".dylibs", folder):
        for path in sorted(place.glob("libggml-base*")):
            try:
                return ctypes.CDLL(str(path))
            except OSError as error:
                raise EngineUnavailableError from error
    raise EngineUnavailableError
